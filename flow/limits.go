package flow

import (
	"time"

	"cepa/cell"
)

// Limits are the fixed sizes of this version, all in one place.
type Limits struct {
	InitialWindow   int // hop credit a direction at first, cells
	MaxWindow       int // the most that it grows to; less than InitialWindow, such as 0: it does not grow
	Reserve         int // cells a direction that a live circuit always gets back, at least 2
	LinkQueue       int // bytes of unsent cells given to a link before the scheduler holds back, at most: see pace
	CircuitsPerLink int // circuits that a neighbour may have opened on one link, tombstones included
	ClientCircuits  int // the same if it is a client; 0 for CircuitsPerLink
	MaxLinks        int // open links of the node, dialled and accepted
	// OneSite says that nothing is counted by site (ipaddr.Site), since all nodes share a few
	// addresses, as in a test network.
	OneSite bool
}

// DefaultLimits are the limits of docs/protocol.md, "Bounds".
func DefaultLimits() Limits {
	return Limits{
		InitialWindow:   32,
		MaxWindow:       2048,
		Reserve:         4,
		LinkQueue:       256 << 10,
		CircuitsPerLink: 16384,
		ClientCircuits:  256,
		MaxLinks:        8192,
	}
}

// Times and rates. They are the same for all nodes of a version.
const (
	DefaultKeepalive = 4 * time.Second
	DefaultDead      = 12 * time.Second

	creditTick     = 5 * time.Millisecond   // CREDIT cells of a link go out together, this long after the first is due, unless a neighbour would run out before
	returnTime     = 10 * time.Second       // after which without a cell a neighbour gets back what it granted since the circuit began
	hoardTime      = 40 * time.Second       // after which it is a hoarder who has not given that back
	tombstoneTime  = time.Minute            // without the peer's DESTROY the link closes
	stuckTime      = time.Minute            // without one cell leaving a queue, on a link that moves, the circuit goes
	lingerTime     = time.Minute            // a Conn of a circuit that is gone may drain for this long
	renewAfter     = 24 * time.Hour         // age at which a link is replaced by a younger one
	renewRetry     = 10 * time.Minute       // after the dial for that failed
	doubtEvery     = 10 * time.Second       // links that a node replaces because they are silent: one in this time,
	doubtBurst     = 8                      // and so many at once
	proofTime      = 500 * time.Millisecond // a silent link has to speak after the one beside it came up
	leastDoubt     = 500 * time.Millisecond // how late the neighbour's padding must be at least
	drainTime      = time.Hour              // a draining link closes after this
	crossedTime    = 10 * time.Second       // links dialled from both sides within this have crossed
	sparseIdle     = 200 * time.Millisecond
	sparseQuantum  = 32 // cells that a circuit sends before others after being idle for sparseIdle
	earlyCells     = 8  // RELAY_EARLY cells of a circuit
	maxCredit      = 65535
	gossipEvery    = 20 * time.Millisecond // packets of gossip taken from a neighbour: 50 a second
	gossipBurst    = 200
	gossipQueue    = 64               // packets of gossip waiting for a link
	paddingEvery   = time.Second / 64 // cells of padding taken from a neighbour: 128 KiB a second
	paddingBurst   = 512
	gossipOutEvery = gossipEvery + gossipEvery/4 // a little below what the neighbour takes
	gossipOutBurst = gossipBurst * 3 / 4
)

// Stream sizes, in bytes.
const (
	pauseBytes     = 64 << 10 // unsent bytes of a stream at which its Conn is paused; resumed under half
	maxUnused      = 16 << 20 // more unused window than this is an error
	maxWindow      = 64 << 20 // largest initial window
	streamCost     = 1 << 10  // bytes of the budget that a stream costs by being there
	legCost        = 8 << 10  // and a circuit: keys, streams' table, places in lists
	defaultStreams = 32       // streams of a circuit that no window makes fewer
)

// Windows are end-to-end windows, in bytes, for each stream and for all streams of a circuit
// together (docs/protocol.md, "Windows").
type Windows struct{ Stream, Circuit uint32 }

// The windows that each end grants at first. That of the circuit is twice what its streams have together: the other
// half is for those that grow.
var (
	ClientWindows = Windows{Stream: 512 << 10, Circuit: 32 << 20}
	ExitWindows   = Windows{Stream: 256 << 10, Circuit: 16 << 20}
)

// MaxStreamsFor returns how many streams a circuit with these windows may have open: so many
// that all of them, stalled with full windows, still leave none waiting for the circuit's, and
// at most 32. It is the same at both ends, and at least 1.
func MaxStreamsFor(granted, allowed Windows) int {
	n := uint32(defaultStreams)
	for _, w := range []Windows{granted, allowed} {
		n = min(n, w.Circuit/max(w.Stream, 1))
	}
	return int(max(n, 1))
}

// Stats are the node's counters and gauges of this package, read on its loop.
type Stats struct {
	Links, Legs, Tombstones, Streams, QueuedBytes      int64 // gauges; QueuedBytes is cells in queues
	CellsIn, CellsOut, CreditsIn, CreditsOut           uint64
	LinkErrors, CircuitErrors, BudgetVictims, Overruns uint64
	StreamBytesIn, StreamBytesOut                      uint64
	Refused                                            uint64 // CREATEs refused for a limit or the budget
	LinksRefused                                       uint64 // accepted, and closed at once for a limit
	IdleVictims                                        uint64 // circuits destroyed, idle for long, when others found no room
	IdleLinks                                          uint64 // links given up, without circuits, when there were many
	GossipDropped                                      uint64 // packets from neighbours over their budget
	Returned                                           uint64 // cells of credit that neighbours gave back since they did not use them
	Hoarders                                           uint64 // circuits destroyed because the neighbour did not
	Stuck                                              uint64 // circuits destroyed because their queue did not move
	PaddingOut                                         uint64 // cells sent because nothing else was
	DeadLinks                                          uint64 // links closed because nothing came, or nothing was taken
	LostLinks                                          uint64 // links closed because nothing came on them while a younger one to the same neighbour did
	// KindsIn and KindsOut are CellsIn and CellsOut by command; cells of unknown commands, which end the link, are in
	// CellsIn alone.
	KindsIn, KindsOut [cell.Commands]uint64
}

// countKind counts the cell c in one of the two, and reports whether it is one that stirs a link.
func countKind(kinds *[cell.Commands]uint64, c []byte) bool {
	kind := cell.Command(c[4] &^ cell.DryFlag)
	if int(kind) < len(kinds) {
		kinds[kind]++
	}
	switch kind {
	case cell.CommandRelay, cell.CommandRelayEarly, cell.CommandCreate, cell.CommandCreated, cell.CommandDestroy:
		return true
	}
	return false
}

// ProtocolError says how a neighbour, or the other end of a circuit, broke the protocol. The
// reason for the wire is cell.ReasonProtocol.
type ProtocolError struct {
	What string
	Err  error // from the decoder; may be nil
}

func (e *ProtocolError) Error() string {
	if e.Err != nil {
		return e.What + ": " + e.Err.Error()
	}
	return e.What
}

func (e *ProtocolError) Unwrap() error { return e.Err }

// StreamError is what a Conn is closed with when its stream was aborted.
type StreamError struct{ Reason cell.Reason }

func (e *StreamError) Error() string { return "stream ended: " + e.Reason.String() }
