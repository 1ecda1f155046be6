package daemon

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// Blame says where the setting stands that an error of CheckConfig or of a start is about: the line of a file, or the
// variable; from is what Resolve gave. An error that is about no setting, or about one that was given by a flag or not at
// all, comes back as it is.
func Blame(config any, from Origins, err error) error {
	if err == nil {
		return nil
	}
	s := settingIn(config, err.Error())
	if s == nil {
		return err
	}
	where := from[s.Name]
	if variable, ok := strings.CutPrefix(where, "environment "); ok {
		return fmt.Errorf("the environment's %s: %w", variable, err)
	}
	if path, ok := strings.CutPrefix(where, "file "); ok {
		if line := lineOf(path, s.Name); line > 0 {
			path += fmt.Sprintf(", line %d", line)
		}
		return &misplaced{path + ": " + strings.Replace(err.Error(), "--"+s.Flag, s.Name, 1), err}
	}
	return err
}

// misplaced is an error with the place of its cause.
type misplaced struct {
	text string
	err  error
}

func (m *misplaced) Error() string { return m.text }
func (m *misplaced) Unwrap() error { return m.err }

// settingIn is the setting whose name, or flag, a message begins with; nil if there is none.
func settingIn(config any, message string) *Setting {
	for _, what := range []string{"relay", "authority", "client"} {
		message = strings.TrimPrefix(message, "starting the "+what+": ")
	}
	message = strings.TrimPrefix(message, "the setting ")
	first, rest, _ := strings.Cut(message, " ")
	first = strings.TrimSuffix(first, ":")
	table := ""
	if strings.HasPrefix(rest, "of [") { // a name, and its table
		table, _, _ = strings.Cut(rest[len("of ["):], "]")
		table += "."
	}
	list := Settings(config)
	for i := range list {
		s := &list[i]
		if s.Name == table+first || s.Flag != "" && "--"+s.Flag == first {
			return s
		}
	}
	return nil
}

// lineOf is the line in which a settings file sets something; 0 if that cannot be found.
func lineOf(path, name string) int {
	text, err := readBounded(path, maxConfig)
	if err != nil {
		return 0
	}
	var p unstable.Parser
	p.Reset(text)
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		var parts []string
		var at unstable.Range
		for keys := e.Key(); keys.Next(); {
			if parts = append(parts, string(keys.Node().Data)); len(parts) == 1 {
				at = keys.Node().Raw
			}
		}
		key := strings.Join(parts, ".")
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = key + "."
			if key == name {
				return p.Shape(at).Start.Line
			}
		case unstable.KeyValue:
			if table+key == name {
				return p.Shape(at).Start.Line
			}
		}
	}
	return 0
}
