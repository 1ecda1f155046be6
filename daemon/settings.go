package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"cepa/nearest"
)

// Setting is one setting of a node. All of them, their flags, variables, defaults and explanations, are read from the
// tags of RelayConfig, AuthorityConfig and ClientConfig:
//
//	toml     its name in the file
//	default  what holds when it is not set, if that is not empty, 0 or false
//	help     what it does, in whole sentences
//	flag     its flag, if that is not the name with hyphens; "-" for none
//	value    what a help text calls its value
//	section  the heading in the file that it begins
//	path     "file" or "dir": a relative path is relative to the file that sets it
//	example  of a setting that has no default and must be set
//	reload   "yes": SIGHUP brings it into force, see Reload
type Setting struct {
	Name     string // in the file, with its table: exit_policy, paths.exclude
	Flag     string // on the command line, without hyphens before it; "" for none
	Variable string // in the environment; "" for none
	Default  string // as it stands in a file
	Help     string
	Value    string // what a help text calls the value
	Live     bool   // a running node takes a change
	Required bool

	section, path, example string
	index                  []int
	kind                   reflect.Type
}

// Settings are those of a node's configuration, a pointer to RelayConfig, AuthorityConfig or ClientConfig, in the order
// of a settings file.
func Settings(config any) []Setting {
	t := reflect.TypeOf(config).Elem()
	return settingsOf(t, nil, "", "CEPA_"+strings.ToUpper(RoleOf(config))+"_")
}

// RoleOf is what a configuration is of: relay, authority or client.
func RoleOf(config any) string {
	return strings.ToLower(strings.TrimSuffix(reflect.TypeOf(config).Elem().Name(), "Config"))
}

// NewConfig is an empty configuration of a role; nil if there is no such role.
func NewConfig(role string) any {
	switch role {
	case "relay":
		return &RelayConfig{}
	case "authority":
		return &AuthorityConfig{}
	case "client":
		return &ClientConfig{}
	}
	return nil
}

func settingsOf(t reflect.Type, index []int, table, prefix string) (list []Setting) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		at := append(slices.Clone(index), i)
		if f.Type.Kind() == reflect.Struct {
			inner := settingsOf(f.Type, at, table+name+".", prefix)
			inner[0].section = f.Tag.Get("help") // of the table
			list = append(list, inner...)
			continue
		}
		s := Setting{
			Name: table + name, Flag: f.Tag.Get("flag"), Value: f.Tag.Get("value"), Help: f.Tag.Get("help"), Live: f.Tag.Get("reload") == "yes",
			section: f.Tag.Get("section"), path: f.Tag.Get("path"), example: f.Tag.Get("example"), index: at, kind: f.Type,
		}
		s.Required = s.example != ""
		if s.simple() {
			s.Variable = prefix + strings.ToUpper(strings.ReplaceAll(s.Name, ".", "_"))
			if s.Flag == "" {
				s.Flag = strings.ReplaceAll(strings.ReplaceAll(s.Name, ".", "-"), "_", "-")
			}
		}
		if s.Flag == "-" {
			s.Flag = ""
		}
		v := reflect.New(f.Type).Elem()
		_ = s.set(v, f.Tag.Get("default")) // a test sets them all
		s.Default = tomlText(v)
		list = append(list, s)
	}
	return list
}

// simple reports whether the setting can be one word.
func (s *Setting) simple() bool {
	switch s.kind.Kind() {
	case reflect.String, reflect.Int, reflect.Bool:
		return true
	case reflect.Slice:
		return s.List()
	}
	return false
}

// List reports whether the setting is a list of words, which a flag may give one by one or with commas.
func (s *Setting) List() bool {
	return s.kind.Kind() == reflect.Slice && s.kind.Elem().Kind() == reflect.String
}

// Number and Switch report what kind of word the setting is, when it is not text.
func (s *Setting) Number() bool { return s.kind.Kind() == reflect.Int }

// Switch reports whether the setting is true or false.
func (s *Setting) Switch() bool { return s.kind.Kind() == reflect.Bool }

func (s *Setting) of(config any) reflect.Value {
	return reflect.ValueOf(config).Elem().FieldByIndex(s.index)
}

// Text is the setting's value in a configuration, as it stands in a file.
func (s *Setting) Text(config any) string { return tomlText(s.of(config)) }

// Set gives a setting that has a flag or a variable the value that a word stands for; lists have commas.
func (s *Setting) Set(config any, word string) error { return s.set(s.of(config), word) }

