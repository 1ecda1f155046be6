// Package rules holds the rules of this repository that a compiler does not check, as tests:
// what actor code may not use, who may import whom, and what no file may contain. It has no
// other content; `go test ./rules` is the check.
package rules
