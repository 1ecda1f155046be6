package flow

import (
	"errors"
	"time"

	"cepa/cell"
	"cepa/env"
)

// Reasons for which a link is closed by time.
var (
	errDead  = errors.New("nothing came from the neighbour")
	errLost  = errors.New("nothing came on this link, and a new one to the same neighbour came up")
	errDeaf  = errors.New("neighbour took nothing of what waits for it")
	errTomb  = errors.New("neighbour did not answer DESTROY")
	errIdle  = errors.New("link had no circuits when there were many links")
	errDrain = errors.New("circuits on a replaced link outlived its last hour")
)

// tendBy makes sure that tend runs at t or before.
func (l *Link) tendBy(t env.Mono) {
	if !l.up || l.tendAt != 0 && l.tendAt <= t {
		return
	}
	l.tendAt = t
	d := t.Sub(l.links.clock.Now())
	if l.tender == nil {
		l.tender = l.links.clock.AfterFunc(d, l.onTender)
	} else {
		l.tender.Reset(d)
	}
}

func (l *Link) onTender() {
	l.links.enter()
	defer l.links.leave()
	// Time in which this node did not run (stopped, starved) says nothing about the neighbour.
	now, keepalive := l.links.clock.Now(), l.links.cfg.Keepalive
	late := max(now.Sub(l.tendAt), 0)
	if late > keepalive {
		l.grace = now.Add(keepalive)
	} else {
		l.lastIn = min(l.lastIn.Add(late), now)
		l.taken = min(l.taken.Add(late), now)
	}
	l.tendAt = 0
	l.tend()
}

// inUse reports whether the link has circuits, or had and does not know whether the neighbour has heard; and between
// relays, whether one of these had a cell lately.
func (l *Link) inUse(now env.Mono) bool {
	if len(l.circuits)+len(l.tombs) == 0 {
		return false
	}
	return l.links.client() || l.peer.Client() || now.Sub(l.stirred) < l.links.restTime()
}

// restTime is after how long without a cell of a circuit a link between relays is at rest. Before that both sides have given
// back what credit they do not use, so nothing is left that silence could hurt.
func (ls *Links) restTime() time.Duration { return returnTime + 2*ls.cfg.Keepalive }

// rhythm returns after how long without sending the link sends PADDING, and after how much silence it is dead.
func (l *Link) rhythm() (keepalive, dead time.Duration) {
	cfg := &l.links.cfg
	if l.inUse(l.links.clock.Now()) {
		return cfg.Keepalive, cfg.Dead
	}
	return cfg.IdleKeepalive, cfg.Dead * (cfg.IdleKeepalive / cfg.Keepalive)
}

// doubt returns after how much silence a link may have been lost without a word, as behind a router that forgot it or was
// changed for another: the neighbour's padding is overdue.
func (l *Link) doubt() time.Duration {
	keepalive, _ := l.rhythm()
	return keepalive + max(keepalive/5, leastDoubt)
}

func (l *Link) silent(now env.Mono) bool { return now.Sub(l.lastIn) >= l.doubt() }

// doubtBy has the side that dialled a silent link dial another beside it, and returns when to look again; 0 is never. If
// the other comes up and this one stays silent, the neighbour lives and this link does not: see judge. So a client works
// again long before the silence alone would say so, and a link to a neighbour that is slow is not given up.
func (l *Link) doubtBy(now env.Mono) env.Mono {
	switch at := max(l.lastIn.Add(l.doubt()), l.grace); {
	case !l.peer.Dialled || l.draining || l.renewing:
		return 0
	case now < at:
		return at
	case l.links.doubts.take(now, doubtEvery, doubtBurst):
		l.Renew()
		return 0
	default:
		return now.Add(time.Second)
	}
}

// tend does what time asks for on a link, and arms the timer for the next time.
func (l *Link) tend() {
	now, cfg := l.links.clock.Now(), &l.links.cfg
	if now >= l.grace {
		l.judge(now)
	}
	if !l.up {
		return
	}
	keepalive, dead := l.rhythm()
	next := now.Add(keepalive)
	if idle := l.lastOut.Add(keepalive); idle > now {
		next = idle
	} else if !l.padding {
		l.padding = true
		l.mark()
	}
	next = min(next, max(l.lastIn.Add(dead), l.grace))
	if l.env.Queued() > 0 {
		next = min(next, max(l.taken.Add(cfg.Dead), l.grace))
	}
	switch {
	case l.draining:
		next = min(next, l.drainAt.Add(drainTime))
	case !l.renewing:
		if now >= l.renewAt {
			l.Renew()
		} else {
			next = min(next, l.renewAt)
		}
	}
	if until := l.sweep(); until != 0 {
		next = min(next, max(until, l.grace))
	}
	if at := l.doubtBy(now); at != 0 {
		next = min(next, at)
	}
	if l.doubted != 0 {
		next = min(next, max(l.doubted.Add(proofTime), l.grace))
	}
	l.tendBy(max(next, now+1))
}

// judge closes a link, or destroys circuits, whose time is up.
func (l *Link) judge(now env.Mono) {
	_, dead := l.rhythm()
	if l.lastIn > l.doubted {
		l.doubted = 0
	}
	switch until := l.sweep(); {
	case l.doubted != 0 && now.Sub(l.doubted) >= proofTime:
		l.links.stats.LostLinks++
		l.Close(errLost)
	case now.Sub(l.lastIn) >= dead:
		l.links.stats.DeadLinks++
		l.Close(errDead)
	case l.env.Queued() > 0 && now.Sub(l.taken) >= l.links.cfg.Dead:
		l.links.stats.DeadLinks++
		l.Close(errDeaf)
	case until != 0 && now >= until:
		l.fail(errTomb.Error(), nil)
	case l.draining && now.Sub(l.drainAt) >= drainTime:
		l.Close(errDrain)
	case l.draining && l.unwanted(now) && now.Sub(l.drainAt) >= l.links.cfg.Dead:
		l.Close(errIdle) // the neighbour did not answer LINK_DRAIN
	case !l.draining && l.unwanted(now):
		l.links.stats.IdleLinks++
		l.drain()
	default:
		l.judgeCircuits(now)
	}
}

// judgeCircuits destroys circuits that got no credit from the neighbour for a minute although
// the link moved: nobody honest holds cells back, ends least of all. It sees to credit that is
// not used.
func (l *Link) judgeCircuits(now env.Mono) {
	for n := l.legs.first; n != nil && l.up; {
		g := n.of
		n = n.next
		if g.state == legDead {
			return // n was taken off the list by a handler: the rest is for the next time
		}
		if g.queue.n > 0 && now.Sub(g.moved) >= stuckTime && l.lastOut > g.moved {
			l.links.stats.Stuck++
			g.end(cell.ReasonTimeout)
			continue
		}
		g.tendCredit(now)
	}
}
