package cert

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// Type says what a certificate certifies.
type Type uint8

// The types of certificates.
const (
	TypeSigning Type = 1 // a signing key, certified by the identity
	TypeLink    Type = 2 // a link key, certified by the signing key
)

func (t Type) String() string {
	switch t {
	case TypeSigning:
		return "signing"
	case TypeLink:
		return "link"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Lifetimes. A certificate is back-dated so that a verifier whose clock is late accepts it; the maximum, counted
// from the time of issue, is enforced by whoever verifies.
const (
	BackDate         = 24 * time.Hour
	SigningLifetime  = 30 * 24 * time.Hour // the default for a signing key
	MaxSigning       = 90 * 24 * time.Hour // at most this for a signing key
	MaxLink          = 48 * time.Hour      // at most this, and the default, for a link key
	CertificateSize  = 158                 // bytes of a certificate whose keys and signature are Ed25519
	ChainSize        = 2 * CertificateSize // bytes of a Chain
	certificateVer   = 1
	contextCert      = "cepa1 certificate"
	latestUnix       = 253402300799 // the last second of the year 9999: time.Time is safe up to there
	signedPartLength = CertificateSize - 4 - ed25519.SignatureSize
)

// maxLifetime returns the longest time from issue to Until, 0 for an unknown type.
func (t Type) maxLifetime() time.Duration {
	switch t {
	case TypeSigning:
		return MaxSigning
	case TypeLink:
		return MaxLink
	}
	return 0
}

// Certificate says that Issuer vouches for Subject between two dates, in one network.
//
//	version    u8        1
//	type       u8        1 signing key by identity, 2 link key by signing key
//	subject    Key       algorithm u16, length u16, bytes
//	from       u64       Unix seconds, 24 h before the time of issue
//	until      u64       Unix seconds; valid while from <= now < until
//	issuer     Key
//	signature  Signature over "cepa1 certificate" | network id (32) | all of the above
//
// With Ed25519 it is CertificateSize bytes. Decode it with DecodeCertificate; verify it before believing it.
type Certificate struct {
	Type        Type
	Subject     Key
	From, Until time.Time // whole seconds
	Issuer      Key
	Signature   Signature
}

// Certify issues a certificate for a signing key, valid from 24 h before now until lifetime after it. A lifetime of
// 0 means SigningLifetime; more than MaxSigning or less than a second is ErrLifetime.
func (k IdentityKey) Certify(network NetworkID, subject ed25519.PublicKey, now time.Time, lifetime time.Duration) (Certificate, error) {
	if lifetime == 0 {
		lifetime = SigningLifetime
	}
	return issue(TypeSigning, network, subject, now, lifetime, k.private)
}

// Certify issues a certificate for a link key, valid from 24 h before now until lifetime after it. A lifetime of 0
// means MaxLink; more than that or less than a second is ErrLifetime.
func (k SigningKey) Certify(network NetworkID, subject ed25519.PublicKey, now time.Time, lifetime time.Duration) (Certificate, error) {
	if lifetime == 0 {
		lifetime = MaxLink
	}
	return issue(TypeLink, network, subject, now, lifetime, k.private)
}

func issue(t Type, network NetworkID, subject ed25519.PublicKey, now time.Time, lifetime time.Duration, issuer ed25519.PrivateKey) (Certificate, error) {
	c := Certificate{
		Type:    t,
		Subject: KeyOf(subject),
		From:    time.Unix(now.Unix(), 0).Add(-BackDate).UTC(),
		Until:   time.Unix(now.Unix(), 0).Add(lifetime).Truncate(time.Second).UTC(),
		Issuer:  KeyOf(publicOf(issuer)),
	}
	if lifetime < time.Second || lifetime > t.maxLifetime() {
		return Certificate{}, fmt.Errorf("issuing a %s certificate for %v: %w", t, lifetime, ErrLifetime)
	}
	if c.From.Unix() < 0 || c.Until.Unix() > latestUnix {
		return Certificate{}, fmt.Errorf("issuing a %s certificate at %v: %w", t, now, ErrLifetime)
	}
	if _, err := c.Subject.ed25519(); err != nil {
		return Certificate{}, fmt.Errorf("issuing a %s certificate: subject: %w", t, err)
	}
	c.Signature = Signature{Ed25519, ed25519.Sign(issuer, c.signedMessage(network))}
	return c, nil
}

// AppendTo appends the wire form to b.
func (c Certificate) AppendTo(b []byte) []byte {
	return c.Signature.append(c.appendSigned(b))
}

// appendSigned appends everything before the signature.
func (c Certificate) appendSigned(b []byte) []byte {
	b = append(b, certificateVer, byte(c.Type))
	b = c.Subject.append(b)
	b = binary.BigEndian.AppendUint64(b, uint64(c.From.Unix()))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Until.Unix()))
	return c.Issuer.append(b)
}

func (c Certificate) signedMessage(network NetworkID) []byte {
	m := make([]byte, 0, len(contextCert)+len(network)+signedPartLength)
	m = append(m, contextCert...)
	m = append(m, network[:]...)
	return c.appendSigned(m)
}

// DecodeCertificate decodes data, which must be one whole certificate. It checks the form only: see Verify. The
// result does not alias data.
func DecodeCertificate(data []byte) (Certificate, error) {
	s := cryptobyte.String(data)
	c, err := ReadCertificate(&s)
	if err == nil && !s.Empty() {
		err = fmt.Errorf("decoding a certificate: %w: %d bytes left over", ErrMalformed, len(s))
	}
	if err != nil {
		return Certificate{}, err
	}
	return c, nil
}

