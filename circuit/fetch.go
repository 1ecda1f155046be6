package circuit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/flow"
	"cepa/onion"
)

// DirectoryConfig is what a Directory is made of. All fields are needed.
type DirectoryConfig struct {
	Env       env.Env
	Links     *flow.Links
	NetworkID cert.NetworkID
	Budget    *flow.Budget
	FlowStats *flow.Stats
	Crypto    onion.Suite // nil is onion.Real
	Limits    DirectoryLimits
}

// DirectoryLimits are the bounds of a Directory, in one place (docs/protocol.md, "Bounds").
type DirectoryLimits struct {
	Fetches  int           // requests under way or waiting; more fail at once
	Circuits int           // one-hop circuits, in use or idle; more requests wait
	Parallel int           // requests at once on one circuit
	Requests int           // on one circuit in all, before it is replaced
	Idle     time.Duration // for which an unused circuit is kept
	Progress time.Duration // without any progress before a request fails
	Total    time.Duration // for one request
}

// DefaultDirectoryLimits fit clients and relays.
func DefaultDirectoryLimits() DirectoryLimits {
	return DirectoryLimits{
		Fetches:  256,
		Circuits: 32,
		Parallel: 8,
		Requests: 1000,
		Idle:     10 * time.Second,
		Progress: 10 * time.Second,
		Total:    60 * time.Second,
	}
}

// maxDirectoryRequest is the longest directory request with its length, in bytes.
const maxDirectoryRequest = 2 + directory.MaxAuthorityRequest

// Errors of Fetch. Others say why no circuit to the relay could be had.
var (
	ErrTooManyFetches = errors.New("too many directory requests at once")
	ErrRequestSize    = errors.New("directory request of no or too many bytes")
	ErrAnswerTooLong  = fmt.Errorf("directory answer longer than asked for: %w", directory.ErrTooLarge)
	ErrFetchTimeout   = errors.New("directory request timed out")
	ErrFetchAborted   = errors.New("directory request aborted")
	ErrFetchClosed    = errors.New("directory requests are closed")
)

// Directory makes directory requests over circuits of one hop, which it keeps for a while
// (docs/protocol.md, "BEGIN_DIR"). The relay is authenticated by its link and by the onion key
// in its HELLO, so no consensus is needed. See the package comment for the concurrency rule.
type Directory struct {
	wiring wiring
	limits DirectoryLimits
	log    *slog.Logger
	relays []*directoryRelay // with a circuit, in order of creation
	queue  []*fetch          // waiting for a circuit, the oldest first
	count  int               // fetches under way or waiting
	due    bool              // pump is scheduled
	closed bool
}

// NewDirectory makes a Directory. It does nothing until Fetch is called.
func NewDirectory(cfg DirectoryConfig) *Directory {
	return &Directory{
		wiring: wiring{
			env: cfg.Env, links: cfg.Links, network: cfg.NetworkID, budget: cfg.Budget, stats: cfg.FlowStats, crypto: cfg.Crypto,
		},
		limits: cfg.Limits,
		log:    cfg.Env.Log,
	}
}

// directoryRelay is a relay with a one-hop circuit. It hears that circuit.
type directoryRelay struct {
	d       *Directory
	id      cert.Identity
	circuit *circuit
	active  []*fetch // with a stream, or waiting for this circuit to open
	served  int
	used    env.Mono
	idle    env.Timer // nil while in use
}

// fetch is one request.
type fetch struct {
	d        *Directory
	to       env.Target
	exchange *exchange
	done     func([]byte, error)
	relay    *directoryRelay // nil while it waits in the queue
	stream   *flow.Stream
	progress env.Timer
	total    env.Timer
	kept     bool // the circuit existed before the request, so it may have been dead already
	retried  bool
	over     bool
}

// Fetch sends one request (with its length, copied) to a relay and gives the whole answer to done: status,
// length and bytes as docs/protocol.md, "Directory requests" has them, at most max bytes, owned by
// the callee. The content of the answer is not looked at. done is called exactly once, never before
// Fetch returns.
func (d *Directory) Fetch(to env.Target, request []byte, max int, done func(answer []byte, err error)) {
	f := &fetch{d: d, to: to, done: done}
	f.to.Addresses = slices.Clone(to.Addresses)
	f.exchange = &exchange{
		clock: d.wiring.env.Clock, request: bytes.Clone(request), max: max, moved: f.moved, done: f.finish,
	}
	d.count++
	clock := d.wiring.env.Clock
	var refused error
	switch {
	case d.closed:
		refused = ErrFetchClosed
	case len(request) == 0 || len(request) > maxDirectoryRequest:
		refused = ErrRequestSize
	case d.count > d.limits.Fetches:
		refused = ErrTooManyFetches
	}
	if refused != nil {
		f.finish(nil, refused)
		return
	}
	f.total = clock.AfterFunc(d.limits.Total, func() { f.finish(nil, ErrFetchTimeout) })
	d.queue = append(d.queue, f)
	d.pumpLater()
}

// Close ends all requests with ErrFetchClosed and all circuits.
func (d *Directory) Close() {
	d.closed = true
	for _, r := range slices.Clone(d.relays) {
		r.circuit.close()
	}
	for _, f := range slices.Clone(d.queue) {
		f.finish(nil, ErrFetchClosed)
	}
}

// Circuits is the number of one-hop circuits, building, in use or idle.
func (d *Directory) Circuits() int { return len(d.relays) }

// Fetches is the number of requests under way or waiting.
func (d *Directory) Fetches() int { return d.count }

// pumpLater has pump run as an event of its own: never inside a call of a multiplexer.
func (d *Directory) pumpLater() {
	if !d.due {
		d.due = true
		d.wiring.env.Clock.AfterFunc(0, d.pump)
	}
}