func (s *Setting) set(v reflect.Value, word string) error {
	switch v.Kind() {
	case reflect.String:
		v.SetString(word)
	case reflect.Int:
		n, err := strconv.Atoi(word)
		if err != nil && word != "" {
			return fmt.Errorf("%q is no number", word)
		}
		v.SetInt(int64(n))
	case reflect.Bool:
		on, err := strconv.ParseBool(word)
		if err != nil && word != "" {
			return fmt.Errorf("%q is neither true nor false", word)
		}
		v.SetBool(on)
	case reflect.Slice:
		if !s.List() {
			if word != "" {
				return fmt.Errorf("it can be set in a file only")
			}
			return nil
		}
		list := reflect.MakeSlice(s.kind, 0, 1)
		for part := range strings.SplitSeq(word, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = reflect.Append(list, reflect.ValueOf(part).Convert(s.kind.Elem()))
			}
		}
		if list.Len() == 0 {
			list = reflect.Zero(s.kind)
		}
		v.Set(list)
	}
	return nil
}

// relativeTo makes paths that a file sets relative to its folder.
func (s *Setting) relativeTo(file string, config any) {
	v, relative := s.of(config), relativeTo
	if s.path == "port" { // a Unix socket, or an address
		relative = relativePort
	}
	switch {
	case s.path == "":
	case v.Kind() == reflect.String:
		relative(file, v.Addr().Interface().(*string))
	default:
		for i := range v.Len() {
			relative(file, v.Index(i).Addr().Interface().(*string))
		}
	}
}

// tomlText is a value as it stands in a file.
func tomlText(v reflect.Value) string {
	if v.Kind() == reflect.Slice && v.Len() == 0 {
		return "[]"
	}
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct {
		var items []string
		for i := range v.Len() {
			var fields []string
			for k := range v.Index(i).NumField() {
				name, _, _ := strings.Cut(v.Index(i).Type().Field(k).Tag.Get("toml"), ",")
				fields = append(fields, name+" = "+tomlText(v.Index(i).Field(k)))
			}
			items = append(items, "{"+strings.Join(fields, ", ")+"}")
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	text, err := toml.Marshal(map[string]any{"x": v.Interface()})
	if err != nil {
		return fmt.Sprint(v.Interface()) // not reached: all kinds are simple
	}
	_, value, _ := strings.Cut(strings.TrimSpace(string(text)), " = ")
	if len(value) > 1 && value[0] == '\'' && !strings.ContainsAny(value, `"\`) {
		value = `"` + strings.Trim(value, "'") + `"`
	}
	return value
}

// fillDefaults sets what is not set.
func fillDefaults(config any) {
	fresh := Settings(config)
	t := reflect.TypeOf(config).Elem()
	for i := range fresh {
		s := &fresh[i]
		if v := s.of(config); v.IsZero() {
			_ = s.set(v, t.FieldByIndex(s.index).Tag.Get("default"))
		}
	}
}

// Layers are the places that settings come from. A later one wins: the file, the environment, the flags.
type Layers struct {
	File    string              // path of a TOML file; "" for none
	Environ []string            // as os.Environ gives it
	Flags   map[string][]string // those that were given, name to values
}

// Origins are where the values of settings come from, name to words for people.
type Origins map[string]string

// Resolve fills a configuration from the layers and then with defaults. It tells where each value came from, and of
// variables that look like settings and are none.
func (l Layers) Resolve(config any) (from Origins, warnings []string, err error) {
	from = Origins{}
	list := Settings(config)
	given := map[string]any{}
	if l.File != "" {
		if err := loadTOML(l.File, config); err != nil {
			return nil, nil, err
		}
		text, err := readBounded(l.File, maxConfig)
		if err != nil {
			return nil, nil, fmt.Errorf("reading the settings: %w", err)
		}
		if err := toml.Unmarshal(text, &given); err != nil {
			return nil, nil, fmt.Errorf("reading the settings: %s: %w", l.File, err)
		}
	}
	variables := map[string]string{}
	for _, v := range l.Environ {
		name, value, _ := strings.Cut(v, "=")
		variables[name] = value
	}
	for i := range list {
		s := &list[i]
		from[s.Name] = "default"
		if s.Required {
			from[s.Name] = "not set"
		}
		if stands(given, s.Name) {
			from[s.Name] = "file " + l.File
		}
		if word, ok := variables[s.Variable]; ok && s.Variable != "" {
			if err := s.Set(config, word); err != nil {
				return nil, nil, fmt.Errorf("the environment's %s: %w", s.Variable, err)
			}
			from[s.Name] = "environment " + s.Variable
		}
		if words, ok := l.Flags[s.Flag]; ok && s.Flag != "" {
			if err := s.Set(config, strings.Join(words, ",")); err != nil {
				return nil, nil, fmt.Errorf("--%s: %w", s.Flag, err)
			}
			from[s.Name] = "flag --" + s.Flag
		}
	}
	fillDefaults(config)
	return from, unknownVariables(l.Environ, list, RoleOf(config)), nil
}

// stands reports whether a decoded file has a setting.
func stands(file map[string]any, name string) bool {
	table, key, nested := strings.Cut(name, ".")
	if !nested {
		_, ok := file[name]
		return ok
	}
	inner, ok := file[table].(map[string]any)
	return ok && stands(inner, key)
}

// unknownVariables are warnings of variables that begin as those of settings do. They are no errors: container
// platforms make variables of their own from the names of services.
func unknownVariables(environ []string, list []Setting, role string) (warnings []string) {
	var names []string
	for _, s := range list {
		names = append(names, s.Variable)
	}
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "CEPA_"+strings.ToUpper(role)+"_") || slices.Contains(names, name) {
			continue
		}
		w := fmt.Sprintf("the environment's %s is no setting", name)
		if near := nearest.Name(name, names); near != "" {
			w += fmt.Sprintf(" (did you mean %s?)", strings.ToUpper(near))
		}
		warnings = append(warnings, w)
	}
	slices.Sort(warnings)
	return warnings
}

