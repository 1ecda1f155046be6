// Package env is the contract between an actor and the world.
//
// An actor (packages flow, relay, circuit, directory, node) is single-threaded protocol
// code: it is called with events and acts through the interfaces below. The daemon
// implements them with sockets, files and real time (package daemon), the simulator on a
// virtual clock. An actor cannot tell which.
//
// # Laws
//
// Every implementation keeps these, and envtest.Conformance checks them:
//
//  1. Serial: calls into one actor never overlap.
//  2. Non-reentrant: no method here calls back before it returns.
//  3. Non-blocking: no method waits; a slow neighbour shows as growing Queued.
//  4. Copying: Send, Write and Save copy what they are given, but for what Room gave; a slice
//     passed to a handler is the handler's to read and modify until the handler returns, and
//     not after.
//  5. Frozen now: Now and Wall do not move during a handler.
//  6. Total order: events of one instant run in the order in which they were scheduled.
//  7. Silence: after Stop, Close, OnDown (or a failed dial) nothing more is heard from
//     that object.
//
// The package imports only value packages; it holds no code but trivial helpers.
package env

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"cepa/cert"
)

// Mono is a reading of a monotonic clock, in nanoseconds since an arbitrary origin that
// stays the same for the life of an actor.
type Mono int64

// Sub returns the time from u to t.
func (t Mono) Sub(u Mono) time.Duration { return time.Duration(t - u) }

// Add returns t moved by d.
func (t Mono) Add(d time.Duration) Mono { return t + Mono(d) }

