package measure

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"math/bits"
	"slices"
	"time"

	"cepa/cert"
	"cepa/circuit"
	"cepa/directory"
	"cepa/env"
)

// Config is what a Measurer is made of. All fields are needed.
type Config struct {
	Env     env.Env
	Network *directory.Network
	Self    cert.Identity      // the authority; it is never measured by itself, and never part of a path
	Signer  func() cert.Signer // the signing key in use
	// View is the consensus in force and valid now; nil when there is none.
	View func() *directory.Consensus
	// Carry is circuit.Transfers.Run.
	Carry func(circuit.Transfer, func(circuit.Transferred, error))
}

// Stats are counters and gauges, read on the loop.
type Stats struct {
	Known     int    // relays of the consensus with an estimate, now
	Suspects  int    // relays of the consensus that are much faster for those whom they know, now
	Done      uint64 // measurements
	Open      uint64 // of these, in which the relay could see who measures
	Failed    uint64
	NoPath    uint64 // times that no path could be found
	Bytes     uint64 // that came
	Reports   uint64 // times that a relay became a suspect
	SaveFails uint64
}

const (
	streams     = 8         // at once in a transfer: the window of one would bound a distant relay
	streamLeast = 512 << 10 // bytes for each, before there are more
	leastShare  = 10        // of measure_ms: what is faster than that is not told apart
	rounds      = 12        // for which a result counts
	beginShare  = 90        // percent of the relays that must have an estimate before any counts …
	stayShare   = 50        // … and from then on
	saveEvery   = 10 * time.Minute
	fastest     = 4  // relays that others are measured through at least, if there are so many
	drawsLast   = 16 // candidates tried as the last relay of a path …
	drawsFirst  = 64 // … and as the first, for each of them
)

// Measurer measures the relays of the consensus, one after the other, for ever.
type Measurer struct {
	cfg     Config
	env     env.Env
	log     *slog.Logger
	relays  map[cert.Identity]*record
	stats   Stats
	timer   env.Timer
	dirty   bool // something is not saved
	saved   env.Mono
	running bool

	counted     *directory.Consensus // for which common was found, when so many measurements were done
	countedDone uint64
	common      bool // so many relays have an estimate that those without are not lost beside them; so it was when there were results before

	every time.Duration // from the begin of one measurement to that of the next, at least
	most  time.Duration // of one transfer
	bytes int           // of one transfer
	round time.Duration // in which each relay is measured about once; 0: nobody is
}

// New makes a Measurer and loads what was found before. It does nothing until Start.
func New(cfg Config) *Measurer {
	n := cfg.Network
	m := &Measurer{
		cfg: cfg, env: cfg.Env, log: cfg.Env.Log,
		relays: make(map[cert.Identity]*record),
		most:   time.Duration(n.Limit(directory.MeasureMillis)) * time.Millisecond,
		bytes:  int(n.Limit(directory.MeasureKiB)) << 10,
	}
	m.every = 2 * m.most
	m.round = time.Duration(n.Limit(directory.MeasureIntervals)) * n.Interval()
	if err := m.load(); err != nil {
		m.log.Warn("what was measured before cannot be read; all relays count as not measured", "err", err)
	}
	return m
}

// Start begins to measure, a moment later.
func (m *Measurer) Start() {
	if m.running || m.round == 0 {
		return
	}
	m.running = true
	m.saved = m.env.Clock.Now()
	m.timer = m.env.Clock.AfterFunc(m.jitter(m.every), m.tick)
}

// Stop ends it, and saves. A measurement under way comes to nothing.
func (m *Measurer) Stop() {
	if !m.running {
		return
	}
	m.running = false
	m.timer.Stop()
	m.save()
}

// Measured is how fast a relay was found to be, in KiB a second; ok is false when too little is known. It never
// exceeds what a measurement can tell: measure_kib in a tenth of measure_ms. Nothing is said of any relay before
// something is known of most: the first to be measured would get the traffic of all.
func (m *Measurer) Measured(id cert.Identity) (kib uint32, ok bool) {
	r := m.relays[id]
	if r == nil || !m.isCommon() {
		return 0, false
	}
	r.forget(m.env.Clock.Wall().Add(-m.memory()))
	return r.estimate()
}

