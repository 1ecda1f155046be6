package directory

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/env/envtest"
)

// council is a network of authorities on a virtual clock, and nobody else: relays are descriptors that all of them hold,
// and that probes reach. Some of the authorities may be the adversary's.
type council struct {
	t        testing.TB
	f        *envtest.Fake
	network  *Network
	seats    []*seat
	relays   []councilRelay
	rng      *rand.Rand
	delay    func(from, to *seat, kind RequestKind) (d time.Duration, lost bool) // one way
	liars    *liars
	sent     map[RequestKind]int
	signed   map[time.Time]map[cert.Identity]cert.Digest // by honest authorities, as anybody could see it
	adopted  map[time.Time]cert.Digest
	dark     map[cert.Identity]bool // relays that nobody reaches
	violated string                 // the first promise that was broken

	fewerRounds int // than the protocol has, to see that the tests notice
}

type councilRelay struct {
	sealed     []byte
	descriptor *Descriptor
}

// seat is one authority. Those of the adversary have no actors.
type seat struct {
	c          *council
	number     int
	signer     cert.Signer
	node       *envtest.Node
	store      env.Store // instead of the node's
	liar       bool
	down       bool
	cut        bool // from all others
	follower   *Follower
	agent      *Agent
	authority  *Authority
	heads      []*Head // that came into use, since the first start
	reaches    func(*councilRelay) bool
	measured   func(cert.Identity) (uint32, bool)
	undefended Undefended
}

// newCouncil makes a network of n authorities, of which the last are liars, with some relays. If there are liars, one
// relay is known to a bare majority of the others only, so that each vote can decide about it.
func newCouncil(t testing.TB, seed uint64, n, liarSeats int, change func(*Network)) *council {
	t.Helper()
	c := &council{
		t: t, f: envtest.NewFake(seed), rng: rand.New(rand.NewPCG(seed, 77)), sent: make(map[RequestKind]int),
		signed: make(map[time.Time]map[cert.Identity]cert.Digest), adopted: make(map[time.Time]cert.Digest),
		delay: func(_, _ *seat, _ RequestKind) (time.Duration, bool) { return time.Millisecond, false },
	}
	contents := Network{Name: "a council", ID: testID, Created: testNow.Add(-time.Hour), Test: true,
		Parameters: Parameters{IntervalMillis: 5000, ReconcileMillis: 3_600_000, MinRelays: 3}}
	for i := range n {
		s := &seat{c: c, number: i, signer: testSigner(t, i), node: c.f.Node(fmt.Sprintf("authority %d", i)), liar: i >= n-liarSeats}
		s.node.Identity = s.id()
		c.seats = append(c.seats, s)
		contents.Authorities = append(contents.Authorities, Contact{s.id(), []netip.AddrPort{s.node.Address}})
	}
	if change != nil {
		change(&contents)
	}
	c.network = must[*Network](t)(NewNetwork(contents, testSigners(t, n)...))
	for i := range 4 {
		sealed, _, d := rumourOf(t, c.network, 40+i, testNow, func(d *Descriptor) { d.Policy = parsePolicy(t, "web") })
		c.relays = append(c.relays, councilRelay{sealed, d})
	}
	slices.SortFunc(c.relays, func(a, b councilRelay) int { return a.descriptor.Identity.Compare(b.descriptor.Identity) })
	disputed := c.relays[len(c.relays)-1].descriptor.Identity
	for i, s := range c.seats {
		if liarSeats > 0 && i > (n-liarSeats)/2 {
			s.reaches = func(r *councilRelay) bool { return r.descriptor.Identity != disputed }
		}
	}
	c.liars = &liars{c: c, bodies: make(map[cert.Digest]*liarVote), documents: make(map[cert.Digest][]byte), seen: make(map[cert.Digest]map[cert.Identity]cert.Endorsement)}
	return c
}

func (s *seat) id() cert.Identity { return s.signer.Identity() }

func (c *council) honest() (out []*seat) {
	for _, s := range c.seats {
		if !s.liar {
			out = append(out, s)
		}
	}
	return out
}

