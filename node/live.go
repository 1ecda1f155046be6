package node

import (
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/relay"
)

// Live is what of a relay's settings may change while it runs.
type Live struct {
	Policy    directory.Policy
	Bandwidth uint64
	Nickname  string
	Contact   string
	Families  []cert.Membership
	Exit      relay.ExitLimits
	// Uplink and UplinkBurst are those of RelayConfig. Whether a rate is known at all is settled at the start.
	Uplink      int64
	UplinkBurst time.Duration
}

// SetLive changes settings, and publishes a new descriptor if it says something else now. It reports whether Uplink
// could be changed: false needs a new start.
func (r *Relay) SetLive(l Live) (uplink bool) {
	c := &r.cfg
	c.Policy, c.Bandwidth, c.Nickname, c.Contact, c.Families = l.Policy, l.Bandwidth, l.Nickname, l.Contact, l.Families
	r.relay.SetExit(r.exitPolicy(), l.Exit)
	if uplink = r.links.SetUplink(l.Uplink, l.UplinkBurst); uplink {
		c.Uplink, c.UplinkBurst = l.Uplink, l.UplinkBurst
	}
	r.agent.Update()
	return uplink
}

// exitPolicy is that of the exit; nil if the relay is none.
func (r *Relay) exitPolicy() *directory.Policy {
	if r.cfg.Policy.IsEmpty() || r.cfg.DirectoryOnly {
		return nil
	}
	return &r.cfg.Policy
}

// Drain begins the end of the relay: the network hears that it leaves, and new circuits are refused. Those that there
// are go on.
func (r *Relay) Drain() {
	r.relay.Drain()
	r.left = true
	r.agent.Leave(stopGrace, func() {})
}

// ExitBytes are what the exit's connections have brought and taken.
func (r *Relay) ExitBytes() (in, out uint64) {
	s := r.relay.Stats()
	return s.ExitBytesIn, s.ExitBytesOut
}

// Carrying is how many circuits and streams of others would break if the relay ended now.
func (r *Relay) Carrying() int64 { return r.relay.Carrying() }
