package directory

import (
	"bytes"
	"net/netip"

	"cepa/cert"
	"cepa/env"
	"cepa/ipaddr"
	"cepa/limit"
)

// serving are the budgets of directory requests, in requests and in bytes of answers, and the answers that many want.
type serving struct {
	clients, sites, relays             limit.Buckets
	sketches                           limit.Buckets // of one relay: each takes time proportional to what is held
	clientVolume, siteVolume, relayOut limit.Buckets
	unit                               float64 // bytes in a token of a volume
	answers                            map[cert.Digest][]byte
	diffs                              diffs
	dialBacks                          limit.Buckets
	dialling                           int // back, now
}

func newServing(network *Network) serving {
	// Where a consensus comes every second, clients ask every second.
	often := 1 + 10/network.Interval().Seconds()
	return serving{
		clients: newBuckets(clientRate*often, clientBurst),
		sites:   newBuckets(siteRate*often, siteBurst),
		relays:  newBuckets(relayRate, relayBurst),

		sketches: newBuckets(sketchRate, sketchBurst),

		clientVolume: newBuckets(clientBytes, clientVolume),
		siteVolume:   newBuckets(siteBytes, siteVolume),
		relayOut:     newBuckets(relayBytes, relayVolume),

		dialBacks: newDialBacks(network),

		unit:    minVolume,
		answers: make(map[cert.Digest][]byte),
	}
}

// forget drops the answers of an older consensus, and measures volumes by the present one.
func (s *serving) forget() {
	clear(s.answers)
	clear(s.diffs.answers)
}

// volume is the budget in bytes: burst consensuses at once, rate bytes a second.
func (s *serving) volume(b *limit.Buckets, burst, rate float64) *limit.Buckets {
	b.Rate = limit.Rate{PerSecond: rate, Burst: burst * s.unit}
	return b
}

// Serve answers one directory request, as it came on the stream, length and all. The answer is status, length and
// body; it is shared and not to be modified. from is the neighbour that the circuit comes from: a client may ask for
// the consensus and the network file only, and relays are bounded by their identity, clients by their link and by the
// /24 or /48 that it comes from. done is called once, before Serve returns unless
// a diff has to be made first or the neighbour is to be called back.
func (a *Agent) Serve(request []byte, from *env.Peer, done func(answer []byte)) {
	q, whole, err := NewRequestReader(a.RequestLimit(from) - requestHeader).Read(request)
	if err != nil || !whole || from.Client() && !q.Kind.forClients() {
		a.stats.BadRequests++
		done(AppendAnswer(nil, StatusBadRequest, nil))
		return
	}
	if a.authority != nil && q.Kind.ofAuthorities() {
		done(a.authority.request(q, from)) // it has bounds of its own
		return
	}
	if !a.admit(from) && !a.cfg.Undefended.Budgets {
		a.stats.Busy++
		done(AppendAnswer(nil, StatusBusy, nil))
		return
	}
	done = a.reader(from, done)
	if q.Kind == AskDiff {
		a.serveDiff(q, done)
		return
	}
	if q.Kind == AskReach {
		a.serveReach(q.Address, from, done)
		return
	}
	done(a.lookUp(q, from))
}

// forClients says whether clients may ask this.
func (k RequestKind) forClients() bool {
	return k == AskHead || k == AskBody || k == AskDiff || k == AskNetworkFile || k == AskEvidence
}

// RequestLimit is the longest request, with its length, that comes from a neighbour.
func (a *Agent) RequestLimit(from *env.Peer) int {
	if a.authority != nil && a.network.IsAuthority(from.Identity) {
		return requestHeader + MaxAuthorityRequest
	}
	return requestHeader + MaxRequest
}

