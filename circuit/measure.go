package circuit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"cepa/cell"
	"cepa/directory"
	"cepa/env"
	"cepa/flow"
)

// Bounds of a Transfer, besides those that its caller gives it.
const (
	transferBuild   = 15 * time.Second // until the circuit is open
	transferAnswer  = 10 * time.Second // from then until the first byte
	transferSamples = 64               // moments at which what has come is noted
	answerHead      = 5                // status and length, in front of an answer's bytes
)

// Errors of a transfer. Others say why the circuit could not be had.
var (
	ErrTransferPath    = errors.New("no path of one to eight relays, or no request")
	ErrTransferTimeout = errors.New("transfer timed out")
	ErrTransferRefused = errors.New("the last relay refused the transfer")
	ErrTransferBroken  = errors.New("the last relay ended the transfer")
	ErrTransferClosed  = errors.New("transfers are closed")
)

// Transfers carries data over circuits whose paths are given, and says how fast it came; what it brought is counted
// and thrown away (docs/protocol.md, "Measurement"). See the package comment for the concurrency rule.
type Transfers struct {
	wiring wiring
	live   []*transfer
	closed bool
}

// NewTransfers makes a Transfers. The Limits of cfg are not used.
func NewTransfers(cfg DirectoryConfig) *Transfers {
	return &Transfers{wiring: wiring{
		env: cfg.Env, links: cfg.Links, network: cfg.NetworkID, budget: cfg.Budget, stats: cfg.FlowStats, crypto: cfg.Crypto,
	}}
}

// Transfer is one thing to carry.
type Transfer struct {
	Path     []directory.Relay // 1 to 8 relays, the nearest first
	Requests [][]byte          // directory requests to the last one, with their lengths: each has a stream of its own
	Bytes    int               // that each of them is answered with
	Most     time.Duration     // after the first byte, when the rest is no longer waited for
	Least    time.Duration     // for which what comes faster than this is taken to have lasted
}

// Transferred is what came of a Transfer.
type Transferred struct {
	Bytes int           // of all answers
	Took  time.Duration // from the first byte to the last
	Rate  int           // bytes a second, without the first quarter of that time, in which windows grow
}

// Run carries t and calls done once, never before Run returns.
func (t *Transfers) Run(what Transfer, done func(Transferred, error)) {
	clock := t.wiring.env.Clock
	switch {
	case t.closed:
		clock.AfterFunc(0, func() { done(Transferred{}, ErrTransferClosed) })
		return
	case len(what.Path) == 0 || len(what.Path) > earlyCells || len(what.Requests) == 0:
		clock.AfterFunc(0, func() { done(Transferred{}, ErrTransferPath) })
		return
	}
	x := &transfer{t: t, what: what, done: done}
	t.live = append(t.live, x)
	x.timer = clock.AfterFunc(transferBuild, func() { x.finish(ErrTransferTimeout) })
	path := make([]hop, len(what.Path))
	for i, r := range what.Path {
		path[i] = hop{identity: r.Identity, onionKey: r.OnionKey, addresses: r.Addresses}
	}
	x.circuit = newCircuit(&t.wiring, x, path, false)
}

// Close ends all transfers with ErrTransferClosed.
func (t *Transfers) Close() {
	t.closed = true
	for _, x := range slices.Clone(t.live) {
		x.finish(ErrTransferClosed)
	}
}

// transfer is a Transfer under way. It hears its circuit.
type transfer struct {
	t       *Transfers
	what    Transfer
	done    func(Transferred, error)
	circuit *circuit
	timer   env.Timer
	whole   int // answers
	bytes   int // of all
	samples []sample
	over    bool
}

// sample is how much had come at a moment.
type sample struct {
	at    env.Mono
	bytes int
}

func (x *transfer) onHop(*circuit)  {}
func (x *transfer) onCell(*circuit) {}
func (x *transfer) onOpen(c *circuit) {
	x.timer.Reset(transferAnswer)
	for _, request := range x.what.Requests {
		m := &sink{x: x, request: request}
		s, err := c.mux.Open(cell.MessageBeginDir, nil, m)
		if err != nil {
			x.finish(fmt.Errorf("opening a directory stream: %w", err))
			return
		}
		m.stream = s
	}
}

func (x *transfer) onDead(_ *circuit, why failure) { x.finish(why) }

// came notes n bytes of answers.
func (x *transfer) came(n int) {
	now := x.t.wiring.env.Clock.Now()
	x.bytes += n
	switch k := len(x.samples); {
	case k == 0:
		// The first bytes started the clock; how long they took cannot be known.
		x.samples = append(x.samples, sample{now, x.bytes})
		x.timer.Stop()
		x.timer = x.t.wiring.env.Clock.AfterFunc(x.what.Most, func() { x.finish(nil) })
	case now.Sub(x.samples[k-1].at) >= x.what.Most/transferSamples:
		x.samples = append(x.samples, sample{now, x.bytes})
	}
}

