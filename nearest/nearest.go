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
		if s := smetrics.JaroWinkler(word, strings.ToLower(name), 0.7, 4); s > score {
			best, score = name, s
		}
	}
	return best
}
