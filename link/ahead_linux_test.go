package link

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"cepa/env"
)

// What the kernel takes ahead of TCP is 10 ms on a slow link, 2 ms on a fast one and no more than 128 KiB; times in which
// nothing is written do not count, nor does a link that is never full.
func TestAheadGoesByRate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate, least, most int
		full              bool
	}{
		{10_000, 4 << 10, 4 << 10, true}, {1_000_000, 7_500, 12_500, true}, {12_500_000, 19_000, 31_000, true},
		{1_000_000_000, env.MostAhead, env.MostAhead, true}, {1_000_000, env.MostAhead, env.MostAhead, false},
	} {
		var a ahead
		limit, now := env.MostAhead, time.Unix(1, 0)
		for range 10 { // bursts of 200 ms, and a second without anything
			for range 400 {
				began := now
				now = now.Add(500 * time.Microsecond)
				ended := began
				if c.full {
					a.waited, ended = true, now
				}
				if n := a.wrote(began, ended, c.rate/2000); n > 0 {
					limit = n
				}
			}
			now = now.Add(time.Second)
		}
		if limit < c.least || limit > c.most {
			t.Errorf("%d bytes a second: %d", c.rate, limit)
		}
	}
}

// A real connection whose far end reads slowly is given a small limit, and a large one again when it reads fast.
func TestAheadOfARealConnection(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	tune(out.(*net.TCPConn))
	s := direct(out).(*socket)
	lowat := func() (n int) {
		if err := s.Control(func(fd uintptr) { n, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat) }); err != nil {
			t.Error(err)
		}
		return n
	}
	slow := make(chan struct{})
	go func() { // about 2 MB a second
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-slow:
				_, _ = io.Copy(io.Discard, in)
				return
			case <-tick.C:
				_, _ = in.Read(make([]byte, 4<<10))
			}
		}
	}()
	write := func(until func() bool) bool {
		p := make([]byte, 16<<10)
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
			if until() {
				return true
			}
			if _, err := s.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		return false
	}
	if lowat() != env.MostAhead {
		t.Fatalf("at first %d", lowat())
	}
	if !write(func() bool { return lowat() < 64<<10 }) {
		t.Errorf("to a slow reader: %d", lowat())
	}
	close(slow)
	if !write(func() bool { return lowat() == env.MostAhead }) {
		t.Errorf("to a fast reader: %d", lowat())
	}
}
