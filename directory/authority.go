package directory

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/limit"
)

// Prober opens an authenticated link to a relay to see that it is reachable.
type Prober interface {
	// Probe connects to one of the addresses and calls done, later and once, with nil when the relay answered there
	// and proved its identity. An open link is no proof: it may have come from the relay, which says nothing of where
	// it listens. What becomes of the new link is the Prober's to decide.
	Probe(to env.Target, done func(error))
}

// AuthorityConfig is what an Authority is made of. All fields are needed but Measured.
type AuthorityConfig struct {
	Env      env.Env
	Network  *Network
	Identity cert.Identity
	Signer   func() cert.Signer // the signing key in use; asked whenever something is signed
	Agent    *Agent
	Follower *Follower
	Prober   Prober
	// Measured returns how many KiB a second a relay was measured to carry; ok is false when it was not. It is nil in
	// an authority that does not measure.
	Measured func(cert.Identity) (kib uint32, ok bool)
}

// AuthorityStats are counters and gauges, read on the loop.
type AuthorityStats struct {
	Known, Reachable int // relays with a descriptor, and those of them that answer
	Exits            int // of the latter
	Probes           uint64
	ProbesFailed     uint64

	Sessions          uint64 // whose votes were counted here
	Abstained         uint64 // sessions for which this authority was not ready
	FewVotes          uint64 // sessions with fewer votes than a quorum
	NotMade           uint64 // sessions whose votes make no consensus
	FewSignatures     uint64 // consensuses signed here that a quorum did not sign
	VotesCast         uint64
	VotesTaken        uint64 // accepted, with those of this authority
	VotesEarly        uint64 // refused: before their time
	VotesLate         uint64 // refused: too few signatures for the round
	VotesRefused      uint64 // refused for another reason
	BodiesMissed      uint64 // requests for bodies of votes without an answer
	ClocksOff         uint64 // of the early and late ones: likely for a wrong clock
	Equivocations     uint64 // contradictions of other authorities
	Signatures        uint64 // of others, that are good
	SignaturesRefused uint64
	Signed            uint64 // consensuses signed here
	Completed         uint64 // consensuses with the signatures of a quorum
	SaveFailures      uint64 // signatures that could not be stored, and so were not published

	LastVotes, LastSignatures int // of the last session, and of the last consensus made here
	Evidence                  int // pieces that are kept
}

// Names of blobs in the Store.
const (
	signedBlob = "authority.signed" // the last signed consensus, stored before anybody sees it
	votedBlob  = "authority.voted"  // the last session that it has voted in, stored before it votes
)

// Times of the first consensus after a start: it waits for relays until none has come for settleQuiet, at most
// settleLimit after there are enough. The first of a network waits longer for an exit, without which it is of no use for
// a whole interval.
const (
	settleQuiet = 300 * time.Millisecond
	settleLimit = 3 * time.Second
	exitLimit   = 30 * time.Second
	exitTest    = 5 * time.Second // in a test network
	signRetry   = 200 * time.Millisecond
	startGrace  = 15 * time.Second // before it complains of too few relays
)

// Authority makes the consensus, together with the others of the network file: it looks which relays can be reached,
// says what they may be used for, and agrees with the others on one consensus for each interval (docs/protocol.md,
// section "Directory").
//
//	waiting ──begin of a session──► voting ──f+1 rounds──► counting ──quorum of votes──► storing ──durable──► collecting
//	   ▲  ▲                        (session)                  │ fewer, or no consensus      │ failed: again,    signatures
//	   │  └───────────────────────────────────────────────────┘                             │ the same bytes       │
//	   └────────────────── the consensus is in use at its valid-after ◄── quorum of signatures ─────────────────────┘
//
// Safety: it signs at most one consensus for one valid-after, ever, and none for an earlier one. What was signed is in
// the Store, durably, before it leaves the Authority; after a restart that is published, and nothing else for its time,
// also when the clock was set back. So two consensuses for one valid-after need 2q−n authorities that break this rule.
//
// Liveness: while q honest authorities are up and connected, with clocks that are within Δ/2, and at most f are
// malicious, they accept the same votes (see session), among them those of all q, make the same bytes of them (see
// CountVotes), and have all q signatures Δ later. An authority that stops in the middle of a session counts as one of
// the f for that session.
//
// One that has missed a consensus catches up by its Follower, and signs the next with the others: whose vote names which
// predecessor makes no difference to what they count. An authority that is not ready to vote takes part in all else.
//
// A network with one authority has no rounds and no others to wait for: its own vote is counted as soon as an interval
// has begun and there are enough relays.
//
// An Authority is an actor: one loop calls it, and nothing in it is safe for concurrent use.
type Authority struct {
	cfg     AuthorityConfig
	env     env.Env
	log     *slog.Logger
	network *Network
	next    *Network // takes its place when no session is open
	agenda  agenda
	gripes  complaints
	stats   AuthorityStats

	relays  map[cert.Identity]*standing
	links   map[cert.Identity][]proof // open links that were dialled from here
	probing struct {
		open  int
		queue []*standing
	}
	last      *signed // the last that was signed, published or not
	busy      bool    // building or storing
	settled   bool    // the first consensus after the start has been made
	started   env.Mono
	newcomer  env.Mono  // when a relay last became reachable
	enough    env.Mono  // when there were enough relays for the first time; 0 before
	historyAt time.Time // when the history was last stored
	slot      env.Timer
	running   bool

	// With other authorities.
	plan        plan
	voted       time.Time // the last session that this authority has voted in, or was to
	session     *session  // the newest; nil before the first
	colleagues  []*colleague
	requests    limit.Buckets // of each of them
	collections []*collection
	evidence    []Evidence
}

