package simnet

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"cepa/env"
	"cepa/env/envtest"
)

// transfer is one connection over which a host sends to another.
type transfer struct {
	near  env.Conn
	got   int
	first env.Mono
	last  env.Mono
	down  error
	up    env.Mono
}

// start has a send n bytes to b, from now on.
func start(t testing.TB, w *World, a, b *Host, port uint16, n int) *transfer {
	t.Helper()
	x := &transfer{}
	at := b.Listen(port, func(c env.Conn) env.ConnEvents {
		c.Pause(false)
		return &envtest.ConnProbe{Data: func(p []byte) {
			if x.got == 0 {
				x.first = w.Now()
			}
			if i := mismatch(p, uint64(port), true, int64(x.got)); i >= 0 {
				t.Errorf("byte %d is not what was sent", x.got+i)
			}
			x.got += len(p)
			x.last = w.Now()
		}, Down: func(err error) { x.down = err }}
	})
	w.Do(a, func() {
		a.Env().Network.DialConn(at, time.Minute, func(c env.Conn, err error) env.ConnEvents {
			if err != nil {
				t.Errorf("dialling: %v", err)
				return nil
			}
			x.near, x.up = c, w.Now()
			data := make([]byte, n)
			pattern(data, uint64(port), true, 0)
			c.Write(data)
			c.Pause(false)
			return &envtest.ConnProbe{Down: func(err error) { x.down = err }}
		})
	})
	return x
}

func pair(t testing.TB, trip time.Duration, up, down int64) (w *World, a, b *Host) {
	t.Helper()
	w = New(Config{Seed: 1, Latency: flat(t, trip, 0)})
	return w, w.Host(HostSpec{Name: "a", Up: up, Down: down}), w.Host(HostSpec{Name: "b", Up: up, Down: down})
}

func within(t testing.TB, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s took %v, want %v to %v", what, got, least, most)
	}
}

// TestTransferTakesRoundTripsAndRate: what the model of TCP is stated to do.
func TestTransferTakesRoundTripsAndRate(t *testing.T) {
	t.Parallel()
	const trip = 100 * time.Millisecond
	for _, test := range []struct {
		name        string
		size        int
		up, down    int64
		least, most time.Duration // from the connection to the last byte
	}{
		{"one window", 14_000, 0, 0, 50 * time.Millisecond, 51 * time.Millisecond},
		{"two windows", 40_000, 0, 0, 150 * time.Millisecond, 151 * time.Millisecond},
		// 14.5 + 29 + 58 + … KB: seven round trips for a million bytes.
		{"slow start", 1_000_000, 0, 0, 550 * time.Millisecond, 760 * time.Millisecond},
		// A megabyte a second: 3.4 % are headers; slow start adds a few round trips at first.
		{"narrow upwards", 5_000_000, 1_000_000, 0, 5200 * time.Millisecond, 5700 * time.Millisecond},
		{"narrow downwards", 5_000_000, 0, 1_000_000, 5200 * time.Millisecond, 6200 * time.Millisecond},
	} {
		w, a, b := pair(t, trip, test.up, test.down)
		x := start(t, w, a, b, 80, test.size)
		w.RunUntil(time.Minute, func() bool { return x.got == test.size })
		within(t, test.name+": connecting", time.Duration(x.up), trip, trip)
		within(t, test.name, x.last.Sub(x.up), test.least, test.most)
	}
}

// TestConnectionsShareAnAccessLink: in turn, or one after the other.
func TestConnectionsShareAnAccessLink(t *testing.T) {
	t.Parallel()
	for _, fifo := range []bool{false, true} {
		w := New(Config{Seed: 1, Latency: flat(t, 20*time.Millisecond, 0)})
		a := w.Host(HostSpec{Name: "a", Up: 1 << 20, FIFO: fifo})
		b := w.Host(HostSpec{Name: "b"})
		x, y := start(t, w, a, b, 80, 2<<20), start(t, w, a, b, 81, 2<<20)
		w.RunUntil(time.Minute, func() bool { return x.got == 2<<20 || y.got == 2<<20 })
		less := min(x.got, y.got)
		if share := float64(less) / (2 << 20); !fifo && share < 0.9 {
			t.Errorf("taking turns, one had %.2f of what the other had", share)
		}
		w.Run(time.Minute)
		if x.got+y.got != 4<<20 {
			t.Errorf("%d and %d bytes arrived", x.got, y.got)
		}
	}
}

