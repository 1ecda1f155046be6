package directory

import (
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

// Bounds of what is kept of signatures.
const (
	maxCollections   = 8 // valid-afters for which signatures are kept, the newest
	headsPerAuthor   = 2 // consensuses that one author may have signed for one of them: the second is evidence
	signatureLateBy  = 2 // intervals after which nobody needs a signature any more
	signaturesPerAsk = 64
)

// collection are the signatures for the consensus of one valid-after.
type collection struct {
	at       time.Time
	heads    []*sealing
	signed   map[cert.Identity][]*evidenceHalf
	checks   map[cert.Identity]int
	complete *sealing // has the signatures of a quorum
	adopted  bool
	missed   bool // it was said that it lacks signatures
	fetching int  // attempts to get the body of complete
}

// sealing is one head with the signatures that it has so far.
type sealing struct {
	digest   cert.Digest
	document []byte
	signers  []cert.Endorsement
	body     []byte          // of the consensus, when it was made here
	told     []cert.Identity // colleagues that were sent it with the signatures of a quorum, or have shown it so
}

func (h *sealing) signedBy(id cert.Identity) bool {
	return slices.ContainsFunc(h.signers, func(e cert.Endorsement) bool { return e.Identity() == id })
}

// collectionAt returns what is kept of a valid-after that others speak of; nil when that is too old, or too far ahead
// for a session.
func (a *Authority) collectionAt(at time.Time) *collection {
	wall := a.env.Clock.Wall()
	if !a.agenda.isSession(at) || at.After(wall.Add(a.agenda.period)) || at.Before(wall.Add(-signatureLateBy*a.agenda.interval)) {
		return nil
	}
	return a.collection(at)
}

// collection returns what is kept of a valid-after. To make room the oldest goes.
func (a *Authority) collection(at time.Time) *collection {
	for _, c := range a.collections {
		if c.at.Equal(at) {
			return c
		}
	}
	if len(a.collections) >= maxCollections {
		oldest := 0
		for i, c := range a.collections {
			if c.at.Before(a.collections[oldest].at) {
				oldest = i
			}
		}
		a.collections = slices.Delete(a.collections, oldest, oldest+1)
	}
	c := &collection{at: at, signed: make(map[cert.Identity][]*evidenceHalf), checks: make(map[cert.Identity]int)}
	a.collections = append(a.collections, c)
	return c
}

func (c *collection) head(digest cert.Digest, document []byte) *sealing {
	for _, h := range c.heads {
		if h.digest == digest {
			return h
		}
	}
	h := &sealing{digest: digest, document: slices.Clone(document)}
	c.heads = append(c.heads, h)
	return h
}

// news are the signatures of a document that are worth verifying: of authorities, not known, and not the third of one
// author for this time.
func (c *collection) news(network *Network, digest cert.Digest, all []cert.Endorsement) (out []cert.Endorsement) {
	for _, e := range all {
		id := e.Identity()
		had := c.signed[id]
		known := slices.ContainsFunc(had, func(h *evidenceHalf) bool { return h.digest == digest })
		if network.IsAuthority(id) && !known && len(had) < headsPerAuthor {
			out = append(out, e)
		}
	}
	return out
}

// onSignature takes the head of a consensus with some signatures, which another authority sends. They are verified in
// the pool.
func (a *Authority) onSignature(sealed []byte, from *env.Peer) Status {
	if len(sealed) > MaxConsensusHead {
		return StatusRefused
	}
	document, err := cert.Parse(sealed, cert.ConsensusDocument, maxHeadBody)
	var head *Head
	if err == nil {
		head, err = decodeHead(document.Body)
	}
	if err != nil {
		a.stats.SignaturesRefused++
		a.gripes.warn("a signature of a consensus was refused", "from", from.Identity.Short(), "err", err)
		return StatusRefused
	}
	c := a.collectionAt(head.ValidAfter)
	if c == nil {
		a.stats.SignaturesRefused++
		return StatusRefused
	}
	network := a.network
	digest := cert.DigestOf(cert.ConsensusDocument, network.ID, document.Body)
	news := c.news(network, digest, document.Endorsements)
	if len(document.Endorsements) >= network.Quorum {
		c.shown(digest, from.Identity)
	}
	switch {
	case len(news) == 0:
		return StatusOK
	case c.checks[from.Identity] >= signaturesPerAsk:
		return StatusBusy
	}
	c.checks[from.Identity] += len(news)
	body := slices.Clone(document.Body)
	bad := 0
	a.env.Pool.Offload(func() {
		news = slices.DeleteFunc(news, func(e cert.Endorsement) bool {
			_, err := e.Verify(cert.ConsensusDocument, network.ID, body, head.ValidAfter)
			bad += b2i(err != nil)
			return err != nil
		})
	}, func() {
		c.checks[from.Identity] -= len(news) + bad
		if bad > 0 {
			a.stats.SignaturesRefused += uint64(bad)
			a.gripes.warn("a signature of a consensus was refused: it is false", "from", from.Identity.Short())
		}
		if a.running {
			a.collect(c, digest, body, news)
		}
	})
	return StatusOK
}

// shown notes that a colleague has a head with the signatures of a quorum, or says so: it need not be sent it.
func (c *collection) shown(digest cert.Digest, by cert.Identity) {
	for _, h := range c.heads {
		if h.digest == digest && h == c.complete && !slices.Contains(h.told, by) {
			h.told = append(h.told, by)
		}
	}
}

// collect adds verified signatures, and finds out who has signed two consensuses.
func (a *Authority) collect(c *collection, digest cert.Digest, document []byte, signatures []cert.Endorsement) {
	for _, e := range signatures {
		id := e.Identity()
		had := c.signed[id]
		if len(had) >= headsPerAuthor || slices.ContainsFunc(had, func(h *evidenceHalf) bool { return h.digest == digest }) {
			continue
		}
		sealed, err := cert.Join(cert.ConsensusDocument, document, e)
		if err != nil {
			continue
		}
		a.stats.Signatures += uint64(b2i(id != a.cfg.Identity))
		had = append(had, &evidenceHalf{digest, sealed})
		c.signed[id] = had
		if len(had) == headsPerAuthor {
			a.accuse(Evidence{TwoConsensuses, had[0].sealed, had[1].sealed, id, c.at})
		}
		h := c.head(digest, document)
		if !h.signedBy(id) {
			h.signers = append(h.signers, e)
		}
	}
	for _, h := range c.heads {
		if c.complete == nil && len(h.signers) >= a.network.Quorum {
			a.completed(c, h)
		}
	}
}

// completed takes note that a consensus has the signatures of a quorum. It comes into use at its valid-after, when more
// signatures may have come.
func (a *Authority) completed(c *collection, h *sealing) {
	c.complete = h
	a.stats.Completed++
	a.log.Debug("a consensus has the signatures of a quorum", "valid_after", c.at, "digest", h.digest.Short(), "made_here", h.body != nil)
	a.adoptInTime(c)
	a.tell(c, h)
}

// adoptInTime brings a consensus into use at its valid-after by the wall clock, which may jump meanwhile.
func (a *Authority) adoptInTime(c *collection) {
	wait := c.at.Sub(a.env.Clock.Wall())
	if wait <= 0 {
		a.adopt(c)
		return
	}
	a.env.Clock.AfterFunc(min(wait, time.Minute), func() {
		if a.running && slices.Contains(a.collections, c) {
			a.adoptInTime(c)
		}
	})
}

// tell sends a head with the signatures of a quorum to those who may lack some: who has shown his signature alone may
// have got too few of others.
func (a *Authority) tell(c *collection, h *sealing) {
	if len(a.colleagues) == 0 {
		return
	}
	sealed, err := cert.Join(cert.ConsensusDocument, h.document, h.signers...)
	if err != nil {
		a.gripes.warn("signatures cannot be passed on", "err", err)
		return
	}
	for _, other := range a.colleagues {
		id := other.to.Identity
		a.send(other, a.signatureParcel(c, sealed, func() bool { return !slices.Contains(h.told, id) }, func() {
			h.told = append(h.told, id)
		}))
	}
}

// signatureParcel is a head with signatures on its way: it is repeated until it is taken, or until there is something
// newer to sign.
func (a *Authority) signatureParcel(c *collection, sealed []byte, wanted func() bool, taken func()) *parcel {
	return &parcel{
		request: Request{Kind: PushSignature, Document: sealed}, until: a.env.Clock.Now().Add(signatureLateBy * a.agenda.interval),
		pause: a.agenda.delta / 8, longest: a.agenda.delta,
		wanted: func() bool {
			return wanted() && (a.last == nil || !a.last.validAfter.After(c.at)) && slices.Contains(a.collections, c)
		},
		done: func(status Status, _ []byte, err error) {
			if err == nil && status == StatusOK {
				taken()
			}
		},
	}
}

// adopt brings a consensus into use. One that was not made here is fetched, as any relay does.
func (a *Authority) adopt(c *collection) {
	h := c.complete
	if c.adopted || !a.running {
		return
	}
	if newest := a.newest(); !c.at.After(newest) {
		c.adopted = true
		return
	}
	if h.body == nil {
		a.fetchConsensus(c, h)
		return
	}
	c.adopted = true
	a.settled = true
	a.stats.LastSignatures = len(h.signers)
	sealed, err := cert.Join(cert.ConsensusDocument, h.document, h.signers...)
	if err == nil {
		err = a.cfg.Follower.Adopt(sealed, h.body)
	}
	if err != nil {
		a.gripes.warn("the consensus made here does not verify", "err", err)
	}
	a.saveHistory()
	a.slot.Reset(0) // it computes when the next one is due
}

// bodyAttempts bounds the attempts to get the body of a consensus from those who have signed it. Afterwards it comes as
// it does to any relay.
const bodyAttempts = 16

// fetchConsensus gets the body of a consensus that others have made of other votes than this authority has.
func (a *Authority) fetchConsensus(c *collection, h *sealing) {
	var signers []*colleague
	for _, o := range a.colleagues {
		if h.signedBy(o.to.Identity) {
			signers = append(signers, o)
		}
	}
	head, err := decodeHead(h.document)
	if err != nil || len(signers) == 0 || c.fetching >= bodyAttempts {
		return
	}
	from := signers[c.fetching%len(signers)]
	c.fetching++
	a.send(from, &parcel{
		request: Request{Kind: AskBody, Digest: h.digest}, limit: int(head.BodyLength),
		until:  a.env.Clock.Now().Add(a.agenda.interval),
		wanted: func() bool { return h.body == nil && c.at.After(a.newest()) },
		done: func(status Status, body []byte, err error) {
			if h.body != nil || !c.at.After(a.newest()) {
				return
			}
			if err == nil && status == StatusOK && bodyDigest(a.network.ID, body) == head.BodyDigest {
				h.body = body
				a.adopt(c)
				return
			}
			a.env.Clock.AfterFunc(a.agenda.delta/8, func() { a.adopt(c) })
		},
	})
}
