package scenario

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"cepa/nearest"
)

// Bounds of files.
const (
	maxText = 1 << 20
	maxFile = 256 << 20
)

// Open reads a scenario and the files that it refers to, which are named relative to its folder and are in it.
func Open(fsys fs.FS, name string) (*Scenario, error) {
	data, err := readFile(fsys, name, maxText)
	if err != nil {
		return nil, fmt.Errorf("reading a scenario: %w", err)
	}
	s, err := Parse(data, name)
	if err != nil {
		return nil, err
	}
	folder, err := fs.Sub(fsys, path.Dir(name))
	if err != nil {
		return nil, fmt.Errorf("reading a scenario: %w", err)
	}
	return s, s.Attach(folder)
}

func readFile(fsys fs.FS, name string, most int64) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, info.Size(), most)
	}
	return fs.ReadFile(fsys, name)
}

// Parse reads a scenario from its text; name is for messages. An error names the line, the key, and what is
// allowed. One that refers to files needs Attach before Build.
func Parse(data []byte, name string) (*Scenario, error) {
	s := &Scenario{name: name, text: bytes.Clone(data)}
	if err := s.parse(); err != nil {
		return nil, fmt.Errorf("scenario %s: %w", name, err)
	}
	return s, nil
}

func (s *Scenario) parse() error {
	if len(s.text) > maxText {
		return fmt.Errorf("%d bytes, more than %d", len(s.text), maxText)
	}
	if err := s.outline(); err != nil {
		return err
	}
	d := toml.NewDecoder(bytes.NewReader(s.text))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return decodeError(err)
	}
	return s.Check()
}

// decodeError adds the place to what the TOML decoder says.
func decodeError(err error) error {
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, _ := decode.Position()
		key := strings.Join(decode.Key(), ".")
		if key != "" {
			key += ": "
		}
		return fmt.Errorf("line %d: %s%s", row, key, strings.TrimPrefix(decode.Error(), "toml: "))
	}
	return err
}

// Encode writes a scenario that was made by a program, in the form that Parse reads.
func (s *Scenario) Encode() ([]byte, error) {
	var b bytes.Buffer
	e := toml.NewEncoder(&b)
	e.SetIndentTables(false)
	if err := e.Encode(s); err != nil {
		return nil, fmt.Errorf("writing a scenario: %w", err)
	}
	return b.Bytes(), nil
}

// outline notes on which line each key is, and compares keys and the types of their values with the schema, with
// messages for people.
func (s *Scenario) outline() error {
	s.lines = make(map[string]int)
	o := outline{lines: s.lines, count: make(map[string]int)}
	o.parser.Reset(s.text)
	var at place
	for o.parser.NextExpression() {
		e := o.parser.Expression()
		var err error
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			at, err = o.header(e)
		case unstable.KeyValue:
			err = o.value(at, e)
		}
		if err != nil {
			return err
		}
	}
	if o.parser.Error() == nil {
		return nil
	}
	var into map[string]any
	if err := toml.Unmarshal(s.text, &into); err != nil {
		return decodeError(err)
	}
	return o.parser.Error()
}

type outline struct {
	parser unstable.Parser
	lines  map[string]int
	count  map[string]int // of the elements of arrays of tables
}

// place is where something is in a file: keys and, with a "[" before them, indices.
type place []string

func (p place) key(name string) place { return append(slices.Clip(p), name) }
func (p place) element(n int) place   { return append(slices.Clip(p), fmt.Sprintf("[%d]", n)) }

// String is the form of messages: relays[0].count.
func (p place) String() string {
	var b strings.Builder
	for i, part := range p {
		if i > 0 && part[:min(1, len(part))] != "[" {
			b.WriteByte('.')
		}
		b.WriteString(part)
	}
	return b.String()
}

func (o *outline) line(n *unstable.Node) int { return o.parser.Shape(n.Raw).Start.Line }