// finish ends x once. The circuit and done have an event of their own, since finish may be called from inside the
// multiplexer.
func (x *transfer) finish(err error) {
	if x.over {
		return
	}
	x.over = true
	x.timer.Stop()
	now := x.t.wiring.env.Clock.Now()
	x.t.live = slices.DeleteFunc(x.t.live, func(y *transfer) bool { return y == x })
	x.t.wiring.env.Clock.AfterFunc(0, func() {
		x.circuit.close()
		if err != nil {
			x.done(Transferred{}, err)
			return
		}
		x.done(x.result(now), nil)
	})
}

// result is what came until now.
func (x *transfer) result(now env.Mono) Transferred {
	first := x.samples[0]
	took := now.Sub(first.at)
	r := Transferred{Bytes: x.bytes, Took: took}
	from := first
	for _, s := range x.samples {
		if s.at.Sub(first.at) > took/4 {
			break
		}
		from = s
	}
	rate := func(bytes int, d time.Duration) int { return int(float64(bytes) / d.Seconds()) }
	// What is too fast for the clock and the buffers on the way counts as fast as can be told.
	r.Rate = rate(x.bytes, max(x.what.Least, time.Microsecond))
	if d := now.Sub(from.at); took > x.what.Least && d > 0 {
		r.Rate = min(r.Rate, rate(x.bytes-from.bytes, d))
	}
	return r
}

// sink is the near end of one stream of a transfer: an env.Conn that sends a request and EOF, and counts the answer.
// It hears the stream, too.
type sink struct {
	x       *transfer
	request []byte
	stream  *flow.Stream
	head    []byte
	bytes   int
	sent    bool
	whole   bool
}

// Write counts the answer. Bytes that nobody asked for are no measure of anything.
func (m *sink) Write(p []byte) {
	x := m.x
	if x.over {
		return
	}
	if n := min(len(p), answerHead-len(m.head)); n > 0 {
		m.head = append(m.head, p[:n]...)
		p = p[n:]
		if len(m.head) < answerHead {
			return
		}
		if status := directory.Status(m.head[0]); status != directory.StatusOK {
			x.finish(fmt.Errorf("%w: %v", ErrTransferRefused, status))
			return
		}
		if length := binary.BigEndian.Uint32(m.head[1:]); uint64(length) != uint64(x.what.Bytes) {
			x.finish(fmt.Errorf("%w: it offers %d bytes instead of %d", ErrTransferRefused, length, x.what.Bytes))
			return
		}
	}
	if m.bytes += len(p); m.bytes > x.what.Bytes {
		x.finish(fmt.Errorf("%w: more than %d bytes came", ErrTransferBroken, x.what.Bytes))
		return
	}
	if len(p) > 0 {
		x.came(len(p))
	}
	if m.bytes == x.what.Bytes && !m.whole {
		m.whole = true
		if x.whole++; x.whole == len(x.what.Requests) {
			x.finish(nil)
		}
	}
}

// Queued is always 0: nothing is kept.
func (m *sink) Queued() int { return 0 }

// CloseWrite is the relay's EOF.
func (m *sink) CloseWrite() {
	if !m.whole {
		m.x.finish(fmt.Errorf("%w after %d of %d bytes", ErrTransferBroken, m.bytes, m.x.what.Bytes))
	}
}

// Pause sends the request, once, as an event of its own: never back into the stream that calls.
func (m *sink) Pause(paused bool) {
	if paused || m.sent {
		return
	}
	m.sent = true
	m.x.t.wiring.env.Clock.AfterFunc(0, func() {
		if !m.x.over {
			m.stream.OnData(m.request)
		}
		if !m.x.over {
			m.stream.OnEOF()
		}
	})
}

// Close says that the stream is over; OnEnd says why.
func (m *sink) Close(error) {}

func (m *sink) OnConnected([]byte) {
	if !m.x.over {
		m.stream.Attach(m)
	}
}

func (m *sink) OnResolved([]byte) { m.x.finish(ErrTransferBroken) }

func (m *sink) OnEnd(reason cell.Reason) {
	if !m.whole {
		m.x.finish(fmt.Errorf("%w: %v", ErrTransferBroken, reason.Known()))
	}
}

// MayMeasure says whether a relay of the consensus can be part of a circuit of an authority that measures.
func MayMeasure(r *directory.Relay) bool {
	return r.Flags.Has(directory.FlagRunning|directory.FlagValid) && len(r.Protocols.Missing(needed)) == 0
}

// Together says whether two relays may be in one circuit, by the rule that clients choose paths by: distinct, of no
// common family and, with subnets set, of no common IPv4 /16 or IPv6 /32.
func Together(a, b *directory.Relay, subnets bool) bool {
	return together(ruled(a), ruled(b), subnets)
}

// ruled is what the rule looks at.
func ruled(r *directory.Relay) *relayInfo {
	info := &relayInfo{hop: hop{identity: r.Identity}, families: r.Families}
	for _, a := range r.Addresses {
		info.subnets = append(info.subnets, subnetOf(a.Addr()))
	}
	return info
}
