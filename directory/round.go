package directory

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/limit"
)

// Times of a round.
const (
	headTimeout = 15 * time.Second // for one head
	bodyTimeout = 30 * time.Second // for one body, and
	bodyRate    = 4 << 10          // so many bytes a second beside it
	maxBodyAsks = 6                // sources that are asked for the body
	youngRetry  = 5 * time.Second  // longest wait for the first consensus of a network
	portalRetry = 10 * time.Second // longest wait while there is no way to the network
)

// offer is a head that was offered in a round, with those who have it.
type offer struct {
	head   *Head
	sealed []byte
	from   []env.Target
}

// round is one attempt to get a newer consensus.
type round struct {
	sources []env.Target // still to be asked for heads
	asked   []env.Target
	open    int  // requests for heads without an answer yet
	answers int  // answers that say something about the network
	hurried bool // the first source does not answer at once
	chosen  bool // the heads are in

	offers []offer
	grace  env.Timer // runs since the first answer
	hurry  env.Timer // runs since the first question
	body   struct {
		sources []env.Target
		asks    int
		diffs   int  // sources that were asked for a diff
		whole   bool // no more diffs
	}
	strange []env.Target // showed heads of authorities that the network file does not name

	// Why there may be no offer.
	unreached, bad, busy, notYet, same, old, early, expired, foreign, offline, clock int
	earlyBy, expiredBy                                                               time.Duration
}

func (f *Follower) startRound() {
	r := &round{sources: f.pick()}
	f.round = r
	f.stats.Rounds++
	if len(r.sources) == 0 {
		f.fail("nobody to ask: the network file names no relay but this one", f.interval()/4)
		return
	}
	f.tell(5, "asking relays which consensus is the newest", "the first answer")
	f.askHeads(r)
}

func (f *Follower) endRound() {
	if r := f.round; r != nil {
		f.round = nil
		for _, t := range []env.Timer{r.grace, r.hurry} {
			if t != nil {
				t.Stop()
			}
		}
	}
}

// tell reports progress as long as there is no valid consensus: with one, nobody waits.
func (f *Follower) tell(percent int, doing, awaiting string) {
	if f.Current() == nil {
		f.progress(percent, doing, awaiting)
	}
}

// patience is how long one answer is waited for before others are asked, and how long others are waited for after the
// first has come.
func (f *Follower) patience() time.Duration {
	longest := time.Second
	if f.Current() != nil {
		longest = 3 * time.Second // nobody waits
	}
	return min(max(f.interval()/10, 100*time.Millisecond), longest)
}

// parallel is how many answers are to be there or on their way now. A client that has a consensus asks one source first:
// the others then need only say whether theirs is the same, which is a few bytes instead of all signatures.
func (f *Follower) parallel(r *round) int {
	if f.Current() == nil || !f.cfg.Self.IsZero() || r.answers > 0 || r.hurried {
		return wantedHeads
	}
	return 1
}

// known is the newest consensus that this node has heard of: of a head that was offered in this round, or of the one in
// use.
func (f *Follower) known(r *round) cert.Digest {
	var newest *Head
	if f.Current() != nil {
		newest = f.current.Head
	}
	for _, o := range r.offers {
		if newest == nil || o.head.ValidAfter.After(newest.ValidAfter) {
			newest = o.head
		}
	}
	if newest == nil {
		return cert.Digest{}
	}
	return newest.Digest
}

// askHeads keeps as many requests open as answers are wanted.
func (f *Follower) askHeads(r *round) {
	for r.answers+r.open < f.parallel(r) && len(r.sources) > 0 {
		to := r.sources[0]
		r.sources = r.sources[1:]
		r.asked = append(r.asked, to)
		r.open++
		f.stats.Heads++
		known := f.known(r)
		f.ask(r, to, Request{Kind: AskHead, Known: known}, MaxConsensusHead, headTimeout, func(status Status, body []byte, err error) {
			if r.chosen {
				return
			}
			r.open--
			if err == nil && status == StatusOK && len(body) == 0 && !known.IsZero() {
				f.onSame(r, to, known)
			} else {
				f.onHead(r, to, status, body, err)
			}
			if r.answers > 0 && r.grace == nil {
				r.grace = f.env.Clock.AfterFunc(f.patience(), func() {
					if f.round == r && !r.chosen {
						f.choose(r)
					}
				})
			}
			f.askHeads(r)
			if r.open == 0 || r.answers >= wantedHeads {
				f.choose(r)
			}
		})
	}
	if r.hurry == nil && f.parallel(r) < wantedHeads {
		r.hurry = f.env.Clock.AfterFunc(f.patience(), func() {
			if f.round == r && !r.chosen {
				r.hurried = true
				f.askHeads(r)
			}
		})
	}
}

