package main

import (
	"fmt"

	"gin"
)

func main() { fmt.Println(gin.Version) }
