package netlink

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Direction is one way of a host's access link.
type Direction struct {
	Rate  int64 // bytes of IP a second; 0 is without limit
	Queue int64 // bytes that may wait; what comes then is dropped; 0 is without limit
}

// Host is a machine of a Network: a network namespace.
type Host struct {
	Name    string     // for errors
	Address netip.Addr // IPv4, another one for each
	Up      Direction
	Down    Direction
	// Kernel has the kernel's token bucket do the rate up, as a network card would: TCP knows what waits
	// there, and keeps it short. Otherwise what is sent waits in a queue that it knows nothing of, as
	// before a slow modem. It needs the program tc.
	Kernel bool
	// Congestion is the congestion control of TCP, such as cubic; empty is the system's. It needs the
	// program ip.
	Congestion string
	// Sysctl are settings of the namespace, by their paths under /proc/sys.
	Sysctl map[string]string
}

// Path is what is between two hosts' access links, one way.
type Path struct {
	Delay time.Duration
	// Jitter is how much later a packet may come: the square of a number drawn between 0 and 1, times
	// this. Packets of a path overtake each other only when Reorder is set.
	Jitter  time.Duration
	Reorder bool
	Loss    int // packets in a million that are lost
}

// packet is one IP packet on its way.
type packet struct {
	at      time.Duration // when what is next happens
	seq     uint64
	to      int
	arrived bool // at the access link of to; next it leaves that
	data    []byte
}

// agenda has packets in the order of their times.
type agenda []*packet

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(*packet)) }
func (a *agenda) Pop() any {
	old := *a
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	return p
}

// gate lets bytes through at a rate, in the order in which they come.
type gate struct {
	Direction
	free time.Duration // when all before is through
}

// pass returns when n bytes that come at a time are through; false means that there is no room for them.
func (g *gate) pass(at time.Duration, n int) (time.Duration, bool) {
	if g.Rate == 0 {
		return at, true
	}
	if wait := g.free - at; wait > 0 && g.Queue > 0 && int64(wait)/1000*g.Rate/1_000_000+int64(n) > g.Queue {
		return 0, false
	}
	g.free = max(g.free, at) + time.Duration(int64(n)*int64(time.Second)/g.Rate)
	return g.free, true
}

// model is the network without its devices: packets go in with a time and come out with one. The same
// seed and the same packets at the same times give the same.
type model struct {
	up, down []gate
	path     func(from, to int) Path
	dice     []*rand.Rand    // of what each host sends
	last     []time.Duration // by from and to: nothing of a path comes before
	agenda   agenda
	seq      uint64
	spare    []*packet
	deliver  func(to int, data []byte, at time.Duration)
	count    []Counts
}

// Counts are packets of one host.
type Counts struct {
	Sent      uint64 // by it
	Received  uint64 // by it
	FullUp    uint64 // dropped because the queue up was full
	FullDown  uint64 // and the queue down
	Lost      uint64 // of those that it sent
	Unknown   uint64 // to an address that no host has
	Malformed uint64 // not IPv4
}

func newModel(seed uint64, hosts []Host, path func(from, to int) Path) *model {
	m := &model{path: path, last: make([]time.Duration, len(hosts)*len(hosts)), count: make([]Counts, len(hosts))}
	for i, h := range hosts {
		up := h.Up
		if h.Kernel { // the kernel has done it
			up = Direction{}
		}
		m.up = append(m.up, gate{Direction: up})
		m.down = append(m.down, gate{Direction: h.Down})
		key := binary.BigEndian.AppendUint64(nil, seed)
		m.dice = append(m.dice, rand.New(rand.NewChaCha8(sha256.Sum256(binary.BigEndian.AppendUint64(key, uint64(i))))))
	}
	return m
}

// take returns a packet to be filled, of at most so many bytes.
func (m *model) take(size int) *packet {
	if n := len(m.spare); n > 0 {
		p := m.spare[n-1]
		m.spare = m.spare[:n-1]
		p.data = p.data[:cap(p.data)]
		p.arrived = false
		return p
	}
	return &packet{data: make([]byte, size)}
}

func (m *model) give(p *packet) { m.spare = append(m.spare, p) }

// send puts a packet on its way.
func (m *model) send(from, to int, p *packet, at time.Duration) {
	m.count[from].Sent++
	at, ok := m.up[from].pass(at, len(p.data))
	if !ok {
		m.count[from].FullUp++
		m.give(p)
		return
	}
	w := m.path(from, to)
	if w.Loss > 0 && m.dice[from].IntN(1_000_000) < w.Loss {
		m.count[from].Lost++
		m.give(p)
		return
	}
	at += w.Delay
	if w.Jitter > 0 {
		u := m.dice[from].Float64()
		at += time.Duration(u * u * float64(w.Jitter))
	}
	if pair := from*len(m.up) + to; !w.Reorder {
		at = max(at, m.last[pair])
		m.last[pair] = at
	}
	p.to = to
	m.schedule(p, at)
}

func (m *model) schedule(p *packet, at time.Duration) {
	m.seq++
	p.at, p.seq = at, m.seq
	heap.Push(&m.agenda, p)
}

// next is when something happens next.
func (m *model) next() (time.Duration, bool) {
	if len(m.agenda) == 0 {
		return 0, false
	}
	return m.agenda[0].at, true
}

// run does all that is due by a time.
func (m *model) run(now time.Duration) {
	for len(m.agenda) > 0 && m.agenda[0].at <= now {
		p := heap.Pop(&m.agenda).(*packet)
		if !p.arrived {
			at, ok := m.down[p.to].pass(p.at, len(p.data))
			if !ok {
				m.count[p.to].FullDown++
				m.give(p)
				continue
			}
			if at > p.at {
				p.arrived = true
				m.schedule(p, at)
				continue
			}
		}
		m.count[p.to].Received++
		m.deliver(p.to, p.data, p.at)
		m.give(p)
	}
}
