package calc

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDivide(t *testing.T) {
	tests := map[string]struct{ a, b, want float64 }{
		"whole":    {6, 3, 2},
		"fraction": {1, 4, 0.25},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Divide(tc.a, tc.b)
			require.NoError(t, err)
			assert.InDelta(t, tc.want, got, 1e-9)
		})
	}
}

func TestDivideByZero(t *testing.T) {
	_, err := Divide(1, 0)
	assert.ErrorIs(t, err, ErrDivision)
}