// CommentedFile is a settings file of a configuration's role with every setting in it: what the configuration sets, and
// the rest commented out with its default.
func CommentedFile(config any) string {
	var b strings.Builder
	role := RoleOf(config)
	fmt.Fprintf(&b, "# Settings of a cepa %s, for 'cepa %s --config FILE'.\n#\n", role, role)
	comment(&b, fmt.Sprintf("A line that begins with # and a name shows a default: take the # away to change it. Relative paths are relative to this file. "+
		"A flag (--log-level) wins over the environment (CEPA_%s_LOG_LEVEL), which wins over this file. 'cepa config check FILE' looks for mistakes.", strings.ToUpper(role)))
	comment(&b, "[reload] says that a running node takes a change on SIGHUP; others need a restart.")
	table := ""
	for _, s := range Settings(config) {
		in, key, nested := strings.Cut(s.Name, ".")
		if nested && in != table {
			table = in
			b.WriteString("\n")
			comment(&b, s.section)
			fmt.Fprintf(&b, "[%s]\n", table)
		} else if s.section != "" && !nested {
			fmt.Fprintf(&b, "\n# ---- %s ----\n", s.section)
		}
		if !nested {
			key = s.Name
		}
		b.WriteString("\n")
		help := s.Help
		if s.Live {
			help += " [reload]"
		}
		comment(&b, help)
		value := s.of(config)
		switch {
		case !value.IsZero():
			fmt.Fprintf(&b, "%s = %s\n", key, s.Text(config))
		case s.Required:
			fmt.Fprintf(&b, "%s = %q\n", key, s.example)
		default:
			fmt.Fprintf(&b, "#%s = %s\n", key, s.Default)
		}
	}
	return b.String()
}

// commentWidth is how long lines of comments are.
const commentWidth = 100

func comment(b *strings.Builder, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > commentWidth {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

// WriteNewFile writes a file for its owner alone that must not exist.
func WriteNewFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if os.IsExist(err) {
		return fmt.Errorf("%s exists, and is not overwritten", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// SettingText is the value of a setting of a configuration as a word; "" if there is no such setting.
func SettingText(config any, name string) string {
	for _, s := range Settings(config) {
		if s.Name == name {
			return fmt.Sprint(s.of(config).Interface())
		}
	}
	return ""
}

// GuessRole says whose settings a file holds: what its first line says, if 'cepa config new' made it; what its name
// says; or the first of relay, client and authority that has all of its settings.
func GuessRole(path string) string {
	text, err := readBounded(path, maxConfig)
	if err != nil {
		return "relay" // reading it again says what is wrong
	}
	roles := []string{"relay", "client", "authority"}
	for _, role := range roles {
		if strings.HasPrefix(string(text), "# Settings of a cepa "+role+",") {
			return role
		}
	}
	for _, role := range roles {
		if strings.Contains(filepath.Base(path), role) {
			return role
		}
	}
	for _, role := range roles {
		if decodeTOML(text, NewConfig(role)) == nil {
			return role
		}
	}
	return "relay"
}
