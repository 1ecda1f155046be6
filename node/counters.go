package node

import (
	"reflect"
	"strings"
	"unicode"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/flow"
)

// flowCounters adds those of links, legs and streams.
func flowCounters(m map[string]int64, s *flow.Stats, b *flow.Budget) {
	addCounters(m, "", *s)
	for c := range s.KindsIn {
		if kind := cell.Command(c); kind.Known() {
			name := strings.ToLower(kind.String())
			m["cells_in_"+name], m["cells_out_"+name] = int64(s.KindsIn[c]), int64(s.KindsOut[c])
		}
	}
	m["budget_used_bytes"] = int64(b.Used())
	m["budget_limit_bytes"] = int64(b.Limit())
}

// followerCounters adds what a node knows of its clock and of its version from the others. clock_skew_ms is by how much
// the clocks of clock_skew_relays relays are ahead of the one here: their median.
func followerCounters(m map[string]int64, f *directory.Follower) {
	by, of := f.Skew()
	m["clock_skew_ms"], m["clock_skew_relays"] = by.Milliseconds(), int64(of)
	if c := f.Current(); c != nil {
		ours := directory.OurProtocols()
		m["protocols_missing_required"] = int64(len(ours.Missing(c.Required)))
		m["protocols_missing_recommended"] = int64(len(ours.Missing(c.Recommended)))
	}
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
