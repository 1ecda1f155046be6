package circuit

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

// Which guard is used now, and what its failures mean.

const (
	offlineRetry = 5 * time.Second // at most, between attempts at the primaries while no guard works
	otherBase    = 30              // how much longer others wait than primaries after a failure …
	otherMost    = 12 * time.Hour  // … but not longer than this

	walkPause   = 2 * time.Second // before a second guard beyond the primaries is tried; doubles …
	walkMost    = time.Hour       // … up to this
	regroupTime = 6 * time.Second // for the primaries to come back once another guard works
)

// choose returns the guard for a new circuit: the first primary that is up or untried, else the
// first suspect. When all are down it is another that works, else, if somebody waits, one more that
// may be tried, else the first primary whose time has come and through which no circuit is being
// built. Without one it returns how long to wait; a negative time when there is nothing to wait for.
func (g *guards) choose(wanted bool) (*guard, time.Duration) {
	now := g.env.Clock.Now()
	wait := time.Duration(-1)
	var suspect, due *guard
	for _, x := range g.primary {
		left := x.retry.Sub(now)
		switch {
		case x.state != guardDown && !x.suspect:
			return x, 0
		case x.state != guardDown:
			if suspect == nil {
				suspect = x
			}
		case left <= 0 && x.trying == 0:
			if due == nil {
				due = x
			}
		default:
			wait = sooner(wait, max(left, time.Second))
		}
	}
	if suspect != nil {
		return suspect, 0
	}
	if x := g.other(); x != nil && g.asks(x) {
		return x, 0
	}
	if wanted {
		x, left := g.explore(now)
		if x != nil {
			return x, 0
		}
		wait = sooner(wait, left)
	}
	if due != nil {
		return due, 0
	}
	return nil, wait
}

// other returns the first guard beyond the primaries that works.
func (g *guards) other() (suspect *guard) {
	for _, x := range g.usable {
		switch {
		case x.primary || x.state != guardUp:
		case !x.suspect:
			return x
		case suspect == nil:
			suspect = x
		}
	}
	return suspect
}

// explore returns a guard beyond the primaries that may be tried now, one at a time: again when
// its time has come, or for the first time, with growing pauses between such guards. None while it
// is the network of this machine that is in the way.
func (g *guards) explore(now env.Mono) (*guard, time.Duration) {
	if len(g.primary) == 0 || g.obstacle() != nil {
		return nil, -1
	}
	wait := time.Duration(-1)
	var again, first *guard
	for _, x := range g.usable {
		switch left := x.retry.Sub(now); {
		case x.primary:
		case x.trying > 0:
			return nil, -1 // what becomes of that is the next event
		case x.state == guardDown && left > 0:
			wait = sooner(wait, left)
		case x.state == guardDown && again == nil:
			again = x
		case x.state == guardUntried && first == nil:
			first = x
		}
	}
	if again != nil && g.asks(again) {
		return again, 0
	}
	if first == nil {
		return nil, wait
	}
	if left := g.walk.Sub(now); left > 0 {
		return nil, sooner(wait, left)
	}
	if !g.asks(first) {
		return nil, wait
	}
	g.walk = now.Add(min(walkPause<<min(g.walked, 20), walkMost))
	g.walked++
	g.log.Info("no primary guard answers; trying another", "tried", g.walked)
	return first, 0
}

// trial returns a primary guard that was down and comes before the one in use, and whose time has come
// for one circuit that shows whether it works again; else nil and the time until the next, or a
// negative time.
func (g *guards) trial() (*guard, time.Duration) {
	now := g.env.Clock.Now()
	wait := time.Duration(-1)
	for _, x := range g.primary {
		if x.state == guardUp && !x.suspect {
			break
		}
		if x.state != guardDown || x.trying > 0 {
			continue
		}
		left := x.retry.Sub(now)
		if left <= 0 {
			return x, 0
		}
		wait = sooner(wait, left)
	}
	return nil, wait
}

// regrouping returns for how long circuits through other guards than the primaries are held back, because the
// primaries are being tried again; 0 when they are not.
func (g *guards) regrouping() time.Duration {
	now := g.env.Clock.Now()
	left := g.regroup.Sub(now)
	if left <= 0 || !slices.ContainsFunc(g.primary, func(x *guard) bool { return x.trying > 0 || x.state == guardDown && x.retry <= now }) {
		return 0
	}
	return left
}

