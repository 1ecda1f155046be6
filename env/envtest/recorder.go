package envtest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
)

// Recorder writes a transcript of what passes between actors and their worlds. A line is
//
//	0.004000 client <- link 1: up, dialled e3b0c442
//	0.004000 client -> link 1: CREATE 80000001 9f86d081
//
// the seconds since the clock's origin, the node, an event (<-) or an action (->), the object,
// and what happened. Objects are numbered in the order in which they appear at their node. Cells
// are shown by command, circuit id and a digest of the body; other bytes by number and digest.
type Recorder struct {
	// Cell describes a cell instead, if it is not nil.
	Cell func(cell []byte) string
	// Timers are recorded too; they are many.
	Timers bool

	lines strings.Builder
}

// String is the transcript until now.
func (r *Recorder) String() string { return r.lines.String() }

// Node wraps the world of one node: its actor gets the Env of the result.
func (r *Recorder) Node(name string, e env.Env) *RecordedNode {
	n := &RecordedNode{r: r, name: name, inner: e, links: map[env.Link]*recordedLink{}, Env: e}
	n.Env.Clock = recordedClock{n, e.Clock}
	n.Env.Pool = recordedPool{n}
	n.Env.Store = recordedStore{n, e.Store}
	if e.Dialer != nil {
		n.Env.Dialer = recordedDialer{n}
	}
	if e.Network != nil {
		n.Env.Network = recordedNetwork{n}
	}
	return n
}

// RecordedNode is the wrapped world of one node.
type RecordedNode struct {
	Env env.Env

	r     *Recorder
	name  string
	inner env.Env
	links map[env.Link]*recordedLink
	conns int
	count [3]int // timers, offloads, dials
}

// Note adds a line of the test's own.
func (n *RecordedNode) Note(format string, args ...any) {
	n.line("--", format, args...)
}

func (n *RecordedNode) line(arrow, format string, args ...any) {
	at := time.Duration(n.inner.Clock.Now())
	fmt.Fprintf(&n.r.lines, "%d.%06d %s %s ", at/time.Second, at%time.Second/time.Microsecond, n.name, arrow)
	fmt.Fprintf(&n.r.lines, format, args...)
	n.r.lines.WriteByte('\n')
}

func (n *RecordedNode) number(i int) int {
	n.count[i]++
	return n.count[i]
}

// Handler wraps what hears of the node's links.
func (n *RecordedNode) Handler(h env.LinkHandler) env.LinkHandler {
	return LinkUpFunc(func(l env.Link) env.LinkEvents {
		r := &recordedLink{Link: l, n: n, id: len(n.links) + 1}
		n.links[l] = r
		who, how := "a client", "accepted"
		if !l.Peer().Client() {
			who = l.Peer().Identity.Short()
		}
		if l.Peer().Dialled {
			how = "dialled"
		}
		n.line("<-", "link %d: up, %s %s", r.id, how, who)
		events := h.LinkUp(r)
		if events == nil {
			n.line("->", "link %d: refuse", r.id)
			return nil
		}
		return recordedLinkEvents{r, events}
	})
}

// Conn wraps what hears of a connection that is not made with DialConn.
func (n *RecordedNode) Conn(up func(env.Conn) env.ConnEvents) func(env.Conn) env.ConnEvents {
	return func(c env.Conn) env.ConnEvents {
		r := n.newConn(c)
		n.line("<-", "conn %d: up", r.id)
		return r.hear(up(r))
	}
}

func (n *RecordedNode) newConn(c env.Conn) *recordedConn {
	n.conns++
	return &recordedConn{Conn: c, n: n, id: n.conns}
}

// bytesOf describes data.
func bytesOf(data []byte) string {
	digest := sha256.Sum256(data)
	return fmt.Sprintf("%d bytes %x", len(data), digest[:4])
}

func (r *Recorder) describe(c []byte) string {
	if len(c) < cell.Size {
		return "torn cell, " + bytesOf(c)
	}
	if r.Cell != nil {
		return r.Cell(c)
	}
	digest := sha256.Sum256(c[cell.HeaderSize:])
	return fmt.Sprintf("%v %08x %x", cell.Command(c[4]&0x7f), binary.BigEndian.Uint32(c), digest[:4])
}

