package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"cepa/loop"
)

// maxDrain bounds how long a relay waits for its circuits: they are replaced within minutes.
const maxDrain = time.Hour

// checkMore finds what cannot work in the settings of exits, limits and accounting.
func (c *RelayConfig) checkMore() error {
	for _, n := range []struct {
		name  string
		value int
		most  int
	}{
		{"exit_max", c.ExitMax, 1 << 20}, {"exit_max_per_circuit", c.ExitMaxPerCircuit, 1 << 20}, {"exit_max_per_destination", c.ExitMaxPerDestination, 1 << 20},
		{"exit_rate", c.ExitRate, 1 << 20}, {"exit_rate_per_circuit", c.ExitRatePerCircuit, 1 << 20}, {"exit_rate_per_destination", c.ExitRatePerDestination, 1 << 20},
		{"rate_kib", c.RateKiB, 1 << 30}, {"burst_kib", c.BurstKiB, 1 << 30}, {"accounting_gib", c.AccountingGiB, 1 << 30},
	} {
		if n.value < 0 || n.value > n.most {
			return fmt.Errorf("%s is %d: it must be from 0 to %d", n.name, n.value, n.most)
		}
	}
	switch {
	case c.RateKiB > 0 && c.RateKiB < 20:
		return fmt.Errorf("rate_kib is %d: less than 20 KiB a second is of no use to anybody", c.RateKiB)
	case c.BurstKiB > 0 && c.RateKiB == 0:
		return errors.New("burst_kib is set, and rate_kib is not: set both")
	case c.AccountingDay < 1 || c.AccountingDay > 28:
		return fmt.Errorf("accounting_day is %d: it must be from 1 to 28", c.AccountingDay)
	case !slices.Contains([]string{"sum", "out", "max"}, c.AccountingCount):
		return fmt.Errorf("accounting_count %q is not sum, out or max", c.AccountingCount)
	}
	if d, err := time.ParseDuration(c.Drain); c.Drain != "" && (err != nil || d < 0 || d > maxDrain) {
		return fmt.Errorf("drain %q is not a time from 0s to %s, such as 30s or 5m", c.Drain, maxDrain)
	}
	if _, err := parsePolicy(c.ExitPolicy); err != nil {
		return err
	}
	return c.checkOutside()
}

// checkOutside finds what is wrong with addresses.
func (c *RelayConfig) checkOutside() error {
	if a, err := netip.ParseAddr(c.ExitAddress); c.ExitAddress != "" && (err != nil || !a.Is4()) {
		return fmt.Errorf("exit_address %q is no IPv4 address", c.ExitAddress)
	}
	if a, err := netip.ParseAddr(c.ExitAddress6); c.ExitAddress6 != "" && (err != nil || !a.Is6() || a.Is4In6()) {
		return fmt.Errorf("exit_address6 %q is no IPv6 address", c.ExitAddress6)
	}
	for name, text := range map[string]string{"resolver": c.Resolver, "exit_notice": c.ExitNotice} {
		if _, err := netip.ParseAddrPort(text); text != "" && err != nil {
			return fmt.Errorf("%s %q is not an IP address and port such as 127.0.0.1:53", name, text)
		}
	}
	if c.ExitNotice != "" && c.ExitNotice == c.Listen {
		return fmt.Errorf("exit_notice %s is the address of listen: the page needs a port of its own", c.ExitNotice)
	}
	return nil
}

// outside is how the exit goes out: settings that check has seen.
func (c *RelayConfig) outside() loop.Options {
	o := loop.Options{StateDir: c.Dir}
	o.LocalAddr4, _ = netip.ParseAddr(c.ExitAddress)
	o.LocalAddr6, _ = netip.ParseAddr(c.ExitAddress6)
	if server := c.Resolver; server != "" {
		o.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, server)
		}}
	}
	return o
}
