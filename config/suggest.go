package config

import (
	"strings"
	"unicode/utf8"
)

// suggest returns the word of known that s was probably meant to be, "" if none
// is near: it may differ in case, or by a third of its letters (at least one).
func suggest(s string, known []string) string {
	best := ""
	if utf8.RuneCountInString(s) > 40 {
		return best
	}
	bestDistance := len(s) + 1
	for _, k := range known {
		d := distance(strings.ToLower(s), strings.ToLower(k))
		if d <= max(1, len(k)/3) && d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// oneOf lists words as a sentence does: "A, B or C".
func oneOf[T ~string](words []T) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i > 0 && i == len(words)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}
