package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"cepa/directory"
	"cepa/node"
	"cepa/relay"
)

// Changes are what a reload found changed, by names of settings.
type Changes struct {
	Applied []string // in force now
	Restart []string // differ from what runs, and need a new start
}

// String is for the log: "exit_policy, log_level are in force; memory_mib needs a restart".
func (c Changes) String() string {
	var parts []string
	for _, x := range []struct {
		names     []string
		one, many string
	}{{c.Applied, " is in force", " are in force"}, {c.Restart, " needs a restart", " need a restart"}} {
		switch len(x.names) {
		case 0:
		case 1:
			parts = append(parts, x.names[0]+x.one)
		default:
			parts = append(parts, strings.Join(x.names, ", ")+x.many)
		}
	}
	if len(parts) == 0 {
		return "nothing has changed"
	}
	return strings.Join(parts, "; ")
}

// compare says which settings differ, and gives running those that may change without a restart.
func compare(running, next any) (c Changes) {
	for _, s := range Settings(running) {
		switch {
		case s.Text(running) == s.Text(next):
		case s.Live:
			s.of(running).Set(s.of(next))
			c.Applied = append(c.Applied, s.Name)
		default:
			c.Restart = append(c.Restart, s.Name)
		}
	}
	return c
}

// setLevel changes what the node's log takes.
func (s *shell) setLevel(name string) error {
	level, err := ParseLogLevel(name)
	if err == nil && s.options.Level != nil {
		s.options.Level.Set(level)
	}
	return err
}

// CheckConfig finds what cannot work in a configuration with its defaults, as a start would, but opens nothing.
func CheckConfig(config any) error {
	switch c := config.(type) {
	case *RelayConfig:
		if _, err := c.check(); err != nil {
			return err
		}
		if _, err := ParseLogLevel(c.LogLevel); err != nil {
			return err
		}
		network, err := LoadNetwork(c.Network)
		if err != nil {
			return fmt.Errorf("network: %w", err)
		}
		if err := c.Control.check(); err != nil {
			return err
		}
		if len(c.Serve) > 0 && !network.Test {
			return errServe
		}
		for _, f := range c.FamilyKeys {
			if _, err := loadFamily(f); err != nil {
				return err
			}
		}
		r := Relay{shell: &shell{network: network}, config: *c}
		if c.Address == AutoAddress {
			return nil
		}
		listen, _ := netip.ParseAddrPort(c.Listen)
		_, err = r.announced(listen)
		return err
	case *AuthorityConfig:
		r := c.asRelay()
		return CheckConfig(&r)
	case *ClientConfig:
		if _, err := c.check(); err != nil {
			return err
		}
		if _, err := ParseLogLevel(c.LogLevel); err != nil {
			return err
		}
		if _, err := c.Paths.restrictions(); err != nil {
			return err
		}
		if _, err := LoadNetwork(c.Network); err != nil {
			return fmt.Errorf("network: %w", err)
		}
		return c.Control.check()
	}
	return fmt.Errorf("%T is no configuration", config)
}

// Reload brings into force what may change while the node runs, and says what changed. next is what the node's start
// took. With an error nothing has changed.
func (r *Relay) Reload(next any) (Changes, error) {
	var to RelayConfig
	switch c := next.(type) {
	case *RelayConfig:
		to = *c
	case *AuthorityConfig:
		to = c.asRelay()
	default:
		return Changes{}, fmt.Errorf("%T is no configuration of a relay", next)
	}
	if err := CheckConfig(&to); err != nil {
		return Changes{}, err
	}
	r.mu.Lock()
	merged := r.config
	if r.learned && to.Address == AutoAddress {
		to.Address = merged.Address
	}
	r.mu.Unlock()
	changes := compare(&merged, &to)
	live, err := r.live(&merged)
	if err != nil {
		return Changes{}, err
	}
	uplink := true
	if err := r.loop.Do(context.Background(), func() { uplink = r.node.SetLive(live) }); err != nil {
		return Changes{}, fmt.Errorf("%w: %w", errStopped, err)
	}
	if err := r.setLevel(merged.LogLevel); err != nil {
		return Changes{}, err // not reached: checked above
	}
	r.mu.Lock()
	old := r.config
	if !uplink { // there was no limit and there is to be one, or the other way round
		merged.RateKiB, merged.BurstKiB = old.RateKiB, old.BurstKiB
		changes = compareOnly(changes, &old, &merged)
	}
	r.config = merged
	r.status.Exit = !live.Policy.IsEmpty()
	r.mu.Unlock()
	r.accounting.configure(&merged)
	return changes, nil
}