// plan is what this authority is to do for the next session.
type plan struct {
	at       time.Time
	asked    bool // whether it is to vote
	reserved bool // the session is durably noted as voted in
	cast     bool // it has voted, or will not
}

// NewAuthority makes an Authority and loads what it has signed. It fails when that cannot be read: an authority that
// does not know what it has signed must not sign. It does nothing until Start.
func NewAuthority(cfg AuthorityConfig) (*Authority, error) {
	if !cfg.Network.IsAuthority(cfg.Identity) {
		return nil, fmt.Errorf("starting an authority: %w: %s is none of the network's", ErrSigners, cfg.Identity.Short())
	}
	a := &Authority{
		cfg: cfg, env: cfg.Env, log: cfg.Env.Log,
		gripes: newComplaints(cfg.Env),
		relays: make(map[cert.Identity]*standing),
		links:  make(map[cert.Identity][]proof),
	}
	a.use(cfg.Network)
	data, err := a.env.Store.Load(signedBlob)
	if err == nil {
		a.last, err = decodeSigned(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("starting an authority: what it has signed cannot be read, so it must not sign: %w", err)
	}
	if err := a.loadVoted(); err != nil {
		return nil, fmt.Errorf("starting an authority: in which sessions it has voted cannot be read, so it must not vote: %w", err)
	}
	if err := a.loadHistory(); err != nil {
		a.log.Warn("the history of relays cannot be read; they all count as new", "err", err)
	}
	if err := a.loadEvidence(); err != nil {
		a.log.Warn("the evidence against other authorities cannot be read", "err", err)
	}
	return a, nil
}

// use takes a network file into use.
func (a *Authority) use(n *Network) {
	a.network, a.agenda = n, newAgenda(n)
	a.colleagues = newColleagues(a)
	votes := float64(len(n.Authorities))
	a.requests = newBuckets(8*votes*votes/a.agenda.delta.Seconds(), 32*votes)
}

// SetNetwork takes another network file into use as soon as no session is open. An authority that it does not name
// stops.
func (a *Authority) SetNetwork(n *Network) {
	a.next = n
	if a.running {
		a.slot.Reset(0)
	}
}

// renewNetwork does what SetNetwork has asked for, when it is time, and says whether the authority goes on.
func (a *Authority) renewNetwork() bool {
	if a.next == nil || a.busy || a.session != nil && !a.session.closed {
		return true
	}
	n := a.next
	a.next = nil
	if !n.IsAuthority(a.cfg.Identity) {
		a.log.Warn("this node is no authority any more: the new network file does not name it")
		a.Stop()
		return false
	}
	a.session, a.plan = nil, plan{}
	a.use(n)
	return true
}

// Start publishes the last signed consensus if a crash has kept it from being published, and begins to probe and sign.
// The Follower and the Agent are to be started before.
func (a *Authority) Start() {
	if a.running {
		return
	}
	a.running = true
	a.started = a.env.Clock.Now()
	a.cfg.Agent.watch, a.cfg.Agent.authority = a.onDescriptor, a
	a.slot = a.env.Clock.AfterFunc(0, a.onTimer)
	if a.last != nil && a.last.validAfter.After(a.newest()) {
		a.publish(a.last)
	}
	for _, id := range a.cfg.Agent.store.identities() {
		a.onDescriptor(id)
	}
}

// Stop ends probing and signing. What is being stored is not published.
func (a *Authority) Stop() {
	if !a.running {
		return
	}
	a.running = false
	a.cfg.Agent.watch, a.cfg.Agent.authority = nil, nil
	a.slot.Stop()
	for _, s := range a.relays { // order: stops timers only
		if s.timer != nil {
			s.timer.Stop()
		}
	}
	a.probing.queue = nil
	a.saveHistory()
}

// Stats returns a copy of the counters and the gauges.
func (a *Authority) Stats() AuthorityStats {
	s := a.stats
	s.Evidence = len(a.evidence)
	for _, r := range a.relays { // order: counts only
		if e := a.cfg.Agent.store.entries[r.id]; e != nil {
			s.Known++
			if r.up() {
				s.Reachable++
				s.Exits += b2i(!e.Policy.IsEmpty())
			}
		}
	}
	return s
}

// newest is the valid-after of the newest consensus that this node has seen; the zero time if it has seen none.
func (a *Authority) newest() time.Time {
	if h := a.cfg.Follower.Newest(); h != nil {
		return h.ValidAfter
	}
	return time.Time{}
}

// alone says whether there are no other authorities.
func (a *Authority) alone() bool { return len(a.colleagues) == 0 }

// wake looks soon whether a consensus can be made.
func (a *Authority) wake(after time.Duration) {
	if a.running && !a.busy && a.alone() {
		a.slot.Reset(after)
	}
}

func (a *Authority) onTimer() {
	switch {
	case !a.running || !a.renewNetwork():
	case a.alone():
		a.signAlone()
	default:
		a.onTick()
	}
}

// request answers what another authority asks of this one, whose identity the link has proved.
func (a *Authority) request(q Request, from *env.Peer) []byte {
	status := StatusRefused
	switch {
	case !a.network.IsAuthority(from.Identity) || from.Identity == a.cfg.Identity:
	case !a.requests.Take(string(from.Identity[:]), 1, a.env.Clock.Now()):
		status = StatusBusy
	case q.Kind == AskVoteBody:
		return a.onVoteBody(q.Digest, from)
	case q.Kind == PushVote:
		status = a.onVote(q.Document, from)
	case q.Kind == PushSignature:
		status = a.onSignature(q.Document, from)
	}
	return AppendAnswer(nil, status, nil)
}

// signAlone makes the consensus of the present slot if there is none yet and there are enough relays, and else waits
// for the next slot or for relays. When many relays are back, slots are as long as a period. It serves a network with one authority.
func (a *Authority) signAlone() {
	if a.busy {
		return
	}
	wall := a.env.Clock.Wall()
	slot := a.agenda.slotOf(wall)
	signed := a.newest()
	if a.last != nil && a.last.validAfter.After(signed) {
		signed = a.last.validAfter
	}
	wait := slot.Add(a.agenda.interval).Sub(wall)
	if !slot.After(signed) && a.manyBack() {
		slot = a.agenda.lastSession(wall)
		wait = slot.Add(a.agenda.period).Sub(wall)
	}
	if !slot.After(signed) {
		if ahead := signed.Sub(wall); ahead > a.agenda.interval {
			a.gripes.warn("the clock has been set back: nothing will be signed until it passes the last consensus", "valid_after", signed)
		}
		a.slot.Reset(min(wait, time.Minute)) // a clock may jump
		return
	}
	v := a.vote(slot, wall)
	if wait, ok := a.ready(v); !ok {
		a.slot.Reset(wait)
		return
	}
	a.stats.Sessions++
	a.stats.VotesCast++
	a.stats.LastVotes = 1
	a.build(slot, []*Vote{v})
}

// circuitRelays is the length of a circuit: with fewer relays a consensus is of no use.
const circuitRelays = 3

// ready says whether the relays of a vote make a consensus, or when to look again. The first consensus after a start
// waits until everybody who is known had a chance to be found.
func (a *Authority) ready(v *Vote) (again time.Duration, ok bool) {
	now := a.env.Clock.Now()
	relays := v.count(FlagRunning)
	least := int(a.network.Param(MinRelays))
	if a.settled || a.cfg.Follower.Newest() != nil {
		least = min(least, circuitRelays) // the parameter is for the first consensus of a network
	}
	if relays < least {
		a.enough = 0
		if a.settled || a.cfg.Follower.Newest() != nil && now.Sub(a.started) > startGrace {
			a.gripes.warn("too few relays can be reached: the last consensus stays in use", "relays", relays, "wanted", least)
		}
		return max(a.agenda.interval/10, signRetry), false
	}
	if a.settled {
		return 0, true
	}
	if a.enough == 0 {
		a.enough = now
	}
	waited := now.Sub(a.enough)
	quiet := settleQuiet - now.Sub(a.newcomer)
	if a.unprobed() {
		quiet = max(quiet, signRetry)
	}
	limit := exitLimit
	if a.network.Test {
		limit = exitTest
	}
	if a.cfg.Follower.Newest() == nil && v.count(FlagRunning|FlagExit) == 0 && waited < limit {
		return max(quiet, signRetry), false
	}
	if wait := min(settleLimit-waited, quiet); wait > 0 {
		return wait, false
	}
	return 0, true
}

// parameters are those of the network file, which clients see in the consensus.
func (a *Authority) parameters() Parameters {
	if len(a.network.Parameters) == 0 {
		return nil
	}
	return a.network.Parameters
}
