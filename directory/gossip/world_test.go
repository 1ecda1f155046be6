package gossip

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/limit"
)

// testLoop is an actor's loop: posted functions run one after the other.
type testLoop struct {
	mu      sync.Mutex
	cond    *sync.Cond
	queue   []func()
	stopped bool
	held    bool // runs nothing until released
}

func newTestLoop() *testLoop {
	l := &testLoop{}
	l.cond = sync.NewCond(&l.mu)
	go l.run()
	return l
}

func (l *testLoop) post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.queue = append(l.queue, f)
	l.cond.Signal()
	return true
}

func (l *testLoop) hold(held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held
	l.cond.Signal()
}

func (l *testLoop) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.cond.Signal()
}

func (l *testLoop) run() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for (len(l.queue) == 0 || l.held) && !l.stopped {
			l.cond.Wait()
		}
		if l.stopped {
			return
		}
		f := l.queue[0]
		l.queue = l.queue[1:]
		l.mu.Unlock()
		f()
		l.mu.Lock()
	}
}

// do runs f on the loop and waits for it.
func (l *testLoop) do(f func()) {
	done := make(chan struct{})
	if l.post(func() { f(); close(done) }) {
		<-done
	}
}

// author is a relay that can sign, whether it runs or not.
type author struct {
	network *directory.Network
	id      cert.Identity
	signer  cert.Signer
}

func testSeed(n int) (s [32]byte) {
	binary.BigEndian.PutUint64(s[:], uint64(n)+1)
	return s
}