// onSame counts a source that has no newer consensus than the one that it was told of.
func (f *Follower) onSame(r *round, from env.Target, known cert.Digest) {
	r.answers++
	f.sources.forgive(from.Identity)
	for i := range r.offers {
		if o := &r.offers[i]; o.head.Digest == known {
			o.from = append(o.from, from)
			return
		}
	}
	r.same++
}

// ask makes one request of a round. done is called once unless the round has ended.
func (f *Follower) ask(r *round, to env.Target, q Request, limit int, timeout time.Duration, done func(Status, []byte, error)) {
	over := false
	finish := func(status Status, body []byte, err error) {
		if !over && f.round == r {
			over = true
			done(status, body, err)
		}
		over = true
	}
	if f.cfg.Undefended.AnySize {
		limit, timeout = anySize, anyTime
	}
	timer := f.env.Clock.AfterFunc(timeout, func() { finish(0, nil, fmt.Errorf("%w within %v", errNoAnswer, timeout)) })
	fetch(f.cfg.Fetcher, to, q, limit, func(status Status, body []byte, err error) {
		timer.Stop()
		finish(status, body, err)
	})
}

// errNoAnswer: the source could not be reached or did not answer. What is not this is a bad answer.
var errNoAnswer = errors.New("no answer")

// fetch makes a request and reads the answer.
func fetch(via Fetcher, to env.Target, q Request, limit int, done func(Status, []byte, error)) {
	request, err := q.AppendTo(nil)
	if err != nil {
		done(0, nil, err) // a mistake in the program, but not one to die of
		return
	}
	via.Fetch(to, request, limit+answerHeader, func(answer []byte, err error) {
		if err != nil {
			if !errors.Is(err, ErrTooLarge) {
				err = fmt.Errorf("%w: %w", errNoAnswer, err)
			}
			done(0, nil, err)
			return
		}
		reader := NewAnswerReader(limit)
		whole, err := reader.Read(answer)
		if err == nil && !whole {
			err = fmt.Errorf("reading a directory answer: %w: cut short", ErrMalformed)
		}
		if err != nil {
			done(0, nil, err)
			return
		}
		done(reader.Status(), reader.Body(), nil)
	})
}

// blame holds a failure against the source: an answer that is wrong for much longer than none.
func (f *Follower) blame(from env.Target, err error) {
	now := f.env.Clock.Now()
	if errors.Is(err, errNoAnswer) {
		f.stats.Unreached++
		f.sources.shun(from.Identity, now.Add(min(shunUnreached, f.interval())), now)
		f.log.Debug("a directory source did not answer", "relay", from.Identity.Short(), "err", err)
		return
	}
	f.stats.BadAnswers++
	f.sources.shun(from.Identity, now.Add(shunLiar), now)
	f.gripes.warn("a bad answer to a directory request; this relay is not asked again for a while",
		"relay", from.Identity.Short(), "err", err)
}

// onHead judges one answer.
func (f *Follower) onHead(r *round, from env.Target, status Status, sealed []byte, err error) {
	now, wall := f.env.Clock.Now(), f.env.Clock.Wall()
	var h *Head
	switch {
	case err != nil:
	case status == StatusNotYet:
		r.notYet++
		r.answers++
		return
	case status == StatusBusy:
		r.busy++
		f.sources.shun(from.Identity, now.Add(min(shunUnreached, f.interval())), now)
		return
	case status != StatusOK:
		err = fmt.Errorf("%w status %q for a head", ErrInvalid, status)
	default:
		h, err = OpenHead(sealed, f.network, wall)
	}
	switch {
	case errors.Is(err, cert.ErrExpired) || errors.Is(err, cert.ErrNotYetValid):
		// The certificate of an authority: an old head, or a wrong clock here. Not proof of a lie.
		f.sources.shun(from.Identity, now.Add(min(shunStale, f.interval())), now)
		if errors.Is(err, cert.ErrExpired) {
			r.expired++
		} else {
			r.early++
		}
		f.log.Debug("a head that cannot be checked by the clock here", "relay", from.Identity.Short(), "err", err)
		return
	case errors.Is(err, ErrSigners):
		// Perhaps the authorities have changed, and the source has the network file that says so: see updateNetwork.
		f.stats.Strange++
		r.strange = append(r.strange, from)
		f.sources.shun(from.Identity, now.Add(min(shunStale, f.interval())), now)
		return
	case err != nil:
		f.countFailure(r, from, err)
		f.blame(from, err)
		return
	}
	f.judgeHead(r, from, h, bytes.Clone(sealed))
}

