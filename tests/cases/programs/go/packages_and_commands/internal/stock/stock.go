package stock

import "github.com/shopspring/decimal"

// Item is a thing with a price.
type Item struct {
	Name  string
	Price decimal.Decimal
	Count int64
}

// List is what there is.
type List []Item

// Default is an example.
func Default() List {
	return List{
		{"lamp", decimal.RequireFromString("19.90"), 3},
		{"chair", decimal.RequireFromString("0.10"), 2},
	}
}

// Total is what all of it costs.
func (l List) Total() decimal.Decimal {
	sum := decimal.Zero
	for _, item := range l {
		sum = sum.Add(item.Price.Mul(decimal.NewFromInt(item.Count)))
	}
	return sum
}
