package daemon

import (
	"fmt"

	"cepa/circuit"
)

// Paths are the relays that a user wants on circuits, and those that he does not: each an identity (64 hexadecimal
// digits), "family:" and the id of a family, an address, or a prefix such as 192.0.2.0/24. An empty list is no
// requirement. They hold always: what cannot be done within them fails.
type Paths struct {
	Exclude        []string `toml:"exclude,omitempty" flag:"exclude" value:"RELAYS" help:"Never used."`
	ExcludeGuards  []string `toml:"exclude_guards,omitempty" flag:"exclude-guards" value:"RELAYS" help:"Never used as the first of a circuit."`
	ExcludeMiddles []string `toml:"exclude_middles,omitempty" flag:"exclude-middles" value:"RELAYS" help:"Never used in the middle."`
	ExcludeExits   []string `toml:"exclude_exits,omitempty" flag:"exclude-exits" value:"RELAYS" help:"Never used as the last."`
	Guards         []string `toml:"guards,omitempty" flag:"guards" value:"RELAYS" help:"Only these are used as the first of a circuit."`
	Middles        []string `toml:"middles,omitempty" flag:"middles" value:"RELAYS" help:"Only these are used in the middle."`
	Exits          []string `toml:"exits,omitempty" flag:"exits" value:"RELAYS" help:"Only these are used as the last."`
}

// lists are the settings by their names.
func (p *Paths) lists(r *circuit.Restrictions) []pathList {
	return []pathList{
		{"exclude", p.Exclude, &r.Exclude},
		{"exclude_guards", p.ExcludeGuards, &r.Guards.Except},
		{"exclude_middles", p.ExcludeMiddles, &r.Middles.Except},
		{"exclude_exits", p.ExcludeExits, &r.Exits.Except},
		{"guards", p.Guards, &r.Guards.Only},
		{"middles", p.Middles, &r.Middles.Only},
		{"exits", p.Exits, &r.Exits.Only},
	}
}

type pathList struct {
	name  string
	items []string
	set   *circuit.RelaySet
}

// restrictions reads the settings; nil is none. The error names what is wrong.
func (p *Paths) restrictions() (*circuit.Restrictions, error) {
	r := &circuit.Restrictions{}
	for _, l := range p.lists(r) {
		set, err := circuit.ParseRelaySet(l.items)
		if err != nil {
			return nil, fmt.Errorf("the setting %s of [paths]: %w", l.name, err)
		}
		if len(l.items) > maxPathItems {
			return nil, fmt.Errorf("the setting %s of [paths] has %d entries, at most %d", l.name, len(l.items), maxPathItems)
		}
		*l.set = set
	}
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("the settings of [paths]: %w", err)
	}
	if r.Empty() {
		return nil, nil
	}
	return r, nil
}

// maxPathItems bounds a list: each relay of a consensus is compared with each of its entries.
const maxPathItems = 1000
