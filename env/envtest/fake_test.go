package envtest

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"cepa/env"
)

// A small actor with every kind of action: used for the recorder and for determinism.
func scenario(seed uint64) string {
	f := NewFake(seed)
	f.Hosts["web.example"] = []netip.Addr{netip.MustParseAddr("192.0.2.80")}
	f.Listen(addrPort("192.0.2.80:80"), func(c env.Conn) env.ConnEvents {
		p := &ConnProbe{Data: c.Write, EOF: c.CloseWrite}
		c.Pause(false)
		return p
	})
	r := &Recorder{Timers: true}
	relay, client := f.Node("relay"), f.Client("client")
	atRelay, atClient := r.Node("relay", relay.Env), r.Node("client", client.Env)
	relay.Serve(atRelay.Handler(LinkUpFunc(func(l env.Link) env.LinkEvents {
		return &LinkProbe{Cells: func(cells []byte) {
			atRelay.Env.Network.LookupHost("web.example", time.Second, func(addrs []netip.Addr, err error) {
				atRelay.Env.Network.DialConn(netip.AddrPortFrom(addrs[0], 80), time.Second, func(c env.Conn, err error) env.ConnEvents {
					c.Write([]byte("question"))
					c.CloseWrite()
					c.Pause(false)
					return &ConnProbe{Data: func(p []byte) { l.Send(relayCells(1, 2)) }, EOF: func() { c.Close(nil) }}
				})
			})
		}}
	})))
	client.Serve(atClient.Handler(LinkUpFunc(func(l env.Link) env.LinkEvents {
		return &LinkProbe{Cells: func([]byte) { l.Close(errors.New("enough")) }}
	})))
	f.Do(func() {
		e := atClient.Env
		e.Store.Save("state", []byte("x"), nil)
		e.Pool.Offload(func() {}, func() {})
		timer := e.Clock.AfterFunc(time.Second, func() { atClient.Note("never") })
		e.Dialer.DialLink(relay.Target(), func(l env.Link, err error) {
			timer.Stop()
			cells := relayCells(2, 1)
			_, _ = e.Rand.Read(cells[5:])
			l.Send(cells)
		})
		e.Network.DialConn(addrPort("192.0.2.80:81"), time.Second, func(env.Conn, error) env.ConnEvents { return nil })
	})
	f.Run(time.Minute)
	return r.String()
}

func TestRecorderWritesWhatHappened(t *testing.T) {
	t.Parallel()
	Golden(t, "testdata/scenario.txt", scenario(1))
}

// A seed decides a run, and another seed makes another.
func TestSeedDecidesRun(t *testing.T) {
	t.Parallel()
	if diff := firstDifference(scenario(7), scenario(7)); diff != "" {
		t.Errorf("two runs of one seed differ: %s", diff)
	}
	if scenario(7) == scenario(8) {
		t.Error("runs of two seeds do not differ in what is random")
	}
}

// Wrapping an environment changes nothing that the laws speak of.
func TestRecordedFakeConforms(t *testing.T) {
	t.Parallel()
	Conformance(t, func(t *testing.T) *World {
		w := fakeWorld(func(*Fake) {})
		n := (&Recorder{Timers: true}).Node("n", w.Env)
		links := w.Links
		w.Env = n.Env
		w.Links = func(a, b env.LinkHandler) LinkWorld {
			l := links(n.Handler(a), b)
			l.Dialer = n.Env.Dialer
			return l
		}
		return w
	})
}

func TestGoldenShowsFirstDifference(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ want, got, shows string }{
		{"a\nb\n", "a\nb\n", ""},
		{"a\nb\nc\n", "a\nx\nc\n", "line 2"},
		{"a\n", "a\nb\n", "line 2"},
		{"a\nb\n", "a\n", "line 2"},
	} {
		diff := firstDifference(test.want, test.got)
		if (diff == "") != (test.shows == "") || !strings.Contains(diff, test.shows) {
			t.Errorf("difference of %q and %q: %q, want it to show %q", test.want, test.got, diff, test.shows)
		}
	}
}

// linked is two nodes with a link, and what each hears.
func linked(f *Fake) (a, b *Node, atA, atB env.Link, pa, pb *LinkProbe) {
	a, b = f.Node("a"), f.Node("b")
	pa, pb = &LinkProbe{}, &LinkProbe{}
	a.Serve(LinkUpFunc(func(env.Link) env.LinkEvents { return pa }))
	b.Serve(LinkUpFunc(func(env.Link) env.LinkEvents { return pb }))
	atA, atB = f.Connect(a, b)
	return a, b, atA, atB, pa, pb
}

func TestDelayAndRateDecideArrival(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		delay time.Duration
		rate  int
		cells int
		want  time.Duration
	}{
		{0, 0, 10, 0},
		{30 * time.Millisecond, 0, 10, 30 * time.Millisecond},
		{30 * time.Millisecond, 2048 * 100, 10, 130 * time.Millisecond},
		{0, 2048, 20, 20 * time.Second},
	} {
		f := NewFake(1)
		_, _, atA, _, _, pb := linked(f)
		f.Delay, f.Rate = test.delay, test.rate
		start := f.Now()
		cells := relayCells(1, test.cells)
		f.Do(func() { atA.Send(cells) })
		if !f.RunUntil(time.Minute, func() bool { return len(pb.State().Received) == len(cells) }) {
			t.Errorf("%+v: the cells never arrive", test)
		}
		if got := f.Now().Sub(start); got != test.want {
			t.Errorf("%+v: the cells arrive after %v", test, got)
		}
	}
}

