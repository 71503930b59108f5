package main

import (
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"
)

func main() {
	fmt.Println(humanize.Bytes(82854982), len(uuid.NewString()))
}