// header reads the key of a table and returns the place of what follows.
func (o *outline) header(e *unstable.Node) (at place, err error) {
	for it := e.Key(); it.Next(); {
		line := o.line(it.Node())
		at = at.key(string(it.Node().Data))
		t, err := find(at, line)
		if err != nil {
			return nil, err
		}
		name := at.String()
		several := t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
		switch last := it.IsLast(); {
		case several && last && e.Kind == unstable.ArrayTable:
			o.count[name]++
			at = at.element(o.count[name] - 1)
		case several && !last && o.count[name] > 0:
			at = at.element(o.count[name] - 1)
		case several:
			return nil, fmt.Errorf("line %d: there may be several %s: write [[%s]]", line, name, name)
		case t.Kind() != reflect.Struct && t.Kind() != reflect.Map:
			return nil, fmt.Errorf("line %d: %s is a table; want %s", line, name, wanted(t))
		case last && e.Kind == unstable.ArrayTable:
			return nil, fmt.Errorf("line %d: there is only one %s: write [%s]", line, name, name)
		}
		o.lines[at.String()] = line
	}
	return at, nil
}

// value reads a key and its value.
func (o *outline) value(at place, e *unstable.Node) error {
	line := 0
	for it := e.Key(); it.Next(); {
		at, line = at.key(string(it.Node().Data)), o.line(it.Node())
		if _, err := find(at, line); err != nil {
			return err
		}
	}
	o.lines[at.String()] = line
	return o.fits(at, line, e.Value())
}

// fits compares a value with the type that it is to have.
func (o *outline) fits(at place, line int, v *unstable.Node) error {
	t, err := find(at, line)
	if err != nil {
		return err
	}
	ok := true
	switch v.Kind {
	case unstable.InlineTable:
		ok = t.Kind() == reflect.Struct || t.Kind() == reflect.Map
		for it := v.Children(); ok && it.Next(); {
			if err := o.value(at, it.Node()); err != nil {
				return err
			}
		}
	case unstable.Array:
		ok = t.Kind() == reflect.Slice
		n := 0
		for it := v.Children(); ok && it.Next(); n++ {
			o.lines[at.element(n).String()] = line
			if err := o.fits(at.element(n), line, it.Node()); err != nil {
				return err
			}
		}
	default:
		ok = matches(v.Kind, t)
	}
	if !ok {
		return fmt.Errorf("line %d: %s is %s; want %s", line, at, found(v.Kind), wanted(t))
	}
	return nil
}

var isText = reflect.TypeFor[encoding.TextUnmarshaler]()

func matches(kind unstable.Kind, t reflect.Type) bool {
	switch {
	case reflect.PointerTo(t).Implements(isText) || t.Kind() == reflect.String:
		return kind == unstable.String
	case t.Kind() == reflect.Bool:
		return kind == unstable.Bool
	case t.Kind() == reflect.Float64:
		return kind == unstable.Float || kind == unstable.Integer
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		return kind == unstable.Integer
	}
	return false
}

// wanted says what a value of a type looks like.
func wanted(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Duration]():
		return `a duration in quotes, such as "30s"`
	case reflect.TypeFor[Rate]():
		return `a rate in quotes, such as "10 Mbit/s"`
	case reflect.TypeFor[Size]():
		return `a size in quotes, such as "50 KiB"`
	}
	switch t.Kind() {
	case reflect.String:
		return "text in quotes"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Slice:
		return "a list in brackets"
	}
	return "a table"
}

func found(k unstable.Kind) string {
	switch k {
	case unstable.String:
		return "text"
	case unstable.Bool:
		return "true or false"
	case unstable.Integer:
		return "a whole number"
	case unstable.Float:
		return "a number with a fraction"
	case unstable.Array:
		return "a list"
	case unstable.InlineTable:
		return "a table"
	}
	return "a date"
}

// find is the type of what is at a place. An unknown key is an error that names the nearest.
func find(at place, line int) (reflect.Type, error) {
	t := reflect.TypeFor[Scenario]()
	for _, part := range at {
		switch t.Kind() {
		case reflect.Slice, reflect.Map:
			t = t.Elem()
		case reflect.Struct:
			names, types := fields(t)
			if t = types[part]; t == nil {
				hint := ""
				if name := nearest.Name(part, names); name != "" {
					hint = fmt.Sprintf(" (did you mean %q?)", name)
				}
				return nil, fmt.Errorf("line %d: there is no setting %q%s", line, at, hint)
			}
		default:
			return nil, fmt.Errorf("line %d: there is no setting %q", line, at)
		}
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
	}
	return t, nil
}

// fields are the keys of a table.
func fields(t reflect.Type) (names []string, types map[string]reflect.Type) {
	types = make(map[string]reflect.Type)
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			more, inner := fields(f.Type)
			for _, name := range more {
				names, types[name] = append(names, name), inner[name]
			}
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if name != "" {
			names, types[name] = append(names, name), f.Type
		}
	}
	return names, types
}
