package node

import (
	"cepa/directory"
	"cepa/flow"
)

// Defect is a bug that a test seeds, see flow.Defect.
type Defect = flow.Defect

// The defects.
const (
	DefectCredit = flow.DefectCredit
	DefectWindow = flow.DefectWindow
	DefectLeak   = flow.DefectLeak
)

// Check verifies the accounts of the relay: credits, windows, memory and gauges. It is for tests and simulations,
// between two events, and takes time proportional to all that is held.
func (r *Relay) Check() error {
	if r.stopped {
		return nil
	}
	return r.links.Check()
}

// Consensus is the one in use, nil before the first. It is not to be modified.
func (r *Relay) Consensus() *directory.Consensus { return r.follower.Current() }

// Check verifies the accounts of the client, see Relay.Check.
func (c *Client) Check() error {
	if c.stopped {
		return nil
	}
	return c.links.Check()
}

// Consensus is the one in use, nil before the first. It is not to be modified.
func (c *Client) Consensus() *directory.Consensus { return c.follower.Current() }
