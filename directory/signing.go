package directory

import (
	"encoding/binary"
	"fmt"
	"time"

	"cepa/cert"
)

// signed is a consensus that this authority has signed.
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

// build makes and signs a consensus in the pool.
func (a *Authority) build(in ConsensusInput) {
	signer := a.cfg.Signer()
	interval := a.network.Interval()
	if until := signer.Certificate.Until; until.Before(in.ValidAfter.Add(validIntervals * interval)) {
		a.gripes.warn("the certificate of this authority's signing key ends before the consensus does: renew it", "until", until)
	}
	a.busy = true
	s := &signed{validAfter: in.ValidAfter}
	network := a.network
	var err error
	a.env.Pool.Offload(func() {
		var head []byte
		if head, s.body, err = BuildConsensus(network, in); err == nil {
			s.head, err = cert.Seal(cert.ConsensusDocument, network.ID, head, signer)
		}
	}, func() {
		a.busy = false
		if !a.running {
			return
		}
		if err != nil {
			a.gripes.warn("no consensus can be made", "err", err)
			a.slot.Reset(max(interval/10, signRetry))
			return
		}
		a.store(s)
	})
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
			a.publish(s)
		case a.slotOf(a.env.Clock.Wall()).After(s.validAfter):
			a.stats.SaveFailures++
			a.gripes.warn("a consensus could not be stored in its time, and is not published", "err", err)
			a.slot.Reset(signRetry)
		default:
			a.stats.SaveFailures++
			a.gripes.warn("a consensus cannot be stored, so it is not published yet", "err", err)
			a.busy = true
			a.env.Clock.AfterFunc(max(a.network.Interval()/40, signRetry), func() {
				if a.busy = false; a.running {
					a.store(s)
				}
			})
		}
	})
}

func (a *Authority) publish(s *signed) {
	a.settled = true
	if err := a.cfg.Follower.Adopt(s.head, s.body); err != nil {
		a.gripes.warn("the consensus made here does not verify", "err", err)
	} else {
		a.stats.Signed++
	}
	a.saveHistory()
	a.slot.Reset(0) // it computes when the next one is due
}
