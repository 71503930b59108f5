package main

import (
	"fmt"

	"example.com/textlib"
)

func main() { fmt.Println(textlib.Title("hello wide world")) }
