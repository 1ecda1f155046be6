package link

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/limit"
)

// Poster queues events of the node's loop; package loop has it. Post must not wait, and returns false when the loop
// has ended.
type Poster interface {
	Post(f func()) bool
}

// Config says what a Transport is for. Loop, Network and Handler must be set.
type Config struct {
	Loop    Poster
	Network cert.NetworkID
	Handler env.LinkHandler // hears of every link, on the loop
	// AfterBatch, if set, is called by New once, with a function that the loop is to call whenever it has run a batch of
	// events; the AfterBatch of package loop fits. The writers are then woken once a batch instead of by each Send, which
	// makes fuller records and fewer system calls; Send must be called on the loop.
	AfterBatch func(func())
	// Credentials are a relay's; a client has none, and then neither accepts links nor says who it is.
	Credentials *Credentials
	Log         *slog.Logger // nothing is logged if nil

	// LocalAddr, if valid, is the address that links to addresses of its family are dialled from.
	LocalAddr netip.Addr
	// KeyLog gets the secrets of all TLS sessions in the format of SSLKEYLOGFILE. For test networks only.
	KeyLog io.Writer
	// FreeLoopback exempts loopback addresses from MaxHalfOpenPrefix and HandshakeRate, for networks within one machine.
	FreeLoopback bool
	// Exempt, if set, says which addresses HandshakeRate does not count, those of listed relays; all bounds on how many
	// there are at once hold for them too. Serve calls it for every connection: it must not wait and must be safe for
	// concurrent use. An IPv4 address comes as IPv4, never mapped.
	Exempt func(netip.Addr) bool

	// Bounds; 0 means the default.
	MaxLinks          int // established links; the last eighth is for links that this node dials (16,384)
	MaxDials          int // calls of DialLink under way (512)
	MaxHalfOpen       int // accepted connections whose handshake is not done; beyond, the oldest goes (1,024)
	MaxHalfOpenPrefix int // the same from one /24 (IPv4) or /48 (IPv6); beyond, the newest is refused (32)
	MaxBatches        int // batches of 64 KiB of cells that wait for the loop, over all links (512)

	// HandshakeRate is how many handshakes a second one /24 (IPv4) or /48 (IPv6) may begin (5), and HandshakeBurst how many
	// at once after a pause (50); beyond, connections are refused before TLS. A rate of 0 and a burst below 1 mean the default.
	HandshakeRate, HandshakeBurst float64

	// HandshakeTimeout bounds the time from TCP to HELLO for an accepted link, and all of a DialLink (10 s).
	HandshakeTimeout time.Duration
	// Stagger is how long DialLink waits for one address before it tries the next as well (2.5 s).
	Stagger time.Duration
	// Now reads the clock for certificates and HELLO (time.Now).
	Now func() time.Time

	mono         func() env.Mono // tests only
	renewRecords int64           // tests only
	stallLimit   time.Duration   // tests only
	maxQueued    int64           // tests only
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		field *int
		value int
	}{{&c.MaxLinks, 16384}, {&c.MaxDials, 512}, {&c.MaxHalfOpen, 1024}, {&c.MaxHalfOpenPrefix, 32}, {&c.MaxBatches, 512}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if c.HandshakeRate <= 0 {
		c.HandshakeRate = 5
	}
	if c.HandshakeBurst < 1 {
		c.HandshakeBurst = 50
	}
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = 10 * time.Second
	}
	if c.Stagger <= 0 {
		c.Stagger = 2500 * time.Millisecond
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.mono == nil {
		start := time.Now()
		c.mono = func() env.Mono { return env.Mono(time.Since(start)) }
	}
	if c.renewRecords == 0 {
		c.renewRecords = renewRecords
	}
	if c.stallLimit == 0 {
		c.stallLimit = stallLimit
	}
	if c.maxQueued == 0 {
		c.maxQueued = maxQueued
	}
}