func newAuthor(t testing.TB, network *directory.Network, n int) *author {
	t.Helper()
	id := cert.NewIdentityKey(testSeed(2 * n))
	key := cert.NewSigningKey(testSeed(2*n + 1))
	c, err := id.Certify(network.ID, key.Public(), time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return &author{network, id.Identity(), cert.Signer{Certificate: c, Key: key}}
}

// rumour signs a rumour published at a time, of a descriptor whose digest tells serials apart.
func (a *author) rumour(t testing.TB, serial byte, published time.Time, life time.Duration) []byte {
	t.Helper()
	published = published.Truncate(time.Millisecond)
	sealed, err := directory.SealRumour(a.network, directory.Rumour{
		Descriptor: cert.Digest{1, serial}, Address: netip.MustParseAddrPort("127.0.0.1:9001"),
		Published: published, Expires: published.Add(life),
	}, a.signer)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func (a *author) alive(sealed []byte) []byte {
	return appendAlive(nil, alive{a.id, sealed, wireIncarnation})
}

func testNetwork(t testing.TB) *directory.Network {
	t.Helper()
	id := cert.NewIdentityKey(testSeed(1 << 40))
	key := cert.NewSigningKey(testSeed(1<<40 + 1))
	network := directory.Network{
		Name: "test", ID: cert.NetworkID{7}, Created: time.Now(), Test: true,
		Authorities: []directory.Contact{{Identity: id.Identity(), Addresses: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9000")}}},
	}
	c, err := id.Certify(network.ID, key.Public(), time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := directory.NewNetwork(network, cert.Signer{Certificate: c, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func rate(perSecond, burst float64) limit.Rate { return limit.Rate{PerSecond: perSecond, Burst: burst} }

// world is some relays and the links between them.
type world struct {
	t       testing.TB
	network *directory.Network
	nodes   []*node

	mu    sync.Mutex
	links map[[2]cert.Identity]bool
}

// node is a relay of the world. It is also its own Handler, which accepts what decline does not name.
type node struct {
	*author
	w    *world
	loop *testLoop
	g    *Gossip

	mu      sync.Mutex
	heard   map[cert.Identity][]byte // the last rumour that the Handler was shown
	shown   int
	decline map[cert.Identity]bool
	blamed  []cert.Identity
}

func newWorld(t testing.TB, n int, configure func(*Config)) *world {
	t.Helper()
	w := &world{t: t, network: testNetwork(t), links: make(map[[2]cert.Identity]bool)}
	for i := range n {
		w.add(i, configure)
	}
	return w
}

func (w *world) add(i int, configure func(*Config)) *node {
	w.t.Helper()
	n := &node{author: newAuthor(w.t, w.network, i), w: w, loop: newTestLoop(), heard: make(map[cert.Identity][]byte), decline: make(map[cert.Identity]bool)}
	cfg := Config{
		Identity: n.id, Network: w.network, Rumours: n, Post: n.loop.post, Send: n.send,
		Violation: func(from cert.Identity, why error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.blamed = append(n.blamed, from)
		},
	}
	if configure != nil {
		configure(&cfg)
	}
	var err error
	if n.g, err = New(cfg); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = append(w.nodes, n)
	return n
}

func (n *node) OnRumour(sealed []byte, _ cert.Identity) bool {
	r, err := directory.OpenRumour(sealed, n.network, time.Now())
	if err != nil {
		n.w.t.Errorf("the handler was shown a rumour that does not verify: %v", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shown++
	if n.decline[r.Identity] {
		return false
	}
	n.heard[r.Identity] = sealed
	return true
}

func (n *node) send(to cert.Identity, packet []byte) bool {
	packet = bytes.Clone(packet)
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if !n.w.links[[2]cert.Identity{n.id, to}] {
		return false
	}
	if peer := n.w.byIDLocked(to); peer != nil {
		return peer.loop.post(func() { peer.g.OnPacket(n.id, packet) })
	}
	return true // somebody whom only the test plays
}

func (w *world) byIDLocked(id cert.Identity) *node {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (n *node) announce(sealed []byte) { n.loop.do(func() { n.g.Announce(sealed) }) }

// receive makes a packet arrive from a neighbour.
func (n *node) receive(from cert.Identity, packet []byte) {
	n.loop.do(func() { n.g.OnPacket(from, packet) })
}

// befriend gives the node a neighbour whom only the test plays.
func (n *node) befriend(id cert.Identity) {
	n.w.mu.Lock()
	n.w.links[[2]cert.Identity{n.id, id}] = true
	n.w.mu.Unlock()
	n.loop.do(func() { n.g.LinkUp(id, netip.Addr{}) })
}

func (w *world) link(a, b *node) {
	w.mu.Lock()
	w.links[[2]cert.Identity{a.id, b.id}], w.links[[2]cert.Identity{b.id, a.id}] = true, true
	w.mu.Unlock()
	// No packet comes before LinkUp: each loop has it in its queue before the other sends.
	a.loop.do(func() {
		b.loop.post(func() { b.g.LinkUp(a.id, netip.Addr{}) })
		a.g.LinkUp(b.id, netip.Addr{})
	})
}

func (w *world) ring() {
	for i, n := range w.nodes {
		w.link(n, w.nodes[(i+1)%len(w.nodes)])
	}
}

func (w *world) close() {
	for _, n := range w.nodes {
		n.g.Close()
		n.loop.stop()
	}
}

// knows reports whether the node's memberlist holds exactly these relays, besides itself, for alive.
func (n *node) knows(ids []cert.Identity) bool {
	want := slices.DeleteFunc(slices.Clone(ids), func(id cert.Identity) bool { return id == n.id })
	slices.SortFunc(want, cert.Identity.Compare)
	return slices.Equal(n.g.Members(), want)
}

func (n *node) timesShown() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.shown
}

// blames returns whom the node has reported so far.
func (n *node) blames() []cert.Identity {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.blamed)
}

func (n *node) last(of cert.Identity) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.heard[of]
}

func (w *world) ids() []cert.Identity {
	var ids []cert.Identity
	for _, n := range w.nodes {
		ids = append(ids, n.id)
	}
	return ids
}

// within waits for a condition, in the time of a bubble, and returns how long it took.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		synctest.Wait()
		if ok() {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func (w *world) everybodyKnows(limit time.Duration, ids []cert.Identity) time.Duration {
	w.t.Helper()
	return within(w.t, limit, "everybody knows everybody", func() bool {
		return !slices.ContainsFunc(w.nodes, func(n *node) bool { return !n.knows(ids) })
	})
}
