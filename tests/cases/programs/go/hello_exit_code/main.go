package main

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
)

var errEmpty = errors.New("nothing to count")

func count(text string) (map[string]int, error) {
	words := strings.Fields(strings.ToLower(text))
	if len(words) == 0 {
		return nil, errEmpty
	}
	counts := make(map[string]int)
	for _, word := range words {
		counts[word]++
	}
	return counts, nil
}

func main() {
	counts, err := count(strings.Join(os.Args[1:], " "))
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(3)
	}
	words := make([]string, 0, len(counts))
	for word := range counts {
		words = append(words, word)
	}
	sort.Strings(words)
	for _, word := range words {
		fmt.Printf("%s=%d\n", word, counts[word])
	}
	os.Exit(4)
}