// isCommon says whether most relays of the consensus have an estimate.
func (m *Measurer) isCommon() bool {
	c := m.cfg.View()
	if c == nil {
		return true
	}
	if done := m.stats.Done + m.stats.Failed + m.stats.NoPath; c != m.counted || done != m.countedDone {
		m.counted, m.countedDone = c, done
		known, all := 0, 0
		for i := range c.Relays {
			r := &c.Relays[i]
			if r.Identity == m.cfg.Self || !circuit.MayMeasure(r) {
				continue
			}
			x := m.relays[r.Identity]
			if x == nil {
				all++
			} else if _, ok := x.estimate(); ok {
				all++
				known++
			} else if x.failures < patience { // whoever cannot be measured is not waited for
				all++
			}
		}
		share := beginShare
		if m.common {
			share = stayShare
		}
		m.common = known*100 >= all*share
	}
	return m.common
}

// Stats returns a copy of the counters and the gauges.
func (m *Measurer) Stats() Stats {
	s := m.stats
	if c := m.cfg.View(); c != nil {
		for i := range c.Relays {
			r := m.relays[c.Relays[i].Identity]
			if r == nil {
				continue
			}
			if _, ok := r.estimate(); ok {
				s.Known++
			}
			if r.suspect {
				s.Suspects++
			}
		}
	}
	return s
}

// memory is for how long a result counts.
func (m *Measurer) memory() time.Duration {
	relays := 0
	if c := m.cfg.View(); c != nil {
		relays = len(c.Relays)
	}
	return rounds * max(m.round, time.Duration(relays)*m.every)
}

// jitter is a random time of three to five quarters of d.
func (m *Measurer) jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(below(m.env.Rand, uint64(d/2)+1))
}

// below returns a uniform number below n, which is not 0, but for a bias of at most n/2^64.
func below(rand env.Rand, n uint64) uint64 {
	hi, _ := bits.Mul64(rand.Uint64(), n)
	return hi
}

// tick begins one measurement, if there is one to make, and says when the next is due.
func (m *Measurer) tick() {
	if !m.running {
		return
	}
	if m.dirty && m.env.Clock.Now().Sub(m.saved) >= saveEvery {
		m.save()
	}
	c := m.cfg.View()
	if c == nil {
		m.timer.Reset(m.jitter(m.every))
		return
	}
	r, hurry := m.next(c)
	pause := m.every
	if !hurry {
		pause = max(pause, m.round/time.Duration(max(len(c.Relays), 1)))
	}
	m.timer.Reset(m.jitter(pause))
	if r != nil {
		m.measure(c, r)
	}
}

// next is whom to measure: one of those of whom too little is known, or else of all, the one whose last measurement
// is longest ago. Among equals chance decides, so that authorities that started together do not measure the same
// relay at the same time. hurry says that there are relays of whom too little is known.
func (m *Measurer) next(c *directory.Consensus) (next *directory.Relay, hurry bool) {
	var best *record
	ties := uint64(0)
	forget := m.env.Clock.Wall().Add(-m.memory())
	for i := range c.Relays {
		r := &c.Relays[i]
		if r.Identity == m.cfg.Self || !circuit.MayMeasure(r) {
			continue
		}
		x := m.relays[r.Identity]
		if x == nil {
			x = &record{id: r.Identity}
			m.relays[r.Identity] = x
		}
		x.forget(forget)
		order := -1
		if best != nil {
			if order = x.tried.Compare(best.tried); x.lacks() != best.lacks() {
				order = 1
				if x.lacks() {
					order = -1
				}
			}
		}
		switch {
		case order < 0:
			best, next, ties = x, r, 1
		case order == 0:
			if ties++; below(m.env.Rand, ties) == 0 {
				best, next = x, r
			}
		}
	}
	return next, best != nil && best.lacks()
}

