package envtest

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

// Epoch is the wall clock of a Fake when it is new.
var Epoch = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// Fake is a world on a virtual clock. Everything that happens is an event on one heap, ordered
// by time and then by the order in which it was scheduled, so a seed decides a whole run.
//
// Nothing happens but inside Run, RunUntil, Do and Connect, which a test calls from outside
// events. The fields may be changed at any time; they act on what is sent or asked afterwards.
type Fake struct {
	// Delay is the one-way delay of every connection and link, a millisecond at first.
	Delay time.Duration
	// Rate is the speed of each direction of every connection and link, in bytes a second;
	// 0 is without limit.
	Rate int
	// Hosts is what LookupHost answers, and Names what LookupAddr answers. What they do not
	// hold does not exist.
	Hosts map[string][]netip.Addr
	Names map[netip.Addr][]string
	// Log is the log of nodes made afterwards; it discards at first.
	Log *slog.Logger

	seed    uint64
	now     env.Mono
	seq     uint64
	events  eventHeap
	running bool
	nodes   []*Node
	servers map[netip.AddrPort]func(env.Conn) env.ConnEvents
	silent  map[netip.AddrPort]bool
}

// NewFake makes an empty world. All randomness in it comes from seed.
func NewFake(seed uint64) *Fake {
	return &Fake{
		Delay:   time.Millisecond,
		Hosts:   map[string][]netip.Addr{},
		Names:   map[netip.Addr][]string{},
		Log:     slog.New(slog.DiscardHandler),
		seed:    seed,
		servers: map[netip.AddrPort]func(env.Conn) env.ConnEvents{},
		silent:  map[netip.AddrPort]bool{},
	}
}

// Now is the virtual time, zero in a new world.
func (f *Fake) Now() env.Mono { return f.now }

// Run runs all events of the next d, and moves the clock to their end.
func (f *Fake) Run(d time.Duration) {
	end := f.now.Add(d)
	for f.step(end) {
	}
	f.now = end
}

// RunUntil runs events until cond holds, asking between any two events. It reports false if
// cond does not hold when limit has passed; the clock then stands at that limit.
func (f *Fake) RunUntil(limit time.Duration, cond func() bool) bool {
	end := f.now.Add(limit)
	for !cond() {
		if !f.step(end) {
			f.now = end
			return false
		}
	}
	return true
}

// Do runs fn as an event of the present instant, after those that are due already.
func (f *Fake) Do(fn func()) {
	done := false
	f.schedule(nil, 0, func() { fn(); done = true })
	for !done {
		f.step(f.now)
	}
}

// step runs the next event, if it is due by end.
func (f *Fake) step(end env.Mono) bool {
	if f.running {
		panic("envtest: the world is run from inside an event")
	}
	for len(f.events) > 0 && f.events[0].at <= end {
		e := heap.Pop(&f.events).(*event)
		if e.stopped || (e.node != nil && e.node.stopped) {
			continue
		}
		e.stopped = true
		f.now = e.at
		f.running = true
		e.f()
		f.running = false
		return true
	}
	return false
}

// event is one entry of the heap. An event of a node that was stopped, or of the past, does
// nothing.
type event struct {
	at      env.Mono
	seq     uint64
	node    *Node // nil: an event of the world
	stopped bool
	f       func()
}

func (f *Fake) schedule(n *Node, d time.Duration, fn func()) *event {
	return f.scheduleAt(n, f.now.Add(max(d, 0)), fn)
}

func (f *Fake) scheduleAt(n *Node, at env.Mono, fn func()) *event {
	f.seq++
	e := &event{at: at, seq: f.seq, node: n, f: fn}
	heap.Push(&f.events, e)
	return e
}

type eventHeap []*event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(*event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}

// Node is one machine of a Fake, with the environment of the actor that lives on it. Its
// fields may be changed as long as nobody has used them.
type Node struct {
	Name string
	// Identity is zero in a client, which nobody can dial.
	Identity cert.Identity
	// Address is where Identity answers. Each node has one in a /16 of its own.
	Address netip.AddrPort
	// OnionKey is what Peer shows of this node.
	OnionKey [32]byte
	// Skew is how far this node's wall clock is ahead.
	Skew time.Duration
	// Uplink says how many bytes a second the node can send to another, or with nil to the clear
	// net, through one queue for all; 0 is without limit and beside the queue. A nil Uplink has
	// no limit.
	Uplink func(to *Node) int
	// Env is complete.
	Env env.Env

	f        *Fake
	handler  env.LinkHandler
	stopped  bool
	vanished bool
	ends     []*end
	blobs    map[string][]byte
	sending  env.Mono // until when what has left keeps the uplink busy
}

