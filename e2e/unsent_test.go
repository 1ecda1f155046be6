//go:build linux

package e2e

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"cepa/cell"
	"cepa/internal/netlink"
)

// unsentDelay has the kernel of one namespace send cells to that of another for ten seconds, over 30 ms and a line of so many bytes
// a second, and take at most so many bytes ahead of TCP. It returns how long a cell took beyond the 15 ms of its way,
// at the median, and what part of the line cells had.
func unsentDelay(t *testing.T, rate int64, unsent int) (delay time.Duration, share float64) {
	t.Helper()
	const from, until, away = 3 * time.Second, 10 * time.Second, 15 * time.Millisecond
	at := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{20, i, 0, 1}) }
	n, err := netlink.New(netlink.Config{Seed: 1, Hosts: []netlink.Host{
		{Name: "a", Address: at(0), Kernel: true, Congestion: "cubic", Up: netlink.Direction{Rate: rate, Queue: max(rate/20, 16<<10)}},
		{Name: "b", Address: at(1), Kernel: true, Congestion: "cubic"},
	}, Path: func(int, int) netlink.Path { return netlink.Path{Delay: away} }})
	if err != nil {
		lacking(t, "no network: %v", err)
	}
	defer n.Close()
	var ln net.Listener
	var c net.Conn
	if err = n.Do(0, func() (err error) { ln, err = net.Listen("tcp4", "20.0.0.1:80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	start := time.Now()
	go func() {
		out, err := ln.Accept()
		if err != nil {
			return
		}
		defer out.Close()
		raw, err := out.(*net.TCPConn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				const notSentLowat = 25 // TCP_NOTSENT_LOWAT
				if e := syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, notSentLowat, unsent); e != nil {
					t.Error(e)
				}
			})
		}
		if err != nil {
			t.Error(err)
		}
		for p := make([]byte, cell.Size); err == nil && time.Since(start) < until; {
			binary.BigEndian.PutUint64(p, uint64(time.Since(start)))
			_, err = out.Write(p)
		}
	}()
	if err = n.Do(1, func() (err error) { c, err = net.Dial("tcp4", "20.0.0.1:80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var late []time.Duration
	for p := make([]byte, cell.Size); ; {
		if _, err := io.ReadFull(c, p); err != nil {
			break
		}
		if now := time.Since(start); now > from && now < until {
			late = append(late, now-time.Duration(binary.BigEndian.Uint64(p))-away)
		}
	}
	if len(late) == 0 {
		t.Fatal("nothing came")
	}
	slices.Sort(late)
	return late[len(late)/2], float64(len(late)*cell.Size) / (until - from).Seconds() / float64(rate)
}

// TestUnsentBetweenKernels is what real kernels add to the delay of a slow link with the 128 KiB that they may take ahead of
// TCP, and with 10 ms of the link's rate, 4 KiB at least. Less delays less, and loses no rate.
func TestUnsentBetweenKernels(t *testing.T) {
	proof(t)
	for _, rate := range []int64{mbit, 10 * mbit} {
		much, full := unsentDelay(t, rate, 128<<10)
		few, left := unsentDelay(t, rate, max(int(rate/100), 4<<10))
		t.Logf("%3d Mbit/s: %4d ms and %.0f %% of the line with 128 KiB, %4d ms and %.0f %% by rate", rate/mbit, much.Milliseconds(), 100*full, few.Milliseconds(), 100*left)
		if few > much*3/4 || left < full-0.05 {
			t.Error("less brings nothing")
		}
	}
}
