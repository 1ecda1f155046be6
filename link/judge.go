package link

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env"
)

// versions are the link protocol versions that this code speaks, ascending.
var versions = []uint16{1}

// clientHello is the HELLO of every client of this version.
func clientHello(network cert.NetworkID) *Hello {
	return &Hello{Versions: versions, Network: network}
}

// relayHello is the HELLO of a relay towards a peer seen at observed.
func relayHello(network cert.NetworkID, c *Credentials, now time.Time, observed netip.Addr) *Hello {
	h := clientHello(network)
	h.Chain = &c.Chain
	h.Time = now
	h.OnionKey = c.OnionKey()
	h.Observed = observed
	return h
}

// session is what a HELLO is judged against.
type session struct {
	network cert.NetworkID
	self    cert.Identity     // zero in a client
	want    cert.Identity     // the relay that was dialled; zero on an accepted link
	leaf    ed25519.PublicKey // proved by the far end in this TLS session; nil if it showed no certificate
	now     time.Time
}

// judge decides whether the far end of a TLS session, having said h, is who it says it is, and fills in what h
// tells about it. A far end without a TLS certificate is a client and must look like every other client; one with a
// certificate must prove an identity with it. There is nothing in between.
func (s *session) judge(h *Hello) (env.Peer, error) {
	if h.Network != s.network {
		return env.Peer{}, fmt.Errorf("%w (its id is %s, ours %s)", ErrNetwork, h.Network.Short(), s.network.Short())
	}
	version, ok := commonVersion(versions, h.Versions)
	if !ok {
		return env.Peer{}, fmt.Errorf("%w: it speaks %d, we speak %d: one of the two programs is too old", ErrVersion, h.Versions, versions)
	}
	peer := env.Peer{Version: version, Dialled: !s.want.IsZero()}
	var err error
	if s.leaf == nil {
		err = s.judgeClient(h)
	} else {
		err = s.judgeRelay(h, &peer)
	}
	return peer, err
}

func (s *session) judgeClient(h *Hello) error {
	switch {
	case !s.want.IsZero():
		return fmt.Errorf("%w: it showed no TLS certificate", ErrCertificate)
	case h.Chain != nil:
		return fmt.Errorf("%w: its HELLO has certificates, but it showed none to TLS", ErrCertificate)
	case !h.Time.IsZero() || len(h.OnionKey) != 0 || h.Observed.IsValid():
		return fmt.Errorf("%w: a client's HELLO with a relay's fields", ErrHello)
	}
	return nil
}

func (s *session) judgeRelay(h *Hello, peer *env.Peer) error {
	switch {
	case h.Chain == nil:
		return fmt.Errorf("%w: it showed a TLS certificate, but its HELLO has none", ErrCertificate)
	case h.Time.IsZero():
		return fmt.Errorf("%w: a relay's HELLO without the time", ErrHello)
	case len(h.OnionKey) == 0:
		return fmt.Errorf("%w: a relay's HELLO without an onion key statement", ErrHello)
	}
	peer.Time, peer.Skew = h.Time, h.Time.Sub(s.now).Round(time.Millisecond)
	id, _, link, err := h.Chain.Verify(s.network, s.now)
	if err != nil {
		return explainDates(peer.Skew, err)
	}
	if !link.Equal(s.leaf) {
		return fmt.Errorf("%w: its certificates are for another key than that of this TLS session; somebody may be in between", ErrCertificate)
	}
	if id == s.self {
		return fmt.Errorf("%w: one of its addresses was taken for that of another relay, or two nodes run with one identity", ErrSelf)
	}
	if !s.want.IsZero() && id != s.want {
		return &IdentityError{Want: s.want, Got: id}
	}
	onionKey, err := directory.OpenOnionKey(h.OnionKey, s.network, s.now)
	if err != nil {
		return explainDates(peer.Skew, err)
	}
	if onionKey.Identity != id {
		return fmt.Errorf("%w: its onion key statement is signed by another relay, %s", ErrCertificate, onionKey.Identity.Short())
	}
	peer.Identity, peer.OnionKey, peer.Observed = id, onionKey.Key, h.Observed
	return nil
}

// explainDates wraps an error of verifying certificates. When it is about dates it says whether a wrong clock may be
// the cause: that is why HELLO's time is read before an expired certificate is rejected.
func explainDates(skew time.Duration, err error) error {
	var validity *cert.ValidityError
	if errors.As(err, &validity) || errors.Is(err, directory.ErrExpired) {
		err = fmt.Errorf("%w: %w; %s", ErrCertificate, err, clockHint(skew))
		if skew.Abs() > agree {
			return skewed{err, &env.ClockError{Skew: skew}}
		}
		return err
	}
	return fmt.Errorf("%w: %w", ErrCertificate, err)
}

// skewed is an error about dates that a wrong clock may explain: env.ErrClock to errors.Is.
type skewed struct {
	error
	clock *env.ClockError
}

func (e skewed) Unwrap() []error { return []error{e.error, e.clock} }