// start makes and starts the actors of an authority, as after a start of its program.
func (s *seat) start() {
	e := s.node.Env
	if s.store != nil {
		e.Store = s.store
	}
	s.follower = NewFollower(FollowerConfig{
		Env: e, Network: s.c.network, Fetcher: s, Self: s.id(),
		OnConsensus: func(k *Consensus) {
			s.heads = append(s.heads, k.Head)
			s.c.onAdopted(s, k.Head)
			if s.agent != nil {
				s.agent.OnConsensus(k)
			}
		},
	})
	s.agent = NewAgent(AgentConfig{Env: e, Network: s.c.network, Identity: s.id(), Follower: s.follower, Fetcher: s,
		Signer: func() cert.Signer { return s.signer }, Undefended: s.undefended})
	var err error
	s.authority, err = NewAuthority(AuthorityConfig{Env: e, Network: s.c.network, Identity: s.id(), Agent: s.agent, Follower: s.follower,
		Prober: s, Signer: func() cert.Signer { return s.signer }, Measured: s.measured})
	if err != nil {
		s.c.t.Fatal(err)
	}
	s.authority.agenda = s.c.agenda()
	for i := range s.c.relays {
		r := &s.c.relays[i]
		if s.reaches != nil && !s.reaches(r) {
			continue
		}
		s.agent.store.put(&entry{Descriptor: r.descriptor, sealed: r.sealed, listed: true})
		s.authority.relays[r.descriptor.Identity] = &standing{id: r.descriptor.Identity, firstSeen: testNow, upSince: testNow, lastSeen: testNow, reached: r.descriptor.Addresses}
	}
	s.down = false
	s.c.f.Do(func() {
		s.follower.Start()
		s.agent.Start()
		s.authority.Start()
	})
}

func (c *council) startAll() {
	for _, s := range c.honest() {
		s.start()
	}
}

// crash ends an authority as SIGKILL does; start brings it back with its store.
func (s *seat) crash() {
	s.node.Stop()
	s.down = true
	skew := s.node.Skew
	s.node = s.c.f.Node(s.node.Name)
	s.node.Skew = skew
}

// Probe implements Prober.
func (s *seat) Probe(to env.Target, done func(error)) {
	s.node.Env.Clock.AfterFunc(time.Millisecond, func() {
		if s.c.dark[to.Identity] {
			done(errUnreachable)
			return
		}
		done(nil)
	})
}

// Fetch implements Fetcher.
func (s *seat) Fetch(to env.Target, request []byte, limit int, done func([]byte, error)) {
	c := s.c
	request = bytes.Clone(request)
	q, _, _ := NewRequestReader(MaxAuthorityRequest).Read(request)
	c.onSent(s, q)
	i := slices.IndexFunc(c.seats, func(o *seat) bool { return o.id() == to.Identity })
	if i < 0 {
		s.node.Env.Clock.AfterFunc(time.Millisecond, func() { done(nil, errUnreachable) })
		return
	}
	target, node := c.seats[i], s.node
	there, lost := c.delay(s, target, q.Kind)
	back, lostToo := c.delay(target, s, q.Kind)
	answerBack := func(answer []byte, err error) {
		if len(answer) > limit {
			answer, err = nil, fmt.Errorf("%w: an answer of %d bytes", ErrTooLarge, len(answer))
		}
		answer = bytes.Clone(answer)
		if lostToo {
			return
		}
		node.Env.Clock.AfterFunc(back, func() { done(answer, err) })
	}
	if lost {
		return // nobody answers
	}
	node.Env.Clock.AfterFunc(there, func() {
		switch {
		case target.down || target.cut || s.cut:
			answerBack(nil, errUnreachable)
		case target.liar:
			answerBack(c.liars.serve(target, s, q), nil)
		default:
			target.agent.Serve(request, s.peerAt(target), func(a []byte) { answerBack(a, nil) })
		}
	})
}

// peerAt is how another sees this one.
func (s *seat) peerAt(other *seat) *env.Peer {
	return &env.Peer{Identity: s.id(), Address: s.node.Address, Skew: s.node.Skew - other.node.Skew}
}

