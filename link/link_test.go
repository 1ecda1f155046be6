package link

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/env"
)

var testNetwork = cert.NetworkID(sha256.Sum256([]byte("the network of these tests")))

// testLoop runs what is posted to it, one after the other.
type testLoop struct {
	mu    sync.Mutex
	wake  sync.Cond
	queue []func()
	ended bool
	done  chan struct{}
}

func newTestLoop(t testing.TB) *testLoop {
	p := &testLoop{done: make(chan struct{})}
	p.wake.L = &p.mu
	go p.run()
	t.Cleanup(p.end)
	return p
}

func (p *testLoop) Post(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	p.queue = append(p.queue, f)
	p.wake.Signal()
	return true
}

func (p *testLoop) run() {
	defer close(p.done)
	var batch []func()
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.ended {
			p.wake.Wait()
		}
		if p.ended {
			p.mu.Unlock()
			return
		}
		batch, p.queue = p.queue, batch[:0]
		p.mu.Unlock()
		for i, f := range batch {
			f()
			batch[i] = nil
		}
	}
}

func (p *testLoop) end() {
	p.mu.Lock()
	p.ended = true
	p.wake.Signal()
	p.mu.Unlock()
	<-p.done
}

// do runs f on the loop and waits for it.
func (p *testLoop) do(f func()) {
	c := make(chan struct{})
	if p.Post(func() { f(); close(c) }) {
		<-c
	}
}

// keys of a relay, from a name.
type keys struct {
	identity cert.IdentityKey
	signer   cert.Signer
	onion    [32]byte
}

func seedOf(s string) [32]byte { return sha256.Sum256([]byte(s)) }

func newKeys(t testing.TB, network cert.NetworkID, name string, now time.Time) *keys {
	t.Helper()
	k := &keys{identity: cert.NewIdentityKey(seedOf("identity " + name)), onion: seedOf("onion " + name)}
	signing := cert.NewSigningKey(seedOf("signing " + name))
	c, err := k.identity.Certify(network, signing.Public(), now, 0)
	if err != nil {
		t.Fatal(err)
	}
	k.signer = cert.Signer{Certificate: c, Key: signing}
	return k
}

func (k *keys) statement(t testing.TB, network cert.NetworkID, until time.Time) []byte {
	t.Helper()
	key := directory.OnionKey{Key: k.onion, Until: until.Truncate(time.Millisecond)}
	sealed, err := directory.SealOnionKey(network, key, k.signer)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func (k *keys) credentials(t testing.TB, network cert.NetworkID, now time.Time) *Credentials {
	t.Helper()
	statement := k.statement(t, network, now.Add(7*24*time.Hour))
	c, err := NewCredentials(network, k.signer, seedOf("link "+k.identity.Identity().String()), now, func() []byte { return statement })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// event is what a testNode heard on a link.
type event struct {
	link env.Link
	down error
}

// testNode is a Transport with a handler that tells the test what it hears.
type testNode struct {
	*Transport
	loop  *testLoop
	keys  *keys
	addr  netip.AddrPort
	ups   chan env.Link
	downs chan event
	// onCells, if set, hears cells; set it before there are links. It runs on the loop.
	onCells   func(l env.Link, cells []byte)
	onDrained func(l env.Link)
	onRenew   func(l env.Link)
	refuse    bool
}

type nodeEvents struct {
	n *testNode
	l env.Link
}

func (n *testNode) LinkUp(l env.Link) env.LinkEvents {
	if n.refuse {
		return nil
	}
	n.ups <- l
	return &nodeEvents{n, l}
}

func (e *nodeEvents) OnCells(cells []byte) {
	if e.n.onCells != nil {
		e.n.onCells(e.l, cells)
	}
}

func (e *nodeEvents) OnDrained() {
	if e.n.onDrained != nil {
		e.n.onDrained(e.l)
	}
}

func (e *nodeEvents) OnRenew() {
	if e.n.onRenew != nil {
		e.n.onRenew(e.l)
	}
}

func (e *nodeEvents) OnDown(reason error) { e.n.downs <- event{e.l, reason} }

// newNode makes a node: a relay that listens on loopback, or a client if name is "".
func newNode(t testing.TB, name string, change func(*Config)) *testNode {
	t.Helper()
	n := &testNode{loop: newTestLoop(t), ups: make(chan env.Link, 4096), downs: make(chan event, 4096)}
	cfg := Config{
		Loop: n.loop, Network: testNetwork, Handler: n, FreeLoopback: true,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if _, ok := t.(*testing.T); !ok {
		cfg.Log = nil
	}
	if name != "" {
		n.keys = newKeys(t, testNetwork, name, time.Now())
		cfg.Credentials = n.keys.credentials(t, testNetwork, time.Now())
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if n.Transport, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Transport.Close)
	if cfg.Credentials != nil {
		ln := listen(t)
		n.addr = ln.Addr().(*net.TCPAddr).AddrPort()
		go func() {
			if err := n.Serve(ln); err != nil {
				t.Errorf("Serve: %v", err)
			}
		}()
	}
	return n
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// testWriter sends the log to the test, but not after its end.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(string(bytes.TrimSpace(p)))
	}
	return len(p), nil
}

func (n *testNode) target(addresses ...netip.AddrPort) env.Target {
	if len(addresses) == 0 {
		addresses = []netip.AddrPort{n.addr}
	}
	return env.Target{Identity: n.keys.identity.Identity(), Addresses: addresses}
}

const patience = 15 * time.Second

// dial opens a link and returns this node's end.
// settle lets the loop see what was set in the node until now.
func (n *testNode) settle() { n.loop.do(func() {}) }

func (n *testNode) dial(t testing.TB, to env.Target) (env.Link, error) {
	t.Helper()
	type result struct {
		l   env.Link
		err error
	}
	c := make(chan result, 1)
	n.DialLink(to, func(l env.Link, err error) { c <- result{l, err} })
	select {
	case r := <-c:
		return r.l, r.err
	case <-time.After(patience):
		t.Fatal("DialLink never ends")
		return nil, nil
	}
}

func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
		panic("unreachable")
	}
}