// countFailure notes why a source gave no head, to explain it.
func (f *Follower) countFailure(r *round, from env.Target, err error) {
	var clock *env.ClockError
	switch {
	case errors.As(err, &clock):
		r.clock++
		f.skews.add(from.Identity, clock.Skew)
	case errors.Is(err, env.ErrNotRelay):
		r.foreign++
	case errors.Is(err, env.ErrOffline):
		r.offline++
	case errors.Is(err, errNoAnswer):
		r.unreached++
	default:
		r.bad++
	}
}

// judgeHead compares a verified head with the clock and with what is held.
func (f *Follower) judgeHead(r *round, from env.Target, h *Head, sealed []byte) {
	now, wall := f.env.Clock.Now(), f.env.Clock.Wall()
	stale := func() { f.sources.shun(from.Identity, now.Add(min(shunStale, f.interval())), now) }
	if f.floor != nil {
		if err := h.Follows(f.floor); errors.Is(err, ErrFork) {
			f.onFork(from, f.floor, h, f.sealedFloor(), sealed)
			r.bad++
			return
		} else if err != nil {
			f.stats.Rollbacks++
			r.old++
			stale()
			f.log.Debug("a head was refused", "relay", from.Identity.Short(), "err", err)
			return
		}
	}
	switch {
	case !f.validNow(h) && wall.Before(h.ValidAfter):
		f.stats.Early++
		r.early++
		r.earlyBy = max(r.earlyBy, h.ValidAfter.Sub(wall))
		return
	case !f.validNow(h):
		f.stats.Expired++
		r.expired++
		if by := wall.Sub(h.ValidUntil); r.expiredBy == 0 || by < r.expiredBy {
			r.expiredBy = by
		}
		stale()
		return
	}
	r.answers++
	f.sources.forgive(from.Identity)
	if f.current != nil && h.Digest == f.current.Head.Digest {
		r.same++
		return
	}
	for i := range r.offers {
		if o := &r.offers[i]; o.head.Digest == h.Digest {
			o.from = append(o.from, from)
			return
		}
	}
	r.offers = append(r.offers, offer{h, sealed, []env.Target{from}})
}

// sealedFloor is the sealed head of the newest consensus accepted; nil when only its dates are known.
func (f *Follower) sealedFloor() []byte {
	if f.current != nil && f.current.Head.Digest == f.floor.Digest {
		return f.current.head
	}
	return nil
}

// onFork raises the alarm: two heads, both signed by a quorum, that cannot both be true. The one that is held stays in
// use; both are kept as evidence.
func (f *Follower) onFork(from env.Target, held, other *Head, sealedHeld, sealedOther []byte) {
	f.stats.Forks++
	f.gripes.warn("the authorities have signed two contradicting consensuses: keeping the one in use; tell the operators of the network, both are stored as evidence",
		"relay", from.Identity.Short(), "valid_after", other.ValidAfter, "held", held.Digest.Short(), "other", other.Digest.Short())
	if f.fork != nil && f.fork.one.Digest == held.Digest && f.fork.other.Digest == other.Digest {
		return
	}
	f.fork = &contradiction{held, other}
	f.env.Store.Save(forkBlob, joinHeads(sealedHeld, sealedOther), f.saved)
}

