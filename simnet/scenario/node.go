package scenario

import (
	"slices"
	"time"

	"cepa/env"
	"cepa/simnet"
)

// node is a machine of the scenario, and what runs on it.
type node struct {
	r     *Run
	group string
	host  *simnet.Host
	start env.Mono

	relayAs  *simnet.RelaySpec
	clientAs *simnet.ClientSpec
	relay    *simnet.Relay
	client   *simnet.Client
	loads    []Load

	leaving bool // in order; its process ends in a moment
	wanted  bool // to run
}

// begin starts the node for the first time.
func (n *node) begin() {
	n.wanted = true
	var err error
	if n.relayAs != nil {
		n.relay, err = n.r.Network.Relay(n.host, *n.relayAs)
	} else {
		n.client, err = n.r.Network.Client(n.host, *n.clientAs)
	}
	if err != nil {
		n.r.fail(err)
		return
	}
	n.use()
}

func (n *node) began() bool { return n.relay != nil || n.client != nil }

// again is the pause before a node is started again that was to be stopped and is not yet.
const again = 100 * time.Millisecond

// restart starts the node, unless it runs.
func (n *node) restart() {
	n.wanted = true
	switch {
	case !n.began() || n.r.over:
		return
	case n.leaving:
		n.r.World.After(again, func() {
			if n.wanted {
				n.restart()
			}
		})
		return
	case n.host.Alive():
		return
	}
	n.host.Silence(false)
	var err error
	if n.relay != nil {
		err = n.relay.Start()
	} else {
		err = n.client.Start()
	}
	if err != nil {
		n.r.fail(err)
		return
	}
	n.use()
}

// leave ends the node in order.
func (n *node) leave() {
	n.wanted = false
	if !n.began() || n.leaving || !n.host.Alive() {
		return
	}
	n.leaving = true
	if n.relay != nil {
		n.relay.Stop(func() { n.leaving = false })
		return
	}
	n.client.Stop()
	life := n.host.Life()
	n.r.World.After(time.Second, func() {
		if n.host.Life() == life {
			n.host.Crash()
		}
		n.leaving = false
	})
}

// crash ends the process.
func (n *node) crash() {
	n.wanted = false
	if n.began() {
		n.host.Crash()
	}
}

// powerOff ends the machine.
func (n *node) powerOff() {
	n.wanted = false
	if n.began() {
		n.host.PowerOff()
	}
}

// use has the client's users begin.
func (n *node) use() {
	if n.client == nil {
		return
	}
	for i := range n.loads {
		l := &n.loads[i]
		for range max(1, l.Users) {
			n.user(l)
		}
	}
}

// user begins one user, when it is time.
func (n *node) user(l *Load) {
	w := n.r.World
	until := env.Mono(l.Until)
	if until > 0 && w.Now() >= until {
		return
	}
	if wait := time.Duration(l.From) - time.Duration(w.Now()); wait > 0 {
		life := n.host.Life()
		w.After(wait, func() {
			if n.host.Life() == life {
				n.user(l)
			}
		})
		return
	}
	if l.Kind == loadTrace {
		n.replay(l)
		return
	}
	stop := n.client.Use(n.workload(l))
	if until > 0 {
		w.At(until, stop)
	}
}

// workload is a load as the users of package simnet have it.
func (n *node) workload(l *Load) simnet.Workload {
	host := l.Host
	if host == "" {
		host = n.r.Scenario.servers()[0].Host
	}
	var u simnet.Workload
	bytes := int64(l.Bytes)
	switch l.Kind {
	case loadWeb:
		u = simnet.Web(host, or(bytes, 150_000))
		u.Flows = int(or(int64(l.Flows), int64(u.Flows)))
		u.Down = max(1, or(bytes, 150_000)/int64(u.Flows))
		u.Spread = !l.Fixed
	case loadBulk:
		u = simnet.Bulk(host, or(bytes, 5_000_000))
	case loadChat:
		u = simnet.Chat(host)
		u.Down = or(bytes, u.Down)
	}
	u.Port = l.port()
	u.Up = or(int64(l.Up), u.Up)
	u.Think = time.Duration(or(int64(l.Think), int64(u.Think)))
	u.Flows = int(or(int64(l.Flows), int64(u.Flows)))
	u.Exchanges = int(or(int64(l.Exchanges), int64(u.Exchanges)))
	u.Pause = time.Duration(or(int64(l.Pause), int64(u.Pause)))
	u.Patience = time.Duration(or(int64(l.Patience), int64(u.Patience)))
	u.Read = int64(l.Read)
	u.Rounds, u.Isolated = l.Rounds, l.Isolated
	return u
}

func or(v, other int64) int64 {
	if v == 0 {
		return other
	}
	return v
}

// replay has the client open the streams of a trace, from when it is ready.
func (n *node) replay(l *Load) {
	list := n.r.Scenario.made.traces[l.File]
	life := n.host.Life()
	n.client.WhenReady(func() {
		p := &replay{n: n, l: l, list: list, life: life, began: n.r.World.Now()}
		p.next()
	})
}

// replay is a trace that is being replayed.
type replay struct {
	n     *node
	l     *Load
	list  []request
	life  uint32
	began env.Mono
}

const tracePatience = 2 * time.Minute

// next opens what is due, and waits for the next.
func (p *replay) next() {
	n, w := p.n, p.n.r.World
	for len(p.list) > 0 {
		q := p.list[0]
		at := p.began.Add(q.at)
		if n.host.Life() != p.life || n.r.quiet || p.l.Until > 0 && at >= env.Mono(p.l.Until) {
			return
		}
		if at > w.Now() {
			w.At(at, func() {
				if n.host.Life() == p.life {
					p.next()
				}
			})
			return
		}
		p.list = p.list[1:]
		n.client.Open(simnet.FlowSpec{
			Host: q.host, Port: q.port, Up: q.up, Down: q.down, Isolation: q.host,
			Patience: time.Duration(or(int64(p.l.Patience), int64(tracePatience))),
		}, nil)
	}
}

// pick draws who of the machines that fit patterns is meant.
func (r *Run) pick(patterns []string, n int, dice simnet.Stream) []*node {
	var list []*node
	seen := make(map[*node]bool)
	add := func(x *node) {
		if x != nil && !seen[x] {
			seen[x] = true
			list = append(list, x)
		}
	}
	for _, pattern := range patterns {
		if x := r.byName[pattern]; x != nil {
			add(x)
			continue
		}
		for _, g := range r.Scenario.groups() {
			for i := range g.count {
				if name := nodeName(g.name, i); fits(pattern, g.name, name) {
					add(r.byName[name])
				}
			}
		}
	}
	if n == 0 || n >= len(list) {
		return list
	}
	for i := range n {
		j := i + int(dice.Below(uint64(len(list)-i)))
		list[i], list[j] = list[j], list[i]
	}
	return slices.Clone(list[:n])
}