func (l *recordedLink) cells(arrow string, b []byte) {
	for ; len(b) > 0; b = b[min(len(b), cell.Size):] {
		l.n.line(arrow, "link %d: %s", l.id, l.n.r.describe(b[:min(len(b), cell.Size)]))
	}
}

type recordedLink struct {
	env.Link
	n  *RecordedNode
	id int
}

func (l *recordedLink) Send(cells []byte) {
	l.cells("->", cells)
	l.Link.Send(cells)
}

func (l *recordedLink) Close(reason error) {
	l.n.line("->", "link %d: close (%v)", l.id, reason)
	l.Link.Close(reason)
}

type recordedLinkEvents struct {
	l      *recordedLink
	events env.LinkEvents
}

func (e recordedLinkEvents) OnCells(cells []byte) {
	e.l.cells("<-", cells)
	e.events.OnCells(cells)
}

func (e recordedLinkEvents) OnDrained() {
	e.l.n.line("<-", "link %d: drained, %d queued", e.l.id, e.l.Queued())
	e.events.OnDrained()
}

func (e recordedLinkEvents) OnDown(reason error) {
	e.l.n.line("<-", "link %d: down (%v)", e.l.id, reason)
	e.events.OnDown(reason)
}

type recordedConn struct {
	env.Conn
	n  *RecordedNode
	id int
}

func (c *recordedConn) hear(events env.ConnEvents) env.ConnEvents {
	if events == nil {
		c.n.line("->", "conn %d: refuse", c.id)
		return nil
	}
	return recordedConnEvents{c, events}
}

func (c *recordedConn) Write(p []byte) {
	c.n.line("->", "conn %d: write %s", c.id, bytesOf(p))
	c.Conn.Write(p)
}

func (c *recordedConn) Pause(paused bool) {
	c.n.line("->", "conn %d: pause %v", c.id, paused)
	c.Conn.Pause(paused)
}

func (c *recordedConn) CloseWrite() {
	c.n.line("->", "conn %d: EOF", c.id)
	c.Conn.CloseWrite()
}

func (c *recordedConn) Close(reason error) {
	c.n.line("->", "conn %d: close (%v)", c.id, reason)
	c.Conn.Close(reason)
}

type recordedConnEvents struct {
	c      *recordedConn
	events env.ConnEvents
}

func (e recordedConnEvents) OnData(p []byte) {
	e.c.n.line("<-", "conn %d: data %s", e.c.id, bytesOf(p))
	e.events.OnData(p)
}

func (e recordedConnEvents) OnEOF() {
	e.c.n.line("<-", "conn %d: EOF", e.c.id)
	e.events.OnEOF()
}

func (e recordedConnEvents) OnDrained() {
	e.c.n.line("<-", "conn %d: drained, %d queued", e.c.id, e.c.Queued())
	e.events.OnDrained()
}

func (e recordedConnEvents) OnDown(reason error) {
	e.c.n.line("<-", "conn %d: down (%v)", e.c.id, reason)
	e.events.OnDown(reason)
}

type recordedClock struct {
	n *RecordedNode
	env.Clock
}

func (c recordedClock) AfterFunc(d time.Duration, f func()) env.Timer {
	if !c.n.r.Timers {
		return c.Clock.AfterFunc(d, f)
	}
	t := &recordedTimer{n: c.n, id: c.n.number(0)}
	c.n.line("->", "timer %d: in %v", t.id, d)
	t.Timer = c.Clock.AfterFunc(d, func() {
		c.n.line("<-", "timer %d: fires", t.id)
		f()
	})
	return t
}

type recordedTimer struct {
	env.Timer
	n  *RecordedNode
	id int
}

func (t *recordedTimer) Stop() bool {
	t.n.line("->", "timer %d: stop", t.id)
	return t.Timer.Stop()
}

func (t *recordedTimer) Reset(d time.Duration) {
	t.n.line("->", "timer %d: in %v", t.id, d)
	t.Timer.Reset(d)
}

type recordedPool struct{ n *RecordedNode }

