package directory

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"cepa/cert"
)

// Bounds of what a relay keeps of older consensuses, to make diffs from.
const (
	maxPast      = validIntervals
	maxPastBytes = 48 << 20
	// pastWorthSaving is the interval from which older bodies outlive a restart: where they are made every few seconds
	// a client fetches a whole one just as well.
	pastWorthSaving = time.Minute
)

// pastBody is a consensus that was in use once.
type pastBody struct {
	digest cert.Digest // of the head
	until  time.Time
	body   []byte
}

// history are the consensuses before the one in use, oldest first, as long as they are valid: who holds one of them can
// be given a diff.
type history struct {
	past []pastBody
	size int
}

// add takes a consensus that another has followed.
func (h *history) add(p pastBody, now time.Time) {
	h.past = slices.DeleteFunc(h.past, func(o pastBody) bool { return o.digest == p.digest || !now.Before(o.until) })
	h.past = append(h.past, p)
	h.size = 0
	for _, o := range h.past {
		h.size += len(o.body)
	}
	for len(h.past) > maxPast || h.size > maxPastBytes {
		h.size -= len(h.past[0].body)
		h.past[0] = pastBody{}
		h.past = h.past[1:]
	}
}

// find returns a body by the digest of its head, or nil.
func (h *history) find(digest cert.Digest) []byte {
	for _, o := range h.past {
		if o.digest == digest {
			return o.body
		}
	}
	return nil
}

// pastBlob is where a consensus is stored beside the one in use: in one of maxPast places, by its time.
func pastBlob(h *Head) string {
	slot := h.ValidAfter.UnixMilli() / h.Interval().Milliseconds() % maxPast
	return fmt.Sprintf("consensus.past-%d", slot)
}

// savePast stores a consensus so that it can be made a diff from after a restart too.
func (f *Follower) savePast(h *held) {
	if f.cfg.Self.IsZero() || h.Head.Interval() < pastWorthSaving {
		return
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(len(h.head)))
	data = append(append(data, h.head...), h.body...)
	f.env.Store.Save(pastBlob(h.Head), data, f.saved)
}

// loadPast takes up what savePast has stored, except for the consensus in use.
func (f *Follower) loadPast() {
	if f.cfg.Self.IsZero() || f.interval() < pastWorthSaving {
		return
	}
	now := f.env.Clock.Wall()
	var all []pastBody
	for slot := range maxPast {
		data, err := f.env.Store.Load(fmt.Sprintf("consensus.past-%d", slot))
		if err != nil || len(data) < 4 || uint64(binary.BigEndian.Uint32(data)) > uint64(len(data)-4) {
			continue
		}
		n := int(binary.BigEndian.Uint32(data))
		sealed, body := data[4:4+n], data[4+n:]
		h, err := OpenHead(sealed, f.network, now)
		if err != nil || h.State(now) == Expired || uint32(len(body)) != h.BodyLength || bodyDigest(f.network.ID, body) != h.BodyDigest ||
			f.current != nil && f.current.Head.Digest == h.Digest {
			continue
		}
		all = append(all, pastBody{h.Digest, h.ValidUntil, body})
	}
	slices.SortFunc(all, func(a, b pastBody) int { return a.until.Compare(b.until) })
	for _, p := range all {
		f.history.add(p, now)
	}
}

// bodiesFor returns the bodies of two consensuses when to is in use and from is held as well; else nil.
func (f *Follower) bodiesFor(from, to cert.Digest) (a, b []byte) {
	if f.Current() == nil || f.current.Head.Digest != to {
		return nil, nil
	}
	if a = f.history.find(from); a == nil {
		return nil, nil
	}
	return a, f.current.body
}