// onSent sees what an authority sends, and notes what honest ones have signed.
func (c *council) onSent(from *seat, q Request) {
	c.sent[q.Kind]++
	if q.Kind != PushSignature || from.liar {
		return
	}
	doc, err := cert.Parse(q.Document, cert.ConsensusDocument, maxHeadBody)
	if err != nil {
		c.violate("an honest authority sent garbage: %v", err)
		return
	}
	head, err := decodeHead(doc.Body)
	if err != nil {
		c.violate("an honest authority sent a bad head: %v", err)
		return
	}
	digest := cert.DigestOf(cert.ConsensusDocument, testID, doc.Body)
	if !slices.Contains(doc.Signers(), from.id()) {
		return
	}
	by := c.signed[head.ValidAfter]
	if by == nil {
		by = make(map[cert.Identity]cert.Digest)
		c.signed[head.ValidAfter] = by
	}
	if had, ok := by[from.id()]; ok && had != digest {
		c.violate("authority %d has signed two consensuses for %v", from.number, head.ValidAfter)
	}
	by[from.id()] = digest
	counts := make(map[cert.Digest]int)
	for _, d := range by {
		counts[d]++
	}
	possible := 0
	for _, n := range counts {
		possible += b2i(n+c.liarSeats() >= c.network.Quorum)
	}
	if possible > 1 {
		c.violate("two consensuses for %v can have the signatures of a quorum", head.ValidAfter)
	}
}

func (c *council) liarSeats() int { return len(c.seats) - len(c.honest()) }

func (c *council) onAdopted(by *seat, h *Head) {
	if had, ok := c.adopted[h.ValidAfter]; ok && had != h.Digest {
		c.violate("authority %d uses another consensus of %v than others", by.number, h.ValidAfter)
	}
	c.adopted[h.ValidAfter] = h.Digest
}

func (c *council) violate(format string, args ...any) {
	if c.violated == "" {
		c.violated = fmt.Sprintf(format, args...)
	}
}

// disagreement returns a valid-after for which honest authorities have signed different consensuses, or the zero time.
func (c *council) disagreement() time.Time {
	for at, by := range c.signed {
		var first cert.Digest
		for _, d := range by {
			if first.IsZero() {
				first = d
			}
			if d != first {
				return at
			}
		}
	}
	return time.Time{}
}

// check fails the test if a promise was broken that holds whatever happens.
func (c *council) check(what any) {
	c.t.Helper()
	if c.violated != "" {
		c.t.Fatalf("%v: %s", what, c.violated)
	}
	for _, s := range c.honest() {
		if n := s.follower.Stats().Forks; n > 0 {
			c.t.Fatalf("%v: authority %d saw %d forks", what, s.number, n)
		}
	}
}

// agenda is that of the honest authorities.
func (c *council) agenda() agenda {
	g := newAgenda(c.network)
	g.rounds -= c.fewerRounds
	return g
}

// wall is the time by a clock that is right.
func (c *council) wall() time.Time { return envtest.Epoch.Add(time.Duration(c.f.Now())) }

// newest is the valid-after of what an authority uses, zero for nothing.
func (s *seat) newest() time.Time {
	if k := s.follower.Current(); k != nil {
		return k.Head.ValidAfter
	}
	return time.Time{}
}

// all says whether all these authorities use one consensus of that time or later.
func (c *council) all(seats []*seat, at time.Time) bool {
	return !slices.ContainsFunc(seats, func(s *seat) bool { return s.newest().Before(at) })
}

// liars are the adversary's authorities, which share all they know.
type liars struct {
	c          *council
	bodies     map[cert.Digest]*liarVote // by digest of the head's document
	documents  map[cert.Digest][]byte
	seen       map[cert.Digest]map[cert.Identity]cert.Endorsement // signatures for heads of votes
	consensus  [][]byte                                           // documents of consensuses that were seen
	hold       func() time.Duration                               // until a signature of a consensus is given away
	onDocument func(document []byte)                              // hears of each
	passOn     func() (time.Duration, bool)                       // after which a vote that was seen is passed on
}

type liarVote struct {
	body  []byte
	gives func(to *seat) bool
}

func (l *liars) seats() (out []*seat) {
	for _, s := range l.c.seats {
		if s.liar {
			out = append(out, s)
		}
	}
	return out
}

