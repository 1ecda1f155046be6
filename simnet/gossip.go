package simnet

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/node"
)

// Parameters of the epidemic: those that the daemon gives to memberlist, and those of its driver
// around it.
const (
	gossipInterval = 200 * time.Millisecond
	gossipNodes    = 3
	retransmitMult = 4
	aliveOverhead  = 164 // bytes of memberlist's message around a rumour
	packetParts    = 8
	welcomeOthers  = 15
	welcomeAgain   = 2 * time.Second
	trickleEvery   = 10 * time.Second
	trickleOthers  = 4
	fewNeighbours  = 6
	dialEvery      = 30 * time.Second
	dialBurst      = 6
	maxTries       = 8
)

// Epidemic spreads rumours between relays as the daemon's gossip does, without memberlist, whose
// goroutines no seed can order. Every 200 ms, three relays drawn by lot are sent what has been passed
// on least; each rumour is passed on four times the logarithm of the network's size; one to whom there
// is no link is replaced by a neighbour. What a rumour is worth the relay's directory agent decides,
// as in the daemon. Implements node.Gossip.
type Epidemic struct {
	w       *World
	env     env.Env
	network *directory.Network
	relay   *node.Relay
	self    cert.Identity
	dice    Stream

	own     *rumour
	me      member // own, as it is passed on
	table   map[cert.Identity]*member
	order   []*member // the same, in the order in which they came
	queue   []*broadcast
	ticking bool
	tick    env.Timer

	neighbours map[cert.Identity]*neighbour
	list       []*neighbour
	turn       int
	dials      int
	dialled    env.Mono
	chores     env.Timer
	resting    bool // chores is set to more than a second
	stopped    bool

	// Counters.
	Sent, Heard, Accepted uint64
}

// rumour is a sealed rumour, shared by all who hold it.
type rumour struct {
	directory.Rumour
	sealed []byte
}

// member is what is known of one relay.
type member struct {
	*rumour
	from   cert.Identity
	passed *broadcast // its place in the queue, or nil
}

// broadcast is a rumour that is being passed on.
type broadcast struct {
	m         *member
	transmits int
}

type neighbour struct {
	id    cert.Identity
	since env.Mono
	again bool
}

// rumourCache reads each rumour once, for all relays: what it says is the same for all.
type rumourCache struct {
	known map[[32]byte]*rumour
	sweep int // when there are so many, those that have expired are dropped
}

func (c *rumourCache) begin() { c.known = make(map[[32]byte]*rumour) }

func (c *rumourCache) open(sealed []byte, network *directory.Network, now time.Time) *rumour {
	key := sha256.Sum256(sealed)
	if r, ok := c.known[key]; ok {
		return r
	}
	opened, err := directory.OpenRumour(sealed, network, now)
	if err != nil {
		return nil
	}
	r := &rumour{opened, bytes.Clone(sealed)}
	c.known[key] = r
	if len(c.known) > c.sweep {
		for key, old := range c.known { // order: each is judged by itself
			if now.After(old.Expires) {
				delete(c.known, key)
			}
		}
		c.sweep = 2*len(c.known) + 1024
	}
	return r
}

// newEpidemic is the gossip of a relay that is to be made; begin follows.
func newEpidemic(w *World, h *Host, network *directory.Network, self cert.Identity) *Epidemic {
	return &Epidemic{
		w: w, env: h.env, network: network, self: self, dice: Stream{w.Stream(StreamPaths, "gossip", h.Name, itoa(h.life)).ChaCha8},
		table: make(map[cert.Identity]*member), neighbours: make(map[cert.Identity]*neighbour), dials: dialBurst,
	}
}

func (g *Epidemic) begin(relay *node.Relay) {
	g.relay = relay
	g.tick = g.env.Clock.AfterFunc(time.Hour, g.gossip)
	g.tick.Stop()
	g.chores = g.env.Clock.AfterFunc(time.Second, g.onChores)
}

func (g *Epidemic) stop() {
	g.stopped = true
	g.tick.Stop()
	g.chores.Stop()
}

// Announce implements directory.Gossip.
func (g *Epidemic) Announce(sealed []byte) {
	g.own = g.w.rumours.open(sealed, g.network, g.env.Clock.Wall())
	if g.own == nil || g.relay == nil {
		return
	}
	g.me.rumour, g.me.from = g.own, g.self
	g.broadcast(&g.me)
	for _, n := range g.list {
		g.send(n.id, []*rumour{g.own})
	}
}

// Spread implements directory.Gossip.
func (g *Epidemic) Spread(_ directory.Rumour, sealed []byte, from cert.Identity) {
	if r := g.w.rumours.open(sealed, g.network, g.env.Clock.Wall()); r != nil {
		g.admit(r, from)
	}
}

// OnConsensus implements directory.Gossip. Nothing depends on it here: the table has no bound that
// honest relays reach.
func (g *Epidemic) OnConsensus(func(cert.Identity) bool) {}

