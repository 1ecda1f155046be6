package gossip

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/limit"
)

// parcel is a packet on its way from the loop to the worker.
type parcel struct {
	from    *neighbour
	account string // of whose budgets it takes
	packet  []byte
}

// news is a rumour that verified and is newer than what is held.
type news struct {
	rumour directory.Rumour
	sealed []byte
	from   cert.Identity
}

const (
	tick         = time.Second      // of the worker's chores
	longTick     = 10               // ticks between two searches for what has expired, and at least between two trickles
	trickleShare = 30               // trickles in an interval, if they are not more often than that
	welcomePause = 2 * time.Second  // between the two welcomes
	maxTrickle   = 5 * time.Minute  // between two trickles
	trickleSize  = 4                // rumours, which fit into one packet
	renewPause   = 10 * time.Minute // at least, between two replacements of memberlist that remembers many dead
	renewSoon    = time.Minute      // and of one that can be told of nobody else
)

// work is the worker: it reads packets one by one, each to its end, so at most one waits for the loop.
func (g *Gossip) work() {
	chores := time.NewTicker(tick)
	defer chores.Stop()
	for n := 1; ; {
		select {
		case <-g.quit:
			return
		case p := <-g.inbox:
			g.read(p)
		case <-g.announced:
			g.update()
		case <-chores.C:
			g.chores(n%longTick == 0)
			n++
		}
	}
}

// update makes memberlist spread the own rumour. UpdateNode would wait until that has happened.
func (g *Gossip) update() {
	if err := g.driver.list.UpdateNode(time.Nanosecond); err != nil {
		g.log.Debug("gossip: own rumour is on its way")
	}
}

// onLoop runs f on the loop and returns when it has run, or when the gossip ends.
func (g *Gossip) onLoop(f func()) {
	done := make(chan struct{})
	if !g.post(func() {
		f()
		close(done)
	}) {
		return
	}
	select {
	case <-done:
	case <-g.quit:
	}
}

// read judges one packet and brings what is new in it to the Handler and to memberlist.
func (g *Gossip) read(p parcel) {
	p.from.queued.Add(-1)
	from := p.from.id
	alives, reason, err := decodePacket(p.packet)
	if err != nil && g.cfg.Undefended.Messages { // as memberlist does by itself
		g.driver.feed(p.packet)
		return
	}
	if err != nil {
		g.counters.drop(reason)
		g.violation(from, err)
		return
	}
	var fresh []news
	for _, a := range alives {
		n, reason, err := g.examine(a, p)
		if reason == 0 {
			fresh = append(fresh, n)
			continue
		}
		g.counters.drop(reason)
		if reason == DropSquatted {
			g.violation(from, err)
			return
		}
	}
	if len(fresh) == 0 {
		return
	}
	g.onLoop(func() {
		for _, n := range fresh {
			if !g.cfg.Rumours.OnRumour(n.sealed, from) {
				g.counters.drop(DropDeclined)
				continue
			}
			g.admit(n)
		}
	})
}

// examine checks one message, the cheapest checks first. With a reason it is to be dropped.
func (g *Gossip) examine(a alive, p parcel) (n news, reason Reason, err error) {
	now, from := g.now(), p.from.id
	switch {
	case !g.messages.take(p.account, now) && !g.cfg.Undefended.Budgets:
		return n, DropMessageBudget, nil
	case a.id == g.self:
		return n, DropOwnName, nil
	case g.known(a):
		return n, DropDuplicate, nil
	}
	h := g.memory.hash(a)
	verified, seen := g.memory.find(h, now)
	switch {
	case seen && (verified == nil || !now.Before(verified.Expires) || !g.newer(verified)):
		return n, DropDuplicate, nil
	case (!g.verify.take(p.account, now) || !g.verifyAll.take(now)) && !g.cfg.Undefended.Budgets:
		return n, DropVerifyBudget, nil
	case seen: // but not accepted, or not yet: the Handler hears that this neighbour tells it as well
		return news{*verified, bytes.Clone(a.meta), from}, 0, nil
	}
	g.memory.add(h, nil)
	g.counters.verified.Add(1)
	sealed := bytes.Clone(a.meta) // the packet is not kept
	r, err := directory.OpenRumour(sealed, g.cfg.Network, now)
	switch {
	case err != nil:
		g.log.Debug("gossip: rumour refused", "neighbour", from.Short(), "error", err)
		return n, DropInvalid, err
	case r.Identity != a.id:
		return n, DropSquatted, errSquatted
	case !g.newer(&r):
		return n, DropStale, nil
	}
	g.memory.add(h, &r)
	return news{r, sealed, from}, 0, nil
}

// violation tells the node of a neighbour that sent what no honest relay sends.
func (g *Gossip) violation(from cert.Identity, why error) {
	if g.cfg.Violation == nil {
		return
	}
	g.onLoop(func() { g.cfg.Violation(from, why) })
}

// chores are what has to be done from time to time.
func (g *Gossip) chores(long bool) {
	g.mu.Lock()
	now := g.now()
	if long {
		g.expireLocked(now)
	}
	if g.waiting > 0 {
		for _, e := range g.table {
			if e.waiting && g.nameRoomLocked(e.rumour.Identity) && !g.feedLocked(e) {
				break
			}
		}
	}
	dead := len(g.driver.names) - len(g.table)
	pause := now.Sub(g.renewed)
	renew := (dead > g.limits.Members/4 || g.incarnation >= maxIncarnation) && pause >= renewPause || g.namesFullLocked() && pause >= renewSoon
	g.mu.Unlock()
	if renew {
		g.renewed = now
		g.renew()
	}
	g.onLoop(func() {
		g.welcomeAgain()
		if g.cfg.Dial != nil {
			g.dial()
		}
		if long && now.Sub(g.trickled) >= min(g.cfg.Network.Interval()/trickleShare, maxTrickle) {
			g.trickled = now
			g.trickle()
		}
	})
}

// renew replaces memberlist by one that remembers no dead. The chores feed it the living.
func (g *Gossip) renew() {
	d := g.newDriver()
	if err := d.start(); err != nil {
		g.log.Error("gossip: replacing memberlist", "error", err)
		return
	}
	g.mu.Lock()
	old := g.driver
	g.driver, g.incarnation = d, 0
	for _, e := range g.table {
		g.incarnation++
		e.incarnation = g.incarnation
		g.waitLocked(e, true)
	}
	g.mu.Unlock()
	old.stop()
	g.counters.renewals.Add(1)
}

// logWriter turns memberlist's lines into debug lines, of which it lets few pass.
type logWriter struct {
	log *slog.Logger

	mu      sync.Mutex
	bucket  bucket
	skipped int
}

// newLogWriter passes on a line a second, and 20 at once.
func newLogWriter(log *slog.Logger) *logWriter {
	return &logWriter{log: log, bucket: newBucket(limit.Rate{PerSecond: 1, Burst: 20}, time.Now())}
}

// maxLine is the most of a line of memberlist that is logged, in bytes: some repeat what a message contained.
const maxLine = 200

// Write logs one line.
func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	if !w.bucket.take(time.Now()) {
		w.skipped++
		w.mu.Unlock()
		return len(p), nil
	}
	skipped := w.skipped
	w.skipped = 0
	w.mu.Unlock()
	line := strings.TrimSpace(string(p[:min(len(p), maxLine)]))
	w.log.Debug("memberlist", "line", strings.ToValidUTF8(line, "?"), "left_out", skipped)
	return len(p), nil
}