// serve answers an honest authority.
func (l *liars) serve(me, from *seat, q Request) []byte {
	switch q.Kind {
	case PushVote:
		doc, err := cert.Parse(q.Document, cert.VoteDocument, maxVoteHeadBody)
		if err != nil {
			return AppendAnswer(nil, StatusRefused, nil)
		}
		digest := l.learn(doc)
		if l.passOn != nil {
			if after, ok := l.passOn(); ok {
				l.later(me, after, func() { l.push(me, digest, l.c.honest()[l.c.rng.IntN(len(l.c.honest()))], true) })
			}
		}
	case PushSignature:
		doc, err := cert.Parse(q.Document, cert.ConsensusDocument, maxHeadBody)
		if err == nil && !slices.ContainsFunc(l.consensus, func(d []byte) bool { return bytes.Equal(d, doc.Body) }) {
			l.consensus = append(l.consensus, bytes.Clone(doc.Body))
			if l.hold != nil {
				l.signLater(doc.Body)
			}
			if l.onDocument != nil {
				l.onDocument(doc.Body)
			}
		}
	case AskVoteBody:
		if v := l.bodies[q.Digest]; v != nil && v.gives(from) {
			return AppendAnswer(nil, StatusOK, v.body)
		}
		return AppendAnswer(nil, StatusNotFound, nil)
	default:
		return AppendAnswer(nil, StatusNotYet, nil)
	}
	return AppendAnswer(nil, StatusOK, nil)
}

func (l *liars) learn(doc cert.Document) cert.Digest {
	digest := cert.DigestOf(cert.VoteDocument, testID, doc.Body)
	l.documents[digest] = bytes.Clone(doc.Body)
	if l.seen[digest] == nil {
		l.seen[digest] = make(map[cert.Identity]cert.Endorsement)
	}
	for _, e := range doc.Endorsements {
		l.seen[digest][e.Identity()] = e
	}
	return digest
}

func (l *liars) later(me *seat, d time.Duration, f func()) { me.node.Env.Clock.AfterFunc(d, f) }

// signLater signs a consensus in the name of each liar and gives the signature to some, at some time.
func (l *liars) signLater(document []byte) {
	document = bytes.Clone(document)
	for _, s := range l.seats() {
		e, err := cert.Endorse(cert.ConsensusDocument, testID, document, s.signer)
		if err != nil {
			l.c.t.Error(err)
			return
		}
		sealed := must[[]byte](l.c.t)(cert.Join(cert.ConsensusDocument, document, e))
		for _, to := range l.c.honest() {
			if l.c.rng.IntN(2) == 0 {
				l.later(s, l.hold(), func() { l.request(s, to, Request{Kind: PushSignature, Document: sealed}) })
			}
		}
	}
}

// vote makes a vote of a liar and signs it in the name of so many liars, its author first.
func (l *liars) vote(me *seat, at time.Time, signers int, change func(*Vote), gives func(*seat) bool) cert.Digest {
	i := slices.IndexFunc(l.c.honest(), func(s *seat) bool { return !s.down })
	v := l.c.honest()[i].authority.vote(at, l.c.wall())
	v.Listing.Relays = slices.Clone(v.Listing.Relays)
	if change != nil {
		change(v)
	}
	sealed, body, err := SealVote(l.c.network, v, me.signer)
	if err != nil {
		l.c.t.Fatal(err)
	}
	doc := must[cert.Document](l.c.t)(cert.Parse(sealed, cert.VoteDocument, maxVoteHeadBody))
	digest := l.learn(doc)
	for _, s := range l.seats() {
		if len(l.seen[digest]) < signers {
			l.seen[digest][s.id()] = must[cert.Endorsement](l.c.t)(cert.Endorse(cert.VoteDocument, testID, doc.Body, s.signer))
		}
	}
	l.bodies[digest] = &liarVote{body, gives}
	return digest
}

func toAll(*seat) bool { return true }

// push sends the head of a vote with all signatures that are known, those of all liars if they all sign it.
func (l *liars) push(from *seat, digest cert.Digest, to *seat, all bool) {
	signers := l.seen[digest]
	if all {
		for _, s := range l.seats() {
			if e, err := cert.Endorse(cert.VoteDocument, testID, l.documents[digest], s.signer); err == nil {
				signers[s.id()] = e
			}
		}
	}
	var list []cert.Endorsement
	for _, s := range l.c.seats {
		if e, ok := signers[s.id()]; ok {
			list = append(list, e)
		}
	}
	sealed := must[[]byte](l.c.t)(cert.Join(cert.VoteDocument, l.documents[digest], list...))
	l.request(from, to, Request{Kind: PushVote, Document: sealed})
}

