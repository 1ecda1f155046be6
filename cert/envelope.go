package cert

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// DocumentType says what a signed document is. It is covered by the signatures and by the digest.
type DocumentType uint8

// The types of documents.
const (
	OnionKeyDocument   DocumentType = 1
	DescriptorDocument DocumentType = 2
	ConsensusDocument  DocumentType = 3 // the head of a consensus
	RumourDocument     DocumentType = 4
	NetworkDocument    DocumentType = 5
	VoteDocument       DocumentType = 6
	TicketDocument     DocumentType = 7 // for a measurement
)

func (t DocumentType) String() string {
	switch t {
	case OnionKeyDocument:
		return "onion key statement"
	case DescriptorDocument:
		return "descriptor"
	case ConsensusDocument:
		return "consensus"
	case RumourDocument:
		return "rumour"
	case NetworkDocument:
		return "network file"
	case VoteDocument:
		return "vote"
	case TicketDocument:
		return "measurement ticket"
	}
	return fmt.Sprintf("document of type %d", uint8(t))
}

// MaxSigners is the largest number of signers of any document: consensuses, votes and network files, which
// authorities sign together. The others have exactly one, which the verifier enforces before it checks a signature.
const MaxSigners = 32

// maxSigners returns the largest number of signers of a document, 0 for an unknown type.
func (t DocumentType) maxSigners() int {
	switch t {
	case OnionKeyDocument, DescriptorDocument, RumourDocument, TicketDocument:
		return 1
	case ConsensusDocument, NetworkDocument, VoteDocument:
		return MaxSigners
	}
	return 0
}

const (
	envelopeVersion = 1
	contextDocument = "cepa1 document"
	contextDigest   = "cepa1 digest"

	// EndorsementSize is the size in bytes of one signer's part of an envelope, with Ed25519.
	EndorsementSize = CertificateSize + 4 + ed25519.SignatureSize
)

// EnvelopeSize returns the size in bytes of a document with a body of the given size and so many signers.
func EnvelopeSize(body, signers int) int { return 3 + signers*EndorsementSize + 4 + body }

// Signer can sign documents: a signing key with the certificate that an identity issued for it.
type Signer struct {
	Certificate Certificate
	Key         SigningKey
}

// Identity returns the identity that the signer's certificate names, without verifying it.
func (s Signer) Identity() Identity { return s.Certificate.identity() }

// identity returns the issuer of a certificate that was decoded or issued, so is known to have 32 bytes.
func (c Certificate) identity() (id Identity) {
	copy(id[:], c.Issuer.Bytes)
	return id
}

// Endorsement is one signer's part of an envelope: its certificate and its signature over
// "cepa1 document" | network id (32) | document type u8 | body.
//
//	certificate  Certificate  of the signing key
//	signature    Signature
type Endorsement struct {
	Certificate Certificate
	Signature   Signature
}

// Identity returns the identity that the certificate names. In a Document that Open returned it is verified.
func (e Endorsement) Identity() Identity { return e.Certificate.identity() }

// Document is a signed document whose signatures have been verified.
type Document struct {
	Type         DocumentType
	Body         []byte        // aliases what was given to Open
	Digest       Digest        // of the body
	Endorsements []Endorsement // at least one, ascending by identity, no identity twice
}

// Signers returns the identities that signed, ascending, no one twice.
func (d Document) Signers() []Identity {
	ids := make([]Identity, len(d.Endorsements))
	for i, e := range d.Endorsements {
		ids[i] = e.Identity()
	}
	return ids
}

// DigestOf returns the digest of a document: SHA-256 over "cepa1 digest" | network id (32) | document type u8 |
// body. It does not cover the signers: the same consensus with other signatures has the same digest.
func DigestOf(t DocumentType, network NetworkID, body []byte) Digest {
	h := sha256.New()
	h.Write([]byte(contextDigest))
	h.Write(network[:])
	h.Write([]byte{byte(t)})
	h.Write(body)
	return Digest(h.Sum(nil))
}

func documentMessage(t DocumentType, network NetworkID, body []byte) []byte {
	m := make([]byte, 0, len(contextDocument)+len(network)+1+len(body))
	m = append(m, contextDocument...)
	m = append(m, network[:]...)
	m = append(m, byte(t))
	return append(m, body...)
}