// ReadCertificate decodes a certificate at the beginning of s and advances s behind it. It checks the form only: see
// Verify. The result does not alias s.
func ReadCertificate(s *cryptobyte.String) (Certificate, error) {
	c, err := readCertificate(s)
	if err != nil {
		return Certificate{}, fmt.Errorf("decoding a certificate: %w", err)
	}
	return c, nil
}

func readCertificate(s *cryptobyte.String) (c Certificate, err error) {
	var version, kind uint8
	var from, until uint64
	if !s.ReadUint8(&version) || !s.ReadUint8(&kind) {
		return c, fmt.Errorf("version and type: %w: cut short", ErrMalformed)
	}
	if version != certificateVer {
		return c, fmt.Errorf("%w %d", ErrVersion, version)
	}
	c.Type = Type(kind)
	if c.Type.maxLifetime() == 0 {
		return c, fmt.Errorf("%w: unknown type %d", ErrWrongType, kind)
	}
	if c.Subject, err = readKey(s, "subject key"); err != nil {
		return c, err
	}
	if !s.ReadUint64(&from) || !s.ReadUint64(&until) {
		return c, fmt.Errorf("dates: %w: cut short", ErrMalformed)
	}
	if from >= until || until > latestUnix {
		return c, fmt.Errorf("dates: %w: from %d until %d", ErrMalformed, from, until)
	}
	c.From, c.Until = time.Unix(int64(from), 0).UTC(), time.Unix(int64(until), 0).UTC()
	if c.Issuer, err = readKey(s, "issuer key"); err != nil {
		return c, err
	}
	c.Signature, err = readSignature(s, "signature")
	return c, err
}

// Issued returns the time at which the certificate says that it was issued.
func (c Certificate) Issued() time.Time { return c.From.Add(BackDate) }

// Verify checks that the certificate is of type want, was signed by its issuer for network, is valid at now and not
// valid for longer than its type may be. Whether the issuer is the right one is for the caller to say; for an
// identity's certificate see VerifySigning, for a link's see Chain.
//
// The signature is checked before the dates, so a *ValidityError speaks of dates that the issuer wrote.
func (c Certificate) Verify(network NetworkID, now time.Time, want Type) error {
	return Verifier{}.certificate(c, network, now, want)
}

func (v Verifier) certificate(c Certificate, network NetworkID, now time.Time, want Type) error {
	if c.Type != want {
		return fmt.Errorf("%w: a %s certificate where a %s certificate belongs", ErrWrongType, c.Type, want)
	}
	if _, err := c.Subject.ed25519(); err != nil {
		return fmt.Errorf("%s certificate: subject %w", c.Type, err)
	}
	if err := v.good(c.Issuer, c.signedMessage(network), c.Signature); err != nil {
		return fmt.Errorf("%s certificate: %w", c.Type, err)
	}
	if life := c.Until.Sub(c.From); life <= 0 || life > BackDate+c.Type.maxLifetime() {
		return fmt.Errorf("%s certificate: %w: %v, at most %v", c.Type, ErrLifetime, life, BackDate+c.Type.maxLifetime())
	}
	if now.Before(c.From) || !now.Before(c.Until) {
		return &ValidityError{c.Type, c.From, c.Until, now}
	}
	return nil
}

// VerifySigning verifies a certificate of a signing key and returns the identity that issued it and the signing key.
// Nothing is returned with an error.
func (c Certificate) VerifySigning(network NetworkID, now time.Time) (Identity, ed25519.PublicKey, error) {
	if err := c.Verify(network, now, TypeSigning); err != nil {
		return Identity{}, nil, err
	}
	return Identity(c.Issuer.Bytes), ed25519.PublicKey(c.Subject.Bytes), nil
}

// Chain proves that a link key belongs to an identity. Its wire form is the two certificates one after the other.
type Chain struct {
	Signing Certificate // signing key, by the identity
	Link    Certificate // link key, by the signing key
}

// AppendTo appends the wire form, ChainSize bytes, to b.
func (c Chain) AppendTo(b []byte) []byte {
	return c.Link.AppendTo(c.Signing.AppendTo(b))
}

// DecodeChain decodes data, which must be two whole certificates. It checks the form only: see Verify. The result
// does not alias data.
func DecodeChain(data []byte) (Chain, error) {
	s := cryptobyte.String(data)
	signing, err := ReadCertificate(&s)
	if err != nil {
		return Chain{}, err
	}
	link, err := ReadCertificate(&s)
	if err != nil {
		return Chain{}, err
	}
	if !s.Empty() {
		return Chain{}, fmt.Errorf("decoding a certificate chain: %w: %d bytes left over", ErrMalformed, len(s))
	}
	return Chain{signing, link}, nil
}

// Verify checks both certificates at now and that the second was issued by the key of the first. It returns the
// identity, the signing key and the link key; the caller compares the last with the key of the TLS session. Nothing
// is returned with an error.
func (c Chain) Verify(network NetworkID, now time.Time) (id Identity, signing, link ed25519.PublicKey, err error) {
	id, signing, err = c.Signing.VerifySigning(network, now)
	if err != nil {
		return Identity{}, nil, nil, err
	}
	if !c.Link.Issuer.Equal(c.Signing.Subject) {
		return Identity{}, nil, nil, fmt.Errorf("link certificate: %w: not the certified signing key", ErrIssuer)
	}
	if err := c.Link.Verify(network, now, TypeLink); err != nil {
		return Identity{}, nil, nil, err
	}
	return id, signing, ed25519.PublicKey(c.Link.Subject.Bytes), nil
}
