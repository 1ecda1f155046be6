package directory

import (
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

// leastDelta is the shortest round of a session, as long as an interval has room for it.
const leastDelta = 200 * time.Millisecond

// agenda is when authorities vote. A session is named by the valid-after of the consensus that it is about, a multiple
// of the period. It has f+1 rounds of length delta; what is left of the last two deltas before the valid-after is one
// for the signatures. Of all clocks and messages it is assumed that they are off and take at most half a delta each.
//
//	valid-after − (f+2)Δ            − Δ            valid-after
//	      │ round 1 │ … │ round f+1 │  signatures  │ in use
type agenda struct {
	interval, period, delta time.Duration // whole milliseconds
	rounds                  int
}

// newAgenda makes the agenda of a network. Sessions at multiples of the interval are regular; those at other multiples
// of the period are held only when no consensus is known that is fresh at their time, or when many relays are back that
// the newest does not have.
func newAgenda(n *Network) agenda {
	faulty := (len(n.Authorities) - 1) / 3
	interval := n.Interval()
	all := time.Duration(faulty + 3)
	delta := min(max(interval/20, leastDelta), interval/all).Truncate(time.Millisecond)
	period := interval
	for k := interval / (all * delta); k > 1; k-- {
		if part := interval / k; part*k == interval && part%time.Millisecond == 0 {
			period = part
			break
		}
	}
	return agenda{interval: interval, period: period, delta: delta, rounds: faulty + 1}
}

// isSession says whether there can be a session for a time.
func (g agenda) isSession(at time.Time) bool {
	return at.UnixMilli()%g.period.Milliseconds() == 0 && at.UnixMilli() > 0
}

func (g agenda) isRegular(at time.Time) bool { return at.UnixMilli()%g.interval.Milliseconds() == 0 }

// begin and end are those of the rounds of a session.
func (g agenda) begin(at time.Time) time.Time {
	return at.Add(-time.Duration(g.rounds+1) * g.delta)
}
func (g agenda) end(at time.Time) time.Time { return at.Add(-g.delta) }

// grace is how long after the begin of a session an authority may still send its vote.
func (g agenda) grace() time.Duration { return g.delta / 4 }

// next is the first session whose begin is less than the grace ago.
func (g agenda) next(wall time.Time) time.Time {
	p := g.period.Milliseconds()
	at := time.UnixMilli((wall.UnixMilli()/p + 1) * p).UTC()
	for !wall.Before(g.begin(at).Add(g.grace())) {
		at = at.Add(g.period)
	}
	return at
}

// round is that of a session which a time is in: 1 also before its begin.
func (g agenda) round(at, wall time.Time) int {
	return 1 + max(int(wall.Sub(g.begin(at))/g.delta), 0)
}

// lastSession is the last time, not after wall, that a session may be for.
func (g agenda) lastSession(wall time.Time) time.Time {
	p := g.period.Milliseconds()
	return time.UnixMilli(wall.UnixMilli() / p * p).UTC()
}

// slotOf returns the beginning of the interval that contains t.
func (g agenda) slotOf(t time.Time) time.Time {
	i := g.interval.Milliseconds()
	return time.UnixMilli(t.UnixMilli() - t.UnixMilli()%i).UTC()
}

// session is one voting: a Dolev–Strong broadcast of each authority's vote at once. In round r a vote is accepted that
// bears the signatures of r authorities, its author's among them, and whose body is here; whoever accepts one adds its
// signature and sends it to all others. With at most f that break the rules, and f+1 rounds, every vote that one honest
// authority accepts is accepted by all: if it was accepted before the last round, by what that one sent; if in the last,
// one of its f+1 signers is honest and had accepted it before. So all count the same votes: those of the authors of whom
// exactly one was accepted.
//
// A body that cannot be had is not accepted, so a head alone does not bind anybody; nobody signs what he cannot give to
// others. What one liar can make others keep is bounded: a head is looked after only if one of its signers has signed
// at most two of its author in this session, which is all that an honest one ever signs.
type session struct {
	at      time.Time
	closed  bool
	ballots []*ballot // in the order in which they came
	slots   map[slot][]cert.Digest
	seen    map[cert.Identity][]*evidenceHalf // at most two of each author
	asked   map[cert.Identity]int             // bodies given, by authority
	checks  map[cert.Identity]int             // heads being verified, by who sent them
}

// slot is the right of one authority to have votes of another looked after.
type slot struct{ signer, author cert.Identity }

// Bounds of a session.
const (
	votesPerAuthor = 2
	bodyAsksEach   = 4 // times that one authority is given one body
)

// ballot is a vote that was heard of.
type ballot struct {
	session  *session
	head     *VoteHead
	document []byte             // the body of the head's document
	signers  []cert.Endorsement // verified, no authority twice
	body     []byte
	answer   []byte // the body as an answer to a request, made when it is first wanted
	vote     *Vote  // nil until the body is here and good
	accepted bool
	spoilt   bool            // the body is no vote
	patient  bool            // the first who was asked has had his time
	asking   []cert.Identity // whose answer is awaited
	liars    []cert.Identity // who gave another body
}

func newSession(at time.Time) *session {
	return &session{
		at:     at,
		slots:  make(map[slot][]cert.Digest),
		seen:   make(map[cert.Identity][]*evidenceHalf),
		asked:  make(map[cert.Identity]int),
		checks: make(map[cert.Identity]int),
	}
}

func (s *session) find(digest cert.Digest) *ballot {
	for _, b := range s.ballots {
		if b.head.Digest == digest {
			return b
		}
	}
	return nil
}

// accepted returns the votes of an author that were accepted, at most two.
func (s *session) accepted(author cert.Identity) (out []*ballot) {
	for _, b := range s.ballots {
		if b.accepted && b.head.Author == author {
			out = append(out, b)
		}
	}
	return out
}

// hasRoom says whether a signer may still have a vote of an author looked after.
func (s *session) hasRoom(signer, author cert.Identity, digest cert.Digest) bool {
	had := s.slots[slot{signer, author}]
	return len(had) < votesPerAuthor || slices.Contains(had, digest)
}

// take uses the room of all signers who have some, and says whether one had.
func (s *session) take(signers []cert.Identity, author cert.Identity, digest cert.Digest) (room bool) {
	for _, id := range signers {
		if s.hasRoom(id, author, digest) {
			room = true
			if k := (slot{id, author}); !slices.Contains(s.slots[k], digest) {
				s.slots[k] = append(s.slots[k], digest)
			}
		}
	}
	return room
}

func (b *ballot) signedBy(id cert.Identity) bool {
	return slices.ContainsFunc(b.signers, func(e cert.Endorsement) bool { return e.Identity() == id })
}

func (b *ballot) sign(e cert.Endorsement) {
	if !b.signedBy(e.Identity()) {
		b.signers = append(b.signers, e)
	}
}

// counted returns the votes that count: of each author with exactly one that was accepted.
func (s *session) counted() (out []*Vote) {
	for _, b := range s.ballots {
		if b.accepted && len(s.accepted(b.head.Author)) == 1 {
			out = append(out, b.vote)
		}
	}
	return out
}

// sessionAt returns the session that is open for a valid-after, and opens it if it is its time. Else it returns nil and
// says by how much what came is too early (negative) or too late.
func (a *Authority) sessionAt(at time.Time) (s *session, off time.Duration) {
	wall := a.env.Clock.Wall()
	if early := a.agenda.begin(at).Add(-a.agenda.delta).Sub(wall); early > 0 {
		return nil, -early
	}
	if late := wall.Sub(a.agenda.end(at)); late >= 0 {
		return nil, max(late, 1)
	}
	if a.session != nil && a.session.at.Equal(at) && !a.session.closed {
		return a.session, 0
	}
	if a.session != nil && !at.After(a.session.at) {
		return nil, max(a.session.at.Sub(at), 1)
	}
	if a.session != nil && !a.session.closed {
		a.closeSession(a.session) // its timer is late
	}
	a.session = newSession(at)
	a.slot.Reset(0) // its end is an event
	return a.session, 0
}

// onVote takes the head of a vote that another authority sends. The answer says only that it was received: it is
// verified in the pool.
func (a *Authority) onVote(sealed []byte, from *env.Peer) Status {
	head, document, err := parseVoteHead(sealed, a.network)
	if err != nil {
		a.refuseVote("a vote was refused", from, err)
		return StatusRefused
	}
	if head.Serial != a.network.Serial {
		a.stats.VotesRefused++
		a.gripes.warn("a vote by another network file was refused", "from", from.Identity.Short(), "author", head.Author.Short(),
			"serial", head.Serial, "serial_here", a.network.Serial)
		return StatusRefused
	}
	if !a.agenda.isSession(head.ValidAfter) {
		a.refuseVote("a vote for a time that has no session was refused", from, nil, "valid_after", head.ValidAfter)
		return StatusRefused
	}
	s, off := a.sessionAt(head.ValidAfter)
	if s == nil {
		a.untimely(head, from, off)
		return StatusRefused
	}
	signers := document.Signers()
	b := s.find(head.Digest)
	switch {
	case b != nil && (b.accepted || b.spoilt):
		return StatusOK
	case b != nil && !slices.ContainsFunc(signers, func(id cert.Identity) bool { return !b.signedBy(id) }):
		return StatusOK
	case len(signers) < a.agenda.round(s.at, a.env.Clock.Wall()) && !a.lenient():
		a.untimely(head, from, a.env.Clock.Wall().Sub(a.agenda.begin(s.at).Add(time.Duration(len(signers))*a.agenda.delta)))
		return StatusRefused
	case !slices.ContainsFunc(signers, func(id cert.Identity) bool { return s.hasRoom(id, head.Author, head.Digest) }):
		a.stats.VotesRefused++
		return StatusRefused // more than an honest authority would pass on
	case s.checks[from.Identity] >= votesPerAuthor*len(a.network.Authorities):
		return StatusBusy
	}
	s.checks[from.Identity]++
	network := a.network
	sealed = slices.Clone(sealed)
	a.env.Pool.Offload(func() { head, document, err = OpenVoteHead(sealed, network) }, func() {
		s.checks[from.Identity]--
		switch {
		case !a.running || s != a.session || s.closed:
		case err != nil:
			a.refuseVote("a vote was refused", from, err)
		default:
			a.onVerifiedVote(s, head, document)
		}
	})
	return StatusOK
}

// lenient is for the attack suite: an authority that counts the first vote it hears of each author, whenever it comes.
func (a *Authority) lenient() bool { return a.cfg.Agent.cfg.Undefended.Votes }

func (a *Authority) refuseVote(message string, from *env.Peer, err error, more ...any) {
	a.stats.VotesRefused++
	args := append([]any{"from", from.Identity.Short()}, more...)
	if err != nil {
		args = append(args, "err", err)
	}
	a.gripes.warn(message, args...)
}

// untimely counts a vote from outside its round. When the sender's clock is known to be off, that is the likely cause.
func (a *Authority) untimely(head *VoteHead, from *env.Peer, off time.Duration) {
	if off < 0 {
		a.stats.VotesEarly++
	} else {
		a.stats.VotesLate++
	}
	if from.Identity == head.Author && (from.Skew.Abs() > a.agenda.delta/2 || off.Abs() > 2*a.agenda.period) {
		a.stats.ClocksOff++
		a.gripes.warn("a vote came at the wrong time: the clocks of this authority and of the other differ; set them right",
			"from", from.Identity.Short(), "valid_after", head.ValidAfter, "late", off, "clock_ahead", from.Skew)
		return
	}
	a.log.Debug("a vote came at the wrong time", "from", from.Identity.Short(), "author", head.Author.Short(), "valid_after", head.ValidAfter, "late", off)
}

// onVerifiedVote takes a head whose signatures are good.
func (a *Authority) onVerifiedVote(s *session, head *VoteHead, document cert.Document) {
	at := slices.IndexFunc(document.Endorsements, func(e cert.Endorsement) bool { return e.Identity() == head.Author })
	a.noteVote(s, head, document.Body, document.Endorsements[at])
	if !s.take(document.Signers(), head.Author, head.Digest) {
		a.stats.VotesRefused++
		return
	}
	b := s.find(head.Digest)
	if b == nil {
		b = &ballot{session: s, head: head, document: slices.Clone(document.Body)}
		s.ballots = append(s.ballots, b)
	}
	if b.accepted {
		return
	}
	for _, e := range document.Endorsements {
		b.sign(e)
	}
	a.consider(b)
	a.wantBody(b)
}

// consider accepts a vote that has all it needs.
func (a *Authority) consider(b *ballot) {
	s := b.session
	wall := a.env.Clock.Wall()
	if b.accepted || b.vote == nil || s.closed {
		return
	}
	if !wall.Before(a.agenda.end(s.at)) || len(b.signers) < a.agenda.round(s.at, wall) && !a.lenient() {
		return // perhaps more signatures come in time
	}
	already := len(s.accepted(b.head.Author))
	if already >= votesPerAuthor || a.lenient() && already > 0 {
		return
	}
	a.accept(b)
}

// accept takes a vote, signs it and passes it on, unless the rounds end before anybody could take it.
func (a *Authority) accept(b *ballot) {
	s := b.session
	b.accepted = true
	a.stats.VotesTaken++
	if len(s.accepted(b.head.Author)) > 1 {
		a.log.Warn("an authority has sent two different votes: it does not count in this session", "author", b.head.Author.Short(), "valid_after", s.at)
	}
	if b.head.Author != a.cfg.Identity {
		if a.lenient() || a.agenda.round(s.at, a.env.Clock.Wall()) >= a.agenda.rounds {
			return
		}
		e, err := cert.Endorse(cert.VoteDocument, a.network.ID, b.document, a.cfg.Signer())
		if err != nil {
			a.gripes.warn("a vote cannot be passed on", "err", err)
			return
		}
		has := b.signers
		b.signers = append(slices.Clone(has), e)
		a.passOn(b, func(id cert.Identity) bool {
			return slices.ContainsFunc(has, func(e cert.Endorsement) bool { return e.Identity() == id })
		})
		return
	}
	a.passOn(b, func(cert.Identity) bool { return false })
}

// passOn sends a vote with all its signatures to the other authorities but those who have it.
func (a *Authority) passOn(b *ballot, has func(cert.Identity) bool) {
	sealed, err := cert.Join(cert.VoteDocument, b.document, b.signers...)
	if err != nil {
		a.gripes.warn("a vote cannot be passed on", "err", err)
		return
	}
	s := b.session
	until := a.env.Clock.Now().Add(a.agenda.end(s.at).Sub(a.env.Clock.Wall()))
	for _, c := range a.colleagues {
		if !has(c.to.Identity) {
			a.send(c, &parcel{
				request: Request{Kind: PushVote, Document: sealed}, until: until, pause: a.agenda.delta / 8,
				wanted: func() bool { return a.session == s && !s.closed },
			})
		}
	}
}

// onVoteBody gives the body of a vote to another authority.
func (a *Authority) onVoteBody(digest cert.Digest, from *env.Peer) []byte {
	if a.session == nil {
		return AppendAnswer(nil, StatusNotFound, nil)
	}
	b := a.session.find(digest)
	if b == nil || b.vote == nil {
		return AppendAnswer(nil, StatusNotFound, nil)
	}
	if a.session.asked[from.Identity]++; a.session.asked[from.Identity] > bodyAsksEach*votesPerAuthor*len(a.network.Authorities) {
		return AppendAnswer(nil, StatusBusy, nil)
	}
	if b.answer == nil {
		b.answer = AppendAnswer(nil, StatusOK, b.body)
	}
	return b.answer
}

// wantBody asks for the body of a vote: first one who has signed it, and after a moment all others who have.
func (a *Authority) wantBody(b *ballot) {
	if b.vote != nil || b.spoilt || b.session.closed || a.session != b.session {
		return
	}
	for _, c := range a.colleagues {
		id := c.to.Identity
		if !b.signedBy(id) || slices.Contains(b.asking, id) || slices.Contains(b.liars, id) || len(b.asking) > 0 && !b.patient {
			continue
		}
		if len(b.asking) == 0 && !b.patient {
			a.env.Clock.AfterFunc(a.agenda.delta/8, func() {
				b.patient = true
				a.wantBody(b)
			})
		}
		b.asking = append(b.asking, id)
		a.askBody(b, c)
	}
}

func (a *Authority) askBody(b *ballot, c *colleague) {
	s, id := b.session, c.to.Identity
	a.send(c, &parcel{
		request: Request{Kind: AskVoteBody, Digest: b.head.Digest}, limit: int(b.head.BodyLength),
		until:  a.env.Clock.Now().Add(a.agenda.end(s.at).Sub(a.env.Clock.Wall())),
		wanted: func() bool { return a.session == s && !s.closed && b.vote == nil },
		done: func(status Status, body []byte, err error) {
			if a.session != s || s.closed || b.vote != nil || b.spoilt {
				return
			}
			if err == nil && status == StatusOK {
				a.openBody(b, id, body)
				return
			}
			a.stats.BodiesMissed++
			a.log.Debug("no body of a vote", "from", id.Short(), "author", b.head.Author.Short(), "status", status, "err", err)
			a.env.Clock.AfterFunc(a.agenda.delta/8, func() {
				b.asking = slices.DeleteFunc(b.asking, func(o cert.Identity) bool { return o == id })
				a.wantBody(b)
			})
		},
	})
}

// openBody checks and decodes a body in the pool.
func (a *Authority) openBody(b *ballot, from cert.Identity, body []byte) {
	var vote *Vote
	var err error
	right := false
	head, network := b.head, a.network
	a.env.Pool.Offload(func() {
		right = len(body) == int(head.BodyLength) && voteDigest(network.ID, body) == head.BodyDigest
		if right {
			vote, err = OpenVote(head, body, network)
		}
	}, func() {
		switch {
		case !a.running || a.session != b.session || b.session.closed || b.vote != nil || b.spoilt:
		case !right:
			a.gripes.warn("an authority gave a wrong body of a vote", "from", from.Short(), "author", head.Author.Short())
			b.liars = append(b.liars, from)
			b.asking = slices.DeleteFunc(b.asking, func(o cert.Identity) bool { return o == from })
			a.wantBody(b)
		case err != nil:
			b.spoilt = true
			a.stats.VotesRefused++
			a.gripes.warn("a vote cannot be read", "author", head.Author.Short(), "err", err)
		default:
			b.vote, b.body = vote, body
			a.consider(b)
		}
	})
}
