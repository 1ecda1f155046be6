package directory

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"cepa/cert"
	"cepa/ipaddr"
	"cepa/limit"
)

// entry is a descriptor that is held.
type entry struct {
	*Descriptor
	sealed []byte
	listed bool // in the consensus; else a candidate
	// leaving says that the relay has announced its departure: a rumour that ends the descriptor's life early.
	leaving bool
	at      int          // index in candidates
	news    limit.Bucket // how much more may be heard of this relay
	counted cert.Digest  // the news that cost the last of it
}

// descriptors are the descriptors that a relay holds, one an identity: those of the relays in the consensus, and
// candidates. Candidates are bounded in all and by address; which of them has to go is drawn by lot, so that nobody
// can keep others out by being first or fast.
type descriptors struct {
	self           cert.Identity // never a candidate
	limit, perSite int

	entries    map[cert.Identity]*entry
	digests    map[cert.Digest]cert.Identity
	sorted     []cert.Digest // of all entries, ascending
	candidates []cert.Identity
	sites      map[netip.Prefix]int     // candidates by /24 and /48, and by IPv6 /32
	addresses  map[netip.AddrPort]int   // entries by address
	summary    *Summary                 // of sorted; nil when out of date
	evicted    func(id cert.Identity)   // told of each candidate that had to go
	random     func(below int) (at int) // in [0, below)
}

func newDescriptors(network *Network, self cert.Identity, random func(int) int, evicted func(cert.Identity)) *descriptors {
	return &descriptors{
		self:      self,
		limit:     int(network.Limit(Candidates)),
		perSite:   int(network.Limit(CandidatesPerSite)),
		entries:   make(map[cert.Identity]*entry),
		digests:   make(map[cert.Digest]cert.Identity),
		sites:     make(map[netip.Prefix]int),
		addresses: make(map[netip.AddrPort]int),
		evicted:   evicted,
		random:    random,
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
	for _, a := range e.Addresses {
		s.addresses[a]++
	}
	if !e.listed {
		s.makeRoom(e)
		s.becomeCandidate(e)
	}
}

// becomeCandidate and becomeListed move an entry that is held.
func (s *descriptors) becomeCandidate(e *entry) {
	e.listed = false
	e.at = len(s.candidates)
	s.candidates = append(s.candidates, e.Identity)
	for _, p := range sitesOf(e.Addresses) {
		s.sites[p]++
	}
}

func (s *descriptors) becomeListed(e *entry) {
	last := len(s.candidates) - 1
	moved := s.candidates[last]
	s.candidates[e.at] = moved
	s.entries[moved].at = e.at
	s.candidates = s.candidates[:last]
	for _, p := range sitesOf(e.Addresses) {
		if s.sites[p]--; s.sites[p] == 0 {
			delete(s.sites, p)
		}
	}
	e.listed = true
}

// makeRoom removes candidates until one more with the addresses of e is within the bounds.
func (s *descriptors) makeRoom(e *entry) {
	for _, p := range sitesOf(e.Addresses) {
		if s.sites[p] < s.siteLimit(p) {
			continue
		}
		var there []cert.Identity
		for _, id := range s.candidates {
			if slices.Contains(sitesOf(s.entries[id].Addresses), p) {
				there = append(there, id)
			}
		}
		for n := len(there) - s.siteLimit(p) + 1; n > 0; n-- {
			i := s.random(len(there))
			s.evict(there[i])
			there = slices.Delete(there, i, i+1)
		}
	}
	for len(s.candidates) >= s.limit {
		s.evict(s.loser())
	}
}

// siteLimit is the number of candidates in a prefix: an IPv6 /32 may have four times as many as a /48.
func (s *descriptors) siteLimit(p netip.Prefix) int {
	if p.Bits() == 32 {
		return 4 * s.perSite
	}
	return s.perSite
}

// loser draws eight candidates and chooses the one with the most neighbours, so that a flood from few networks hurts
// itself first.
func (s *descriptors) loser() cert.Identity {
	var worst cert.Identity
	most := -1
	for range 8 {
		id := s.candidates[s.random(len(s.candidates))]
		crowd := 0
		for _, p := range sitesOf(s.entries[id].Addresses) {
			crowd = max(crowd, s.sites[p])
		}
		if crowd > most {
			worst, most = id, crowd
		}
	}
	return worst
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
	if !e.listed {
		s.becomeListed(e) // takes it out of the candidates
	}
	delete(s.entries, id)
	delete(s.digests, e.Digest)
	at, _ := slices.BinarySearchFunc(s.sorted, e.Digest, cert.Digest.Compare)
	s.sorted = slices.Delete(s.sorted, at, at+1)
	s.summary = nil
	for _, a := range e.Addresses {
		if s.addresses[a]--; s.addresses[a] == 0 {
			delete(s.addresses, a)
		}
	}
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
			e.listed = true
			s.makeRoom(e)
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

// sitesOf returns the prefixes that addresses count by, each once.
func sitesOf(addrs []netip.AddrPort) []netip.Prefix {
	out := make([]netip.Prefix, 0, 2*len(addrs))
	for _, a := range addrs {
		for _, p := range []netip.Prefix{ipaddr.Site(a.Addr()), provider(a.Addr())} {
			if p.IsValid() && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
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