// request sends a request without delay; the answer is not looked at.
func (l *liars) request(from, to *seat, q Request) {
	if to.down {
		return
	}
	wire := must[[]byte](l.c.t)(q.AppendTo(nil))
	from.node.Env.Clock.AfterFunc(0, func() { to.agent.Serve(wire, from.peerAt(to), func([]byte) {}) })
}

// tactic is what liars do in one session.
type tactic int

const (
	silent     tactic = iota
	conform           // vote as they should
	equivocate        // one vote for one half, another for the other
	late              // votes at the boundaries of rounds, with as many signatures as the round needs, to a random half
	withhold          // a vote whose body only one honest authority gets
	garbage           // heads without bodies, bodies that are no vote, many heads
	boundary          // two votes, released to different halves just before the end of the last round
	tactics
)

func (t tactic) String() string {
	return [...]string{"silent", "conform", "equivocate", "late", "withhold", "garbage", "boundary"}[t]
}

// play has every liar act in the session at. It is called before its first round begins.
func (l *liars) play(at time.Time, how tactic) {
	c, g := l.c, l.c.agenda()
	honest := c.honest()
	until := func(t time.Time) time.Duration { return max(t.Sub(c.wall()), 0) }
	half := func() func(*seat) bool {
		in := make(map[*seat]bool)
		for _, s := range honest {
			in[s] = c.rng.IntN(2) == 0
		}
		return func(s *seat) bool { return in[s] }
	}
	give := func(me *seat, digest cert.Digest, to func(*seat) bool, when time.Time, all bool) {
		for _, s := range honest {
			if to(s) {
				l.later(me, until(when)+time.Duration(c.rng.Int64N(int64(g.delta/50)+1)), func() { l.push(me, digest, s, all) })
			}
		}
	}
	variant := func(v *Vote) { // of which there are many, half of them without the relay that just a majority lists
		v.Listing.Parameters = Parameters{IntervalMillis: 5000, MinRelays: 1 + c.rng.Int64N(9999)}
		if n := len(v.Listing.Relays); c.rng.IntN(2) == 0 {
			v.Listing.Relays, v.Descriptors = v.Listing.Relays[:n-1], v.Descriptors[:n-1]
		}
	}
	for _, me := range l.seats() {
		switch how {
		case silent:
		case conform:
			give(me, l.vote(me, at, 1, nil, toAll), toAll, g.begin(at), false)
		case equivocate:
			first := half()
			give(me, l.vote(me, at, 1, variant, toAll), first, g.begin(at), false)
			give(me, l.vote(me, at, 1, variant, toAll), func(s *seat) bool { return !first(s) }, g.begin(at), false)
		case late, boundary:
			for range 1 + b2i(how == boundary) {
				rounds := len(l.seats())
				if how == late {
					rounds = 1 + c.rng.IntN(rounds)
				}
				edge := g.begin(at).Add(time.Duration(rounds) * g.delta).Add(time.Duration(c.rng.Int64N(int64(g.delta/5))) - g.delta/6)
				give(me, l.vote(me, at, rounds, variant, toAll), half(), edge, false)
			}
		case withhold:
			one := honest[c.rng.IntN(len(honest))]
			give(me, l.vote(me, at, 1, variant, func(s *seat) bool { return s == one }), toAll, g.begin(at), false)
		case garbage:
			give(me, l.vote(me, at, 1, variant, func(*seat) bool { return false }), toAll, g.begin(at), true)
			digest := l.vote(me, at, 1, variant, toAll)
			l.bodies[digest].body[0] ^= 1
			give(me, digest, half(), g.begin(at), true)
			for range 20 {
				give(me, l.vote(me, at, 1, variant, half()), half(), g.begin(at).Add(time.Duration(c.rng.Int64N(int64(g.delta)))), c.rng.IntN(2) == 0)
			}
		}
	}
}
