package scenario

import (
	"fmt"
	"time"

	"cepa/env"
	"cepa/simnet"
)

// Advance lets d pass, or what is left. It reports that the run is over: its time is, or a checker has found
// something (Options.KeepGoing goes on), or a node could not be started (Err). Then Finish follows.
func (r *Run) Advance(d time.Duration) (done bool) {
	w := r.World
	until := min(w.Now().Add(d), r.last)
	if until < w.Now() {
		until = r.last
	}
	for !r.over && w.Now() < until {
		next := until
		if !r.quiet {
			next = min(next, r.end)
		}
		w.RunUntil(next.Sub(w.Now()), r.stop)
		if r.stop() {
			r.over = true
			break
		}
		if !r.quiet && w.Now() >= r.end {
			r.quiet, r.tally.closed = true, true
			r.Network.StopClients()
		}
	}
	if w.Now() >= r.last && r.quiet {
		r.over = true
	}
	return r.over
}

// stop reports whether there is a reason to end early.
func (r *Run) stop() bool {
	return r.err != nil || !r.Options.KeepGoing && len(r.World.Violations()) > 0
}

// Total is how long the run is, settling included.
func (r *Run) Total() time.Duration { return time.Duration(r.last) }

// Err is why the run could not go on; nil if it could.
func (r *Run) Err() error { return r.err }

func (r *Run) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Complete reports whether the run has come to the end of its time.
func (r *Run) Complete() bool { return r.quiet && r.World.Now() >= r.last }

// Finish has the checkers look at what is left over, when the run is complete, and returns all violations.
// It is called once; the hash of the run is final after it.
func (r *Run) Finish() []simnet.Violation {
	r.over = true
	if r.Complete() && !r.stop() {
		return r.World.Finish()
	}
	return r.World.Violations()
}

// Summary is how users fared after the warm-up.
type Summary struct {
	Ready, Clients int   // clients that have been ready at least once, of those that began
	Good, Bad      int   // streams that ended, well and not
	Cut            int   // that were under way when the clients were stopped
	Bytes          int64 // that came down
	FirstByte      time.Duration
	Reasons        map[string]int // of those that did not end well
}

// Summary is how users have fared until now.
func (r *Run) Summary() Summary {
	s := Summary{Good: r.tally.good, Bad: r.tally.bad, Cut: r.tally.cut, Bytes: r.tally.bytes, Reasons: r.tally.reasons}
	if r.tally.good > 0 {
		s.FirstByte = r.tally.first / time.Duration(r.tally.good)
	}
	for _, c := range r.Network.Clients {
		s.Clients++
		if c.Ready > 0 {
			s.Ready++
		}
	}
	return s
}

// tally counts what became of streams. It is a Checker that finds nothing.
type tally struct {
	simnet.Silent
	from      env.Mono
	closed    bool // clients are being stopped
	good, bad int
	cut       int
	bytes     int64
	first     time.Duration
	reasons   map[string]int
}

// Name implements simnet.Checker.
func (*tally) Name() string { return "tally" }

// maxReasons bounds how many different errors are told apart.
const maxReasons = 100

// OnFlowEnd implements simnet.Checker.
func (t *tally) OnFlowEnd(_ *simnet.World, f *simnet.Flow) {
	if f.Opened < t.from {
		return
	}
	t.bytes += f.Down
	switch {
	case f.Err == nil:
		t.good++
		t.first += f.First.Sub(f.Opened)
		return
	case t.closed:
		t.cut++
		return
	}
	t.bad++
	if t.reasons == nil {
		t.reasons = make(map[string]int)
	}
	text := f.Err.Error()
	if _, known := t.reasons[text]; known || len(t.reasons) < maxReasons {
		t.reasons[text]++
	}
}

func (r *Run) String() string {
	return fmt.Sprintf("scenario %s, seed %d, at %v of %v", r.Scenario.name, r.Seed, time.Duration(r.World.Now()), r.Total())
}

// Flow is the rule for windows of the run, one of simnet.FlowNames.
func (r *Run) Flow() string { return r.Scenario.flow(r.Options) }

// Crypto says whether the run has its cryptography: "full", or "fast".
func (r *Run) Crypto() string { return r.Scenario.crypto(r.Options) }
