package directory

import (
	"encoding/binary"

	"cepa/cert"
	"cepa/env"
	"cepa/limit"
)

// maxTicketsKnown bounds the tickets of one authority that are remembered until they expire. When it is reached no
// other is taken, so that none is good twice.
const maxTicketsKnown = 4096

// SpeedTests answers AskBytes in a relay: it gives the authorities, and nobody else, bytes to measure relays by
// (docs/protocol.md, section "Measurement"). Each authority gets as much as one that keeps to the rules can want: one
// measurement in twice `measure_ms`, and speedBurst of them at once.
//
// SpeedTests is part of an actor: one loop calls it, and nothing in it is safe for concurrent use.
type SpeedTests struct {
	env     env.Env
	network *Network
	self    cert.Identity
	gripes  complaints
	asked   limit.Buckets // requests, by neighbour: anybody can ask, and a signature takes time to check
	all     limit.Bucket  // requests of all
	bytes   limit.Buckets // by authority
	known   map[cert.Identity][]usedTicket
	stats   SpeedTestStats
}

// SpeedTestStats are counters, read on the loop.
type SpeedTestStats struct {
	Given   uint64 // answers
	Bytes   uint64 // granted in them
	Refused uint64 // tickets that are no good, or over the budget
}

// usedTicket is one that was honoured.
type usedTicket struct {
	nonce   [16]byte
	expires int64 // Unix milliseconds
}

const (
	speedBurst              = 4      // whole measurements that a relay gives an authority at once
	speedRate, speedMost    = 10, 80 // requests a second that come through one neighbour
	allSpeedRate, allSpeeds = 100, 400
)

// NewSpeedTests makes the SpeedTests of a relay.
func NewSpeedTests(e env.Env, network *Network, self cert.Identity) *SpeedTests {
	whole := float64(network.Limit(MeasureKiB)) * 1024
	return &SpeedTests{
		env: e, network: network, self: self, gripes: newComplaints(e),
		asked: newBuckets(speedRate, speedMost),
		all:   limit.Rate{PerSecond: allSpeedRate, Burst: allSpeeds}.Full(e.Clock.Now()),
		bytes: newBuckets(whole/(2*network.millis(MeasureMillis).Seconds()), speedBurst*whole),
		known: make(map[cert.Identity][]usedTicket),
	}
}

// Stats returns a copy of the counters.
func (s *SpeedTests) Stats() SpeedTestStats { return s.stats }

// Answer looks at a directory request, as it came on the stream, length and all. If it is AskBytes, mine is true,
// answer is the beginning of the answer, and so many zeros are to follow it; the zeros are never in memory together.
// Any other request is for the Agent. from is the neighbour that the circuit comes from: measurements come through
// relays.
func (s *SpeedTests) Answer(request []byte, from *env.Peer) (answer []byte, zeros int, mine bool) {
	var reader RequestReader
	q, whole, err := reader.Read(request)
	if err != nil || !whole || q.Kind != AskBytes {
		return nil, 0, false
	}
	status := StatusBadRequest
	if now := s.env.Clock.Now(); !from.Client() {
		status = StatusBusy
		all := limit.Rate{PerSecond: allSpeedRate, Burst: allSpeeds}
		if s.asked.Take(string(from.Identity[:]), 1, now) && all.Take(&s.all, 1, now) {
			zeros, status = s.honour(q.Ticket)
		}
	}
	if status != StatusOK {
		s.stats.Refused++
		return AppendAnswer(nil, status, nil), 0, true
	}
	s.stats.Given++
	s.stats.Bytes += uint64(zeros)
	return binary.BigEndian.AppendUint32([]byte{byte(StatusOK)}, uint32(zeros)), zeros, true
}

// honour says how many bytes a ticket is good for.
func (s *SpeedTests) honour(sealed []byte) (bytes int, status Status) {
	now := s.env.Clock.Wall()
	t, err := OpenSpeedTicket(sealed, s.network, s.self, now)
	if err != nil {
		s.gripes.warn("a measurement was refused", "err", err)
		return 0, StatusRefused
	}
	known := s.known[t.Authority]
	kept := known[:0]
	for _, u := range known {
		if u.nonce == t.Nonce {
			s.gripes.warn("a measurement was refused: its ticket was used before", "authority", t.Authority.Short())
			return 0, StatusRefused
		}
	}
	for _, u := range known {
		if u.expires > now.UnixMilli() {
			kept = append(kept, u)
		}
	}
	s.known[t.Authority] = kept
	if len(kept) >= maxTicketsKnown || !s.bytes.Take(string(t.Authority[:]), float64(t.Bytes), s.env.Clock.Now()) {
		return 0, StatusBusy
	}
	s.known[t.Authority] = append(kept, usedTicket{t.Nonce, t.Expires.UnixMilli()})
	return t.Bytes, StatusOK
}
