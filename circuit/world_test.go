package circuit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/env/envtest"
	"cepa/flow"
	"cepa/onion/ntor"
	"cepa/relay"
)

// world is a network of relays, a client, and servers behind the exits, on a virtual clock.
type world struct {
	t         testing.TB
	f         *envtest.Fake
	id        cert.NetworkID
	relays    []*testRelay
	consensus *directory.Consensus
	client    *testClient
}

// testRelay is a real relay.Relay on a node of the fake world.
type testRelay struct {
	w      *world
	name   string
	node   *envtest.Node
	key    *ntor.OnionKey
	relay  *relay.Relay
	links  *flow.Links
	policy *directory.Policy
	stats  flow.Stats
	answer func(request []byte) []byte // of the directory
	tamper func(from *env.Peer, cells []byte)
	refuse func(cert.Identity) bool // whom it does not dial
}

const interval = time.Hour

// newWorld makes n relays, of which the last exits are exits, and no client yet.
func newWorld(t testing.TB, seed uint64, n, exits int) *world {
	w := &world{t: t, f: envtest.NewFake(seed), id: cert.NetworkID(sha256.Sum256([]byte("test network")))}
	w.f.Delay = 5 * time.Millisecond
	for i := range n {
		r := &testRelay{w: w, name: fmt.Sprintf("relay%d", i)}
		if i >= n-exits {
			p, err := directory.ParsePolicy("all")
			if err != nil {
				t.Fatal(err)
			}
			r.policy = &p
		}
		r.answer = func([]byte) []byte { return []byte("\x00\x00\x00\x00\x02ok") }
		r.key = ntor.NewOnionKey(sha256.Sum256([]byte("onion " + r.name)))
		w.relays = append(w.relays, r)
		r.start()
	}
	w.agree(nil)
	return w
}

func (r *testRelay) start() {
	r.node = r.w.f.Node(r.name)
	r.node.OnionKey = r.key.Public()
	budget := flow.NewBudget(64 << 20)
	r.stats = flow.Stats{}
	r.relay = relay.New(relay.Config{
		Env: r.node.Env, Links: func() *flow.Links { return r.links }, Budget: budget, FlowStats: &r.stats,
		Identity: r.node.Identity, NetworkID: r.w.id,
		OnionKeys: func() []*ntor.OnionKey { return []*ntor.OnionKey{r.key} },
		Directory: r, Policy: r.policy, Addresses: []netip.AddrPort{r.node.Address},
		Test: true, IPv6: true, Limits: relay.DefaultLimits(),
	})
	e := r.node.Env
	e.Dialer = &choosyDialer{e.Dialer, r}
	r.links = flow.NewLinks(flow.Config{
		Env: e, Self: r.node.Identity, Budget: budget, Handler: r, Stats: &r.stats,
	})
	r.node.Serve(r)
}

// choosyDialer lets tests choose whom a relay extends to.
type choosyDialer struct {
	env.LinkDialer
	r *testRelay
}

func (d *choosyDialer) DialLink(to env.Target, done func(env.Link, error)) {
	if d.r.refuse != nil && d.r.refuse(to.Identity) {
		d.r.node.Env.Clock.AfterFunc(0, func() { done(nil, errors.New("not a friend")) })
		return
	}
	d.LinkDialer.DialLink(to, done)
}

// LinkUp lets tests alter cells on their way in.
func (r *testRelay) LinkUp(l env.Link) env.LinkEvents {
	events := r.links.LinkUp(l)
	if events == nil {
		return nil
	}
	return &tap{events, func(cells []byte) {
		if r.tamper != nil {
			r.tamper(l.Peer(), cells)
		}
	}}
}

type tap struct {
	env.LinkEvents
	alter func(cells []byte)
}

func (t *tap) OnCells(cells []byte) {
	t.alter(cells)
	t.LinkEvents.OnCells(cells)
}

