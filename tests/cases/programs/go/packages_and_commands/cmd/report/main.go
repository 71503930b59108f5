package main

import (
	"fmt"

	"github.com/acme/inventory/internal/stock"
)

func main() {
	fmt.Println("total", stock.Default().Total())
}
