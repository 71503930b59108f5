package main

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"github.com/samber/lo"
)

type number interface{ ~int | ~float64 }

func sum[T number](values ...T) (total T) {
	for _, value := range values {
		total += value
	}
	return total
}

type tree[K cmp.Ordered, V any] struct {
	left, right *tree[K, V]
	key         K
	value       V
}

func (t *tree[K, V]) put(key K, value V) *tree[K, V] {
	switch {
	case t == nil:
		return &tree[K, V]{key: key, value: value}
	case key < t.key:
		t.left = t.left.put(key, value)
	default:
		t.right = t.right.put(key, value)
	}
	return t
}

func (t *tree[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { t.walk(yield) }
}

func (t *tree[K, V]) walk(yield func(K, V) bool) bool {
	return t == nil || (t.left.walk(yield) && yield(t.key, t.value) && t.right.walk(yield))
}

func main() {
	var root *tree[string, int]
	for index, word := range []string{"pear", "apple", "fig"} {
		root = root.put(word, index)
	}
	for key, value := range root.all() {
		fmt.Print(key, "=", value, " ")
	}
	fmt.Println(sum(1, 2, 3), sum(0.5, 0.25))
	even := lo.Filter([]int{1, 2, 3, 4}, func(n, _ int) bool { return n%2 == 0 })
	slices.Reverse(even)
	fmt.Println(even, lo.Uniq([]string{"a", "b", "a"}))
}