// Clock tells the time and wakes an actor later.
type Clock interface {
	// Now is the monotonic time, frozen while a handler runs.
	Now() Mono
	// Wall is the civil time, for the dates in signed documents only; it may jump.
	Wall() time.Time
	// AfterFunc calls f once, d from now, as an event of its own (never before AfterFunc
	// returns, also when d <= 0).
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is one pending call. After Stop returns the call does not happen, even if its
// time had come. Reset works on a running, fired or stopped timer alike.
type Timer interface {
	Stop() bool
	Reset(d time.Duration)
}

// Rand is the actor's only source of randomness: crypto/rand in the daemon, a named
// ChaCha8 stream in the simulator. Read always fills its argument and never fails.
type Rand interface {
	io.Reader
	Uint64() uint64
}

// Peer is what a link's handshake (docs/protocol.md, section "Link") established about the far end.
type Peer struct {
	// Identity is the authenticated Ed25519 identity of a relay; zero for a client.
	Identity cert.Identity
	// Address is the far end of the TCP connection.
	Address netip.AddrPort
	// Dialled says that this node opened the link, and so sets the high bit in the
	// circuit ids that it picks.
	Dialled bool
	// Observed is the address that the peer's HELLO says it sees this node at; invalid
	// when it did not say.
	Observed netip.Addr
	// Time is the clock in the peer's HELLO; zero from a client. Skew is Time minus this
	// node's wall clock when it was read.
	Time time.Time
	Skew time.Duration
	// OnionKey is B of the peer's onion-key statement; it serves one-hop directory
	// circuits only. Zero from a client.
	OnionKey [32]byte
	// Version is the link protocol version in force.
	Version uint16
}

// Client reports whether the far end showed no certificate.
func (p *Peer) Client() bool { return p.Identity.IsZero() }

// Link is an authenticated, reliable, ordered channel of 2048-byte cells to a neighbour.
type Link interface {
	// Peer is constant for the life of the link.
	Peer() *Peer
	// Room lends memory for n cells or more, n at least 1, in which cells may be made that Send
	// then need not copy. It is the caller's until the next Room, Send or Close of this link, or
	// the end of the event. What is queued may wait meanwhile: whoever finds nothing to send
	// says so by a Send of nothing.
	Room(n int) []byte
	// Send appends whole cells to what the link will write. It copies them, unless they are the
	// beginning of what Room lent last.
	Send(cells []byte)
	// Queued is the number of bytes given to Send that have not yet been handed to the kernel.
	Queued() int
	// Close ends the link; cells sent before are written if that is possible at once.
	// The reason is for the log. OnDown is not called.
	Close(reason error)
}

// LinkEvents hears what happens on one link.
type LinkEvents interface {
	// OnCells brings one or more whole cells, in order.
	OnCells(cells []byte)
	// OnDrained says that Queued has fallen since the last Send or OnDrained; several
	// falls may come as one call.
	OnDrained()
	// OnDown says that the link is gone, and why.
	OnDown(reason error)
}

// LinkHandler is told of every link that comes up, dialled or accepted, and returns who
// hears its events. A nil answer closes the link.
type LinkHandler interface {
	LinkUp(l Link) LinkEvents
}

// Target names a relay to dial.
type Target struct {
	Identity  cert.Identity
	Addresses []netip.AddrPort // tried in order, at most 8
}

// ErrIdentity is what errors of DialLink are to errors.Is when another relay answered than the
// one that was dialled.
var ErrIdentity = errors.New("another relay answered")

// What errors of DialLink are to errors.Is when the failure says nothing about the relay.
var (
	// ErrOffline: this machine has no way to the relay's network now.
	ErrOffline = errors.New("this machine is not connected to a network")
	// ErrNotRelay: something that is no relay answered in its place, as a login page of a network does.
	ErrNotRelay = errors.New("something that is no relay answers")
	// ErrClock: what the relay showed is not valid at this machine's clock, and the relay's own
	// clock shows another time. The error is a *ClockError.
	ErrClock = errors.New("the clocks of this machine and of the relay differ")
)

// ClockError is ErrClock to errors.Is, and says by how much.
type ClockError struct {
	Skew time.Duration // the relay's clock minus this machine's
}

// Error says by how much the clocks differ.
func (e *ClockError) Error() string {
	return fmt.Sprintf("%v by %v", ErrClock, e.Skew.Round(time.Second))
}

// Is makes it ErrClock.
func (e *ClockError) Is(target error) bool { return target == ErrClock }

// LinkDialer opens links. It gives up after 10 seconds over all addresses.
type LinkDialer interface {
	// DialLink connects to the first address that answers and authenticates as
	// to.Identity. On success LinkUp has been called with the link before done is.
	DialLink(to Target, done func(Link, error))
}

// Conn is a clear-net or application byte stream.
type Conn interface {
	// Write appends to what will be written, copying.
	Write(p []byte)
	// Queued is the number of bytes given to Write that have not yet been handed to the
	// kernel (or to the application).
	Queued() int
	// Pause stops or resumes OnData; what has been read but not delivered stays, and at
	// most one OnData already scheduled may still come. A new Conn starts paused.
	Pause(paused bool)
	// CloseWrite sends EOF after what is queued.
	CloseWrite()
	// Close ends both directions; with a nil reason what is queued is written first
	// (bounded by a minute), with an error the far end sees a reset where it can be had.
	Close(reason error)
}

// ConnEvents hears what happens on one Conn.
type ConnEvents interface {
	OnData(p []byte)
	// OnEOF says that the far end will send no more; the other direction goes on.
	OnEOF()
	// OnDrained says that Queued has fallen since the last Write or OnDrained.
	OnDrained()
	OnDown(reason error)
}

// Network is an exit's way to the clear net. Errors are or wrap syscall errors and
// *net.DNSError, so that an actor can tell their reasons apart (see relay).
type Network interface {
	// DialConn opens a TCP connection. up gets the connection or the error and returns who
	// hears its events; a nil answer closes it. cancel gives the attempt up: up, unless it has been
	// called, is called soon (not before cancel returns), with an error that is
	// context.Canceled or, if that was there already, the connection.
	DialConn(to netip.AddrPort, timeout time.Duration, up func(Conn, error) ConnEvents) (cancel func())
	// LookupHost resolves a name to addresses, as the machine does (hosts file included).
	LookupHost(name string, timeout time.Duration, done func([]netip.Addr, error))
	// LookupAddr resolves an address to names.
	LookupAddr(addr netip.Addr, timeout time.Duration, done func([]string, error))
}

// Pool runs pure computations, such as public-key handshakes, off the actor's loop.
type Pool interface {
	// Offload calls work somewhere (it must touch nothing of the actor's that can change)
	// and then done as an event of the actor. The caller bounds how many are outstanding.
	Offload(work, done func())
}

// Store keeps small named blobs across restarts. Names are [a-z0-9.-]{1,64}.
type Store interface {
	// Load returns what was last saved under name; fs.ErrNotExist if nothing was.
	// It reads a local file and is called only while an actor is being constructed.
	Load(name string) ([]byte, error)
	// Save replaces the blob atomically and durably (fsync), then calls done.
	// Saves of one name take effect in the order of the calls. done may be nil.
	Save(name string, data []byte, done func(error))
}

// Env is everything an actor may reach. A constructor takes an Env and uses what it needs.
type Env struct {
	Clock   Clock
	Rand    Rand
	Log     *slog.Logger
	Dialer  LinkDialer
	Network Network
	Pool    Pool
	Store   Store
}