// lookUp answers a request that is within its budget.
func (a *Agent) lookUp(q Request, from *env.Peer) []byte {
	switch q.Kind {
	case AskHead:
		head, _ := a.cfg.Follower.Sealed()
		if head == nil {
			return AppendAnswer(nil, StatusNotYet, nil)
		}
		if q.Known == a.cfg.Follower.Current().Head.Digest {
			return AppendAnswer(nil, StatusOK, nil) // the same
		}
		return AppendAnswer(nil, StatusOK, head)
	case AskBody:
		if answer := a.serving.answers[q.Digest]; answer != nil {
			return answer
		}
		body := a.cfg.Follower.SealedBody(q.Digest)
		if body == nil {
			return AppendAnswer(nil, StatusNotFound, nil)
		}
		// Made once and shared: a thousand slow readers must not hold a thousand copies.
		answer := AppendAnswer(nil, StatusOK, body)
		a.serving.answers[q.Digest] = answer
		a.serving.unit = max(minVolume, float64(len(answer)))
		return answer
	case AskDescriptor:
		if id, held := a.store.digests[q.Digest]; held {
			return AppendAnswer(nil, StatusOK, a.store.entries[id].sealed)
		}
		return AppendAnswer(nil, StatusNotFound, nil)
	case AskNetworkFile:
		if text := a.cfg.Follower.networkAfter(q.Serial); text != nil {
			return AppendAnswer(nil, StatusOK, text)
		}
		return AppendAnswer(nil, StatusNotFound, nil)
	case AskSummary:
		return AppendAnswer(nil, StatusOK, a.store.sum().AppendTo(nil))
	case AskBucket:
		return AppendAnswer(nil, StatusOK, AppendDigests(nil, a.store.sorted, q.Bucket, a.network.bucketLimit()))
	case AskSketch:
		if !a.serving.sketches.Take(a.relayKey(from), 1, a.env.Clock.Now()) && !a.cfg.Undefended.Budgets {
			a.stats.Busy++
			return AppendAnswer(nil, StatusBusy, nil)
		}
		return AppendAnswer(nil, StatusOK, appendSketch(nil, sketchOf(q.Salt, a.compared(q.All), q.First, q.First+symbolsAt(q.First))))
	case Announce:
		return AppendAnswer(nil, a.onAnnounce(q.Rumour, from), nil)
	case AskEvidence:
		if a.authority == nil {
			return AppendAnswer(nil, StatusNotFound, nil)
		}
		return a.authority.onEvidence()
	}
	return AppendAnswer(nil, StatusBadRequest, nil)
}

// onAnnounce takes the rumour of a relay about itself: nobody else can announce it. The descriptor is fetched over the
// link that the announcement came by. Should that be gone, the address that the rumour names is called only if the link
// came from there.
func (a *Agent) onAnnounce(sealed []byte, from *env.Peer) Status {
	r, err := OpenRumour(sealed, a.network, a.env.Clock.Wall())
	if err != nil || r.Identity != from.Identity {
		a.stats.Refused++
		a.gripes.warn("an announcement was refused", "from", from.Identity.Short(), "err", err)
		return StatusRefused
	}
	accept, fresh, _ := a.judge(r, a.env.Clock.Now())
	if fresh {
		to := a.targetOf(r.Identity)
		if len(to.Addresses) == 0 && r.Address.Addr() == from.Address.Addr().Unmap() {
			to.Addresses = []netip.AddrPort{r.Address}
		}
		if !a.believe(&hearsay{r, bytes.Clone(sealed), r.Identity}, to) {
			a.stats.Busy++
			return StatusBusy // the relay tries again soon
		}
		return StatusOK
	}
	if !accept {
		a.stats.Refused++
		return StatusRefused
	}
	return StatusOK
}

// relayKey is what a relay counts by: its identity once the consensus lists it. Identities are free for everybody else,
// who count by site, unless the network counts none.
func (a *Agent) relayKey(from *env.Peer) string {
	if a.network.Limit(SiteLimits) == 0 || a.InConsensus(from.Identity) {
		return string(from.Identity[:])
	}
	return ipaddr.Site(from.Address.Addr()).String()
}

// admit spends one request of the budgets of a neighbour, and asks whether it has had too many bytes.
func (a *Agent) admit(from *env.Peer) bool {
	s, now := &a.serving, a.env.Clock.Now()
	if !from.Client() {
		key := a.relayKey(from)
		return s.relays.Take(key, 1, now) && s.volume(&s.relayOut, relayVolume, relayBytes).Take(key, 0, now)
	}
	client, prefix := from.Address.String(), ipaddr.Site(from.Address.Addr()).String()
	return s.clients.Take(client, 1, now) && s.sites.Take(prefix, 1, now) &&
		s.volume(&s.clientVolume, clientVolume, clientBytes).Take(client, 0, now) &&
		s.volume(&s.siteVolume, siteVolume, siteBytes).Take(prefix, 0, now)
}

// charge counts the bytes of an answer; a budget may go into debt by one.
func (a *Agent) charge(from *env.Peer, size int) {
	s, now := &a.serving, a.env.Clock.Now()
	if !from.Client() {
		s.relayOut.Take(a.relayKey(from), float64(size), now)
		return
	}
	s.clientVolume.Take(from.Address.String(), float64(size), now)
	s.siteVolume.Take(ipaddr.Site(from.Address.Addr()).String(), float64(size), now)
}
