//go:build linux

package e2e

import (
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"cepa/directory"
)

// crowdOf starts a process with so many links to a relay, and circuits on each.
func (f *field) crowdOf(t testing.TB, at *actor, links, circuits int) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], f.file, at.id.String(), at.addr, strconv.Itoa(links), strconv.Itoa(circuits))
	cmd.Env = append(os.Environ(), partVariable+"=throng")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = r
	p, err := launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); r.Close(); p.end() })
	return p
}

var thronged = regexp.MustCompile(`links (\d+) circuits (\d+) failed (\d+) last (.*)`)

// crowded waits until processes have what they were asked for.
func crowded(t testing.TB, limit time.Duration, links, circuits int, all ...*process) {
	t.Helper()
	said := ""
	defer func() { t.Log(said) }()
	within(t, limit, "all links and circuits are open", func() bool {
		l, c := 0, 0
		said = ""
		for _, p := range all {
			if !p.running() {
				t.Fatalf("it has ended: %v\n%s", p.err, p.tail())
			}
			m := thronged.FindAllStringSubmatch(p.output(), -1)
			if m == nil {
				return false
			}
			last := m[len(m)-1]
			a, _ := strconv.Atoi(last[1])
			b, _ := strconv.Atoi(last[2])
			l, c = l+a, c+b
			said += last[0] + "\n"
		}
		if l >= links && c >= circuits {
			return true
		}
		return false
	})
}

// rate is what a download of so many bytes through the client comes to, the best of some, in MiB a second.
func (f *field) rate(t testing.TB, c *actor, size int64, times int) float64 {
	t.Helper()
	best := 0.0
	for range times {
		s, err := dialSOCKS(c.addr, "bulk", f.origin.addr.String(), 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		n, err := io.Copy(io.Discard, s)
		s.Close()
		if err != nil || n != size {
			t.Fatalf("%d bytes came of %d: %v", n, size, err)
		}
		best = max(best, float64(size)/(1<<20)/time.Since(begun).Seconds())
	}
	return best
}

// A relay holds ten thousand links, and a hundred thousand circuits, and goes on forwarding; what it takes for them it gives
// back, and when links with many circuits go down it does not stand still.
func TestRelayHoldsManyLinksAndCircuits(t *testing.T) {
	long(t)
	for _, x := range []struct {
		name             string
		processes, links int // links of each
		circuits         int // on each link
		memory           int // MiB, of the relay's budget
		whole            bool
	}{
		{"links", 1, 400, 1, 256, false},
		{"circuits", 1, 20, 250, 256, false},
		{"five thousand circuits at rest", 1, 20, 250, 256, true},
		{"ten thousand links", 2, 5000, 1, 1024, true},
		{"a hundred thousand circuits", 2, 200, 250, 8192, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			if x.whole {
				proof(t)
			}
			const size = 64 << 20
			f := newField(t, plan{authorities: 1, relays: 3, parameters: directory.Parameters{
				directory.IntervalMillis: 60_000, directory.KeepaliveMillis: 4000, directory.MeasureIntervals: 0,
			}})
			at := f.node("r1")
			at.config.MemoryMiB = x.memory
			f.startAll(t)
			c := f.client(t, 30*time.Second)
			f.origin = listenFor(t, func(bool) (pids []int) {
				for _, a := range f.parts("relay") {
					pids = append(pids, a.pid())
				}
				return pids
			})
			f.origin.serveConns(func(c *net.TCPConn) { _, _ = io.CopyN(c, zeros{}, size) })
			few := f.rate(t, c, size, 3)
			before, _ := memory(t, at.pid())
			begun := time.Now()
			var all []*process
			for range x.processes {
				all = append(all, f.crowdOf(t, at, x.links, x.circuits))
			}
			links := x.processes * x.links
			circuits := links * x.circuits
			crowded(t, 10*time.Minute, links, circuits, all...)
			took := time.Since(begun)
			open, _ := memory(t, at.pid())
			if x.whole {
				time.Sleep(4 * time.Minute) // circuits rest, the runtime collects every two minutes, and then gives back
			}
			after, _ := memory(t, at.pid())
			many := f.rate(t, c, size, 3)
			t.Logf("%d links and %d circuits in %v; %d KiB of memory before, %d when they were open, %d after a pause: %d KiB a link, %.1f a circuit; %.0f MiB/s before, %.0f with them, %.2f",
				links, circuits, took.Round(time.Millisecond), before, open, after, (after-before)/links, float64(after-before)/float64(circuits), few, many, many/few)
			if n := at.count("links"); n < int64(links) {
				t.Errorf("the relay counts %d links", n)
			}
			// All go at once: the relay forwards meanwhile.
			gone := make(chan float64, 1)
			go func() { gone <- f.slowest(c, 3*time.Second) }()
			for _, p := range all {
				p.signal(syscall.SIGKILL)
			}
			within(t, 30*time.Second, "the relay has let them go", func() bool { return at.count("legs") < 100 })
			slowest := <-gone
			t.Logf("while all of them went down the slowest of the small requests took %.0f ms", slowest)
			if slowest < 0 {
				t.Error("one of them failed")
			}
		})
	}
}

// slowest makes small requests for a while, and returns how long the slowest took, in ms.
func (f *field) slowest(c *actor, d time.Duration) float64 {
	worst := time.Duration(0)
	for start := time.Now(); time.Since(start) < d; {
		begun := time.Now()
		s, err := dialSOCKS(c.addr, "small", f.origin.addr.String(), 20*time.Second)
		if err != nil {
			return -1
		}
		var b [1]byte
		if _, err := io.ReadFull(s, b[:]); err != nil {
			s.Close()
			return -1
		}
		s.Close()
		worst = max(worst, time.Since(begun))
	}
	return float64(worst.Milliseconds())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
