package gossip

import (
	"bytes"
	"sync/atomic"
)

// Reason says why a packet or a message was dropped.
type Reason uint8

// The reasons. Those up to DropIncarnation concern whole packets that no honest relay sends: messages of memberlist by
// their kind, then the form.
const (
	DropPing Reason = iota + 1
	DropIndirectPing
	DropAck
	DropSuspect
	DropDead
	DropPushPull
	DropNested
	DropUser
	DropCompressed
	DropEncrypted
	DropNack
	DropChecksummed
	DropError
	DropLabelled
	DropUnknown
	DropMalformed
	DropIncarnation

	DropStranger      // packet from somebody with whom no link is open
	DropPacketBudget  // packet above the neighbour's budget
	DropInboxFull     // packet: too many are waiting to be read
	DropMessageBudget // message above the neighbour's budget
	DropVerifyBudget  // message above the budget of signatures
	DropOwnName       // message in this relay's own name
	DropDuplicate     // message seen before
	DropInvalid       // message whose rumour does not verify, or not now
	DropSquatted      // message in the name of a relay that did not sign it
	DropStale         // message older than what is held
	DropDeclined      // message that the Handler did not accept, or not at once
	DropTableFull     // message of a relay that there is no room for: all held are in the consensus

	DropDriverFull    // to memberlist: not taken at once; tried again later
	DropOutgoing      // from memberlist: the loop is too far behind
	DropHeldBack      // from memberlist: messages that are not for the wire, or out of date
	DropUndeliverable // from memberlist: messages that are news to no neighbour tried

	reasons
)

var reasonNames = [reasons]string{
	DropPing: "ping", DropIndirectPing: "indirect ping", DropAck: "ack", DropSuspect: "suspect", DropDead: "dead",
	DropPushPull: "push/pull", DropNested: "nested compound", DropUser: "user message", DropCompressed: "compressed",
	DropEncrypted: "encrypted", DropNack: "nack", DropChecksummed: "checksummed", DropError: "error message",
	DropLabelled: "labelled", DropUnknown: "unknown type", DropMalformed: "malformed", DropIncarnation: "incarnation",
	DropStranger: "no link", DropPacketBudget: "packet budget", DropInboxFull: "inbox full", DropMessageBudget: "message budget",
	DropVerifyBudget: "verification budget", DropOwnName: "own name", DropDuplicate: "duplicate", DropInvalid: "invalid rumour",
	DropSquatted: "squatted name", DropStale: "stale", DropDeclined: "declined", DropTableFull: "table full",
	DropDriverFull: "driver full", DropOutgoing: "outgoing queue full", DropHeldBack: "held back", DropUndeliverable: "undeliverable",
}

func (r Reason) String() string {
	if r > 0 && r < reasons {
		return reasonNames[r]
	}
	return "unknown reason"
}

// reasonOf is the reason for dropping a message of memberlist that is not alive, by its first byte.
func reasonOf(kind byte) Reason {
	byKind := [...]Reason{
		DropPing, DropIndirectPing, DropAck, DropSuspect, DropMalformed, DropDead, DropPushPull, DropNested, DropUser,
		DropCompressed, DropEncrypted, DropNack, DropChecksummed, DropError,
	}
	switch {
	case int(kind) < len(byKind):
		return byKind[kind]
	case kind == labelMessage:
		return DropLabelled
	}
	return DropUnknown
}

// Stats are counters since New, and what is held now.
type Stats struct {
	PacketsIn   uint64 // from neighbours, before anything was dropped
	PacketsOut  uint64 // given to a link
	Redirected  uint64 // of these, to another neighbour than memberlist chose
	Verified    uint64 // rumours whose signatures were checked
	Accepted    uint64 // rumours that were new and accepted by the Handler
	Dials       uint64 // links asked for
	Evicted     uint64 // relays given up to make room for others
	Renewals    uint64 // times that memberlist was replaced
	Dropped     map[Reason]uint64
	Neighbours  int // identities with an open link
	Members     int // relays of which there is a rumour, without this one
	True        int // of these, held by memberlist for alive and with that rumour
	Waiting     int // of these, not yet taken by memberlist
	DriverNames int // names that memberlist holds, the dead included
	Inbox       int // packets waiting to be read
}

type counters struct {
	packetsIn, packetsOut, redirected, verified, accepted, dials, evicted, renewals atomic.Uint64
	neighbours                                                                      atomic.Int64
	dropped                                                                         [reasons]atomic.Uint64
}

func (c *counters) drop(r Reason) { c.dropped[r].Add(1) }

// Stats returns the counters. Its map is the caller's; it lacks reasons that never occurred.
func (g *Gossip) Stats() Stats {
	c := &g.counters
	s := Stats{
		PacketsIn: c.packetsIn.Load(), PacketsOut: c.packetsOut.Load(), Redirected: c.redirected.Load(),
		Verified: c.verified.Load(), Accepted: c.accepted.Load(), Dials: c.dials.Load(), Evicted: c.evicted.Load(), Renewals: c.renewals.Load(),
		Dropped: make(map[Reason]uint64), Neighbours: int(c.neighbours.Load()), Inbox: len(g.inbox),
	}
	for r := range c.dropped {
		if n := c.dropped[r].Load(); n > 0 {
			s.Dropped[Reason(r)] = n
		}
	}
	g.mu.Lock()
	list := g.driver.list
	g.mu.Unlock()
	nodes := list.Members() // takes memberlist's lock, under which that of the table is taken
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range nodes {
		if id, ok := parseName([]byte(n.Name)); ok && g.table[id] != nil && bytes.Equal(n.Meta, g.table[id].sealed) {
			s.True++
		}
	}
	s.Members, s.Waiting, s.DriverNames = len(g.table), g.waiting, len(g.driver.names)
	return s
}