// choose ends the first half of a round: the newest head wins.
func (f *Follower) choose(r *round) {
	if r.chosen {
		return
	}
	r.chosen = true
	if r.grace != nil {
		r.grace.Stop()
	}
	slices.SortStableFunc(r.offers, func(a, b offer) int { return b.head.ValidAfter.Compare(a.head.ValidAfter) })
	for len(r.offers) > 1 && r.offers[0].head.ValidAfter.Equal(r.offers[1].head.ValidAfter) {
		f.onFork(r.offers[1].from[0], r.offers[0].head, r.offers[1].head, r.offers[0].sealed, r.offers[1].sealed)
		at := r.offers[0].head.ValidAfter
		r.offers = slices.DeleteFunc(r.offers, func(o offer) bool { return o.head.ValidAfter.Equal(at) })
		r.bad++
	}
	f.strangers = len(r.strange) > 0
	if f.strangers {
		f.updateNetwork(r.strange)
	}
	if len(r.offers) == 0 {
		f.explain(r)
		return
	}
	o := &r.offers[0]
	others := slices.DeleteFunc(slices.Clone(r.asked), func(t env.Target) bool {
		return slices.ContainsFunc(o.from, func(x env.Target) bool { return x.Identity == t.Identity })
	})
	// Whoever showed the head has the body; the authorities, who have it first, are spared.
	slices.SortStableFunc(o.from, func(a, b env.Target) int {
		return b2i(f.network.IsAuthority(a.Identity)) - b2i(f.network.IsAuthority(b.Identity))
	})
	r.body.sources = slices.Concat(o.from, others, r.sources)
	f.askBody(r, o)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// maxDiffAsks are the sources that are asked for a diff before the whole body is fetched.
const maxDiffAsks = 2

// askBody asks the next source for the body of the head that won, or for the diff that leads to it.
func (f *Follower) askBody(r *round, o *offer) {
	if len(r.body.sources) == 0 || r.body.asks >= maxBodyAsks {
		f.fail("no relay gave the consensus that it announced", f.interval()/4)
		return
	}
	length := int(o.head.BodyLength)
	f.tell(30, fmt.Sprintf("fetching the consensus of %s, %d kB", o.head.ValidAfter.UTC().Format(time.DateTime), (length+999)/1000), "the relay that has it")
	timeout := bodyTimeout + time.Duration(length/bodyRate)*time.Second
	if f.current != nil && !r.body.whole && r.body.diffs < min(maxDiffAsks, len(r.body.sources)) {
		f.askDiff(r, o, timeout)
		return
	}
	from := r.body.sources[0]
	r.body.sources = r.body.sources[1:]
	r.body.asks++
	f.stats.Bodies++
	f.ask(r, from, Request{Kind: AskBody, Digest: o.head.Digest}, length, timeout, func(status Status, body []byte, err error) {
		switch {
		case err == nil && status == StatusOK && len(body) != length && !f.cfg.Undefended.AnyBody:
			err = fmt.Errorf("%w: a body of %d bytes, want %d", ErrDigest, len(body), length)
			fallthrough
		case err != nil:
			f.blame(from, err)
			f.askBody(r, o)
		case status != StatusOK: // it has gone on to the next one, or is busy
			f.askBody(r, o)
		default:
			f.stats.BodyBytes += uint64(len(body))
			f.verify(r, o, func() ([]byte, error) { return body, nil }, func() {}, func(err error) {
				f.blame(from, err)
				f.askBody(r, o)
			})
		}
	})
}

// askDiff asks a source for the way from the body held to that of the head that won. A source that gives a false one is
// believed nothing more in this round, and the whole body is fetched.
func (f *Follower) askDiff(r *round, o *offer, timeout time.Duration) {
	from := r.body.sources[r.body.diffs]
	r.body.diffs++
	f.stats.Diffs++
	old, length := f.current, int(o.head.BodyLength)
	drop := func(err error) {
		f.blame(from, err)
		r.body.sources = slices.DeleteFunc(r.body.sources, func(t env.Target) bool { return t.Identity == from.Identity })
		r.body.whole = true
		f.askBody(r, o)
	}
	q := Request{Kind: AskDiff, Known: old.Head.Digest, Digest: o.head.Digest}
	f.ask(r, from, q, length/2, timeout, func(status Status, diff []byte, err error) {
		switch {
		case err != nil:
			drop(err)
		case status != StatusOK: // it does not have both
			f.askBody(r, o)
		default:
			f.stats.DiffBytes += uint64(len(diff))
			patch := func() ([]byte, error) { return applyDiff(old.body, diff, length) }
			f.verify(r, o, patch, func() { f.stats.Patched++ }, func(err error) {
				f.stats.BadDiffs++
				drop(err)
			})
		}
	})
}

// verify makes and opens the body in the pool: for a large network it takes longer than an actor may. right is told
// when it is the one that the head speaks of, wrong when it is not.
func (f *Follower) verify(r *round, o *offer, make func() ([]byte, error), right func(), wrong func(error)) {
	f.tell(70, "verifying the consensus", "")
	var c *Consensus
	var body []byte
	var bad, err error
	head, network, open := o.head, f.network, openBody
	if f.cfg.Undefended.AnyBody {
		open = openAnyBody
	}
	f.env.Pool.Offload(func() {
		if body, bad = make(); bad == nil {
			c, body, err = open(head, body, network)
		}
	}, func() {
		switch {
		case f.round != r:
		case bad != nil:
			wrong(bad)
		case errors.Is(err, ErrDigest):
			wrong(err)
		case err != nil:
			// What the authorities signed cannot be read: no source is to blame.
			f.gripes.warn("the consensus cannot be read; is this software too old for the network?", "err", err)
			f.fail("the newest consensus cannot be read: update cepa", f.interval()/4)
		default:
			right()
			f.endRound()
			f.accept(&held{c, o.sealed, body})
		}
	})
}

// agingLines is how often one is told that the consensus gets old: each attempt fails, and there are two a second.
var agingLines = limit.Rate{PerSecond: 1.0 / 60, Burst: 1}

// fail ends a round without a newer consensus.
func (f *Follower) fail(why string, limit time.Duration) {
	f.endRound()
	f.retry(limit)
	switch c := f.Current(); {
	case c == nil:
		f.progress(0, why, "the next attempt")
		f.log.Info("no consensus yet", "why", why, "attempts", f.failures)
	case c.Head.State(f.env.Clock.Wall()) == Stale:
		f.progress(100, "the consensus in use is of "+c.Head.ValidAfter.UTC().Format(time.DateTime)+": "+why, "a newer one")
		if !agingLines.Take(&f.aging, 1, f.env.Clock.Now()) {
			return
		}
		f.log.Warn("the consensus in use is getting old", "valid_after", c.Head.ValidAfter, "valid_until", c.Head.ValidUntil, "why", why)
	default:
		f.log.Debug("no newer consensus", "why", why)
	}
}

// explain ends a round in which nobody offered a newer head, and says why in words that a stranger understands.
func (f *Follower) explain(r *round) {
	by, of, skewed, sure := f.skews.verdict()
	direction := "behind"
	if by < 0 {
		direction = "ahead of"
	}
	clock := fmt.Sprintf("this computer's clock is %s %s that of %d relays", by.Abs().Round(time.Second), direction, of)
	if !sure {
		clock = "perhaps " + clock
	}
	limit := f.interval() / 4
	switch {
	case r.same > 0:
		f.fail("no newer consensus has been made", limit)
	case (r.early > 0 || r.clock > 0) && skewed && by > 0, (r.expired > 0 || r.clock > 0) && skewed && by < 0:
		f.fail(clock+": set it right", limit)
	case r.answers == 0 && r.foreign > 0:
		f.fail(fmt.Sprintf("something that is no relay answers in place of %d of %d relays: does this network want you to sign in first (open a web page in a browser), or does a proxy stand in between?",
			r.foreign, len(r.asked)), min(limit, portalRetry))
	case r.answers == 0 && r.offline > 0:
		f.fail("this computer is not connected to a network", min(limit, portalRetry))
	case r.answers == 0 && len(r.strange) > 0:
		f.fail("relays show consensuses of other authorities than the network file here names: looking for a newer network file", limit)
	case r.early > 0:
		f.fail(fmt.Sprintf("the newest consensus begins %s from now: is this computer's clock right?", r.earlyBy.Round(time.Second)), limit)
	case r.notYet > 0 && r.expired == 0 && r.old == 0:
		f.fail("the network is young: its authorities have made no consensus yet", min(f.interval()/16, youngRetry))
	case r.expired > 0:
		f.fail(fmt.Sprintf("the newest consensus expired %s ago: have the authorities stopped, or is this computer's clock wrong?",
			r.expiredBy.Round(time.Second)), limit)
	case r.old > 0:
		f.fail("relays have only consensuses that are older than the last one here, which is not taken back: asking others; if this lasts, they are cut off from the network, or you are", limit)
	case r.bad > 0:
		f.fail("no relay gave a consensus that can be trusted: asking others", limit)
	case r.busy > 0:
		f.fail("all relays are busy", limit)
	default:
		f.fail(fmt.Sprintf("none of %d relays answered: is this computer online, and may it connect to them?", len(r.asked)), limit)
	}
}