// TestSmallConnectionPassesBulk: what waits upwards is little, so an interactive connection does not
// wait behind megabytes of another.
func TestSmallConnectionPassesBulk(t *testing.T) {
	t.Parallel()
	w := New(Config{Seed: 1, Latency: flat(t, 20*time.Millisecond, 0)})
	a, b := w.Host(HostSpec{Name: "a", Up: 1 << 20}), w.Host(HostSpec{Name: "b"})
	bulk := start(t, w, a, b, 80, 20<<20)
	w.Run(3 * time.Second)
	from := w.Now()
	small := start(t, w, a, b, 81, 2000)
	w.RunUntil(time.Minute, func() bool { return small.got == 2000 })
	within(t, "a small request beside bulk", w.Now().Sub(from), 30*time.Millisecond, 45*time.Millisecond)
	if bulk.got == 20<<20 {
		t.Error("the bulk transfer was over already")
	}
}

// TestLossDelays: bytes still come in order, later; a window that overflows a queue gives most of its
// rate.
// TestRateChangesForWhatWaits: what was sent while an access link was slow does not hold it up when it is fast again.
func TestRateChangesForWhatWaits(t *testing.T) {
	t.Parallel()
	for name, rates := range map[string][4]int64{ // up and down while slow, and then
		"queue of the receiver": {0, 2000, 0, 1 << 20},
		"queue of the sender":   {2000, 0, 1 << 20, 0},
		"then without limit":    {2000, 2000, 0, 0},
	} {
		w, a, b := pair(t, 40*time.Millisecond, 0, 0)
		a.Rates(rates[0], 0)
		b.Rates(0, rates[1])
		x := start(t, w, a, b, 1, 100_000)
		w.Run(5 * time.Second)
		slow := x.got
		a.Rates(rates[2], 0)
		b.Rates(0, rates[3])
		w.Run(2 * time.Second)
		if slow > 10_000 || x.got != 100_000 {
			t.Errorf("%s: %d bytes came in 5 s at 2 kB/s, %d in all within 2 s of more", name, slow, x.got)
		}
	}
}

func TestLossDelays(t *testing.T) {
	t.Parallel()
	took := func(perMillion uint64) time.Duration {
		w, a, b := pair(t, 50*time.Millisecond, 0, 4<<20)
		a.Loss(perMillion)
		x := start(t, w, a, b, 80, 8<<20)
		w.RunUntil(5*time.Minute, func() bool { return x.got == 8<<20 })
		return x.last.Sub(x.up)
	}
	none, some, much := took(0), took(2_000), took(20_000)
	within(t, "8 MiB at 4 MiB/s", none, 2*time.Second, 2900*time.Millisecond)
	if some < none+none/10 || much < 2*some {
		t.Errorf("without loss %v, with 0.2 %% %v, with 2 %% %v", none, some, much)
	}
}

// TestLinkHoldsBackInTime: Queued of a link that is full grows, and what the kernel holds is bounded.
func TestLinkHoldsBackInTime(t *testing.T) {
	t.Parallel()
	w := New(Config{Seed: 1, Latency: flat(t, 20*time.Millisecond, 0)})
	spec := HostSpec{Up: 1 << 20}
	c := conformWorld(w, spec, 0)
	a, b := &envtest.LinkProbe{}, &envtest.LinkProbe{}
	var near env.Link
	up := func(p *envtest.LinkProbe, to *env.Link) env.LinkHandler {
		return envtest.LinkUpFunc(func(l env.Link) env.LinkEvents {
			if to != nil {
				*to = l
			}
			return p
		})
	}
	links := c.Links(up(a, &near), up(b, nil))
	c.Do(func() { links.Dialer.DialLink(links.B, func(env.Link, error) {}) })
	w.RunUntil(time.Second, func() bool { return near != nil })
	const cells = 400 * 2048
	c.Do(func() {
		near.Send(make([]byte, cells))
		if near.Queued() != cells {
			t.Errorf("%d bytes are queued inside the event in which they were sent", near.Queued())
		}
	})
	w.Run(time.Millisecond)
	if held := cells - near.Queued(); held < env.MostAhead || held > env.MostAhead+windowStart+2*largeBuffer {
		t.Errorf("the kernel took %d bytes at once", held)
	}
	w.Run(3 * time.Second)
	if near.Queued() != 0 || len(b.State().Received) != cells {
		t.Errorf("%d queued, %d arrived", near.Queued(), len(b.State().Received))
	}
}

