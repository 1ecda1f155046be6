package main

import (
	"fmt"
	"strings"
)

// roff builds a page of the manual in the macros of man(7), which every reader of manuals takes.
type roff struct{ b strings.Builder }

// roffWidth is how long lines of its source are, at most.
const roffWidth = 78

var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

// roffText is text with what has a meaning for roff taken away.
func roffText(text string) string {
	text = roffEscapes.Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

func (r *roff) line(format string, args ...any) { fmt.Fprintf(&r.b, format+"\n", args...) }

// title begins the page.
func (r *roff) title(name string, section int, date, version string) {
	quoted := func(text string) string { return strings.ReplaceAll(roffText(text), `"`, `\(dq`) }
	r.line(`.TH "%s" "%d" "%s" "cepa %s" "cepa manual"`, quoted(strings.ToUpper(name)), section, date, quoted(version))
}

func (r *roff) section(name string) { r.line(".SH %s", roffText(strings.ToUpper(name))) }

func (r *roff) subsection(name string) { r.line(".SS %s", roffText(name)) }

// flow writes words in lines of the source that are not too long.
func (r *roff) flow(text string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		word = roffText(word)
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > roffWidth:
			r.line("%s", line)
			line = word
		default:
			line += " " + word
		}
	}
	if line != "" {
		r.line("%s", line)
	}
}

// item is a term in bold, with what stands for values in it in italics, and what it is.
func (r *roff) item(term, text string) {
	r.line(".TP\n%s", term)
	r.flow(text)
}

// bold and italic are parts of a term.
func bold(text string) string   { return `\fB` + roffText(text) + `\fR` }
func italic(text string) string { return `\fI` + roffText(text) + `\fR` }

// description writes a command's description: paragraphs, and as they stand the lines that are indented.
func (r *roff) description(text string) {
	var paragraph, literal []string
	first := true
	end := func() {
		if len(paragraph) > 0 {
			if !first {
				r.line(".PP")
			}
			r.flow(strings.Join(paragraph, " "))
			first = false
		}
		if len(literal) > 0 {
			r.line(".PP\n.RS 4\n.nf")
			for _, l := range literal {
				r.line("%s", roffText(l))
			}
			r.line(".fi\n.RE")
			first = false
		}
		paragraph, literal = nil, nil
	}
	for line := range strings.Lines(strings.Trim(text, "\n")) {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "   ")
		switch {
		case strings.TrimSpace(line) == "":
			end()
		case indented && len(paragraph) > 0, !indented && len(literal) > 0:
			end()
			fallthrough
		default:
			if indented {
				literal = append(literal, strings.TrimPrefix(line, "   "))
			} else {
				paragraph = append(paragraph, line)
			}
		}
	}
	end()
}
