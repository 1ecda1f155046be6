package directory

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/limit"
)

// Fetcher makes directory requests over one-hop circuits.
type Fetcher interface {
	// Fetch sends a request (see Request.AppendTo) to a relay and calls done, later and once, with the whole answer
	// as it came on the stream (see AnswerReader), of at most max bytes, or with an error. The answer is done's to
	// keep. Fetch gives up by itself after a time without progress.
	Fetch(to env.Target, request []byte, max int, done func(answer []byte, err error))
}

// FollowerConfig is what a Follower is made of.
type FollowerConfig struct {
	Env     env.Env
	Network *Network
	Fetcher Fetcher
	// Self is the identity of the relay that the follower lives in; zero in a client. A relay fetches a new consensus
	// as soon as there is one, from an authority among others, so that clients find it at relays a little later.
	Self cert.Identity
	// Sources are the relays to ask once there is a consensus, such as the guards; nil or an empty answer means any.
	// After three rounds without success others are asked as well.
	Sources func() []env.Target
	// OnConsensus is told of every consensus that comes into use, one from disk included; it may be nil.
	OnConsensus func(*Consensus)
	// OnNetwork is told of every newer network file that comes into use while the node runs; it may be nil.
	OnNetwork  func(*Network)
	Undefended Undefended // zero but in the attack suite
	// OnProgress is told what the follower does, for people: how far it is (100 with a consensus in use), what it is
	// doing, and what it waits for (empty when nothing). It may be nil.
	OnProgress func(percent int, doing, waitingFor string)
}

// FollowerStats are counters, read on the loop.
type FollowerStats struct {
	Rounds     uint64 // times that sources were asked for heads
	Fruitless  int    // of these, those in a row until now that brought nothing new
	Heads      uint64 // heads asked for
	Bodies     uint64 // bodies asked for
	Diffs      uint64 // diffs asked for
	Patched    uint64 // consensuses made by a diff
	BadDiffs   uint64 // diffs that lead to another body
	DiffBytes  uint64 // of diffs and of bodies that were fetched
	BodyBytes  uint64
	Accepted   uint64 // consensuses that came into use
	Unreached  uint64 // requests without an answer
	BadAnswers uint64 // answers that were no document, or a false one
	Rollbacks  uint64 // heads older than the one held
	Forks      uint64 // heads that contradict the one held, or each other
	Expired    uint64 // heads past their time
	Early      uint64 // heads before their time
	Strange    uint64 // heads of authorities that the network file does not name

	NetworkFiles uint64 // newer ones that came into use
}

// Names of the blobs in the Store.
const (
	headBlob = "consensus.head"
	bodyBlob = "consensus.body"
	forkBlob = "consensus.fork" // two heads that contradict each other, as evidence
)

// earlyTolerance is how far the clock here may be behind the authorities' before a new consensus is refused: it costs
// nothing, since authorities sign none before its time.
const earlyTolerance = 10 * time.Minute

// held is a consensus with its bytes.
type held struct {
	*Consensus
	head, body []byte
}

// Follower keeps the consensus: it loads it from the Store, fetches a newer one when it is time, and refuses whatever
// would bend or turn back the view of the network (docs/protocol.md, section "Directory"). It goes on with the last
// consensus until that expires.
//
//	Start ─► waiting ──timer, hint──► asking for heads ──newest──► asking for its body ──► verifying ─► waiting
//	            ▲                         │ nothing newer               │ no source has it
//	            └─────────────────────────┴─────────────────────────────┘
//
// A Follower is an actor: one loop calls it, and nothing in it is safe for concurrent use.
type Follower struct {
	cfg     FollowerConfig
	env     env.Env
	log     *slog.Logger
	network *Network
	stats   FollowerStats
	gripes  complaints
	aging   limit.Bucket // lines about an old consensus

	current  *held // the newest accepted, perhaps expired by now
	previous *held // the one before it, for those who have its head already
	floor    *Head // the newest head ever accepted, also when its body is lost
	history  history
	fork     *contradiction
	files    []networkText // the last is network

	updating  *networkUpdate
	strangers bool // the last round met authorities that the network file does not name

	sources  sources
	skews    skews
	round    *round
	timer    env.Timer
	due      time.Time // by the wall clock, when the next round is; zero: when pause ends
	pause    env.Mono  // until then no round, unless the wall clock is set: see again
	set      time.Time // what the wall clock would have shown at Mono 0, when the pause began
	failures int       // rounds since the last success
	running  bool
	said     struct { // the last progress
		percent         int
		doing, awaiting string
	}
}

