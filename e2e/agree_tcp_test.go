//go:build linux

package e2e

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/env"
	"cepa/internal/netlink"
	"cepa/simnet"
)

// plain is a machine that sends and one that reads, and what is between them.
type plain struct {
	name       string
	delay      time.Duration
	up, down   int64
	size       int64
	real, fake []time.Duration
}

// transferReal is how long one TCP connection of the kernel takes, from when it is open.
func (p *plain) transferReal(t *testing.T, seed uint64) time.Duration {
	t.Helper()
	at := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{20, i, 0, 1}) }
	settings := map[string]string{"net/ipv4/tcp_rmem": "4096 131072 6291456", "net/ipv4/tcp_wmem": "4096 16384 4194304"}
	n, err := netlink.New(netlink.Config{Seed: seed, Hosts: []netlink.Host{
		{Name: "a", Address: at(0), Kernel: true, Congestion: "cubic", Sysctl: settings, Up: netlink.Direction{Rate: p.up, Queue: 1 << 20}},
		{Name: "b", Address: at(1), Kernel: true, Congestion: "cubic", Sysctl: settings, Down: netlink.Direction{Rate: p.down, Queue: p.down / 10}},
	}, Path: func(int, int) netlink.Path { return netlink.Path{Delay: p.delay} }})
	if err != nil {
		lacking(t, "no network: %v", err)
	}
	defer n.Close()
	var ln net.Listener
	var c net.Conn
	err = n.Do(0, func() (err error) { ln, err = net.Listen("tcp4", "20.0.0.1:80"); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, _ = c.Write(make([]byte, p.size))
			c.Close()
		}
	}()
	if err = n.Do(1, func() (err error) { c, err = net.Dial("tcp4", "20.0.0.1:80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begun := time.Now()
	if got, err := io.Copy(io.Discard, c); err != nil || got != p.size {
		t.Fatal(got, err)
	}
	return time.Since(begun)
}

type reader struct {
	got, want int64
	env.ConnEvents
	w    *simnet.World
	at   env.Mono
	done bool
}

func (r *reader) OnData(p []byte) {
	if r.got += int64(len(p)); r.got == r.want {
		r.at, r.done = r.w.Now(), true
	}
}
func (r *reader) OnEOF()       {}
func (r *reader) OnDrained()   {}
func (r *reader) OnDown(error) {}

// writer gives its connection more when it has room.
type writer struct {
	c    env.Conn
	left int64
}

func (x *writer) OnData([]byte) {}
func (x *writer) OnEOF()        {}
func (x *writer) OnDown(error)  {}
func (x *writer) OnDrained()    { x.more() }
func (x *writer) more() {
	for x.left > 0 && x.c.Queued() < 256<<10 {
		n := min(x.left, 64<<10)
		x.c.Write(make([]byte, n))
		x.left -= n
	}
}

// transferSimulated is the same in the simulator.
func (p *plain) transferSimulated(t *testing.T, seed uint64) time.Duration {
	t.Helper()
	l, err := simnet.NewLatency([]string{"a", "b"}, [][]time.Duration{{0, 2 * p.delay}, {2 * p.delay, 0}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := simnet.New(simnet.Config{Seed: seed, Latency: l})
	a := w.Host(simnet.HostSpec{Name: "a", Region: "a", Up: p.up})
	b := w.Host(simnet.HostSpec{Name: "b", Region: "b", Down: p.down})
	at := a.Listen(80, func(c env.Conn) env.ConnEvents {
		x := &writer{c, p.size}
		w.After(0, x.more)
		return x
	})
	r := &reader{want: p.size, w: w}
	var up env.Mono
	w.Do(b, func() {
		b.Env().Network.DialConn(at, time.Minute, func(c env.Conn, err error) env.ConnEvents {
			up = w.Now()
			c.Pause(false)
			return r
		})
	})
	if !w.RunUntil(time.Minute, func() bool { return r.done }) {
		t.Fatal("it does not end")
	}
	return r.at.Sub(up)
}

// TestTransfersAgree is TCP alone, without the overlay: 48 transfers between two namespaces, three times each, and
// the same in the simulator. The table of measuredTransfers in package simnet is from here.
func TestTransfersAgree(t *testing.T) {
	proof(t)
	var all []*plain
	for _, size := range []int64{50 << 10, 1 << 20, 5 << 20, 20 << 20} {
		for _, x := range []plain{
			{name: "up 3 MiB, 40 mbit", up: 3 << 20, down: 40 * mbit},
			{name: "down 20 mbit", up: 4 << 20, down: 20 * mbit},
			{name: "down 10 mbit", up: 4 << 20, down: 10 * mbit},
			{name: "down 4 MiB", up: 6 << 20, down: 4 << 20},
		} {
			for _, d := range []time.Duration{8 * time.Millisecond, 25 * time.Millisecond, 60 * time.Millisecond} {
				y := x
				y.delay, y.size = d, size
				y.name += " " + d.String()
				all = append(all, &y)
			}
		}
	}
	for _, p := range all {
		for i := range uint64(3) {
			p.real = append(p.real, p.transferReal(t, i))
		}
		p.fake = append(p.fake, p.transferSimulated(t, 1))
		slices.Sort(p.real)
		if off := float64(p.fake[0])/float64(p.real[1]) - 1; off > .12 || off < -.12 {
			t.Errorf("%d bytes, %s: the two differ by more than 12 %%", p.size, p.name)
		}
		t.Logf("%8d %-25s real %v %v %v simulated %v  %+.0f%%", p.size, p.name, p.real[0].Round(time.Millisecond), p.real[1].Round(time.Millisecond), p.real[2].Round(time.Millisecond), p.fake[0].Round(time.Millisecond), 100*(float64(p.fake[0])/float64(p.real[1])-1))
	}
}