func (p recordedPool) Offload(work, done func()) {
	id := p.n.number(1)
	p.n.line("->", "offload %d", id)
	p.n.inner.Pool.Offload(work, func() {
		p.n.line("<-", "offload %d: done", id)
		done()
	})
}

type recordedStore struct {
	n *RecordedNode
	env.Store
}

func (s recordedStore) Save(name string, data []byte, done func(error)) {
	s.n.line("->", "save %s: %s", name, bytesOf(data))
	s.Store.Save(name, data, func(err error) {
		s.n.line("<-", "save %s: done (%v)", name, err)
		if done != nil {
			done(err)
		}
	})
}

type recordedDialer struct{ n *RecordedNode }

func (d recordedDialer) DialLink(to env.Target, done func(env.Link, error)) {
	id := d.n.number(2)
	d.n.line("->", "dial %d: %s at %v", id, to.Identity.Short(), to.Addresses)
	d.n.inner.Dialer.DialLink(to, func(l env.Link, err error) {
		if err != nil {
			d.n.line("<-", "dial %d: failed (%v)", id, err)
			done(nil, err)
			return
		}
		r := d.n.links[l]
		if r == nil {
			panic("envtest: a link was dialled and Handler was not told of it")
		}
		d.n.line("<-", "dial %d: link %d", id, r.id)
		done(r, nil)
	})
}

type recordedNetwork struct{ n *RecordedNode }

func (w recordedNetwork) DialConn(to netip.AddrPort, timeout time.Duration, up func(env.Conn, error) env.ConnEvents) (cancel func()) {
	id := w.n.number(2)
	w.n.line("->", "dial %d: %v within %v", id, to, timeout)
	giveUp := w.n.inner.Network.DialConn(to, timeout, func(c env.Conn, err error) env.ConnEvents {
		if err != nil {
			w.n.line("<-", "dial %d: failed (%v)", id, err)
			return up(nil, err)
		}
		r := w.n.newConn(c)
		w.n.line("<-", "dial %d: conn %d", id, r.id)
		return r.hear(up(r, nil))
	})
	return func() {
		w.n.line("->", "dial %d: cancel", id)
		giveUp()
	}
}

func (w recordedNetwork) LookupHost(name string, timeout time.Duration, done func([]netip.Addr, error)) {
	w.n.line("->", "look-up %s", name)
	w.n.inner.Network.LookupHost(name, timeout, func(addrs []netip.Addr, err error) {
		w.n.line("<-", "look-up %s: %v (%v)", name, addrs, err)
		done(addrs, err)
	})
}

func (w recordedNetwork) LookupAddr(addr netip.Addr, timeout time.Duration, done func([]string, error)) {
	w.n.line("->", "look-up %v", addr)
	w.n.inner.Network.LookupAddr(addr, timeout, func(names []string, err error) {
		w.n.line("<-", "look-up %v: %q (%v)", addr, names, err)
		done(names, err)
	})
}

// Golden fails the test if got is not what the file holds, and shows the first difference. With
// the environment variable CEPA_GOLDEN=write it writes the file instead; read the difference
// before it is committed.
func Golden(t testing.TB, file, got string) {
	t.Helper()
	if os.Getenv("CEPA_GOLDEN") == "write" {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (to write it: CEPA_GOLDEN=write go test)", err)
	}
	if diff := firstDifference(strings.ReplaceAll(string(data), "\r\n", "\n"), got); diff != "" {
		t.Errorf("not as in %s: %s\nto accept: CEPA_GOLDEN=write go test", file, diff)
	}
}

// firstDifference shows where two texts part, or is empty.
func firstDifference(want, got string) string {
	if want == got {
		return ""
	}
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	i := 0
	for i < len(w) && i < len(g) && w[i] == g[i] {
		i++
	}
	line := func(s []string) string {
		if i < len(s) {
			return s[i]
		}
		return "(end)"
	}
	before := strings.Join(w[max(0, i-3):i], "\n\t")
	return fmt.Sprintf("line %d\n\t%s\nwant\t%s\ngot\t%s", i+1, before, line(w), line(g))
}