// Node is the relay of that name. The first call makes it, and so does the first after it was
// stopped: it then has the same identity, address and store, and a new Env.
func (f *Fake) Node(name string) *Node {
	return f.node(name, cert.Identity(sha256.Sum256([]byte("identity "+name))))
}

// Client is as Node, but without an identity: it can dial and cannot be dialled.
func (f *Fake) Client(name string) *Node { return f.node(name, cert.Identity{}) }

func (f *Fake) node(name string, id cert.Identity) *Node {
	i := slices.IndexFunc(f.nodes, func(n *Node) bool { return n.Name == name })
	if i >= 0 && !f.nodes[i].stopped {
		return f.nodes[i]
	}
	n := &Node{Name: name, Identity: id, f: f, blobs: map[string][]byte{}}
	if i >= 0 {
		old := f.nodes[i]
		n.Identity, n.Address, n.OnionKey, n.Skew, n.Uplink, n.blobs = old.Identity, old.Address, old.OnionKey, old.Skew, old.Uplink, old.blobs
		f.nodes[i] = n
	} else {
		n.Address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{45 + byte(len(f.nodes)/256), byte(len(f.nodes)), 0, 1}), 9001)
		n.OnionKey = sha256.Sum256([]byte("onion key " + name))
		f.nodes = append(f.nodes, n)
	}
	n.Env = env.Env{
		Clock:   fakeClock{n},
		Rand:    newRand(f.seed, fmt.Sprintf("node %s at %d", name, f.now)),
		Log:     f.Log.With("node", name),
		Dialer:  fakeDialer{n},
		Network: fakeNetwork{n},
		Pool:    fakePool{n},
		Store:   fakeStore{n},
	}
	return n
}

// Target is what others dial to reach n.
func (n *Node) Target() env.Target {
	return env.Target{Identity: n.Identity, Addresses: []netip.AddrPort{n.Address}}
}

// Serve says who is told of the links of n. Without a handler n refuses links.
func (n *Node) Serve(h env.LinkHandler) { n.handler = h }

// Stop ends n as a crash does: it runs no more events, and its links and connections are reset.
func (n *Node) Stop() {
	n.stopped = true
	for _, e := range slices.Clone(n.ends) {
		e.close(errStopped)
	}
}

// Vanish makes the packets from and to n disappear, or appear again: links and connections
// stall, attempts to connect time out. The node itself goes on.
func (n *Node) Vanish(vanished bool) {
	n.vanished = vanished
	for _, e := range slices.Clone(n.ends) {
		e.out.pump()
		e.in.pump()
	}
}

// Vanished is the argument of the last Vanish.
func (n *Node) Vanished() bool { return n.vanished }

type fakeClock struct{ n *Node }

func (c fakeClock) Now() env.Mono { return c.n.f.now }
func (c fakeClock) Wall() time.Time {
	return Epoch.Add(time.Duration(c.n.f.now) + c.n.Skew)
}
func (c fakeClock) AfterFunc(d time.Duration, fn func()) env.Timer {
	return &fakeTimer{n: c.n, f: fn, e: c.n.f.schedule(c.n, d, fn)}
}

type fakeTimer struct {
	n *Node
	f func()
	e *event
}

func (t *fakeTimer) Stop() bool {
	pending := !t.e.stopped
	t.e.stopped = true
	return pending
}

func (t *fakeTimer) Reset(d time.Duration) {
	t.e.stopped = true
	t.e = t.n.f.schedule(t.n, d, t.f)
}

// newRand is the stream of randomness called name.
func newRand(seed uint64, name string) *rand.ChaCha8 {
	return rand.NewChaCha8(sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, seed), name...)))
}

type fakePool struct{ n *Node }

func (p fakePool) Offload(work, done func()) {
	p.n.f.schedule(p.n, 0, func() { work(); done() })
}

type fakeStore struct{ n *Node }

func (s fakeStore) Load(name string) ([]byte, error) {
	data, ok := s.n.blobs[name]
	if !ok {
		return nil, &fs.PathError{Op: "load", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Clone(data), nil
}

func (s fakeStore) Save(name string, data []byte, done func(error)) {
	data = slices.Clone(data)
	s.n.f.schedule(s.n, 0, func() {
		var err error
		if validName(name) {
			s.n.blobs[name] = data
		} else {
			err = &fs.PathError{Op: "save", Path: name, Err: fs.ErrInvalid}
		}
		if done != nil {
			done(err)
		}
	})
}

func validName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 64 && name[0] != '.' && name[len(name)-1] != '.'
}