func TestVanishedNodeIsSilentUntilItIsBack(t *testing.T) {
	t.Parallel()
	f := NewFake(1)
	a, b, atA, atB, pa, pb := linked(f)
	b.Vanish(true)
	cells := relayCells(1, 100)
	f.Do(func() { atA.Send(cells); atB.Send(cells) })
	var dialled error
	f.Do(func() { a.Env.Dialer.DialLink(b.Target(), func(_ env.Link, err error) { dialled = err }) })
	f.Run(time.Minute)
	if n := len(pa.State().Received) + len(pb.State().Received); n > 0 || atA.Queued() != len(cells) {
		t.Errorf("%d bytes came through a network that is gone, and %d are queued", n, atA.Queued())
	}
	var timeout interface{ Timeout() bool }
	if !errors.As(dialled, &timeout) || !timeout.Timeout() {
		t.Errorf("dialling a vanished node: %v, want a timeout", dialled)
	}
	b.Vanish(false)
	f.Run(time.Second)
	if !bytes.Equal(pa.State().Received, cells) || !bytes.Equal(pb.State().Received, cells) {
		t.Error("the cells do not arrive when the network is back")
	}
}

func TestStoppedNodeResetsAndComesBack(t *testing.T) {
	t.Parallel()
	f := NewFake(1)
	a, b, _, _, pa, pb := linked(f)
	f.Do(func() {
		b.Env.Store.Save("kept", []byte("x"), nil)
		b.Env.Clock.AfterFunc(time.Second, func() { t.Error("a stopped node runs a timer") })
	})
	f.Run(time.Millisecond)
	f.Do(b.Stop)
	f.Run(time.Minute)
	if pa.State().Downs != 1 || pb.State().Downs != 0 {
		t.Errorf("OnDown came %d times at the neighbour and %d times at the stopped node", pa.State().Downs, pb.State().Downs)
	}
	var err error
	f.Do(func() { a.Env.Dialer.DialLink(b.Target(), func(_ env.Link, e error) { err = e }) })
	f.Run(time.Minute)
	if err == nil {
		t.Error("a stopped node accepts a link")
	}
	again := f.Node("b")
	if again == b || again.Identity != b.Identity || again.Address != b.Address {
		t.Error("the node does not come back as it was")
	}
	if data, err := again.Env.Store.Load("kept"); err != nil || string(data) != "x" {
		t.Errorf("after a restart Load gives %q, %v", data, err)
	}
	again.Serve(LinkUpFunc(func(env.Link) env.LinkEvents { return pb }))
	f.Connect(a, again)
}

func TestPipeJoinsNodeAndApplication(t *testing.T) {
	t.Parallel()
	f := NewFake(1)
	near, far := &ConnProbe{}, &ConnProbe{}
	f.Pipe(f.Client("c"),
		func(c env.Conn) env.ConnEvents { c.Write([]byte("to the application")); c.Pause(false); return near },
		func(c env.Conn) env.ConnEvents { c.Write([]byte("to the node")); c.Pause(false); return far })
	f.Run(time.Second)
	if got := fmt.Sprintf("%s, %s", near.State().Received, far.State().Received); got != "to the node, to the application" {
		t.Errorf("what arrived: %s", got)
	}
}

// An uplink is shared by all that a node sends, but for those whom it serves without limit.
func TestUplinkIsSharedByLinks(t *testing.T) {
	t.Parallel()
	f := NewFake(1)
	f.Delay = 0
	a := f.Node("a")
	a.Serve(LinkUpFunc(func(env.Link) env.LinkEvents { return &LinkProbe{} }))
	var links []env.Link
	var probes []*LinkProbe
	for _, name := range []string{"b", "c", "friend"} {
		n, p := f.Node(name), &LinkProbe{}
		n.Serve(LinkUpFunc(func(env.Link) env.LinkEvents { return p }))
		l, _ := f.Connect(a, n)
		links, probes = append(links, l), append(probes, p)
	}
	a.Uplink = func(to *Node) int {
		if to.Name == "friend" {
			return 0
		}
		return 2048 * 100
	}
	const cells = 80
	start := f.Now()
	f.Do(func() {
		for _, l := range links {
			l.Send(relayCells(1, cells))
		}
	})
	arrived := func(i int) func() bool {
		return func() bool { return len(probes[i].State().Received) == cells*2048 }
	}
	if !f.RunUntil(0, arrived(2)) {
		t.Error("what is beside the queue waits in it")
	}
	if !f.RunUntil(time.Minute, arrived(0)) || !f.RunUntil(time.Minute, arrived(1)) {
		t.Fatal("the cells never arrive")
	}
	if got, want := f.Now().Sub(start), 1600*time.Millisecond; got != want {
		t.Errorf("2 × 80 cells at 100 a second took %v, want %v", got, want)
	}
}