// compareOnly moves settings that could not be applied after all to those that need a restart.
func compareOnly(c Changes, old, merged *RelayConfig) (out Changes) {
	out.Restart = c.Restart
	for _, s := range Settings(old) {
		for _, name := range c.Applied {
			if name != s.Name {
				continue
			}
			if reflect.DeepEqual(s.of(old).Interface(), s.of(merged).Interface()) {
				out.Restart = append(out.Restart, name)
			} else {
				out.Applied = append(out.Applied, name)
			}
		}
	}
	return out
}

// Reload is as that of a relay.
func (c *Client) Reload(next any) (Changes, error) {
	to, ok := next.(*ClientConfig)
	if !ok {
		return Changes{}, fmt.Errorf("%T is no configuration of a client", next)
	}
	if err := CheckConfig(to); err != nil {
		return Changes{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changes := compare(&c.config, to)
	return changes, c.setLevel(c.config.LogLevel)
}

// live is what of the settings the node takes while it runs.
func (r *Relay) live(c *RelayConfig) (l node.Live, err error) {
	if l.Policy, err = parsePolicy(c.ExitPolicy); err != nil {
		return l, err
	}
	if l.Families, err = families(c.FamilyKeys, r.network.ID, r.keys.Identity()); err != nil {
		return l, err
	}
	l.Bandwidth, l.Nickname, l.Contact = uint64(c.BandwidthMiB)<<20, c.Nickname, c.Contact
	l.Exit = relay.ExitLimits{
		Open: c.ExitMax, OpenPerCircuit: c.ExitMaxPerCircuit, OpenPerDestination: c.ExitMaxPerDestination,
		Rate: c.ExitRate, RatePerCircuit: c.ExitRatePerCircuit, RatePerDestination: c.ExitRatePerDestination,
	}
	l.Uplink, l.UplinkBurst = c.uplink()
	return l, nil
}

// uplink is the rate in bytes a second that goes out, and its burst: the lower of what the machine can and what the
// operator allows; 0 is no limit.
func (c *RelayConfig) uplink() (rate int64, burst time.Duration) {
	rate = int64(c.UplinkMbit) * (1e6 / 8)
	if allowed := int64(c.RateKiB) << 10; allowed > 0 && (rate == 0 || allowed < rate) {
		rate, burst = allowed, time.Second
		if c.BurstKiB > 0 {
			burst = time.Duration(float64(c.BurstKiB) / float64(c.RateKiB) * float64(time.Second))
		}
	}
	return rate, burst
}

// parsePolicy reads an exit policy; "full" is "all".
func parsePolicy(text string) (directory.Policy, error) {
	switch text {
	case "":
		text = "none"
	case "full":
		text = "all"
	}
	p, err := directory.ParsePolicy(text)
	if err != nil {
		return p, fmt.Errorf("exit_policy: %w", err)
	}
	return p, nil
}

// levelHandler is a log handler whose level can change.
type levelHandler struct {
	slog.Handler
	level *slog.LevelVar
}

// WithLevel has level decide what h takes, which itself should take everything. level may change at any time.
func WithLevel(h slog.Handler, level *slog.LevelVar) slog.Handler { return levelHandler{h, level} }

func (h levelHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h levelHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return levelHandler{h.Handler.WithAttrs(a), h.level}
}

func (h levelHandler) WithGroup(name string) slog.Handler {
	return levelHandler{h.Handler.WithGroup(name), h.level}
}
