package nearest

import (
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	t.Parallel()
	settings := []string{"network", "dir", "listen", "address", "exit_policy", "nickname", "contact", "bandwidth_mib", "memory_mib", "log_level", "serve", "tls_keylog"}
	commands := []string{"demo", "relay", "client", "network", "status"}
	for _, c := range []struct {
		word  string
		names []string
		want  string
	}{
		{"exit_polcy", settings, "exit_policy"},
		{"exitpolicy", settings, "exit_policy"},
		{"Listen", settings, "listen"},
		{"memory", settings, "memory_mib"},
		{"log-level", settings, "log_level"},
		{"adress", settings, "address"},
		{"dmeo", commands, "demo"},
		{"rely", commands, "relay"},
		{"clinet", commands, "client"},
		{"stauts", commands, "status"},
		{"netwrok", commands, "network"},
		{"xyzzy", commands, ""},
		{"", commands, ""},
		{"demo", nil, ""},
		{"demo", []string{""}, ""},
		{strings.Repeat("relay", 1000), commands, ""},
		{"\xff\xfe", commands, ""},
	} {
		if got := Name(c.word, c.names); got != c.want {
			t.Errorf("%q: %q, want %q", c.word, got, c.want)
		}
	}
}

func FuzzName(f *testing.F) {
	f.Add("relay", "rely")
	f.Add("", "")
	f.Add("ü", "u")
	f.Fuzz(func(t *testing.T, word, name string) {
		if got := Name(word, []string{name}); got != "" && got != name {
			t.Errorf("suggested %q, which is no candidate", got)
		}
	})
}

func TestSwappedLettersAreNear(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{"nwe": "new", "hsow": "show", "wen": "", "n": "", "new": "new"} {
		if got := Name(word, []string{"show", "new"}); got != want {
			t.Errorf("Name(%q) = %q, want %q", word, got, want)
		}
	}
}
