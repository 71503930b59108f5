package calc

import "errors"

// ErrDivision is division by zero.
var ErrDivision = errors.New("division by zero")

// Divide divides.
func Divide(a, b float64) (float64, error) {
	if b == 0 {
		return 0, ErrDivision
	}
	return a / b, nil
}
