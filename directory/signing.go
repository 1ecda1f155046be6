package directory

import (
	"encoding/binary"
	"fmt"
	"time"

	"cepa/cert"
)

// signed is a consensus that this authority has signed: its head has this authority's signature alone.
type signed struct {
	validAfter time.Time
	head, body []byte
}

// AppendTo appends the form in the Store to b: valid after u64 in ms, length u32 of the head, head, body.
func (s *signed) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, milli(s.validAfter))
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.head)))
	b = append(b, s.head...)
	return append(b, s.body...)
}

func decodeSigned(data []byte) (*signed, error) {
	if len(data) < 12 {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(data))
	}
	at, err := readMilli(binary.BigEndian.Uint64(data), "valid after")
	if err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(data[8:])
	if uint64(n) > uint64(len(data)-12) {
		return nil, fmt.Errorf("%w: a head of %d bytes", ErrMalformed, n)
	}
	return &signed{at, data[12 : 12+n], data[12+n:]}, nil
}

// build counts votes, makes the consensus and signs it, in the pool. At most one is being made or stored.
func (a *Authority) build(at time.Time, votes []*Vote) {
	signer := a.cfg.Signer()
	interval := a.agenda.interval
	if until := signer.Certificate.Until; until.Before(at.Add(validIntervals * interval)) {
		a.gripes.warn("the certificate of this authority's signing key ends before the consensus does: renew it", "until", until)
	}
	a.busy = true
	s := &signed{validAfter: at}
	network := a.network
	var err error
	a.env.Pool.Offload(func() {
		var in ConsensusInput
		var head []byte
		if in, err = CountVotes(network, at, votes); err == nil {
			head, s.body, err = BuildConsensus(network, in)
		}
		if err == nil {
			s.head, err = cert.Seal(cert.ConsensusDocument, network.ID, head, signer)
		}
	}, func() {
		a.busy = false
		switch {
		case !a.running:
		case err != nil:
			a.stats.NotMade++
			a.gripes.warn("no consensus can be made", "err", err)
			a.slot.Reset(max(interval/10, signRetry))
		case !a.maySign(at):
			a.slot.Reset(0)
		default:
			a.store(s)
		}
	})
}

// maySign says whether nothing was signed for a time, or a later one, here or by a quorum.
func (a *Authority) maySign(at time.Time) bool {
	return at.After(a.newest()) && (a.last == nil || at.After(a.last.validAfter))
}

// store writes down what was signed, and publishes it once that is durable. From the first attempt on nothing else is
// signed for its time: after a failure it cannot be known what is on the disk.
func (a *Authority) store(s *signed) {
	a.busy = true
	a.last = s
	a.env.Store.Save(signedBlob, s.appendTo(nil), func(err error) {
		a.busy = false
		switch {
		case !a.running:
		case err == nil:
			a.stats.Signed++
			a.publish(s)
		case a.agenda.slotOf(a.env.Clock.Wall()).After(s.validAfter):
			a.stats.SaveFailures++
			a.gripes.warn("a consensus could not be stored in its time, and is not published", "err", err)
			a.slot.Reset(signRetry)
		default:
			a.stats.SaveFailures++
			a.gripes.warn("a consensus cannot be stored, so it is not published yet", "err", err)
			a.busy = true
			a.env.Clock.AfterFunc(max(a.agenda.interval/40, signRetry), func() {
				if a.busy = false; a.running {
					a.store(s)
				}
			})
		}
	})
}

// publish sends the signature of what is durable to the other authorities, and counts it here.
func (a *Authority) publish(s *signed) {
	document, err := a.network.open(s.head, s.validAfter, cert.ConsensusDocument, maxHeadBody)
	if err != nil {
		a.gripes.warn("the consensus made here does not verify", "err", err)
		return
	}
	c := a.collection(s.validAfter)
	h := c.head(document.Digest, document.Body)
	h.body = s.body
	// More signatures than a quorum are welcome until the consensus is in use.
	wanted := func() bool { return c.complete == nil || a.env.Clock.Wall().Before(c.at) }
	for _, other := range a.colleagues {
		a.send(other, a.signatureParcel(c, s.head, wanted, func() {}))
	}
	a.collect(c, document.Digest, document.Body, document.Endorsements)
	if c.complete == h && !a.env.Clock.Wall().Before(c.at) {
		a.adopt(c) // the others were faster
	}
}