// NewFollower makes a Follower and loads what the Store holds. It does nothing until Start.
func NewFollower(cfg FollowerConfig) *Follower {
	f := &Follower{
		cfg:     cfg,
		env:     cfg.Env,
		log:     cfg.Env.Log,
		files:   loadNetworks(cfg.Env.Store, cfg.Env.Log, cfg.Network),
		gripes:  newComplaints(cfg.Env),
		aging:   agingLines.Full(cfg.Env.Clock.Now()),
		sources: newSources(),
	}
	f.network = f.files[len(f.files)-1].Network
	f.load()
	f.loadPast()
	f.loadContradiction()
	return f
}

// load takes up the consensus of the Store. What does not verify is left alone: it will be replaced.
func (f *Follower) load() {
	head, err := f.env.Store.Load(headBlob)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.log.Warn("the stored consensus cannot be read; fetching it anew", "err", err)
		}
		return
	}
	h, err := OpenHead(head, f.network, f.env.Clock.Wall())
	if err != nil {
		f.log.Warn("the stored consensus is of no use; fetching a new one", "err", err)
		return
	}
	f.floor = h
	body, err := f.env.Store.Load(bodyBlob)
	var c *Consensus
	if err == nil {
		c, body, err = openBody(h, body, f.network)
	}
	if err != nil {
		f.log.Warn("the body of the stored consensus is of no use; fetching it anew", "err", err)
		return
	}
	f.current = &held{c, head, body}
}

// Start begins to follow. If the stored consensus is valid, OnConsensus hears of it at once, and nothing is asked of
// anybody before it is time to refresh.
func (f *Follower) Start() {
	if f.running {
		return
	}
	f.running = true
	f.timer = f.env.Clock.AfterFunc(time.Hour, f.onTimer)
	if c := f.Current(); c != nil {
		f.log.Info("using the stored consensus", "valid_after", c.Head.ValidAfter, "relays", len(c.Relays))
		f.becomeCurrent()
		return
	}
	f.progress(0, "looking for the network", "")
	f.timer.Reset(0)
}

// Stop ends following. Nothing is heard of the Follower afterwards; Current and Sealed go on as before.
func (f *Follower) Stop() {
	if f.running {
		f.running, f.updating = false, nil
		f.timer.Stop()
		f.endRound()
	}
}

// Stats returns a copy of the counters.
func (f *Follower) Stats() FollowerStats {
	s := f.stats
	s.Fruitless = f.failures
	return s
}

// Current returns the consensus in use, or nil when there is none that is valid now, or when it requires what this
// version does not speak.
func (f *Follower) Current() *Consensus {
	if f.current == nil || !f.validNow(f.current.Head) || len(f.lacking()) > 0 {
		return nil
	}
	return f.current.Consensus
}

// validNow is the one place that says which dates are good. A little before its time counts as valid.
func (f *Follower) validNow(h *Head) bool {
	now := f.env.Clock.Wall()
	return h.State(now) != Expired && h.State(now.Add(earlyTolerance)) != NotYetValid
}

// Sealed returns the head and body of the consensus in use, to be served to others, or nil. They are not to be
// modified.
func (f *Follower) Sealed() (head, body []byte) {
	if f.Current() == nil {
		return nil, nil
	}
	return f.current.head, f.current.body
}

