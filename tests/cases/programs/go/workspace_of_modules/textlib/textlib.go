package textlib

import (
	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// Title capitalises words.
func Title(text string) string { return cases.Title(language.English).String(text) }
