package directory

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

// sources remembers whom not to ask for a while. A bad answer is held against the source that gave it, never against
// the document that it was about.
type sources struct {
	shunned map[cert.Identity]env.Mono // until when
}

// For how long a source is asked only when there is no other.
const (
	shunUnreached = 30 * time.Second
	shunStale     = 2 * time.Minute
	shunLiar      = 30 * time.Minute
)

// maxShunned bounds the memory; what is forgotten first is what ends first.
const maxShunned = 512

func newSources() sources { return sources{shunned: make(map[cert.Identity]env.Mono)} }

func (s *sources) shun(id cert.Identity, until env.Mono, now env.Mono) {
	if len(s.shunned) >= maxShunned {
		ids := slices.SortedFunc(maps.Keys(s.shunned), func(a, b cert.Identity) int { // order: total, by the comparison
			return cmp.Or(cmp.Compare(s.shunned[a], s.shunned[b]), a.Compare(b))
		})
		for i, id := range ids {
			if i < len(ids)/4 || s.shunned[id] <= now {
				delete(s.shunned, id)
			}
		}
	}
	s.shunned[id] = max(s.shunned[id], until)
}

// forgive says that a source gave a good answer.
func (s *sources) forgive(id cert.Identity) { delete(s.shunned, id) }

// until is when the source may be asked like any other: 0 for now.
func (s *sources) until(id cert.Identity, now env.Mono) env.Mono {
	if u := s.shunned[id]; u > now {
		return u
	}
	return 0
}

// maxAsked bounds the sources that are asked for heads in one round, and wantedHeads are the answers that it wants.
const (
	maxAsked    = 12
	wantedHeads = 3
)

// broadenAfter is the number of failed rounds after which others than the preferred sources are asked.
const broadenAfter = 3

// pick returns the sources of one round, in the order in which they are asked: no identity twice, never this node,
// and those that are shunned last.
func (f *Follower) pick() []env.Target {
	var list []env.Target
	add := func(targets []env.Target) {
		for _, t := range targets {
			known := slices.ContainsFunc(list, func(o env.Target) bool { return o.Identity == t.Identity })
			if !known && t.Identity != f.cfg.Self && !t.Identity.IsZero() && len(t.Addresses) > 0 {
				list = append(list, t)
			}
		}
	}
	authorities := f.shuffled(targetsOf(f.network.Authorities))
	if !f.cfg.Self.IsZero() && len(authorities) > 0 {
		add(authorities[:1]) // a relay hears at least one of those who make it
	}
	preferred := []env.Target(nil)
	if f.cfg.Sources != nil && f.current != nil {
		preferred = f.cfg.Sources()
	}
	preferred = f.shuffled(slices.Clone(preferred))
	if len(preferred) == 0 || f.failures >= broadenAfter && !f.cfg.Undefended.OneSource {
		// First of all: guards that go on showing an old consensus must not be the only ones that are heard.
		add(f.fromConsensus())
		add(f.shuffled(targetsOf(f.network.Bootstrap)))
		add(authorities)
	}
	add(preferred)
	if f.cfg.Undefended.OneSource {
		return list[:min(len(list), 1)]
	}
	now := f.env.Clock.Now()
	slices.SortStableFunc(list, func(a, b env.Target) int {
		return cmp.Compare(f.sources.until(a.Identity, now), f.sources.until(b.Identity, now))
	})
	return list[:min(len(list), maxAsked)]
}

// fromConsensus draws some relays of the last consensus, which need not be valid any more.
func (f *Follower) fromConsensus() []env.Target {
	if f.current == nil {
		return nil
	}
	var out []env.Target
	for range min(len(f.current.Relays), 2*wantedHeads) {
		r := &f.current.Relays[f.env.Rand.Uint64()%uint64(len(f.current.Relays))]
		if !r.Flags.Has(FlagRunning) {
			continue
		}
		out = append(out, env.Target{Identity: r.Identity, Addresses: r.Addresses})
	}
	return out
}

func targetsOf(contacts []Contact) []env.Target {
	out := make([]env.Target, len(contacts))
	for i, c := range contacts {
		out[i] = env.Target{Identity: c.Identity, Addresses: c.Addresses}
	}
	return out
}

// shuffled shuffles a slice in place and returns it.
func (f *Follower) shuffled(list []env.Target) []env.Target {
	for i := len(list) - 1; i > 0; i-- {
		j := int(f.env.Rand.Uint64() % uint64(i+1))
		list[i], list[j] = list[j], list[i]
	}
	return list
}

// skews are the clocks of relays compared with the one here: the last of each of the last 16.
type skews []skew

type skew struct {
	id cert.Identity
	by time.Duration
}

const (
	maxSkews     = 16
	wantedSkews  = 3                // relays that a verdict needs
	smallestSkew = 30 * time.Second // what is not worth a word
)

func (s *skews) add(id cert.Identity, by time.Duration) {
	*s = slices.DeleteFunc(*s, func(o skew) bool { return o.id == id })
	if len(*s) >= maxSkews {
		*s = slices.Delete(*s, 0, 1)
	}
	*s = append(*s, skew{id, by})
}

// verdict returns by how much the relays' clocks are ahead of the one here: the median. It is sure when at least three
// relays were heard, and false when it is too little to matter.
func (s skews) verdict() (by time.Duration, of int, found, sure bool) {
	if len(s) == 0 {
		return 0, 0, false, false
	}
	all := make([]time.Duration, len(s))
	for i := range s {
		all[i] = s[i].by
	}
	slices.Sort(all)
	by = all[len(all)/2]
	return by, len(s), by.Abs() >= smallestSkew, len(s) >= wantedSkews
}