// Transport dials and accepts the links of one node. It implements env.LinkDialer.
type Transport struct {
	cfg     Config
	secrets atomic.Pointer[secrets]
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc

	batches     chan struct{} // one for each batch that waits for the loop
	batchPool   sync.Pool     // of *batch
	queues      sync.Pool     // of *buffer, for Send
	largeReads  bufferPool
	largeWrites bufferPool
	smallWrites bufferPool

	goroutines sync.WaitGroup
	mu         sync.Mutex
	closed     bool
	listeners  map[net.Listener]struct{}
	links      map[*link]struct{}
	dials      int
	halfOpen   list.List // of *attempt, accepted connections in the order of their arrival
	prefixes   map[netip.Prefix]int
	handshakes limit.Buckets // by prefix

	stats struct {
		accepted, evicted, refused, tooFast, inboundFailed, dialled, dialFailed atomic.Uint64
		bytesRead, bytesWritten                                                 atomic.Uint64 // of links that are gone
	}
	complaints complaints
	unsent     unsent
}

// New makes a Transport; it needs no listener to dial. It fails when the configuration is incomplete or the
// credentials would not convince a peer.
func New(cfg Config) (*Transport, error) {
	if cfg.Loop == nil || cfg.Handler == nil || cfg.Network.IsZero() {
		return nil, errors.New("starting links: no loop, handler or network id")
	}
	cfg.setDefaults()
	t := &Transport{
		cfg:         cfg,
		batches:     make(chan struct{}, cfg.MaxBatches),
		largeReads:  bufferPool{size: largeRead, limit: 512},
		largeWrites: bufferPool{size: largeWrite, limit: 512},
		smallWrites: bufferPool{size: smallWrite, limit: 2048},
		listeners:   make(map[net.Listener]struct{}),
		links:       make(map[*link]struct{}),
		prefixes:    make(map[netip.Prefix]int),
		handshakes:  limit.NewBuckets(cfg.HandshakeRate, cfg.HandshakeBurst, maxPrefixes),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	s, err := newSecrets(cfg.Network, cfg.Credentials, cfg.Now(), cfg.KeyLog)
	if err != nil {
		return nil, fmt.Errorf("starting links: %w", err)
	}
	t.secrets.Store(s)
	if cfg.AfterBatch != nil {
		cfg.AfterBatch(t.unsent.wakeWriters)
	}
	return t, nil
}

// SetCredentials replaces what a relay shows on links from now on; those that exist go on. The identity must not
// change.
func (t *Transport) SetCredentials(c *Credentials) error {
	old := t.secrets.Load()
	if c == nil || old.credentials == nil {
		return errors.New("changing link credentials: a relay stays a relay and a client a client")
	}
	s, err := newSecrets(t.cfg.Network, c, t.cfg.Now(), t.cfg.KeyLog)
	if err != nil {
		return fmt.Errorf("changing link credentials: %w", err)
	}
	if s.identity != old.identity {
		return fmt.Errorf("changing link credentials: they are for %s, this relay is %s", s.identity.Short(), old.identity.Short())
	}
	t.secrets.Store(s)
	return nil
}

// Stats are counters since New, and gauges.
type Stats struct {
	Links, HalfOpen, Dials int // now: established links, unfinished accepted connections, calls of DialLink

	Accepted      uint64 // connections accepted
	Refused       uint64 // of these, closed at once because a bound was reached
	TooFast       uint64 // of the refused, because one network began too many handshakes (HandshakeRate)
	Evicted       uint64 // of the accepted, closed during the handshake in favour of newer ones
	InboundFailed uint64 // of the accepted, whose handshake failed, evicted ones included
	Dialled       uint64 // calls of DialLink
	DialFailed    uint64 // of these, failed
	BytesRead     uint64 // from TCP, by established links
	BytesWritten  uint64 // to TCP, by established links
}

// Stats reads the counters.
func (t *Transport) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Stats{
		Links: len(t.links), HalfOpen: t.halfOpen.Len(), Dials: t.dials,
		Accepted: t.stats.accepted.Load(), Refused: t.stats.refused.Load(), Evicted: t.stats.evicted.Load(),
		TooFast: t.stats.tooFast.Load(), InboundFailed: t.stats.inboundFailed.Load(),
		Dialled: t.stats.dialled.Load(), DialFailed: t.stats.dialFailed.Load(),
		BytesRead: t.stats.bytesRead.Load(), BytesWritten: t.stats.bytesWritten.Load(),
	}
	for l := range t.links {
		s.BytesRead += uint64(l.wire.read.Load())
		s.BytesWritten += uint64(l.wire.written.Load())
	}
	return s
}