// TestFaultsOfHosts: a crash is heard of, silence is not, and what a partition held back comes when it
// is over.
func TestFaultsOfHosts(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	begin := func() (*World, *Host, *Host, *transfer) {
		w, a, b := pair(t, 40*time.Millisecond, 1<<20, 0)
		x := start(t, w, a, b, 80, size)
		w.Run(time.Second)
		if x.got == 0 || x.got == size {
			t.Fatalf("%d bytes after a second", x.got)
		}
		return w, a, b, x
	}
	w, a, _, x := begin()
	a.Crash()
	w.RunUntil(time.Second, func() bool { return x.down != nil })
	if !errors.Is(x.down, syscall.ECONNRESET) {
		t.Errorf("after a crash: %v", x.down)
	}
	w, _, b, x := begin()
	b.PowerOff()
	w.Run(time.Minute)
	if x.down != nil {
		t.Errorf("a minute after the far machine was switched off: %v", x.down)
	}
	w.RunUntil(time.Hour, func() bool { return x.down != nil })
	if !errors.Is(x.down, syscall.ETIMEDOUT) {
		t.Errorf("an hour after the far machine was switched off: %v", x.down)
	}
	w, _, b, x = begin()
	b.PowerOff()
	w.Run(10 * time.Second)
	b.Silence(false)
	b.Boot()
	w.RunUntil(time.Minute, func() bool { return x.down != nil })
	if !errors.Is(x.down, syscall.ECONNRESET) {
		t.Errorf("after the far machine came back: %v", x.down)
	}
	for name, fault := range map[string]func(w *World, a, b *Host, on bool){
		"partition": func(_ *World, a, _ *Host, on bool) { a.Part(map[bool]int{true: 1}[on]) },
		"silence":   func(_ *World, _, b *Host, on bool) { b.Silence(on) },
		"cut":       func(w *World, a, b *Host, on bool) { w.Cut(a, b, on) },
	} {
		w, a, b, x := begin()
		fault(w, a, b, true)
		w.Run(200 * time.Millisecond) // what is at the far end's door still comes in
		before := x.got
		w.Run(5 * time.Second)
		if x.got != before {
			t.Errorf("%s: %d bytes came through", name, x.got-before)
		}
		fault(w, a, b, false)
		w.RunUntil(time.Minute, func() bool { return x.got == size })
		if x.got != size || x.down != nil {
			t.Errorf("%s: %d of %d bytes came when it was over: %v", name, x.got, size, x.down)
		}
	}
}

// TestDistanceIsTheMatrix: regions, jitter and congestion.
func TestDistanceIsTheMatrix(t *testing.T) {
	t.Parallel()
	l, err := ParseLatencyCSV("# round trips, ms\n,x,y\nx,2,80.5\ny,80.5,4\n", 500)
	if err != nil {
		t.Fatal(err)
	}
	w := New(Config{Seed: 3, Latency: l})
	a, b := w.Host(HostSpec{Name: "a", Region: "x"}), w.Host(HostSpec{Name: "b", Region: "y"})
	var least, most, sum time.Duration = time.Hour, 0, 0
	for range 1000 {
		d := w.oneWay(a, b)
		least, most, sum = min(least, d), max(most, d), sum+d
	}
	way := 40250 * time.Microsecond
	within(t, "the shortest way", least, way, way+way/100)
	within(t, "the longest way", most, way+way*4/10, way+way/2)
	within(t, "the mean way", sum/1000, way+way*15/100, way+way*19/100)
	b.Clog(time.Second)
	within(t, "a clogged way", w.oneWay(a, b), way+time.Second, 2*way+time.Second)
}

// TestInternet: the built-in matrix is whole.
func TestInternet(t *testing.T) {
	t.Parallel()
	l := Internet()
	if len(l.Regions) != 10 || l.Trip("london", "sydney") != 261*time.Millisecond || l.Trip("tokyo", "tokyo") != 2*time.Millisecond {
		t.Errorf("%v; London to Sydney and back takes %v", l.Regions, l.Trip("london", "sydney"))
	}
}

