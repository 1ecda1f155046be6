package node

import (
	"reflect"
	"strings"
	"unicode"

	"cepa/cert"
	"cepa/flow"
)

// flowCounters adds those of links, legs and streams.
func flowCounters(m map[string]int64, s *flow.Stats, b *flow.Budget) {
	addCounters(m, "", *s)
	m["budget_used_bytes"] = int64(b.Used())
	m["budget_limit_bytes"] = int64(b.Limit())
}

// addCounters adds every integer field of a Stats structure under its name in snake case.
func addCounters(m map[string]int64, prefix string, stats any) {
	v := reflect.ValueOf(stats)
	for i := range v.NumField() {
		name := prefix + snake(v.Type().Field(i).Name)
		switch f := v.Field(i); {
		case f.CanInt():
			m[name] = f.Int()
		case f.CanUint():
			m[name] = int64(f.Uint())
		}
	}
}

// snake turns ExitBytesIn into exit_bytes_in.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// selfOf is the identity of a relay, zero of a client.
func selfOf(h flow.NodeHandler) (id cert.Identity) {
	if r, ok := h.(interface{ Identity() cert.Identity }); ok {
		id = r.Identity()
	}
	return id
}