// measure carries data through a relay.
func (m *Measurer) measure(c *directory.Consensus, target *directory.Relay) {
	r := m.relays[target.Identity]
	now := m.env.Clock.Wall()
	r.tried = now
	open := r.openNext()
	r.attempts++
	path, reach := m.path(c, target, open)
	if path == nil {
		m.stats.NoPath++
		if !open {
			r.failures++
		}
		return
	}
	t := circuit.Transfer{Path: path, Most: m.most, Least: m.most / leastShare}
	count := min(max(m.bytes/streamLeast, 1), streams)
	t.Bytes = min(m.bytes/count, directory.MaxSpeedBytes)
	for range count {
		request, err := m.request(path[len(path)-1].Identity, t.Bytes, now)
		if err != nil {
			m.log.Warn("no relay can be measured", "err", err)
			return
		}
		t.Requests = append(t.Requests, request)
	}
	m.cfg.Carry(t, func(got circuit.Transferred, err error) {
		if m.running {
			m.blame(path, err != nil)
			m.done(r, got, err, open, reach)
		}
	})
}

// request is a signed request for bytes.
func (m *Measurer) request(audience cert.Identity, bytes int, now time.Time) ([]byte, error) {
	t := directory.SpeedTicket{
		Audience: audience, Bytes: bytes, Expires: now.Add(directory.SpeedTicketLifetime).Truncate(time.Millisecond),
	}
	if _, err := m.env.Rand.Read(t.Nonce[:]); err != nil {
		return nil, err
	}
	sealed, err := directory.SealSpeedTicket(m.cfg.Network, t, m.cfg.Signer())
	if err != nil {
		return nil, err
	}
	return directory.Request{Kind: directory.AskBytes, Ticket: sealed}.AppendTo(nil)
}

// blame counts a failure against all relays of a circuit, of whom one was to blame, and forgets what they were blamed
// for when it worked.
func (m *Measurer) blame(path []directory.Relay, failed bool) {
	for i := range path {
		if x := m.relays[path[i].Identity]; x != nil && failed {
			x.trouble++
		} else if x != nil {
			x.trouble = 0
		}
	}
}

// done notes what a measurement found.
func (m *Measurer) done(r *record, got circuit.Transferred, err error, open bool, reach uint32) {
	if err != nil {
		m.stats.Failed++
		if !open {
			r.failures++
		}
		m.log.Debug("a measurement failed", "relay", r.id.Short(), "open", open, "err", err)
		return
	}
	kib := uint32(min(max(got.Rate>>10, 1), 1<<32-1))
	if !open {
		r.failures = 0
	}
	r.add(result{
		at: m.env.Clock.Wall().Truncate(time.Second), kib: kib, open: open,
		narrow: uint64(reach) < headroom*uint64(kib),
	})
	m.dirty = true
	m.stats.Done++
	m.stats.Bytes += uint64(got.Bytes)
	if open {
		m.stats.Open++
	}
	m.log.Debug("measured a relay", "relay", r.id.Short(), "kib_per_second", kib, "bytes", got.Bytes, "took", got.Took, "open", open)
	m.judge(r)
}

// judge reports a relay that treats authorities better than clients, once until it no longer does. Its weight needs
// no correction: only what it does for clients has ever counted.
func (m *Measurer) judge(r *record) {
	shown, seen, yes := r.deceives()
	if yes && !r.suspect {
		m.stats.Reports++
		m.log.Warn("a relay is much faster when it sees an authority than when it does not: what it does for clients counts",
			"relay", r.id.String(), "for_authorities_kib", shown, "for_clients_kib", seen)
	}
	r.suspect = yes
}

// reach is how fast a relay is taken to be when others are measured through it.
func (m *Measurer) reach(r *directory.Relay) uint32 {
	if x := m.relays[r.Identity]; x != nil {
		if kib, ok := x.guess(); ok {
			return kib
		}
	}
	return r.Weight
}

// candidate is a relay through which others may be measured.
type candidate struct {
	*directory.Relay
	reach uint32
}

