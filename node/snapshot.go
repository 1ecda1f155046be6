package node

import (
	"cepa/circuit"
	"cepa/flow"
)

// What the control API asks for; on the loop, as all methods of an actor.

// Streams are the requests of applications that are not over.
func (c *Client) Streams() []circuit.StreamInfo { return c.circuits.Streams() }

// Guards are those that can be used, the preferred first.
func (c *Client) Guards() []circuit.GuardInfo { return c.circuits.Guards() }

// DirectoryCircuits are circuits of one hop, over which the directory is fetched.
func (c *Client) DirectoryCircuits() []circuit.Info { return c.fetch.Describe() }

// Links describes at most so many open links, the oldest first.
func (c *Client) Links(most int) []flow.LinkInfo { return c.links.Describe(most) }

// DirectoryCircuits are circuits of one hop, over which the relay itself fetches the directory.
func (r *Relay) DirectoryCircuits() []circuit.Info { return r.fetch.Describe() }

// Links describes at most so many open links, the oldest first.
func (r *Relay) Links(most int) []flow.LinkInfo { return r.links.Describe(most) }

// Flow are the counters of links, circuits and streams, which Counters has too, with more work.
func (r *Relay) Flow() flow.Stats { return r.stats }

// Held is how much of the relay's budget for queues and buffers is in use, in bytes.
func (r *Relay) Held() int { return r.budget.Used() }