func (r *testRelay) OnLink(*flow.Link)                        {}
func (r *testRelay) OnLinkDown(*flow.Link, error)             {}
func (r *testRelay) OnCreate(leg *flow.Leg, c cell.Create)    { r.relay.OnCreate(leg, c) }
func (r *testRelay) OnGossip(*flow.Link, []byte)              {}
func (r *testRelay) IsRelayAddress(netip.AddrPort) bool       { return false }
func (r *testRelay) Addresses(cert.Identity) []netip.AddrPort { return nil }
func (r *testRelay) InConsensus(id cert.Identity) bool {
	return slices.ContainsFunc(r.w.relays, func(x *testRelay) bool { return x.node.Identity == id })
}
func (r *testRelay) Serve(request []byte, _ *env.Peer, done func([]byte)) { done(r.answer(request)) }

// agree makes a consensus of all relays but those in without.
func (w *world) agree(without []*testRelay) {
	now := w.f.Node("relay0").Env.Clock.Wall()
	c := &directory.Consensus{
		Head:       &directory.Head{ValidAfter: now, FreshUntil: now.Add(interval), ValidUntil: now.Add(24 * interval)},
		Parameters: directory.Parameters{},
	}
	for i, r := range w.relays {
		if slices.Contains(without, r) {
			continue
		}
		entry := directory.Relay{
			Identity: r.node.Identity, OnionKey: r.key.Public(), Addresses: []netip.AddrPort{r.node.Address},
			Flags:  directory.FlagGuard | directory.FlagRunning | directory.FlagValid | directory.FlagFast,
			Weight: uint32(100 + 50*(i%3)), Protocols: directory.OurProtocols(),
		}
		if r.policy != nil {
			entry.Flags |= directory.FlagExit
			entry.Ports = r.policy.Summary(true)
		}
		c.Relays = append(c.Relays, entry)
	}
	slices.SortFunc(c.Relays, func(a, b directory.Relay) int { return a.Identity.Compare(b.Identity) })
	w.consensus = c
	if w.client != nil && !w.client.c.closed {
		w.f.Do(w.client.c.ConsensusChanged)
	}
}

func (w *world) find(id cert.Identity) *testRelay {
	for _, r := range w.relays {
		if r.node.Identity == id {
			return r
		}
	}
	w.t.Fatalf("no relay %s", id.Short())
	return nil
}

// testClient is a client node.
type testClient struct {
	w       *world
	node    *envtest.Node
	links   *flow.Links
	budget  *flow.Budget
	stats   flow.Stats
	c       *Client
	dir     *Directory
	bar     error // why nobody can be dialled, or nil
	dialled map[cert.Identity]bool
}

// clientDialer notes whom a client dials, and lets tests choose what comes of it.
type clientDialer struct {
	env.LinkDialer
	x *testClient
}

func (d *clientDialer) DialLink(to env.Target, done func(env.Link, error)) {
	if d.x.dialled == nil {
		d.x.dialled = map[cert.Identity]bool{}
	}
	d.x.dialled[to.Identity] = true
	if bar := d.x.bar; bar != nil {
		d.x.node.Env.Clock.AfterFunc(50*time.Millisecond, func() { done(nil, bar) })
		return
	}
	d.LinkDialer.DialLink(to, done)
}

