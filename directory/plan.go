package directory

import (
	"encoding/binary"
	"fmt"
	"time"

	"cepa/cert"
)

// onTick does what is due in a network with several authorities, and waits for what is next: the end of the open
// session, and for the next one the decision whether to vote (half a delta before its begin), and the vote.
func (a *Authority) onTick() {
	wall := a.env.Clock.Wall()
	if s := a.session; s != nil && !s.closed && !wall.Before(a.agenda.end(s.at)) {
		a.closeSession(s)
	}
	if at := a.agenda.next(wall); !at.Equal(a.plan.at) {
		a.checkSignatures()
		a.plan = plan{at: at}
	}
	p := &a.plan
	begin := a.agenda.begin(p.at)
	wake := begin.Add(a.agenda.grace())
	switch prepare := begin.Add(-a.agenda.delta / 2); {
	case wall.Before(prepare):
		wake = prepare
	case !p.asked:
		p.asked = true
		if !a.wants(p.at) {
			p.cast = true
			break
		}
		a.reserve(p.at)
		wake = begin
	case wall.Before(begin):
		wake = begin
	case p.reserved && !p.cast:
		p.cast = true
		a.castVote(p.at, wall)
	}
	if s := a.session; s != nil && !s.closed {
		if end := a.agenda.end(s.at); end.Before(wake) {
			wake = end
		}
	}
	a.slot.Reset(min(max(wake.Sub(wall), time.Millisecond), time.Minute)) // a clock may jump
}

// wants says whether this authority is to vote in a session: it is a regular one, or nobody has shown it a consensus
// that will be fresh then, or many relays are back that the newest one does not have, and it has not voted in it before.
func (a *Authority) wants(at time.Time) bool {
	newest := a.cfg.Follower.Newest()
	if ahead := a.voted.Sub(at); ahead > a.agenda.interval {
		a.gripes.warn("the clock has been set back: this authority will not vote until it passes its last session", "valid_after", a.voted)
	}
	switch {
	case !a.maySign(at) || !at.After(a.voted):
		return false
	case newest != nil && !a.agenda.isRegular(at) && at.Before(newest.FreshUntil) && !a.manyBack():
		return false
	case !a.caughtUp(at):
		a.stats.Abstained++
		return false
	}
	return true
}

// caughtUp says whether the Follower has asked others for what this authority may have missed.
func (a *Authority) caughtUp(at time.Time) bool {
	f := a.cfg.Follower
	return f.floor != nil && !at.After(f.floor.FreshUntil) || f.failures > 0 || f.stats.Accepted > 0 ||
		a.env.Clock.Now().Sub(a.started) > startGrace
}

// reserve notes durably that this authority votes in a session, before it does: a second vote after a restart would be
// taken for a lie.
func (a *Authority) reserve(at time.Time) {
	a.voted = at
	a.env.Store.Save(votedBlob, binary.BigEndian.AppendUint64(nil, milli(at)), func(err error) {
		if !a.running || !a.plan.at.Equal(at) {
			return
		}
		if err != nil {
			a.stats.SaveFailures++
			a.gripes.warn("this authority cannot vote: its disk does not take notes", "err", err)
			return
		}
		a.plan.reserved = true
		a.slot.Reset(0)
	})
}

func (a *Authority) loadVoted() error {
	data, err := a.env.Store.Load(votedBlob)
	if err != nil {
		return notExistIsNil(err)
	}
	if len(data) != 8 {
		return fmt.Errorf("%w: %d bytes", ErrMalformed, len(data))
	}
	a.voted, err = readMilli(binary.BigEndian.Uint64(data), "valid after")
	return err
}

// castVote sends this authority's vote to the others, if it is ready.
func (a *Authority) castVote(at, wall time.Time) {
	v := a.vote(at, wall)
	if _, ok := a.ready(v); !ok {
		a.stats.Abstained++
		return
	}
	network, signer := a.network, a.cfg.Signer()
	var head *VoteHead
	var document cert.Document
	var body []byte
	var err error
	a.env.Pool.Offload(func() {
		var sealed []byte
		if sealed, body, err = SealVote(network, v, signer); err == nil {
			if head, document, err = OpenVoteHead(sealed, network); err == nil {
				v, err = OpenVote(head, body, network) // as all others will see it
			}
		}
	}, func() {
		if !a.running || a.network != network {
			return
		}
		if err != nil {
			a.gripes.warn("no vote can be made", "err", err)
			return
		}
		s, off := a.sessionAt(at)
		if s == nil || a.agenda.round(at, a.env.Clock.Wall()) > 1 {
			a.gripes.warn("this authority was too slow to vote", "valid_after", at, "late", off)
			return
		}
		b := &ballot{session: s, head: head, document: document.Body, signers: document.Endorsements, vote: v, body: body}
		s.ballots = append(s.ballots, b)
		a.stats.VotesCast++
		a.accept(b)
	})
}

// closeSession counts the votes when the rounds are over.
func (a *Authority) closeSession(s *session) {
	s.closed = true
	votes := s.counted()
	a.stats.LastVotes = len(votes)
	if len(s.ballots) == 0 {
		return // nobody wanted it
	}
	a.stats.Sessions++
	switch {
	case len(votes) < a.network.Quorum:
		a.stats.FewVotes++
		if newest := a.cfg.Follower.Newest(); a.settled && (newest == nil || !s.at.Before(newest.FreshUntil)) {
			a.gripes.warn("no consensus in this session: too few votes", "valid_after", s.at, "votes", len(votes), "wanted", a.network.Quorum)
		} else {
			a.log.Debug("no consensus in this session: too few votes", "valid_after", s.at, "votes", len(votes), "wanted", a.network.Quorum)
		}
	case !a.maySign(s.at):
		a.log.Debug("a consensus as new as that of this session is known already", "valid_after", s.at)
	case a.busy:
		a.stats.NotMade++
		a.gripes.warn("no consensus in this session: the last one is still being stored", "valid_after", s.at)
	default:
		a.build(s.at, votes)
	}
}

// checkSignatures looks, when the next session is planned, what has become of the last that was signed here.
func (a *Authority) checkSignatures() {
	if a.last == nil || a.plan.at.IsZero() || a.busy {
		return
	}
	for _, c := range a.collections {
		if c.at.Equal(a.last.validAfter) && c.complete == nil && !c.missed && c.at.Before(a.env.Clock.Wall()) {
			c.missed = true
			a.stats.FewSignatures++
			a.gripes.warn("too few authorities have signed the last consensus, or others have signed another", "valid_after", c.at,
				"signatures", len(c.signed), "wanted", a.network.Quorum)
		}
	}
}
