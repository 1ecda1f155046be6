package daemon

import (
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
		Violation: r.node.OnGossipViolation, Log: r.options.Log,
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