// Forget implements directory.Gossip.
func (g *Epidemic) Forget(id cert.Identity) {
	m := g.table[id]
	if m == nil {
		return
	}
	delete(g.table, id)
	g.order = slices.DeleteFunc(g.order, func(x *member) bool { return x == m })
	g.retract(m)
}

// LinkUp implements node.Gossip.
func (g *Epidemic) LinkUp(id cert.Identity, _ netip.Addr) {
	if id.IsZero() || id == g.self || g.neighbours[id] != nil || g.stopped {
		return
	}
	n := &neighbour{id: id, since: g.env.Clock.Now()}
	g.neighbours[id] = n
	g.list = append(g.list, n)
	g.tell(n, g.own, welcomeOthers)
	if g.resting {
		g.resting = false
		g.chores.Reset(time.Second)
	}
}

// LinkDown implements node.Gossip.
func (g *Epidemic) LinkDown(id cert.Identity) {
	if n := g.neighbours[id]; n != nil {
		delete(g.neighbours, id)
		g.list = slices.DeleteFunc(g.list, func(o *neighbour) bool { return o == n })
		if g.resting && len(g.list) < fewNeighbours && !g.stopped {
			g.resting = false
			g.chores.Reset(time.Second)
		}
	}
}

// OnPacket implements node.Gossip.
func (g *Epidemic) OnPacket(from cert.Identity, packet []byte) {
	if g.neighbours[from] == nil || g.stopped {
		return
	}
	for len(packet) >= 2 {
		n := int(binary.BigEndian.Uint16(packet))
		if n > len(packet)-2 {
			return
		}
		sealed := packet[2 : 2+n]
		packet = packet[2+n:]
		g.Heard++
		r := g.w.rumours.open(sealed, g.network, g.env.Clock.Wall())
		if r == nil || r.Identity == g.self || !g.newer(r) || !g.env.Clock.Wall().Before(r.Expires) {
			continue
		}
		if accept, _ := g.relay.OnRumour(r.sealed, from); accept {
			g.admit(r, from)
		}
	}
}

// newer reports whether a rumour is newer than what is held of its relay.
func (g *Epidemic) newer(r *rumour) bool {
	m := g.table[r.Identity]
	if m == nil {
		return true
	}
	for _, c := range []int{r.Issued.Compare(m.Issued), r.Published.Compare(m.Published), r.Descriptor.Compare(m.Descriptor), m.Expires.Compare(r.Expires)} {
		if c != 0 {
			return c > 0
		}
	}
	return false
}

func (g *Epidemic) admit(r *rumour, from cert.Identity) {
	if r.Identity == g.self || !g.newer(r) {
		return
	}
	g.Accepted++
	m := g.table[r.Identity]
	if m == nil {
		m = &member{}
		g.table[r.Identity] = m
		g.order = append(g.order, m)
	}
	m.rumour, m.from = r, from
	g.broadcast(m)
}

// broadcast begins to pass on what is known of a relay.
func (g *Epidemic) broadcast(m *member) {
	g.retract(m)
	m.passed = &broadcast{m: m}
	g.queue = append(g.queue, m.passed)
	if !g.ticking && !g.stopped {
		g.ticking = true
		g.tick.Reset(gossipInterval)
	}
}

// retract ends passing on what is known of a relay.
func (g *Epidemic) retract(m *member) {
	if m.passed != nil {
		at := slices.Index(g.queue, m.passed)
		g.queue = slices.Delete(g.queue, at, at+1)
		m.passed = nil
	}
}

// limit is how often a rumour is passed on: memberlist's, four times the number of digits of the size
// of the network.
func (g *Epidemic) limit() int {
	digits := 0
	for n := len(g.table) + 1; n > 0; n /= 10 {
		digits++
	}
	return retransmitMult * digits
}

// gossip is one round.
func (g *Epidemic) gossip() {
	g.ticking = false
	if g.stopped {
		return
	}
	limit := g.limit()
	for range min(gossipNodes, len(g.order)) {
		to := g.order[g.dice.Below(uint64(len(g.order)))].Identity
		// Those that were passed on least come first, and of these the newest.
		slices.SortStableFunc(g.queue, func(a, b *broadcast) int { return a.transmits - b.transmits })
		var chosen []*member
		size := 0
		for _, b := range g.queue {
			n := len(b.m.sealed) + aliveOverhead
			if len(chosen) == packetParts || packetSize(len(chosen)+1, size+n) > cell.MaxGossip {
				break
			}
			size += n
			chosen = append(chosen, b.m)
			b.transmits++
		}
		g.queue = slices.DeleteFunc(g.queue, func(b *broadcast) bool {
			if b.transmits < limit {
				return false
			}
			b.m.passed = nil
			return true
		})
		g.deliver(chosen, to)
	}
	if len(g.queue) > 0 {
		g.ticking = true
		g.tick.Reset(gossipInterval)
	}
}

