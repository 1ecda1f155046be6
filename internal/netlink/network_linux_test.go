package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// build makes a network, or skips the test where there can be none.
func build(t *testing.T, cfg Config) *Network {
	t.Helper()
	for i := range cfg.Hosts {
		cfg.Hosts[i].Address = netip.AddrFrom4([4]byte{20, byte(i), 0, 1})
		cfg.Hosts[i].Name = string(rune('a' + i))
	}
	n, err := New(cfg)
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func same(p Path) func(int, int) Path { return func(int, int) Path { return p } }

// echo answers every datagram at a port of a host.
func echo(t *testing.T, n *Network, host int) *net.UDPAddr {
	t.Helper()
	var c *net.UDPConn
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.cfg.Hosts[host].Address, 7))
	if err := n.Do(host, func() (err error) { c, err = net.ListenUDP("udp4", at); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, mtu)
		for {
			size, from, err := c.ReadFromUDP(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDP(b[:size], from)
		}
	}()
	return at
}

// pings sends datagrams, one every so often, and returns how long those took that came back.
func pings(t *testing.T, n *Network, from int, to *net.UDPAddr, count int, pause time.Duration) []time.Duration {
	t.Helper()
	var c *net.UDPConn
	if err := n.Do(from, func() (err error) { c, err = net.DialUDP("udp4", nil, to); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := make([]time.Time, count)
	done := make(chan []time.Duration)
	go func() {
		var took []time.Duration
		b := make([]byte, mtu)
		for len(took) < count {
			if _, err := c.Read(b); err != nil {
				break
			}
			took = append(took, time.Since(sent[binary.BigEndian.Uint32(b)]))
		}
		done <- took
	}()
	for i := range sent {
		b := make([]byte, 100)
		binary.BigEndian.PutUint32(b, uint32(i))
		sent[i] = time.Now()
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pause)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	return <-done
}

// attempts calls f until it returns nil, at most five times: what makes a packet late is often another program on this
// machine, and only what is late each time is the network's own doing. What is too early f calls an error at once.
func attempts(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for range 5 {
		if err = f(); err == nil {
			return
		}
		t.Log(err)
	}
	t.Error(err)
}

// TestRoundTripsAreThoseOfTheSettings: the delay there and another back, with jitter. No packet is early, and the best of
// many is not late; how late the others are is the machine's doing, and that the delays themselves are right is shown
// without a clock (TestJitter, TestRatesAndDelayAddUp).
func TestRoundTripsAreThoseOfTheSettings(t *testing.T) {
	n := build(t, Config{Seed: 1, Hosts: make([]Host, 3), Path: func(from, to int) Path {
		switch {
		case from == 1:
			return Path{Delay: 5 * ms}
		case to == 1:
			return Path{Delay: 15 * ms}
		}
		return Path{Delay: 10 * ms, Jitter: 30 * ms, Reorder: true}
	}})
	plain, late := pings(t, n, 0, echo(t, n, 1), 200, 2*ms), pings(t, n, 0, echo(t, n, 2), 200, 2*ms)
	if len(plain) != 200 || len(late) != 200 {
		t.Fatalf("%d and %d of 200 came back", len(plain), len(late))
	}
	slices.Sort(plain)
	slices.Sort(late)
	t.Logf("without jitter %v, %v, %v; with it %v, %v, %v; %+v", plain[0], plain[100], plain[190], late[0], late[100], late[190], n.Lateness())
	if plain[0] < 20*ms || plain[0] > 22*ms {
		t.Errorf("the fastest round trip of 20 ms took %v", plain[0])
	}
	// Two squares of numbers between 0 and 1: the median of their sum is 0.59, and one in fifty is below 0.02.
	if late[0] < 20*ms || late[0] > 25*ms || late[100] < 33*ms {
		t.Errorf("with jitter the fastest took %v, and half of them less than %v, which should be about 38 ms", late[0], late[100])
	}
}

// TestLossOfDatagrams: as many as the settings say, both ways.
func TestLossOfDatagrams(t *testing.T) {
	n := build(t, Config{Seed: 1, Hosts: make([]Host, 2), Path: same(Path{Delay: ms, Loss: 100_000})})
	back := len(pings(t, n, 0, echo(t, n, 1), 1000, 200*time.Microsecond))
	t.Logf("%d of 1000 came back", back)
	if back < 810-50 || back > 810+50 {
		t.Errorf("%d of 1000 came back, and 81 %% should", back)
	}
	if a, b := n.Counts(0), n.Counts(1); a.Lost+b.Lost != uint64(1000-back) {
		t.Errorf("%d are missing; lost are %d and %d", 1000-back, a.Lost, b.Lost)
	}
}

// TestTCPFillsTheRate: whoever does the rate, a transfer gets what headers leave of it, and its round
// trips grow by what waits.
func TestTCPFillsTheRate(t *testing.T) {
	const rate = 1_250_000 // 10 Mbit/s
	for _, test := range []struct {
		name     string
		from, to Host
	}{
		{"a queue up", Host{Up: Direction{Rate: rate, Queue: 60_000}}, Host{}},
		{"the kernel's bucket", Host{Up: Direction{Rate: rate}, Kernel: true}, Host{}},
		{"a queue down", Host{}, Host{Down: Direction{Rate: rate, Queue: 60_000}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			settings := map[string]string{"net/ipv4/tcp_rmem": "4096 131072 6291456"}
			test.from.Sysctl, test.to.Sysctl = settings, settings
			test.from.Congestion, test.to.Congestion = "cubic", "cubic"
			n := build(t, Config{Seed: 1, Hosts: []Host{test.from, test.to}, Path: same(Path{Delay: 10 * ms})})
			attempts(t, func() error { return transfer(t, n, rate) })
		})
	}
}

// transfer sends 3 MB from host 0 to host 1 at a rate in bytes a second. It fails if that was too fast, and returns an
// error if it was too slow.
func transfer(t *testing.T, n *Network, rate int) error {
	t.Helper()
	var ln net.Listener
	var c net.Conn
	err := n.Do(1, func() (err error) { ln, err = net.Listen("tcp4", "20.1.0.1:80"); return err })
	if err == nil {
		defer ln.Close()
		err = n.Do(0, func() (err error) { c, err = net.Dial("tcp4", "20.1.0.1:80"); return err })
	}
	if err != nil {
		t.Fatal(err)
	}
	const size = 3_000_000
	go func() { _, _ = c.Write(make([]byte, size)); c.Close() }()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	begun := time.Now()
	got, err := io.Copy(io.Discard, in)
	took := time.Since(begun)
	t.Logf("%d bytes in %v: %.0f a second; %+v %+v", got, took, float64(got)/took.Seconds(), n.Counts(0), n.Counts(1))
	if err != nil || got != size {
		t.Fatalf("%d bytes, %v", got, err)
	}
	// 1448 of 1500 bytes are data, and slow start is before.
	ideal := time.Duration(size * 1500 / 1448 * float64(time.Second) / float64(rate))
	if took < ideal-10*ms {
		t.Errorf("3 MB at %d bytes a second took %v", rate, took)
	}
	if took > ideal*3/2 {
		return fmt.Errorf("3 MB at %d bytes a second took %v", rate, took)
	}
	return nil
}
