package link

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"cepa/cert"
)

// Credentials are what a relay shows on its links. A client has none.
type Credentials struct {
	// Chain is the certificate of the signing key and, by it, that of the link key.
	Chain cert.Chain
	// Key is the link key: the key of the TLS certificate.
	Key cert.LinkKey
	// OnionKey returns the current onion key statement, sealed. It is called once a handshake from any goroutine, must
	// not wait, and what it returns must not be modified afterwards.
	OnionKey func() []byte
}

// NewCredentials certifies a fresh link key, grown from seed (32 secret random bytes), with the signing key of signer
// for as long as a link key may live (48 h; less if the certificate of the signing key ends sooner). A relay calls it
// when it starts, and gives the Transport new ones before these expire.
func NewCredentials(network cert.NetworkID, signer cert.Signer, seed [32]byte, now time.Time, onionKey func() []byte) (*Credentials, error) {
	key := cert.NewLinkKey(seed)
	certificate, err := signer.Key.Certify(network, key.Public(), now, 0)
	if err != nil {
		return nil, fmt.Errorf("making link credentials: %w", err)
	}
	c := &Credentials{
		Chain:    cert.Chain{Signing: signer.Certificate, Link: certificate},
		Key:      key,
		OnionKey: onionKey,
	}
	if _, err := c.verify(network, now); err != nil {
		return nil, err
	}
	return c, nil
}

// Expires is when the first of the certificates ends.
func (c *Credentials) Expires() time.Time {
	if c.Chain.Signing.Until.Before(c.Chain.Link.Until) {
		return c.Chain.Signing.Until
	}
	return c.Chain.Link.Until
}

// verify checks that a peer would accept c at now, and returns the identity that it proves.
func (c *Credentials) verify(network cert.NetworkID, now time.Time) (cert.Identity, error) {
	if c.Key.IsZero() || c.OnionKey == nil {
		return cert.Identity{}, errors.New("checking link credentials: no link key or no onion key statement")
	}
	id, _, link, err := c.Chain.Verify(network, now)
	if err != nil {
		return cert.Identity{}, fmt.Errorf("checking link credentials: %w", err)
	}
	if !link.Equal(c.Key.Public()) {
		return cert.Identity{}, errors.New("checking link credentials: the link certificate is for another key")
	}
	return id, nil
}

// secrets is what handshakes use at one time: SetCredentials replaces it as a whole.
type secrets struct {
	credentials *Credentials  // nil in a client
	identity    cert.Identity // zero in a client
	client      *tls.Config   // for links that this node dials
	server      *tls.Config   // for links that it accepts; nil in a client
}

func newSecrets(network cert.NetworkID, c *Credentials, now time.Time, keyLog io.Writer) (*secrets, error) {
	base := tls.Config{
		MinVersion:       tls.VersionTLS13,
		MaxVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
		// The X.509 certificate only carries a key; the chain in HELLO says whose it is (see judge). An empty
		// ServerName sends no SNI.
		InsecureSkipVerify: true,
		// Tickets would link a client's connections.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		KeyLogWriter:                keyLog,
		VerifyConnection:            verifyConnection,
	}
	s := &secrets{credentials: c, client: base.Clone()}
	if c == nil {
		return s, nil
	}
	var err error
	if s.identity, err = c.verify(network, now); err != nil {
		return nil, err
	}
	leaf, err := tlsCertificate(c.Key.Private())
	if err != nil {
		return nil, fmt.Errorf("making the TLS certificate: %w", err)
	}
	s.client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return leaf, nil }
	s.server = base.Clone()
	s.server.Certificates = []tls.Certificate{*leaf}
	s.server.ClientAuth = tls.RequestClientCert
	return s, nil
}

// tlsCertificate wraps a link key into X.509, which TLS wants. But for key and signature it is the same for every relay
// and says nothing; its dates mean nothing either.
func tlsCertificate(key ed25519.PrivateKey) (*tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "link"},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// verifyConnection runs at the end of the TLS handshake of both sides. crypto/tls has verified that the far end holds
// the key of its certificate, if it showed one; here the form is checked.
func verifyConnection(state tls.ConnectionState) error {
	switch {
	case state.Version != tls.VersionTLS13 || state.CurveID != tls.X25519MLKEM768 || state.DidResume:
		return fmt.Errorf("negotiated %s with %v, resumed %v", tls.VersionName(state.Version), state.CurveID, state.DidResume)
	case len(state.PeerCertificates) > 1:
		return foreign{fmt.Errorf("%d TLS certificates instead of one, so it is no relay", len(state.PeerCertificates))}
	case len(state.PeerCertificates) == 1 && leafKey(state) == nil:
		return foreign{fmt.Errorf("a TLS certificate with a key of type %v instead of Ed25519, so it is no relay", state.PeerCertificates[0].PublicKeyAlgorithm)}
	}
	return nil
}

// leafKey is the key whose possession the far end proved in the TLS handshake; nil if it showed no certificate.
func leafKey(state tls.ConnectionState) ed25519.PublicKey {
	if len(state.PeerCertificates) == 0 {
		return nil
	}
	key, _ := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	return key
}
