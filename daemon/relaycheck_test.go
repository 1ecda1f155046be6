package daemon

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestResolverOfTheSettings is asked, and nobody else.
func TestResolverOfTheSettings(t *testing.T) {
	t.Parallel()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return // the test is over
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.RCode, m.Additionals = true, dnsmessage.RCodeSuccess, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
					Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 77}},
				}}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = server.WriteTo(answer, from)
			}
		}
	}()
	c := RelayConfig{Resolver: server.LocalAddr().String(), ExitAddress: "127.0.0.9"}
	o := c.outside()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	got, err := o.Resolver.LookupNetIP(ctx, "ip4", "only-there.example.")
	if err != nil || len(got) != 1 || got[0].Unmap().String() != "192.0.2.77" {
		t.Errorf("%v, %v", got, err)
	}
	if o.LocalAddr4.String() != "127.0.0.9" || o.LocalAddr6.IsValid() {
		t.Errorf("%+v", o)
	}
}

// TestWrongSettingsOfARelay are named.
func TestWrongSettingsOfARelay(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*RelayConfig){
		"exit_max ":        func(c *RelayConfig) { c.ExitMax = -1 },
		"exit_rate ":       func(c *RelayConfig) { c.ExitRate = 1 << 21 },
		"rate_kib is 5":    func(c *RelayConfig) { c.RateKiB = 5 },
		"burst_kib is set": func(c *RelayConfig) { c.BurstKiB = 5 },
		"accounting_day":   func(c *RelayConfig) { c.AccountingDay = 31 },
		"accounting_count": func(c *RelayConfig) { c.AccountingCount = "all" },
		"drain \"soon\"":   func(c *RelayConfig) { c.Drain = "soon" },
		"drain \"25h\"":    func(c *RelayConfig) { c.Drain = "25h" },
		"exit_policy":      func(c *RelayConfig) { c.ExitPolicy = "perhaps" },
		"exit_address \"":  func(c *RelayConfig) { c.ExitAddress = "::1" },
		"exit_address6":    func(c *RelayConfig) { c.ExitAddress6 = "127.0.0.1" },
		"resolver \"":      func(c *RelayConfig) { c.Resolver = "127.0.0.1" },
		"exit_notice \"":   func(c *RelayConfig) { c.ExitNotice = "localhost:80" },
		"port of its own":  func(c *RelayConfig) { c.ExitNotice, c.Listen = "127.0.0.1:9001", "127.0.0.1:9001" },
	} {
		c := RelayConfig{Network: "n", Dir: "d"}
		change(&c)
		if _, err := c.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	c := RelayConfig{Network: "n", Dir: "d", UplinkMbit: 8, RateKiB: 100, BurstKiB: 50, ExitPolicy: "full"}
	if _, err := c.check(); err != nil {
		t.Error(err)
	}
	if rate, burst := c.uplink(); rate != 100<<10 || burst != 500*time.Millisecond {
		t.Errorf("%d, %v", rate, burst)
	}
	c.RateKiB = 1 << 20
	if rate, burst := c.uplink(); rate != 1e6 || burst != 0 {
		t.Errorf("the machine's own rate is lower: %d, %v", rate, burst)
	}
}