// deliver sends rumours to the relay that was drawn, or else to neighbours to whom they are news.
func (g *Epidemic) deliver(chosen []*member, to cert.Identity) {
	if n := g.neighbours[to]; n != nil {
		chosen = g.sendNews(n, chosen)
	}
	if len(g.list) == 0 {
		return
	}
	start := int(g.dice.Below(uint64(len(g.list))))
	for i := 0; i < min(maxTries, len(g.list)) && len(chosen) > 0; i++ {
		if n := g.list[(start+i)%len(g.list)]; n.id != to {
			chosen = g.sendNews(n, chosen)
		}
	}
}

// sendNews sends a neighbour what it is not known to know, and returns the rest.
func (g *Epidemic) sendNews(n *neighbour, chosen []*member) (rest []*member) {
	var news []*rumour
	for _, m := range chosen {
		if m.Identity == n.id || m.from == n.id {
			rest = append(rest, m)
		} else {
			news = append(news, m.rumour)
		}
	}
	if len(news) == 0 || !g.send(n.id, news) {
		return chosen
	}
	return rest
}

// tell sends a neighbour this relay's rumour, if there is one, and some others by lot.
func (g *Epidemic) tell(n *neighbour, own *rumour, others int) {
	var all []*rumour
	if own != nil {
		all = append(all, own)
	}
	now := g.env.Clock.Wall()
	if len(g.order) > 0 {
		start := int(g.dice.Below(uint64(len(g.order))))
		for i := 0; i < len(g.order) && others > 0; i++ {
			if m := g.order[(start+i)%len(g.order)]; m.Identity != n.id && m.from != n.id && now.Before(m.Expires) {
				all = append(all, m.rumour)
				others--
			}
		}
	}
	for len(all) > 0 {
		count, size := 0, 0
		for count < len(all) && count < packetParts && packetSize(count+1, size+len(all[count].sealed)+aliveOverhead) <= cell.MaxGossip {
			size += len(all[count].sealed) + aliveOverhead
			count++
		}
		g.send(n.id, all[:count])
		all = all[count:]
	}
}

// packetSize is the size of a packet of so many messages of so many bytes together.
func packetSize(messages, bytes int) int {
	if messages > 1 {
		return 2 + 2*messages + bytes
	}
	return bytes
}

// send sends rumours as one packet.
func (g *Epidemic) send(to cert.Identity, rumours []*rumour) bool {
	var packet []byte
	for _, r := range rumours {
		packet = binary.BigEndian.AppendUint16(packet, uint16(len(r.sealed)))
		packet = append(packet, r.sealed...)
	}
	if !g.relay.Gossip(to, packet) {
		return false
	}
	g.Sent++
	return true
}

// onChores is what has to be done once a second, or less often while nothing but the trickle is to be done.
func (g *Epidemic) onChores() {
	if g.stopped {
		return
	}
	now, wall := g.env.Clock.Now(), g.env.Clock.Wall()
	for _, n := range g.list {
		if !n.again && now.Sub(n.since) >= welcomeAgain {
			n.again = true
			g.tell(n, nil, welcomeOthers)
		}
	}
	if now/env.Mono(trickleEvery) != (now-env.Mono(time.Second))/env.Mono(trickleEvery) {
		for _, m := range slices.Clone(g.order) {
			if !wall.Before(m.Expires) {
				g.Forget(m.Identity)
			}
		}
		if len(g.list) > 0 {
			g.turn = (g.turn + 1) % len(g.list)
			g.tell(g.list[g.turn], nil, trickleOthers)
		}
	}
	g.dial(now, wall)
	g.resting = len(g.list) >= fewNeighbours && !slices.ContainsFunc(g.list, func(n *neighbour) bool { return !n.again })
	if g.resting {
		g.chores.Reset(trickleEvery - time.Duration(now)%trickleEvery)
	} else {
		g.chores.Reset(time.Second)
	}
}

// dial asks for a link while there are few.
func (g *Epidemic) dial(now env.Mono, wall time.Time) {
	for ; g.dials < dialBurst && now.Sub(g.dialled) >= dialEvery; g.dials++ {
		g.dialled = g.dialled.Add(dialEvery)
	}
	if len(g.list) >= fewNeighbours || g.dials == 0 || len(g.order) == 0 {
		return
	}
	start := int(g.dice.Below(uint64(len(g.order))))
	for i := range g.order {
		m := g.order[(start+i)%len(g.order)]
		if g.neighbours[m.Identity] != nil || !wall.Before(m.Expires) || m.Expires.Before(m.Published.Add(directory.DescriptorLifetime)) {
			continue
		}
		if g.dials == dialBurst {
			g.dialled = now
		}
		g.dials--
		g.relay.DialFor(env.Target{Identity: m.Identity, Addresses: []netip.AddrPort{m.Address}})
		return
	}
}