// Endorse signs a body without making an envelope, so that several signers can each do so and Join puts them
// together. It fails with ErrIssuer when the signer's certificate is not for its key.
func Endorse(t DocumentType, network NetworkID, body []byte, signer Signer) (Endorsement, error) {
	if signer.Key.IsZero() || signer.Certificate.Type != TypeSigning || !signer.Certificate.Subject.Equal(KeyOf(signer.Key.Public())) {
		return Endorsement{}, fmt.Errorf("signing a %s: %w: the certificate is not for this signing key", t, ErrIssuer)
	}
	sig := ed25519.Sign(signer.Key.private, documentMessage(t, network, body))
	return Endorsement{signer.Certificate, Signature{Ed25519, sig}}, nil
}

// Join makes an envelope of a body and the endorsements for it, in any order. It does not verify them; it fails with
// ErrSigners when there are none, too many, or two of one identity.
func Join(t DocumentType, body []byte, endorsements ...Endorsement) ([]byte, error) {
	if n := len(endorsements); n == 0 || n > t.maxSigners() {
		return nil, fmt.Errorf("sealing a %s: %w: %d, want 1 to %d", t, ErrSigners, n, t.maxSigners())
	}
	if uint64(len(body)) > 1<<32-1 {
		return nil, fmt.Errorf("sealing a %s: %w: %d bytes", t, ErrTooLarge, len(body))
	}
	sorted := slices.Clone(endorsements)
	slices.SortStableFunc(sorted, func(a, b Endorsement) int { return a.Identity().Compare(b.Identity()) })
	out := make([]byte, 0, EnvelopeSize(len(body), len(sorted)))
	out = append(out, envelopeVersion, byte(t), byte(len(sorted)))
	for i, e := range sorted {
		if i > 0 && e.Identity() == sorted[i-1].Identity() {
			return nil, fmt.Errorf("sealing a %s: %w: %s twice", t, ErrSigners, e.Identity().Short())
		}
		out = e.AppendTo(out)
	}
	return appendBody(out, body), nil
}

// Seal signs a body with every signer and returns the envelope:
//
//	version   u8    1
//	type      u8    document type
//	signers   u8    1 to 32; exactly 1 for onion key statements, descriptors, rumours and tickets
//	  each    Endorsement, ascending by identity, no identity twice
//	length    u32
//	body
func Seal(t DocumentType, network NetworkID, body []byte, signers ...Signer) ([]byte, error) {
	endorsements := make([]Endorsement, len(signers))
	for i, s := range signers {
		var err error
		if endorsements[i], err = Endorse(t, network, body, s); err != nil {
			return nil, err
		}
	}
	return Join(t, body, endorsements...)
}

// AppendTo appends the wire form, EndorsementSize bytes, to b.
func (e Endorsement) AppendTo(b []byte) []byte {
	return e.Signature.append(e.Certificate.AppendTo(b))
}

// DecodeEndorsement decodes data, which must be one whole endorsement. It checks the form only. The result does not
// alias data.
func DecodeEndorsement(data []byte) (Endorsement, error) {
	s := cryptobyte.String(data)
	e, err := readEndorsement(&s)
	if err == nil && !s.Empty() {
		err = fmt.Errorf("%w: %d bytes left over", ErrMalformed, len(s))
	}
	if err != nil {
		return Endorsement{}, fmt.Errorf("decoding an endorsement: %w", err)
	}
	return e, nil
}

func readEndorsement(s *cryptobyte.String) (e Endorsement, err error) {
	if e.Certificate, err = ReadCertificate(s); err != nil {
		return e, err
	}
	e.Signature, err = readSignature(s, "signature")
	return e, err
}

// Verify checks the endorsement of a body at now: the certificate and the signature. It returns the identity.
func (e Endorsement) Verify(t DocumentType, network NetworkID, body []byte, now time.Time) (Identity, error) {
	return Verifier{}.endorsement(e, network, documentMessage(t, network, body), now)
}

func (v Verifier) endorsement(e Endorsement, network NetworkID, message []byte, now time.Time) (Identity, error) {
	if err := v.certificate(e.Certificate, network, now, TypeSigning); err != nil {
		return Identity{}, err
	}
	if err := v.good(e.Certificate.Subject, message, e.Signature); err != nil {
		return Identity{}, err
	}
	return e.Certificate.identity(), nil
}