// candidates are all relays but target, the fastest first, without those that were in circuits that failed.
func (m *Measurer) candidates(c *directory.Consensus, target *directory.Relay) []candidate {
	var good, all []candidate
	for i := range c.Relays {
		r := &c.Relays[i]
		if r.Identity == m.cfg.Self || r.Identity == target.Identity || !circuit.MayMeasure(r) {
			continue
		}
		x := candidate{r, m.reach(r)}
		all = append(all, x)
		if known := m.relays[r.Identity]; known == nil || known.trouble < distrust {
			good = append(good, x)
		}
	}
	if len(good) >= fastest {
		all = good
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(b.reach, a.reach) })
	return all
}

// path is a circuit through target: with an unsuspicious relay before it unless the measurement is open, and with one
// behind it that sends. Those are drawn from the relays that are twice as fast as target is known to be; when there
// are few of them, nothing is known, or it is to be seen how much faster target is openly, from the fastest quarter.
// reach is the least of their speeds. Nil when no two relays go with target.
func (m *Measurer) path(c *directory.Consensus, target *directory.Relay, open bool) (path []directory.Relay, reach uint32) {
	all := m.candidates(c, target)
	if len(all) == 0 {
		return nil, 0
	}
	least := all[min(max(fastest, len(all)/4), len(all))-1].reach
	if kib, ok := m.relays[target.Identity].guess(); ok && !open {
		least = uint32(min(uint64(least), headroom*uint64(kib)))
	}
	class := all
	if i := slices.IndexFunc(all, func(x candidate) bool { return x.reach < least }); i >= 0 {
		class = all[:i]
	}
	subnets := c.Param(directory.DistinctSubnets) != 0
	fits := func(a, b *directory.Relay) bool { return circuit.Together(a, b, subnets) }
	for _, from := range [][]candidate{class, all} {
		firsts := slices.Clone(from)
		for i := range min(len(from), drawsLast) {
			last := m.draw(from, i)
			if !fits(last.Relay, target) {
				continue
			}
			if open {
				return []directory.Relay{*target, *last.Relay}, last.reach
			}
			for j := range min(len(firsts), drawsFirst) {
				first := m.draw(firsts, j)
				if fits(first.Relay, target) && fits(first.Relay, last.Relay) {
					return []directory.Relay{*first.Relay, *target, *last.Relay}, min(first.reach, last.reach)
				}
			}
		}
	}
	return nil, 0
}

// draw is the next of a random order: it moves a random one of those from i on to place i.
func (m *Measurer) draw(list []candidate, i int) candidate {
	j := i + int(below(m.env.Rand, uint64(len(list)-i)))
	list[i], list[j] = list[j], list[i]
	return list[i]
}

// prune forgets relays that the consensus does not list and of whom nothing is known.
func (m *Measurer) prune() {
	c := m.cfg.View()
	forget := m.env.Clock.Wall().Add(-m.memory())
	for _, id := range slices.SortedFunc(maps.Keys(m.relays), cert.Identity.Compare) {
		r := m.relays[id]
		if r.forget(forget); len(r.results) == 0 && (c == nil || c.Lookup(id) == nil) {
			delete(m.relays, id)
		}
	}
}

// save stores what was found.
func (m *Measurer) save() {
	if !m.dirty {
		return
	}
	m.prune()
	data, err := encode(m.relays, m.cfg.Network.ID)
	if err != nil {
		m.log.Warn("what was measured cannot be stored", "err", err)
		return
	}
	m.dirty, m.saved = false, m.env.Clock.Now()
	m.env.Store.Save(blob, data, func(err error) {
		if err != nil {
			m.stats.SaveFails++
			m.log.Warn("what was measured cannot be stored", "err", err)
		}
	})
}

// load reads what was found before.
func (m *Measurer) load() error {
	data, err := m.env.Store.Load(blob)
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading what was measured: %w", err)
	}
	list, err := decode(data, m.cfg.Network.ID)
	if err != nil {
		return err
	}
	for _, r := range list {
		m.relays[r.id] = r
		m.common = true
		m.judge(r)
	}
	return nil
}
