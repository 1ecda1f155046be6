// Package nearest finds what a person meant who misspelt a name: a command, a flag, a
// setting. It keeps no state and may be called from anywhere.
package nearest

import (
	"strings"

	"github.com/xrash/smetrics"
)

// least is the similarity, from 0 to 1, from which a name is worth being suggested.
const least = 0.8

// Name returns the one of names that is most like word, or "" when none is near. Case does
// not count; of equals the first is taken. Words longer than 64 bytes are like nothing.
func Name(word string, names []string) string {
	word = strings.ToLower(word)
	if word == "" || len(word) > 64 {
		return ""
	}
	best, score := "", least
	for _, name := range names {
		if name == "" {
			continue
		}
		s := smetrics.JaroWinkler(word, strings.ToLower(name), 0.7, 4)
		if swapped(word, strings.ToLower(name)) {
			s = 1
		}
		if s > score {
			best, score = name, s
		}
	}
	return best
}

// swapped reports whether a is b with two neighbouring letters in the wrong order, which the
// similarity of short words does not show.
func swapped(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i+1 < len(a); i++ {
		if a[i] != b[i] {
			return a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
		}
	}
	return false
}