// TestLatencyFiles reads what researchers have, and refuses what cannot be meant.
func TestLatencyFiles(t *testing.T) {
	t.Parallel()
	l, err := ParseLatencyGML(`graph [
  directed 0
  node [ id 0 label "eu" host_bandwidth_up "1 Gbit" ]
  node [ id 1 label "us" ]
  node [ id 2 ]
  edge [ source 0 target 0 latency "1 ms" ]
  edge [ source 0 target 1 latency "40 ms" packet_loss 0.0 ]
  edge [ source 1 target 2 latency "25 ms" ]
]`, 0)
	if err != nil {
		t.Fatal(err)
	}
	for pair, want := range map[[2]string]time.Duration{{"eu", "eu"}: 2, {"eu", "us"}: 80, {"us", "2"}: 50, {"eu", "2"}: 130} {
		if got := l.Trip(pair[0], pair[1]); got != want*time.Millisecond {
			t.Errorf("%v: %v", pair, got)
		}
	}
	for _, text := range []string{"", ",a,b\na,1,2\n", ",a,b\nb,1,2\na,2,1\n", ",a\na,x\n", ",a\na,-1\n", ",a\na,1,2\n"} {
		if _, err := ParseLatencyCSV(text, 0); err == nil {
			t.Errorf("%q is a matrix", text)
		}
	}
	for _, text := range []string{"", "node [ id 0 ] edge [ source 0 target 1 latency \"1 ms\" ]", "node [ id 0 ] node [ id 1 ]", "node [ id 0 ] edge [ source 0 target 0 latency x ]"} {
		if _, err := ParseLatencyGML(text, 0); err == nil {
			t.Errorf("%q is a graph", text)
		}
	}
}

// TestClocksGoWrong: skew and drift are of the host's clock, and its timers follow it.
func TestClocksGoWrong(t *testing.T) {
	t.Parallel()
	w := New(Config{})
	h := w.Host(HostSpec{Name: "a"})
	c := h.Env().Clock
	w.Run(time.Hour)
	before := c.Now()
	h.SetClock(-time.Minute, 1000)
	if got := c.Wall(); !got.Equal(w.Wall().Add(-time.Minute)) || c.Now() != before {
		t.Errorf("set a minute back, it is %v at %v", got, w.Wall())
	}
	var fired env.Mono
	w.Do(h, func() { c.AfterFunc(1001*time.Second, func() { fired = w.Now() }) })
	from := w.Now()
	w.Run(time.Hour)
	within(t, "1001 s of a clock that is 0.1 % fast", fired.Sub(from), 1000*time.Second, 1000*time.Second+time.Microsecond)
	if got, want := c.Wall().Sub(w.Wall()), -time.Minute+3600*time.Millisecond; got != want {
		t.Errorf("after an hour it is %v ahead, want %v", got, want)
	}
	h.SetClock(0, -1000)
	if got := c.Wall(); !got.Equal(w.Wall()) {
		t.Errorf("set right, it is %v at %v", got, w.Wall())
	}
}

// TestDiskForgetsInACrash: what was not written is gone, and a slow disk takes its time.
func TestDiskForgetsInACrash(t *testing.T) {
	t.Parallel()
	w := New(Config{})
	h := w.Host(HostSpec{Name: "a"})
	w.Do(h, func() { h.Env().Store.Save("x", []byte("old"), nil) })
	w.Flush()
	h.SlowDisk(time.Second)
	w.Do(h, func() {
		h.Env().Store.Save("x", []byte("new"), nil)
		if got, err := h.Env().Store.Load("x"); string(got) != "new" {
			t.Errorf("before it is written: %q, %v", got, err)
		}
	})
	w.Run(999 * time.Millisecond)
	h.Crash()
	h.Boot()
	if got, err := h.Env().Store.Load("x"); string(got) != "old" {
		t.Errorf("after a crash: %q, %v", got, err)
	}
	w.Do(h, func() { h.Env().Store.Save("x", []byte("newer"), nil) })
	w.Run(time.Second)
	h.Crash()
	h.Boot()
	if got, err := h.Env().Store.Load("x"); string(got) != "newer" {
		t.Errorf("after a save and a crash: %q, %v", got, err)
	}
}

// TestPatternFindsAnyChange: the bytes of flows differ wherever they are cut.
func TestPatternFindsAnyChange(t *testing.T) {
	t.Parallel()
	whole := make([]byte, 1000)
	pattern(whole, 7, true, 0)
	for from := 0; from < 40; from++ {
		for to := from; to < 80; to++ {
			part := make([]byte, to-from)
			pattern(part, 7, true, int64(from))
			if fmt.Sprint(part) != fmt.Sprint(whole[from:to]) {
				t.Fatalf("bytes %d to %d depend on where they begin", from, to)
			}
			if i := mismatch(part, 7, true, int64(from)); i >= 0 {
				t.Fatalf("bytes %d to %d: byte %d does not match itself", from, to, i)
			}
			for i := range part {
				part[i]++
				if got := mismatch(part, 7, true, int64(from)); got != i {
					t.Fatalf("bytes %d to %d: a change at %d is found at %d", from, to, i, got)
				}
				part[i]--
			}
		}
	}
	if mismatch(whole, 7, false, 0) < 0 || mismatch(whole, 8, true, 0) < 0 || mismatch(whole, 7, true, 8) < 0 {
		t.Error("another flow, direction or place has the same bytes")
	}
}
