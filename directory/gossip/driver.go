package gossip

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"cepa/cell"
	"cepa/cert"
)

// Errors that memberlist gets from its transport.
var (
	errNoStreams = errors.New("gossip has no streams: rumours travel in packets over open links")
	errNoName    = errors.New("gossip sends to members by their identity")
	errClosed    = errors.New("gossip is closed")
	errSquatted  = errors.New("rumour under the name of a relay that did not sign it")
)

const (
	driverInbox    = 256     // messages that memberlist has not read yet
	maxIncarnation = 1 << 31 // then memberlist is replaced, and counting starts again
)

// driver is one memberlist and all that it sees of the world: its transport, and the delegates that judge and hear what
// it does. memberlist calls it from its goroutines, the delegates with its lock of nodes held; so no method of
// memberlist is called with Gossip.mu held.
type driver struct {
	g     *Gossip
	list  *memberlist.Memberlist
	inbox chan *memberlist.Packet
	down  atomic.Bool
	names map[cert.Identity]struct{} // all that it was ever fed; guarded by Gossip.mu
}

func (g *Gossip) newDriver() *driver {
	return &driver{g: g, inbox: make(chan *memberlist.Packet, driverInbox), names: make(map[cert.Identity]struct{})}
}

// start makes the memberlist. It is not called with Gossip.mu held.
func (d *driver) start() error {
	g := d.g
	c := memberlist.DefaultLANConfig()
	c.Name = g.self.String()
	c.Transport = d
	c.AdvertiseAddr, c.AdvertisePort = address, port
	c.BindAddr, c.BindPort = address, port // used nowhere with a transport
	c.RequireNodeNames = true
	c.ProbeInterval, c.PushPullInterval = 0, 0
	c.DisableTcpPings = true
	c.IndirectChecks = 0
	c.GossipInterval, c.GossipNodes, c.RetransmitMult = 200*time.Millisecond, 3, 2 // whom chance leaves out hears by reconciliation
	c.GossipToTheDeadTime = 0
	c.EnableCompression = false
	c.UDPBufferSize = cell.MaxGossip
	c.Delegate, c.Alive, c.Events, c.Conflict = d, d, d, d
	c.Logger = g.logger
	list, err := memberlist.Create(c)
	if err != nil {
		return fmt.Errorf("starting memberlist: %w", err)
	}
	d.list = list
	return nil
}

// stop ends memberlist: its goroutines see that and return.
func (d *driver) stop() {
	if err := d.list.Shutdown(); err != nil {
		d.g.log.Debug("memberlist did not shut down cleanly", "error", err)
	}
}

// neighbourAddr is where memberlist believes packets to come from. It only prints it.
type neighbourAddr struct{}

func (neighbourAddr) Network() string { return "link" }
func (neighbourAddr) String() string  { return "neighbour" }

// feed gives one message to memberlist and reports whether there was room. The message is memberlist's from then on.
func (d *driver) feed(message []byte) bool {
	select {
	case d.inbox <- &memberlist.Packet{Buf: message, From: neighbourAddr{}}:
		return true
	default:
		return false
	}
}

// The transport (memberlist.NodeAwareTransport).

// FinalAdvertiseAddr is the dummy address, whatever is asked.
func (d *driver) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.ParseIP(address).To4(), port, nil
}

// WriteTo refuses: an address names nobody.
func (d *driver) WriteTo([]byte, string) (time.Time, error) { return time.Time{}, errNoName }

// WriteToAddress filters a packet and hands what is left to the loop, copied. It does not wait.
func (d *driver) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if d.down.Load() || d.g.closed.Load() {
		return time.Time{}, errClosed
	}
	id, ok := parseName([]byte(to.Name))
	if !ok {
		return time.Time{}, errNoName
	}
	d.g.outgoing(b, id)
	return d.g.now(), nil
}

// PacketCh brings what the filter let pass.
func (d *driver) PacketCh() <-chan *memberlist.Packet { return d.inbox }

// DialTimeout refuses: there are no streams.
func (d *driver) DialTimeout(string, time.Duration) (net.Conn, error) { return nil, errNoStreams }

// DialAddressTimeout refuses: there are no streams.
func (d *driver) DialAddressTimeout(memberlist.Address, time.Duration) (net.Conn, error) {
	return nil, errNoStreams
}

// StreamCh never brings anything.
func (d *driver) StreamCh() <-chan net.Conn { return nil }

// Shutdown makes the transport refuse.
func (d *driver) Shutdown() error {
	d.down.Store(true)
	return nil
}

// The delegates.

// NodeMeta is this relay's own rumour; nothing before the first Announce.
func (d *driver) NodeMeta(limit int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	if len(d.g.own) > limit {
		return nil
	}
	return d.g.own
}

// NotifyMsg, GetBroadcasts, LocalState and MergeRemoteState belong to messages and streams that do not exist here.
func (d *driver) NotifyMsg([]byte)                {}
func (d *driver) GetBroadcasts(_, _ int) [][]byte { return nil }
func (d *driver) LocalState(bool) []byte          { return nil }
func (d *driver) MergeRemoteState([]byte, bool)   {}

// NotifyAlive lets only this relay itself pass, and rumours that were verified and accepted and are still the newest:
// memberlist's queue is last in, first out.
func (d *driver) NotifyAlive(peer *memberlist.Node) error {
	id, ok := parseName([]byte(peer.Name))
	if !ok {
		return errNoName
	}
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	if id == d.g.self || d.g.cfg.Undefended.Messages {
		return nil
	}
	e := d.g.table[id]
	if e == nil || string(e.sealed) != string(peer.Meta) {
		return errors.New("not the newest rumour of this relay")
	}
	if d == d.g.driver {
		d.g.waitLocked(e, false)
	}
	return nil
}

// NotifyJoin hears that memberlist holds a relay for alive.
func (d *driver) NotifyJoin(node *memberlist.Node) {
	id, _ := parseName([]byte(node.Name))
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	if e := d.g.table[id]; e != nil && d == d.g.driver {
		e.member = true
	}
}

// NotifyLeave has nothing to do: only Forget makes a relay leave.
func (d *driver) NotifyLeave(*memberlist.Node) {}

// NotifyUpdate has nothing to do: the table is ahead of memberlist.
func (d *driver) NotifyUpdate(*memberlist.Node) {}

// NotifyConflict is silent: all addresses are the same.
func (d *driver) NotifyConflict(_, _ *memberlist.Node) {}