// SealedBody returns the body of the consensus whose head has this digest if it is the one in use or the one before
// it; else nil. It is not to be modified.
func (f *Follower) SealedBody(digest cert.Digest) []byte {
	for _, h := range []*held{f.current, f.previous} {
		if h != nil && h.Head.Digest == digest && f.validNow(h.Head) {
			return h.body
		}
	}
	return nil
}

// Newest returns the head of the newest consensus that was ever accepted, valid or not; nil if there was none.
func (f *Follower) Newest() *Head { return f.floor }

// Adopt takes a consensus that was not fetched: the one that the authority in this node has just made. It is verified
// as any other.
func (f *Follower) Adopt(head, body []byte) error {
	h, err := OpenHead(head, f.network, f.env.Clock.Wall())
	if err != nil {
		return err
	}
	if f.floor != nil {
		if err := h.Follows(f.floor); err != nil {
			return err
		}
	}
	c, body, err := openBody(h, bytes.Clone(body), f.network)
	if err != nil {
		return err
	}
	f.endRound()
	f.accept(&held{c, bytes.Clone(head), body})
	return nil
}

// OnPeerTime hears the clock of a relay that a link's handshake authenticated: skew is its time minus the time here.
// It serves to explain why no consensus is valid; the clock is never set from it.
func (f *Follower) OnPeerTime(id cert.Identity, skew time.Duration) { f.skews.add(id, skew) }

// Skew returns by how much the clocks of the last relays heard are ahead of the one here, their median, and how many
// relays these are: at most 16, and 0 before the first.
func (f *Follower) Skew() (by time.Duration, of int) {
	by, of, _, _ = f.skews.verdict()
	return by, of
}

// interval is the time between two consensuses.
func (f *Follower) interval() time.Duration {
	if f.floor != nil {
		return f.floor.Interval()
	}
	return f.network.Interval()
}

// accept takes a verified consensus into use and writes it down. Its head follows the floor.
func (f *Follower) accept(h *held) {
	if f.current == nil || f.current.Head.Digest != h.Head.Digest {
		f.previous = f.current
		if p := f.previous; p != nil && !f.cfg.Self.IsZero() {
			f.history.add(pastBody{p.Head.Digest, p.Head.ValidUntil, p.body}, f.env.Clock.Wall())
		}
		f.savePast(h)
		f.savePrevious()
	}
	f.current, f.floor = h, h.Head
	f.stats.Accepted++
	// The body first: a head on disk without its body is only fetched again, but it bars the way back.
	f.env.Store.Save(bodyBlob, h.body, func(err error) {
		if err == nil && f.current == h {
			f.env.Store.Save(headBlob, h.head, f.saved)
			return
		}
		f.saved(err)
	})
	f.log.Info("new consensus", "valid_after", h.Head.ValidAfter, "relays", len(h.Relays), "digest", h.Head.Digest.Short())
	f.becomeCurrent()
}

func (f *Follower) saved(err error) {
	if err != nil {
		f.gripes.warn("the consensus cannot be stored: the next start will have to fetch it", "err", err)
	}
}

// becomeCurrent tells of the consensus in use and waits until it is time for the next.
func (f *Follower) becomeCurrent() {
	f.failures = 0
	f.schedule()
	if missing := f.lacking(); len(missing) > 0 {
		f.progress(0, "this version of cepa is too old for the network, which requires "+missing.String()+": update cepa", "")
		f.log.Error("the network requires protocols that this version does not speak: update cepa", "missing", missing.String())
		return
	}
	if missing := OurProtocols().Missing(f.current.Recommended); len(missing) > 0 {
		f.gripes.warn("the network recommends protocols that this version does not speak: update cepa soon", "missing", missing.String())
	}
	f.progress(100, "the consensus is in use", "")
	if f.cfg.OnConsensus != nil {
		f.cfg.OnConsensus(f.current.Consensus)
	}
	if f.behind() {
		f.updateNetwork(nil)
	}
}