// connect returns both ends of a new link from a to b.
func connect(t testing.TB, a, b *testNode) (atA, atB env.Link) {
	t.Helper()
	a.settle() // nothing but the network is between the accepting end and this goroutine
	b.settle()
	atA, err := a.dial(t, b.target())
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	receive(t, "LinkUp at the dialling end", a.ups)
	return atA, receive(t, "LinkUp at the accepting end", b.ups)
}

// cells are n cells whose bodies differ.
func cells(n int, from uint32) []byte {
	b := make([]byte, n*cell.Size)
	for i := range n {
		c := b[i*cell.Size:][:cell.Size]
		binary.BigEndian.PutUint32(c, 7)
		c[4] = byte(cell.CommandRelay)
		for j := cell.HeaderSize; j < cell.Size-8; j += 8 {
			binary.BigEndian.PutUint32(c[j:], from+uint32(i))
			binary.BigEndian.PutUint32(c[j+4:], uint32(j)*2654435761)
		}
	}
	return b
}

func TestRelayToRelayKnowEachOther(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, "a", nil), newNode(t, "b", nil)
	atA, atB := connect(t, a, b)
	for _, end := range []struct {
		name    string
		peer    *env.Peer
		other   *testNode
		dialled bool
	}{{"dialling", atA.Peer(), b, true}, {"accepting", atB.Peer(), a, false}} {
		p := end.peer
		if p.Identity != end.other.keys.identity.Identity() || p.Client() || p.Dialled != end.dialled || p.Version != 1 ||
			p.OnionKey != end.other.keys.onion || p.Observed != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("%s end: peer %+v", end.name, *p)
		}
		if d := time.Since(p.Time); d < -time.Second || d > patience || p.Skew.Abs() > patience {
			t.Errorf("%s end: time %v, skew %v", end.name, p.Time, p.Skew)
		}
	}
	if atA.Peer().Address != b.addr {
		t.Errorf("address %v, want %v", atA.Peer().Address, b.addr)
	}
}

func TestClientIsAnonymous(t *testing.T) {
	t.Parallel()
	client, relay := newNode(t, "", nil), newNode(t, "r", nil)
	atClient, atRelay := connect(t, client, relay)
	p := atRelay.Peer()
	if !p.Client() || p.OnionKey != [32]byte{} || !p.Time.IsZero() || p.Observed.IsValid() || p.Skew != 0 {
		t.Errorf("the relay knows of the client: %+v", *p)
	}
	if p := atClient.Peer(); p.Identity != relay.keys.identity.Identity() || !p.Observed.IsValid() {
		t.Errorf("the client knows of the relay: %+v", *p)
	}
}

