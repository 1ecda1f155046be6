package daemon

import (
	"cepa/env"
	"cepa/node"
)

// lateHandler lets the transport be made before the node that hears its links: the node's
// env needs the transport. It is filled in before anything runs.
type lateHandler struct{ env.LinkHandler }

// lateGossip lets the node be made before the gossip that carries its rumours: the gossip
// needs the node. It is filled in before anything runs.
type lateGossip struct{ node.Gossip }