// relaySpread is the time after the end of freshness in which relays look for the next consensus, each at a random
// moment, so that they do not come all at once.
func (f *Follower) relaySpread() time.Duration { return min(f.interval()/20, 3*time.Minute) }

// schedule waits until it is time to refresh. A relay looks soon after the consensus has ceased to be fresh; a client
// at a random moment of the one and a half intervals that begin half an interval after that, when all relays have the next one: late
// enough to fetch two of three consensuses only, and before this one counts as old.
func (f *Follower) schedule() {
	if !f.running {
		return
	}
	left := f.current.Head.FreshUntil.Sub(f.env.Clock.Wall())
	if !f.cfg.Self.IsZero() {
		f.await(max(left, 0) + f.random(f.relaySpread()))
		return
	}
	begin, end := left+f.interval()/2, left+2*f.interval()
	begin = max(begin, min(f.interval()/20, 10*time.Second)) // after a start there are circuits to be built first
	end = max(end, begin+f.relaySpread())
	f.await(begin + f.random(end-begin))
}

// await waits for the next round by the wall clock, which is looked at now and then: it may jump, and in a machine that
// sleeps timers stand still.
func (f *Follower) await(wait time.Duration) {
	f.due, f.pause = f.env.Clock.Wall().Add(wait), 0
	f.timer.Reset(min(wait, f.look()))
}

// look is the time between two looks at the wall clock.
func (f *Follower) look() time.Duration { return min(f.interval(), time.Minute) }

// random returns a duration in [0, below).
func (f *Follower) random(below time.Duration) time.Duration {
	return time.Duration(f.env.Rand.Uint64() % uint64(max(below, 1)))
}

func (f *Follower) onTimer() {
	if !f.running || f.round != nil {
		return
	}
	if left := f.due.Sub(f.env.Clock.Wall()); left > 0 && f.Current() != nil {
		f.timer.Reset(min(left, f.look()))
		return
	}
	if left := f.pause.Sub(f.env.Clock.Now()); left > 0 {
		if f.clockOrigin().Sub(f.set).Abs() < clockJump {
			f.timer.Reset(min(left, clockLook))
			return
		}
		f.failures = 0 // which the wrong clock may have been the cause of
	}
	f.startRound()
}

// retryBase is the shortest time between two rounds: a second, or less when intervals are short.
func (f *Follower) retryBase() time.Duration {
	return min(max(f.interval()/40, 100*time.Millisecond), time.Second)
}

// retry waits after a round that brought nothing: twice as long each time, up to cap, of which a random half.
func (f *Follower) retry(limit time.Duration) {
	wait := f.retryBase()
	for range min(f.failures, 30) {
		wait = min(2*wait, limit)
	}
	f.failures++
	wait = max(wait, f.retryBase())
	f.again(wait/2 + f.random(wait/2+1))
}

// How a pause is cut short: the wall clock is compared with the monotonic one so often, and has been set, or the machine
// has slept, when they differ by so much more.
const (
	clockLook = 5 * time.Second
	clockJump = 10 * time.Second
)

// again has a round begin so much later, or when the wall clock is set: with a wrong one nothing can be verified.
func (f *Follower) again(wait time.Duration) {
	f.due, f.pause, f.set = time.Time{}, f.env.Clock.Now().Add(wait), f.clockOrigin()
	f.timer.Reset(min(wait, clockLook))
}

// clockOrigin is what the wall clock would have shown at Mono 0: it changes when that clock is set, and with sleep.
func (f *Follower) clockOrigin() time.Time {
	return f.env.Clock.Wall().Add(-time.Duration(f.env.Clock.Now()))
}

// progress tells a person, but nothing twice.
func (f *Follower) progress(percent int, doing, awaiting string) {
	s := &f.said
	if s.percent == percent && s.doing == doing && s.awaiting == awaiting {
		return
	}
	s.percent, s.doing, s.awaiting = percent, doing, awaiting
	if f.cfg.OnProgress != nil {
		f.cfg.OnProgress(percent, doing, awaiting)
	}
}