// onSuccess: a CREATED of x was verified. It reports whether x was down before.
func (g *guards) onSuccess(x *guard) (again bool) {
	now := g.env.Clock.Now()
	if g.offline() { // it was the network; nobody is to blame
		for _, y := range g.usable {
			if y.state == guardDown {
				y.failures, y.retry = 0, min(y.retry, now)
			}
		}
		if !x.primary { // the primaries may have come back as well
			g.regroup = now.Add(regroupTime)
		}
	}
	again = x.state == guardDown
	if again {
		g.log.Info("a guard works again", "failures", x.failures)
	}
	x.state, x.failures, x.suspect, x.fault = guardUp, 0, false, nil
	x.worked = now
	g.walked, g.walk = 0, 0
	if x.primary {
		g.confirm(x)
	}
	return again
}

// onFailure: no link to x, or no CREATED from it, for a circuit begun then. When no other
// guard works either, the network is away and nobody is to blame: all are tried again soon.
func (g *guards) onFailure(x *guard, began env.Mono, err error) {
	now := g.env.Clock.Now()
	if x.state == guardUp && x.worked >= began || x.state == guardDown && x.retry > now {
		return // it has answered since, or this failure was counted with another circuit's
	}
	x.state, x.suspect, x.fault = guardDown, false, faultOf(err)
	if g.offline() {
		for _, y := range g.primary {
			y.failures = min(y.failures, 1)
			y.retry = min(y.retry, now.Add(offlineRetry))
		}
		if x.primary {
			x.retry = now.Add(min(g.base, offlineRetry))
			return
		}
	}
	x.failures++
	backoff, most := g.base, g.most
	if !x.primary {
		backoff, most = backoff*otherBase, max(most, otherMost)
	}
	for i := 1; i < x.failures && backoff < most; i++ {
		backoff *= 2
	}
	backoff = min(backoff, most)
	x.retry = now.Add(backoff + time.Duration(below(g.env.Rand, uint64(backoff/10)+1)))
	g.log.Info("a guard does not answer; using the next", "failures", x.failures, "again", backoff)
}

// fails says whether a relay is a guard that does not answer.
func (g *guards) fails(id cert.Identity) bool {
	return slices.ContainsFunc(g.usable, func(x *guard) bool { return x.id == id && (x.suspect || x.state == guardDown) })
}

// offline says that no guard works.
func (g *guards) offline() bool {
	for _, x := range g.usable {
		if x.state == guardUp || x.primary && x.state != guardDown {
			return false
		}
	}
	return true
}

// What keeps a client from all of its guards, when it is not they.
var (
	errNoNetwork = errors.New("this machine is not connected to a network")
	errPortal    = errors.New("something that is no relay answers in the place of every guard, as the login page of a network does: " +
		"open a web page without the proxy and log in, or use another network")
	errGuardLimit = errors.New("as many guards as may be asked within 30 days were asked, and none of them answers; no other is asked, " +
		"so that nobody can lead this client to guards of his own. If the network has changed for good, stop the client and remove the file guards in its folder")
)

// faultOf returns what the failure of a guard is when it says nothing about the guard, or nil.
func faultOf(err error) error {
	var clock *env.ClockError
	switch {
	case errors.Is(err, env.ErrOffline):
		return env.ErrOffline
	case errors.Is(err, env.ErrNotRelay):
		return env.ErrNotRelay
	case errors.As(err, &clock):
		return clock
	}
	return nil
}

// obstacle returns what is in the way of all primary guards alike, or nil. One guard may lie; what
// all say is so, or all are one attacker's, and then it is no worse to believe them than to fail.
func (g *guards) obstacle() error {
	var clock *env.ClockError
	count := map[error]int{}
	for _, x := range g.primary {
		kind := x.fault
		if x.state != guardDown || kind == nil {
			return nil
		}
		if errors.As(kind, &clock) {
			kind = env.ErrClock
		}
		count[kind]++
	}
	switch len(g.primary) {
	case 0:
	case count[env.ErrOffline]:
		return errNoNetwork
	case count[env.ErrNotRelay]:
		return errPortal
	case count[env.ErrClock]:
		return errClock(clock.Skew)
	}
	return nil
}

// errClock says that this machine's clock is wrong, in hours or days.
func errClock(skew time.Duration) error {
	side, by := "behind", skew
	if skew < 0 {
		side, by = "ahead of", -skew
	}
	text := by.Round(time.Minute).String()
	switch {
	case by >= 48*time.Hour:
		text = fmt.Sprintf("%d days", int(by.Hours()/24))
	case by >= 2*time.Hour:
		text = fmt.Sprintf("%d hours", int(by.Hours()))
	}
	return fmt.Errorf("the clock of this machine is %s %s those of all guards: set it", text, side)
}
