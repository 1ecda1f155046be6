package directory

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"cepa/cert"
	"cepa/limit"
)

// entry is a descriptor that is held.
type entry struct {
	*Descriptor
	sealed []byte
	listed bool // in the consensus; else a candidate
	// leaving says that the relay has announced its departure: a rumour that ends the descriptor's life early.
	leaving bool
	ticket  *Ticket      // of a candidate; nil when listed
	news    limit.Bucket // how much more may be heard of this relay
	counted cert.Digest  // the news that cost the last of it
}

// descriptors are the descriptors that a relay holds, one an identity: those of the relays in the consensus, and
// candidates. Candidates are bounded in all and by address, and a Lottery decides which of them have to go.
type descriptors struct {
	self  cert.Identity // never a candidate
	limit int           // of candidates

	entries    map[cert.Identity]*entry
	digests    map[cert.Digest]cert.Identity
	sorted     []cert.Digest // of all entries, ascending
	candidates *Lottery
	summary    *Summary               // of sorted; nil when out of date
	evicted    func(id cert.Identity) // told of each candidate that had to go
}

func newDescriptors(network *Network, self cert.Identity, random func(int) int, evicted func(cert.Identity)) *descriptors {
	return &descriptors{
		self:       self,
		limit:      int(network.Limit(Candidates)),
		entries:    make(map[cert.Identity]*entry),
		digests:    make(map[cert.Digest]cert.Identity),
		candidates: NewLottery(int(network.Limit(CandidatesPerSite)), random),
		evicted:    evicted,
	}
}

// put stores a descriptor that is newer than the one held of its identity, as a candidate unless it is listed.
func (s *descriptors) put(e *entry) {
	s.remove(e.Identity)
	e.listed = e.listed || e.Identity == s.self
	s.entries[e.Identity] = e
	s.digests[e.Digest] = e.Identity
	at, _ := slices.BinarySearchFunc(s.sorted, e.Digest, cert.Digest.Compare)
	s.sorted = slices.Insert(s.sorted, at, e.Digest)
	s.summary = nil
	if !e.listed {
		s.becomeCandidate(e)
	}
}

// becomeCandidate and becomeListed move an entry that is held. Whoever has to go to make room is evicted.
func (s *descriptors) becomeCandidate(e *entry) {
	t := NewTicket(e.Identity, e.Addresses)
	for {
		loser := s.candidates.Loser(t, s.candidates.Len() >= s.limit)
		if loser == nil {
			break
		}
		s.evict(loser.Identity)
	}
	s.candidates.Join(t)
	e.listed, e.ticket = false, t
}

func (s *descriptors) becomeListed(e *entry) {
	s.candidates.Leave(e.ticket)
	e.listed, e.ticket = true, nil
}

func (s *descriptors) evict(id cert.Identity) {
	s.remove(id)
	s.evicted(id)
}

// remove forgets the descriptor of an identity, if there is one.
func (s *descriptors) remove(id cert.Identity) {
	e := s.entries[id]
	if e == nil {
		return
	}
	if e.ticket != nil {
		s.becomeListed(e) // takes it out of the candidates
	}
	delete(s.entries, id)
	delete(s.digests, e.Digest)
	at, _ := slices.BinarySearchFunc(s.sorted, e.Digest, cert.Digest.Compare)
	s.sorted = slices.Delete(s.sorted, at, at+1)
	s.summary = nil
}

// list makes the entries of the relays in a consensus listed and all others candidates, within their bounds.
func (s *descriptors) list(c *Consensus) {
	for _, id := range s.identities() {
		e := s.entries[id]
		switch listed := id == s.self || c.Lookup(id) != nil; {
		case e == nil: // evicted just now
		case listed && !e.listed:
			s.becomeListed(e)
		case !listed && e.listed:
			s.becomeCandidate(e)
		}
	}
}

// expire removes what is past its time and returns who it was.
func (s *descriptors) expire(now time.Time) (gone []cert.Identity) {
	for _, id := range s.identities() {
		if !now.Before(s.entries[id].Expires()) {
			s.remove(id)
			gone = append(gone, id)
		}
	}
	return gone
}

// identities are all that have a descriptor here, in an order that the digests decide.
func (s *descriptors) identities() []cert.Identity {
	out := make([]cert.Identity, len(s.sorted))
	for i, d := range s.sorted {
		out[i] = s.digests[d]
	}
	return out
}

// sum returns the summary of all descriptors.
func (s *descriptors) sum() *Summary {
	if s.summary == nil {
		sum := SummaryOf(s.sorted)
		s.summary = &sum
	}
	return s.summary
}

// appendTo appends sealed descriptors, each with its length u32, to b: those of the consensus first, until limit bytes
// are reached.
func (s *descriptors) appendTo(b []byte, limit int) []byte {
	for _, listed := range []bool{true, false} {
		for _, id := range s.identities() {
			e := s.entries[id]
			if e.listed == listed && !e.leaving && len(b)+4+len(e.sealed) <= limit {
				b = binary.BigEndian.AppendUint32(b, uint32(len(e.sealed)))
				b = append(b, e.sealed...)
			}
		}
	}
	return b
}

// splitDescriptors reads what appendTo wrote; the parts alias data.
func splitDescriptors(data []byte) (parts [][]byte, err error) {
	for len(data) > 0 {
		if len(data) < 4 {
			return nil, fmt.Errorf("stored descriptors: %w: cut short", ErrMalformed)
		}
		n := binary.BigEndian.Uint32(data)
		data = data[4:]
		if uint64(n) > uint64(min(len(data), MaxDescriptor)) {
			return nil, fmt.Errorf("stored descriptors: %w: one of %d bytes", ErrMalformed, n)
		}
		parts = append(parts, data[:n])
		data = data[n:]
	}
	return parts, nil
}
