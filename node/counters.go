package node

import (
	"reflect"
	"strings"
	"unicode"

	"cepa/cell"
	"cepa/cert"
	"cepa/circuit"
	"cepa/directory"
	"cepa/flow"
	"cepa/measure"
	"cepa/relay"
)

// flowCounters adds those of links, legs and streams.
func flowCounters(m map[string]int64, s *flow.Stats, b *flow.Budget) {
	flowNames.add(m, *s)
	for c := range s.KindsIn {
		if in, out := kindNames[c][0], kindNames[c][1]; in != "" {
			m[in], m[out] = int64(s.KindsIn[c]), int64(s.KindsOut[c])
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

// names are those of the counters of a Stats structure, by field: made once, since a simulation asks for them a million times.
type names []string

var (
	flowNames      = namesOf("", flow.Stats{})
	circuitNames   = namesOf("circuit_", circuit.Stats{})
	relayNames     = namesOf("relay_", relay.Stats{})
	followerNames  = namesOf("directory_", directory.FollowerStats{})
	agentNames     = namesOf("directory_", directory.AgentStats{})
	authorityNames = namesOf("authority_", directory.AuthorityStats{})
	measureNames   = namesOf("measure_", measure.Stats{})
	speedNames     = namesOf("speed_test_", directory.SpeedTestStats{})
	kindNames      = namesOfKinds()
)

// namesOf are the fields' in snake case, behind a prefix; empty for those that are no integers.
func namesOf(prefix string, stats any) (n names) {
	for f := range reflect.TypeOf(stats).Fields() {
		name := ""
		switch f.Type.Kind() {
		case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
			name = prefix + snake(f.Name)
		}
		n = append(n, name)
	}
	return n
}

// namesOfKinds are those of the counters of cells in and out, by command.
func namesOfKinds() (n [len(flow.Stats{}.KindsIn)][2]string) {
	for c := range n {
		if kind := cell.Command(c); kind.Known() {
			name := strings.ToLower(kind.String())
			n[c] = [2]string{"cells_in_" + name, "cells_out_" + name}
		}
	}
	return n
}

// add adds every integer field of the Stats structure under its name.
func (n names) add(m map[string]int64, stats any) {
	v := reflect.ValueOf(stats)
	for i, name := range n {
		switch f := v.Field(i); {
		case name == "":
		case f.CanInt():
			m[name] = f.Int()
		default:
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