func TestCellsArriveWholeAndInOrderBothWays(t *testing.T) {
	t.Parallel()
	total := 64 << 20
	if testing.Short() { // as with the race detector
		total = 8 << 20
	}
	a, b := newNode(t, "a", nil), newNode(t, "b", nil)
	type side struct {
		sum      [32]byte
		sent     int
		got      int
		digest   interface{ Sum([]byte) []byte }
		finished chan struct{}
	}
	ends := map[*testNode]*side{}
	for _, n := range []*testNode{a, b} {
		h := sha256.New()
		s := &side{digest: h, finished: make(chan struct{})}
		ends[n] = s
		n.onCells = func(_ env.Link, c []byte) {
			if len(c)%cell.Size != 0 || len(c) == 0 {
				t.Errorf("OnCells with %d bytes", len(c))
			}
			h.Write(c)
			clear(c) // it is the handler's
			if s.got += len(c); s.got >= total {
				close(s.finished)
			}
		}
	}
	pump := func(n *testNode, l env.Link) {
		s := ends[n]
		h := sha256.New()
		n.loop.do(func() {
			step := func(l env.Link) {
				for s.sent < total && l.Queued() < 1<<20 {
					c := cells(1+s.sent/cell.Size%97, uint32(s.sent))
					c = c[:min(len(c), total-s.sent)]
					h.Write(c)
					l.Send(c)
					clear(c) // Send has copied
					s.sent += len(c)
				}
				h.Sum(s.sum[:0])
			}
			n.onDrained = step
			step(l)
		})
	}
	atA, atB := connect(t, a, b)
	pump(a, atA)
	pump(b, atB)
	receive(t, "64 MiB at a", ends[a].finished)
	receive(t, "64 MiB at b", ends[b].finished)
	a.loop.do(func() {})
	b.loop.do(func() {})
	if !bytes.Equal(ends[a].digest.Sum(nil), ends[b].sum[:]) || !bytes.Equal(ends[b].digest.Sum(nil), ends[a].sum[:]) {
		t.Error("what arrived is not what was sent")
	}
}

func TestOneCellArrivesWithoutWaitingForMore(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, "a", nil), newNode(t, "b", nil)
	echoed := make(chan []byte, 1)
	b.onCells = func(l env.Link, c []byte) { l.Send(c) }
	a.onCells = func(_ env.Link, c []byte) { echoed <- bytes.Clone(c) }
	atA, _ := connect(t, a, b)
	for i := range 50 {
		want := cells(1+i%9, uint32(i))
		atA.Send(want)
		var got []byte
		for len(got) < len(want) {
			got = append(got, receive(t, "the echo", echoed)...)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("echo %d differs", i)
		}
	}
}

func TestCloseFlushesThenSilence(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, "a", nil), newNode(t, "b", nil)
	got := 0
	b.onCells = func(_ env.Link, c []byte) { got += len(c) }
	a.onCells = func(env.Link, []byte) { t.Error("OnCells after Close") }
	a.onDrained = func(env.Link) { t.Error("OnDrained after Close") }
	atA, atB := connect(t, a, b)
	const n = 300
	a.loop.do(func() {
		atA.Send(cells(n, 0))
		atA.Close(errors.New("done with it"))
		atA.Close(nil)
		atA.Send(cells(1, 0))
	})
	atB.Send(cells(1, 0))
	down := receive(t, "OnDown at the far end", b.downs)
	if !errors.Is(down.down, ErrPeerClosed) || down.link != atB {
		t.Errorf("OnDown(%v)", down.down)
	}
	b.loop.do(func() {})
	if got != n*cell.Size {
		t.Errorf("%d bytes arrived before the end, want %d", got, n*cell.Size)
	}
	a.Close()
	select {
	case e := <-a.downs:
		t.Errorf("OnDown after Close: %v", e.down)
	default:
	}
}

func TestNilAnswerClosesTheLink(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, "a", nil), newNode(t, "b", nil)
	b.loop.do(func() { b.refuse = true })
	if _, err := a.dial(t, b.target()); err == nil {
		if e := receive(t, "OnDown", a.downs); !errors.Is(e.down, ErrPeerClosed) {
			t.Errorf("OnDown(%v)", e.down)
		}
	}
	b.loop.do(func() { b.refuse = false })
	a.loop.do(func() { a.refuse = true })
	if l, err := a.dial(t, b.target()); l != nil || !errors.Is(err, ErrRefused) {
		t.Errorf("DialLink with a handler that wants no link: %v, %v", l, err)
	}
}

