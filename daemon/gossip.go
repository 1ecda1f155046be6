package daemon

import (
	"strings"

	"cepa/cert"
	"cepa/directory/gossip"
	"cepa/env"
	"cepa/node"
)

// startGossip joins the relay's node with memberlist.
func (r *Relay) startGossip(carrier *lateGossip, id cert.Identity) error {
	g, err := gossip.New(gossip.Config{
		Identity: id, Network: r.network, Rumours: rumours{r.node}, Post: r.loop.Post,
		Send: r.node.Gossip, Dial: func(to env.Target) { r.node.DialFor(to) },
		Violation: r.node.OnGossipViolation, Log: r.options.Log, Undefended: r.options.Undefended,
	})
	if err != nil {
		return err
	}
	r.gossip, carrier.Gossip = g, g
	return nil
}

// rumours passes on what the gossip heard.
type rumours struct{ node *node.Relay }

func (h rumours) OnRumour(sealed []byte, from cert.Identity) (accept bool) {
	accept, _ = h.node.OnRumour(sealed, from)
	return accept
}

// gossipCounters are those of the gossip.
func (r *Relay) gossipCounters(into map[string]int64) {
	s := r.gossip.Stats()
	for name, n := range map[string]uint64{
		"packets_in": s.PacketsIn, "packets_out": s.PacketsOut, "verified": s.Verified, "accepted": s.Accepted, "dials": s.Dials, "evicted": s.Evicted,
	} {
		into["gossip_"+name] = int64(n)
	}
	into["gossip_neighbours"], into["gossip_members"], into["gossip_true_members"] = int64(s.Neighbours), int64(s.Members), int64(s.True)
	for reason, n := range s.Dropped {
		into["gossip_dropped_"+strings.NewReplacer(" ", "_", "/", "_").Replace(reason.String())] = int64(n)
	}
}