// pump gives waiting requests to circuits, in order, as far as there are any.
func (d *Directory) pump() {
	d.due = false
	waiting := d.queue
	d.queue = nil
	for _, f := range waiting {
		if !f.over && !d.place(f) {
			d.queue = append(d.queue, f)
		}
	}
	for _, r := range slices.Clone(d.relays) {
		r.settle()
	}
}

// place finds or opens a circuit for f.
func (d *Directory) place(f *fetch) bool {
	for _, r := range d.relays {
		if r.id == f.to.Identity && r.served < d.limits.Requests {
			if len(r.active) >= d.limits.Parallel {
				return false
			}
			r.take(f, true)
			return true
		}
	}
	if len(d.relays) >= d.limits.Circuits && !d.evict() {
		return false
	}
	r := &directoryRelay{d: d, id: f.to.Identity}
	d.relays = append(d.relays, r)
	r.circuit = newCircuit(&d.wiring, r, []hop{{identity: f.to.Identity, addresses: f.to.Addresses}}, true)
	r.take(f, false)
	return true
}

// evict closes the circuit that has been idle for longest.
func (d *Directory) evict() bool {
	var oldest *directoryRelay
	for _, r := range d.relays {
		if len(r.active) == 0 && (oldest == nil || r.used < oldest.used) {
			oldest = r
		}
	}
	if oldest != nil {
		oldest.circuit.close()
	}
	return oldest != nil
}

func (r *directoryRelay) take(f *fetch, kept bool) {
	f.relay, f.kept = r, kept
	r.active = append(r.active, f)
	r.served++
	if r.idle != nil {
		r.idle.Stop()
		r.idle = nil
	}
	f.moved()
	if r.circuit.state == stateOpen {
		f.begin()
	}
}

// settle begins to count the idle time of a circuit that nobody uses.
func (r *directoryRelay) settle() {
	if len(r.active) > 0 || r.idle != nil || r.circuit.state == stateDead {
		return
	}
	clock := r.d.wiring.env.Clock
	r.used = clock.Now()
	keep := r.d.limits.Idle
	if r.served >= r.d.limits.Requests {
		keep = 0
	}
	r.idle = clock.AfterFunc(keep, r.circuit.close)
}

func (r *directoryRelay) onHop(*circuit) {
	for _, f := range r.active {
		f.moved()
	}
}

func (r *directoryRelay) onOpen(*circuit) {
	for _, f := range slices.Clone(r.active) {
		f.begin()
	}
}

func (r *directoryRelay) onCell(*circuit) {}

// onDead fails the requests of the circuit. One whose circuit was there before it, and which
// has no answer yet, is asked again: the relay may have closed the circuit just then.
func (r *directoryRelay) onDead(_ *circuit, why failure) {
	d := r.d
	if r.idle != nil {
		r.idle.Stop()
	}
	d.relays = slices.DeleteFunc(d.relays, func(x *directoryRelay) bool { return x == r })
	for _, f := range slices.Clone(r.active) {
		if f.kept && !f.retried && len(f.exchange.answer) == 0 && !d.closed {
			f.relay, f.stream, f.retried = nil, nil, true
			f.exchange = f.exchange.again()
			d.queue = append(d.queue, f)
			continue
		}
		err := why.err
		if d.closed {
			err = ErrFetchClosed
		}
		f.finish(nil, err)
	}
	r.active = nil
	d.pumpLater()
}

func (f *fetch) begin() {
	s, err := f.relay.circuit.mux.Open(cell.MessageBeginDir, nil, (*fetchEvents)(f))
	if err != nil {
		f.finish(nil, fmt.Errorf("opening a directory stream: %w", err))
		return
	}
	f.stream = s
}

// moved counts as progress.
func (f *fetch) moved() {
	if f.progress == nil {
		f.progress = f.d.wiring.env.Clock.AfterFunc(f.d.limits.Progress, func() { f.finish(nil, ErrFetchTimeout) })
	} else {
		f.progress.Reset(f.d.limits.Progress)
	}
}

// finish ends f once, whatever state it is in. done and the end of the stream come as an event
// of their own, since finish may be called from inside the multiplexer.
func (f *fetch) finish(answer []byte, err error) {
	if f.over {
		return
	}
	f.over = true
	f.exchange.over = true
	d := f.d
	d.count--
	for _, t := range []env.Timer{f.progress, f.total} {
		if t != nil {
			t.Stop()
		}
	}
	r := f.relay
	if r == nil {
		d.queue = slices.DeleteFunc(d.queue, func(x *fetch) bool { return x == f })
	} else {
		r.active = slices.DeleteFunc(r.active, func(x *fetch) bool { return x == f })
	}
	d.wiring.env.Clock.AfterFunc(0, func() {
		if err != nil && f.stream != nil && r.circuit.state == stateOpen {
			f.stream.End(cell.ReasonOther)
		}
		if errors.Is(err, ErrFetchTimeout) && r != nil && len(r.active) == 0 {
			r.circuit.close() // whatever it waits for did not come
		}
		f.done(answer, err)
	})
	d.pumpLater()
}

// fetchEvents hears a request's stream.
type fetchEvents fetch

func (e *fetchEvents) OnConnected([]byte) {
	f := (*fetch)(e)
	if !f.over {
		f.moved()
		f.exchange.attach(f.stream)
	}
}

func (e *fetchEvents) OnResolved([]byte) { (*fetch)(e).finish(nil, ErrFetchAborted) }

func (e *fetchEvents) OnEnd(reason cell.Reason) {
	f := (*fetch)(e)
	f.stream = nil
	if f.relay == nil || f.relay.circuit.state == stateDead {
		return // onDead decides
	}
	f.finish(nil, fmt.Errorf("%w: %v", ErrFetchAborted, reason.Known()))
}