func (c *testClient) OnLink(*flow.Link)               {}
func (c *testClient) OnLinkDown(*flow.Link, error)    {}
func (c *testClient) OnCreate(*flow.Leg, cell.Create) {}
func (c *testClient) OnGossip(l *flow.Link, _ []byte) {}
func (w *world) newClient(change func(*Config)) *testClient {
	x := &testClient{w: w, node: w.f.Client("client"), budget: flow.NewBudget(64 << 20)}
	x.node.Env.Dialer = &clientDialer{x.node.Env.Dialer, x}
	x.links = flow.NewLinks(flow.Config{Env: x.node.Env, Budget: x.budget, Handler: x, Stats: &x.stats})
	x.node.Serve(x.links)
	cfg := Config{
		Env: x.node.Env, Links: x.links, NetworkID: w.id, Budget: x.budget, FlowStats: &x.stats,
		View: func() *directory.Consensus { return w.consensus }, Test: true, Limits: DefaultLimits(),
	}
	if change != nil {
		change(&cfg)
	}
	x.c = New(cfg)
	x.dir = NewDirectory(DirectoryConfig{
		Env: x.node.Env, Links: x.links, NetworkID: w.id, Budget: x.budget, FlowStats: &x.stats, Limits: DefaultDirectoryLimits(),
	})
	w.client = x
	w.f.Do(x.c.ConsensusChanged)
	return x
}

// server is an address of the clear net. It answers every byte with itself, and EOF with EOF.
var server = netip.MustParseAddrPort("203.0.113.7:80")

func (w *world) echo(at netip.AddrPort) {
	w.f.Listen(at, func(c env.Conn) env.ConnEvents {
		e := &echoServer{c: c}
		c.Pause(false)
		return e
	})
}

type echoServer struct {
	c      env.Conn
	paused bool
}

func (e *echoServer) OnData(p []byte) {
	e.c.Write(p)
	if e.c.Queued() > 256<<10 && !e.paused {
		e.paused = true
		e.c.Pause(true)
	}
}
func (e *echoServer) OnEOF() { e.c.CloseWrite() }
func (e *echoServer) OnDrained() {
	if e.paused && e.c.Queued() < 64<<10 {
		e.paused = false
		e.c.Pause(false)
	}
}
func (e *echoServer) OnDown(error) {}

// app is an application with one stream.
type app struct {
	h      *Handle
	near   env.Conn
	far    env.Conn
	probe  envtest.ConnProbe
	dones  int
	result Result
	err    error
	at     env.Mono
	send   []byte
}

// open asks for a stream and, once connected, sends and half-closes.
func (x *testClient) open(r Request, send []byte) *app {
	a := &app{send: send}
	x.w.f.Pipe(x.node, func(c env.Conn) env.ConnEvents {
		a.near = c
		a.h = x.c.Open(r, c, func(result Result, err error) {
			a.dones++
			a.result, a.err, a.at = result, err, x.w.f.Now()
			if err != nil {
				c.Close(nil)
			}
		})
		return a.h
	}, func(c env.Conn) env.ConnEvents {
		a.far = c
		c.Pause(false)
		for p := a.send; len(p) > 0; {
			n := min(len(p), 16<<10)
			c.Write(p[:n])
			p = p[n:]
		}
		if a.send != nil {
			c.CloseWrite()
		}
		return &a.probe
	})
	return a
}

func (a *app) over() bool {
	s := a.probe.State()
	return a.dones > 0 && (a.err != nil || s.EOFs > 0 || s.Downs > 0)
}

func web(to netip.AddrPort, isolation string) Request {
	return Request{Address: cell.IPAddress(to.Addr()), Port: to.Port(), Isolation: isolation}
}

// carry opens a stream to the echo server, runs the world and says what came of it.
func (x *testClient) carry(limit time.Duration, send []byte) error {
	a := x.open(web(server, ""), send)
	if !x.w.f.RunUntil(limit, a.over) {
		return fmt.Errorf("no end after %v (done %d, %v)", limit, a.dones, a.err)
	}
	if a.err != nil {
		return a.err
	}
	if s := a.probe.State(); s.Downs > 0 || !bytes.Equal(s.Received, send) {
		return fmt.Errorf("%d of %d bytes came back, down: %v", len(s.Received), len(send), s.Reason)
	}
	return nil
}

func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	var s [32]byte
	binary.BigEndian.PutUint64(s[:], seed)
	_, _ = rand.NewChaCha8(s).Read(b)
	return b
}

func reasonOf(err error) cell.Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return cell.ReasonNone
}