// Moved ends the links that come from an address of this machine that is gone: what they send is lost, and without an
// answer that would show only when they count as dead. It may be called from any goroutine.
func (t *Transport) Moved(gone func(netip.Addr) bool) (ended int) {
	t.mu.Lock()
	var links []*link
	for l := range t.links {
		if a, ok := l.tcp.LocalAddr().(*net.TCPAddr); ok && gone(a.AddrPort().Addr().Unmap().WithZone("")) {
			links = append(links, l)
		}
	}
	t.mu.Unlock()
	for _, l := range links {
		l.fail(ErrMoved)
	}
	return len(links)
}

// Close stops listening and dialling and closes every link, as env.Link's Close does. It returns when all of it is
// over, after a second at most; no link is heard of afterwards. It may be called on the loop.
func (t *Transport) Close() {
	t.mu.Lock()
	t.closed = true
	t.cancel()
	for ln := range t.listeners {
		ln.Close()
	}
	links := make([]*link, 0, len(t.links))
	for l := range t.links {
		links = append(links, l)
	}
	t.mu.Unlock()
	for _, l := range links {
		l.Close(ErrClosed)
	}
	t.goroutines.Wait()
}

// beginLocked counts a goroutine that Close waits for; false after Close.
func (t *Transport) beginLocked() bool {
	if t.closed {
		return false
	}
	t.goroutines.Add(1)
	return true
}

// mayLink says whether there is room for another link; inbound ones leave an eighth for those that this node dials.
func (t *Transport) mayLink(dialled bool) error {
	limit := t.cfg.MaxLinks
	if !dialled {
		limit -= limit / 8
	}
	if len(t.links) >= limit {
		return fmt.Errorf("%w: %d links are open, as many as this node allows", ErrLimit, len(t.links))
	}
	return nil
}

// raise makes l known to the node and starts it. done, if not nil, is called on the loop after the handler's LinkUp.
func (t *Transport) raise(l *link, done func(env.Link, error)) error {
	t.mu.Lock()
	err := t.mayLink(l.peer.Dialled)
	if err == nil && !t.beginLocked() {
		err = ErrClosed
	}
	if err == nil {
		t.links[l] = struct{}{}
	}
	t.mu.Unlock()
	if err != nil {
		return err
	}
	l.start(func() {
		if l.silent.Load() { // Transport.Close came first
			finish(done, nil, ErrClosed)
			return
		}
		l.events = t.cfg.Handler.LinkUp(l)
		switch {
		case l.events == nil:
			l.Close(ErrRefused)
			finish(done, nil, ErrRefused)
		case !l.isOpen() && l.silent.Load():
			finish(done, nil, fmt.Errorf("%w: closed as soon as it was up", ErrRefused))
		default:
			finish(done, l, nil)
		}
	})
	return nil
}

func finish(done func(env.Link, error), l env.Link, err error) {
	if done != nil {
		done(l, err)
	}
}

// forget is called when both goroutines of l have ended.
func (t *Transport) forget(l *link, reason error) {
	t.mu.Lock()
	delete(t.links, l)
	t.mu.Unlock()
	t.stats.bytesRead.Add(uint64(l.wire.read.Load()))
	t.stats.bytesWritten.Add(uint64(l.wire.written.Load()))
	t.cfg.Log.Debug("link down", "peer", l.peer.Identity.Short(), "dialled", l.peer.Dialled, "reason", reason)
}

// unsent collects the links that were sent to within a batch of events.
type unsent struct {
	mu    sync.Mutex
	links []*link // each once: link.unsent says that it is here
	spare []*link
}

func (u *unsent) add(l *link) {
	u.mu.Lock()
	u.links = append(u.links, l)
	u.mu.Unlock()
}

func (u *unsent) wakeWriters() {
	u.mu.Lock()
	links := u.links
	u.links = u.spare[:0]
	u.mu.Unlock()
	for i, l := range links {
		l.mu.Lock()
		l.unsent = false
		l.endLoan()
		l.wake.Signal()
		l.mu.Unlock()
		links[i] = nil
	}
	u.mu.Lock()
	u.spare = links
	u.mu.Unlock()
}

func (t *Transport) getQueue() *buffer {
	if b, ok := t.queues.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, 0, smallRead+1)}
}

// putQueue takes back what getQueue gave; b may be nil. A queue that has grown out of the ordinary is left to the
// garbage collector.
func (t *Transport) putQueue(b *buffer) {
	if b != nil && cap(b.data) <= 1<<20 {
		b.data = b.data[:0]
		t.queues.Put(b)
	}
}
