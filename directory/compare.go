package directory

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cepa/cert"
)

// Differences are what has changed from one consensus to another, for people.
type Differences struct {
	Gone    []*Relay // ascending by identity; they belong to the older consensus
	New     []*Relay // ascending by identity; they belong to the newer
	Changed []RelayChange
	Network []FieldChange // parameters and protocols
}

// RelayChange is what has changed of one relay.
type RelayChange struct {
	Identity cert.Identity
	Nickname string // in the newer consensus
	Fields   []FieldChange
}

// FieldChange is one value before and after; "" is none.
type FieldChange struct {
	Field, From, To string
}

// Compare says what changed from one consensus to another.
func Compare(from, to *Consensus) Differences {
	var d Differences
	a, b := from.Relays, to.Relays
	for len(a) > 0 || len(b) > 0 {
		order := 0
		switch {
		case len(b) == 0:
			order = -1
		case len(a) == 0:
			order = 1
		default:
			order = a[0].Identity.Compare(b[0].Identity)
		}
		if order < 0 {
			d.Gone = append(d.Gone, &a[0])
		}
		if order > 0 {
			d.New = append(d.New, &b[0])
		}
		if order == 0 {
			if fields := compareRelays(&a[0], &b[0]); len(fields) > 0 {
				d.Changed = append(d.Changed, RelayChange{b[0].Identity, b[0].Nickname, fields})
			}
		}
		if order <= 0 {
			a = a[1:]
		}
		if order >= 0 {
			b = b[1:]
		}
	}
	d.Network = compareNetworks(from, to)
	return d
}

// Empty says whether nothing has changed.
func (d Differences) Empty() bool {
	return len(d.Gone)+len(d.New)+len(d.Changed)+len(d.Network) == 0
}

// changes collects the fields that differ.
type changes []FieldChange

func (c *changes) add(field string, from, to any) {
	if f, t := strings.Trim(fmt.Sprint(from), "[]"), strings.Trim(fmt.Sprint(to), "[]"); f != t {
		*c = append(*c, FieldChange{field, f, t})
	}
}

func compareRelays(a, b *Relay) []FieldChange {
	var c changes
	c.add("name", a.Nickname, b.Nickname)
	c.add("onion key", cert.Digest(a.OnionKey), cert.Digest(b.OnionKey))
	c.add("addresses", a.Addresses, b.Addresses)
	c.add("flags", a.Flags, b.Flags)
	c.add("weight", a.Weight, b.Weight)
	c.add("ports", a.Ports, b.Ports)
	c.add("protocols", a.Protocols, b.Protocols)
	c.add("families", a.Families, b.Families)
	return c
}

// String returns the ports as "80,443,8000-8999", with what is different for IPv6 after it.
func (s PortSummary) String() string {
	text := func(ranges []PortRange) string {
		if len(ranges) == 0 {
			return "none"
		}
		var parts []string
		for _, r := range ranges {
			parts = append(parts, r.String())
		}
		return strings.Join(parts, ",")
	}
	four, six := text(s.IPv4), text(s.IPv6)
	switch {
	case four == six:
		return four
	case six == "none":
		return four + " on IPv4"
	case four == "none":
		return six + " on IPv6"
	}
	return four + " on IPv4, " + six + " on IPv6"
}

func compareNetworks(a, b *Consensus) []FieldChange {
	var c changes
	both := maps.Clone(a.Parameters)
	if both == nil {
		both = Parameters{}
	}
	maps.Copy(both, b.Parameters)
	for _, name := range slices.Sorted(maps.Keys(both)) {
		text := func(p Parameters) string {
			if v, ok := p[name]; ok {
				return fmt.Sprint(v)
			}
			return ""
		}
		c.add("parameter "+string(name), text(a.Parameters), text(b.Parameters))
	}
	c.add("recommended protocols", a.Recommended, b.Recommended)
	c.add("required protocols", a.Required, b.Required)
	return c
}