// Open verifies an envelope: it must be whole, of type want, with a body of at most maxBody bytes, and every
// signature and certificate in it must be good for network at now. It is the only verifier of documents; nothing in
// a body is decoded before it has succeeded. Whether the signers are the right ones is for the caller to say.
//
// The Body of the result aliases data. Nothing is returned with an error.
func Open(data []byte, network NetworkID, now time.Time, want DocumentType, maxBody int) (Document, error) {
	return Verifier{}.Open(data, network, now, want, maxBody)
}

// Open is the function of this name, with what the Verifier remembers.
func (v Verifier) Open(data []byte, network NetworkID, now time.Time, want DocumentType, maxBody int) (Document, error) {
	doc, err := parseEnvelope(data, want, maxBody)
	if err != nil {
		return Document{}, fmt.Errorf("opening a %s: %w", want, err)
	}
	message := documentMessage(want, network, doc.Body)
	for _, e := range doc.Endorsements {
		if _, err := v.endorsement(e, network, message, now); err != nil {
			return Document{}, fmt.Errorf("opening a %s: signer %s: %w", want, e.Identity().Short(), err)
		}
	}
	doc.Digest = DigestOf(want, network, doc.Body)
	return doc, nil
}

// Parse does what Open does, but looks at no signature: for those who must read a document before they can say at what
// time it is to be judged, or whether it is worth verifying. Nothing in it is to be believed before Open has succeeded.
func Parse(data []byte, want DocumentType, maxBody int) (Document, error) {
	doc, err := parseEnvelope(data, want, maxBody)
	if err != nil {
		return Document{}, fmt.Errorf("reading a %s: %w", want, err)
	}
	return doc, nil
}

// parseEnvelope checks the form of an envelope, and no signature.
func parseEnvelope(data []byte, want DocumentType, maxBody int) (Document, error) {
	s := cryptobyte.String(data)
	var version, kind, count uint8
	if !s.ReadUint8(&version) || !s.ReadUint8(&kind) || !s.ReadUint8(&count) {
		return Document{}, fmt.Errorf("%w: cut short", ErrMalformed)
	}
	if version != envelopeVersion {
		return Document{}, fmt.Errorf("%w %d", ErrVersion, version)
	}
	if DocumentType(kind) != want {
		return Document{}, fmt.Errorf("%w: it is a %s", ErrWrongType, DocumentType(kind))
	}
	if count == 0 || int(count) > want.maxSigners() {
		return Document{}, fmt.Errorf("%w: %d, want 1 to %d", ErrSigners, count, want.maxSigners())
	}
	doc := Document{Type: want}
	for i := range int(count) {
		e, err := readEndorsement(&s)
		if err != nil {
			return Document{}, fmt.Errorf("signer %d: %w", i, err)
		}
		if i > 0 && e.Identity().Compare(doc.Endorsements[i-1].Identity()) <= 0 {
			return Document{}, fmt.Errorf("signer %d: %w: not ascending by identity", i, ErrSigners)
		}
		doc.Endorsements = append(doc.Endorsements, e)
	}
	var length uint32
	if !s.ReadUint32(&length) {
		return Document{}, fmt.Errorf("body length: %w: cut short", ErrMalformed)
	}
	if uint64(length) > uint64(max(maxBody, 0)) {
		return Document{}, fmt.Errorf("%w: a body of %d bytes, at most %d", ErrTooLarge, length, maxBody)
	}
	if uint64(length) != uint64(len(s)) {
		return Document{}, fmt.Errorf("%w: a body of %d bytes, announced as %d", ErrMalformed, len(s), length)
	}
	doc.Body = s
	return doc, nil
}

// Detach returns the part of an envelope before the length of its body: the signatures alone, for a body that is
// written elsewhere in another form. It must be given what Seal or Join returned for that body.
func Detach(sealed, body []byte) ([]byte, error) {
	head := len(sealed) - 4 - len(body)
	if head < 3 || !bytes.Equal(sealed[head+4:], body) || int(binary.BigEndian.Uint32(sealed[head:])) != len(body) {
		return nil, fmt.Errorf("detaching signatures: %w: not the envelope of this body", ErrMalformed)
	}
	return bytes.Clone(sealed[:head]), nil
}

// Attach makes an envelope of detached signatures and the body that they were made for; Open verifies it.
func Attach(detached, body []byte) []byte {
	return appendBody(bytes.Clone(detached), body)
}

func appendBody(b, body []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}