// TestSlowLoopStopsTheReader: what waits for the loop is bounded, and goes on when the loop does.
func TestSlowLoopStopsTheReader(t *testing.T) {
	t.Parallel()
	const total = 8 << 20
	a, b := newNode(t, "a", nil), newNode(t, "b", nil)
	got := make(chan int, 1<<16)
	b.onCells = func(_ env.Link, c []byte) { got <- len(c) }
	atA, atB := connect(t, a, b)
	block := make(chan struct{})
	b.loop.Post(func() { <-block })
	for sent := 0; sent < total; sent += 1 << 16 {
		atA.Send(cells(32, 0))
	}
	l := atB.(*link)
	deadline := time.Now().Add(patience)
	for len(l.slots) < batchesLink {
		if time.Now().After(deadline) {
			t.Fatal("the reader does not fill its slots")
		}
		time.Sleep(time.Millisecond)
	}
	b.loop.mu.Lock()
	if n := len(b.loop.queue); n > batchesLink+1 {
		t.Errorf("%d events wait for the loop", n)
	}
	b.loop.mu.Unlock()
	close(block)
	for sum := 0; sum < total; {
		sum += receive(t, "the rest", got)
	}
}

// TestRecordsThatAreNoWholeCells: a peer may cut records as it likes.
func TestRecordsThatAreNoWholeCells(t *testing.T) {
	t.Parallel()
	relay := newNode(t, "r", nil)
	got := make(chan []byte, 1000)
	relay.onCells = func(_ env.Link, c []byte) { got <- bytes.Clone(c) }
	relay.settle()
	c := rawClient(t, relay.addr, nil)
	content, err := clientHello(testNetwork).AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := cells(20, 5)
	out := append(helloCell(t, content), want...) // in one record with HELLO
	for i := 0; len(out) > 0; i++ {
		n := min(len(out), []int{3000, 1, 2047, 2049, 16384, 5}[i%6])
		if _, err := c.Write(out[:n]); err != nil {
			t.Fatal(err)
		}
		out = out[n:]
	}
	var sum []byte
	for len(sum) < len(want) {
		sum = append(sum, receive(t, "cells", got)...)
	}
	if !bytes.Equal(sum, want) {
		t.Error("cells differ")
	}
	c.Write(want[:100])
	c.CloseWrite()
	if e := receive(t, "OnDown", relay.downs); !errors.Is(e.down, ErrPeerClosed) {
		t.Errorf("OnDown(%v)", e.down)
	}
}

func TestRenewIsAskedForOnce(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, "a", func(c *Config) { c.renewRecords = 10 }), newNode(t, "b", nil)
	asked := make(chan env.Link, 10)
	a.onRenew = func(l env.Link) { asked <- l }
	atA, _ := connect(t, a, b)
	for range 30 {
		atA.Send(cells(8, 0))
	}
	if l := receive(t, "OnRenew", asked); l != atA {
		t.Error("another link")
	}
	atA.Send(cells(80, 0))
	for atA.Queued() > 0 {
		time.Sleep(time.Millisecond)
	}
	a.loop.do(func() {})
	if len(asked) != 0 {
		t.Error("asked again")
	}
}

func TestSendPanicsOnAPartOfACell(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	new(link).Send(make([]byte, 100))
}

func TestSetCredentials(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, "a", nil), newNode(t, "b", nil)
	connect(t, a, b)
	renewed, err := NewCredentials(testNetwork, b.keys.signer, seedOf("another link key"), time.Now(), b.cfg.Credentials.OnionKey)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(renewed.Expires()); left > cert.MaxLink || left < cert.MaxLink-time.Minute {
		t.Errorf("credentials expire in %v", left)
	}
	if err := b.SetCredentials(renewed); err != nil {
		t.Fatal(err)
	}
	connect(t, a, b)
	c := rawClient(t, b.addr, nil)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	key := leafKey(c.ConnectionState())
	if !key.Equal(ed25519.PublicKey(renewed.Key.Public())) {
		t.Error("the new link has the old key")
	}
	other := newKeys(t, testNetwork, "c", time.Now())
	if err := b.SetCredentials(other.credentials(t, testNetwork, time.Now())); err == nil {
		t.Error("another identity was accepted")
	}
	wrong := *renewed
	wrong.Key = cert.NewLinkKey(seedOf("not certified"))
	if err := b.SetCredentials(&wrong); err == nil {
		t.Error("a key that is not certified was accepted")
	}
	if err := newNode(t, "", nil).SetCredentials(renewed); err == nil {
		t.Error("a client became a relay")
	}
}
