package directory

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"cepa/cert"

	"github.com/fxamacker/cbor/v2"
)

// Bounds of a vote.
const (
	MaxVoteHead = MaxAuthorityRequest - 16 // bytes, sealed: 32 signers and the body of the head
	MaxVoteBody = MaxConsensusBody         // bytes

	maxVoteHeadBody = 512
	maxMethods      = 16
)

// VoteHead is the signed part of a vote: what one authority says of the network in one session of voting. Its author
// signs it, and every authority that takes it adds its signature.
//
// The body of the document is a map:
//
//	1  valid after  uint, ms: that of the consensus that the session is about
//	2  author       32 bytes
//	3  serial       uint, of the network file that the author uses
//	4  length       uint, of the body of the vote
//	5  digest       32 bytes: SHA-256 over "cepa1 vote body" | network id (32) | the body of the vote
type VoteHead struct {
	ValidAfter time.Time // whole milliseconds
	Author     cert.Identity
	Serial     uint64
	BodyLength uint32
	BodyDigest cert.Digest
	Extensions Extensions

	// Digest is that of the document. OpenVoteHead sets it.
	Digest cert.Digest
}

type wireVoteHead struct {
	ValidAfter uint64 `cbor:"1,keyasint"`
	Author     []byte `cbor:"2,keyasint"`
	Serial     uint64 `cbor:"3,keyasint"`
	BodyLength uint32 `cbor:"4,keyasint"`
	BodyDigest []byte `cbor:"5,keyasint"`
}

// OpenVoteHead verifies and decodes the head of a vote: its author and all others who signed it are authorities of the
// network. The signatures must be good at the valid-after of the session, which is the same for all who look.
func OpenVoteHead(sealed []byte, network *Network) (*VoteHead, cert.Document, error) {
	h, _, err := parseVoteHead(sealed, network)
	if err != nil {
		return nil, cert.Document{}, err
	}
	doc, err := network.open(sealed, h.ValidAfter, cert.VoteDocument, maxVoteHeadBody)
	if err != nil {
		return nil, cert.Document{}, err
	}
	return h, doc, nil
}

// parseVoteHead does all that OpenVoteHead does but look at signatures.
func parseVoteHead(sealed []byte, network *Network) (*VoteHead, cert.Document, error) {
	if len(sealed) > MaxVoteHead {
		return nil, cert.Document{}, fmt.Errorf("opening a vote: %w: a head of %d bytes, at most %d", ErrTooLarge, len(sealed), MaxVoteHead)
	}
	doc, err := cert.Parse(sealed, cert.VoteDocument, maxVoteHeadBody)
	if err != nil {
		return nil, cert.Document{}, err
	}
	h, err := decodeVoteHead(doc.Body)
	if err != nil {
		return nil, cert.Document{}, fmt.Errorf("reading the head of a vote: %w", err)
	}
	signers := doc.Signers()
	for _, id := range signers {
		if !network.IsAuthority(id) {
			return nil, cert.Document{}, fmt.Errorf("opening a vote: %w: %s is no authority", ErrSigners, id.Short())
		}
	}
	if !slices.Contains(signers, h.Author) {
		return nil, cert.Document{}, fmt.Errorf("opening a vote: %w: %s is not among the signers", ErrSigners, h.Author.Short())
	}
	h.Digest = cert.DigestOf(cert.VoteDocument, network.ID, doc.Body)
	return h, doc, nil
}

func decodeVoteHead(body []byte) (*VoteHead, error) {
	var w wireVoteHead
	ext, err := decodeMap(body, &w)
	if err != nil {
		return nil, err
	}
	h := &VoteHead{Serial: w.Serial, BodyLength: w.BodyLength, Extensions: ext}
	if h.ValidAfter, err = readMilli(w.ValidAfter, "valid after"); err != nil {
		return nil, err
	}
	if h.Author, err = read32(w.Author, "author"); err != nil {
		return nil, err
	}
	if h.BodyDigest, err = read32(w.BodyDigest, "body digest"); err != nil {
		return nil, err
	}
	return h, h.check()
}

func (h *VoteHead) check() error {
	switch {
	case h.Author.IsZero():
		return fmt.Errorf("%w author: all zero", ErrInvalid)
	case h.Serial == 0 || h.Serial > maxSerial:
		return fmt.Errorf("%w serial of the network file: %d", ErrInvalid, h.Serial)
	case h.BodyLength == 0 || h.BodyLength > MaxVoteBody:
		return fmt.Errorf("%w body length: %d, want 1 to %d", ErrInvalid, h.BodyLength, MaxVoteBody)
	}
	return nil
}

func (h *VoteHead) body() ([]byte, error) {
	return encodeMap(wireVoteHead{
		ValidAfter: milli(h.ValidAfter),
		Author:     h.Author[:],
		Serial:     h.Serial,
		BodyLength: h.BodyLength,
		BodyDigest: h.BodyDigest[:],
	}, h.Extensions)
}

// DescriptorRef names the descriptor that an authority holds of a relay.
type DescriptorRef struct {
	Digest    cert.Digest
	Issued    time.Time // of the signing certificate
	Published time.Time
}

// Vote is what one authority says of the network. It must not be modified.
//
// The body, to which the head commits, is a map:
//
//	1  listing      the body of a consensus: what the author would say if it were alone. The addresses of a relay are
//	                those at which the author reached it, the weight is what the relay claims, at least 1
//	2  descriptors  array, one for each relay of 1 in the same order: array of digest (32), issued and published (ms)
//	3  measured     array of uint of 32 bits, likewise: KiB a second, 0 for a relay that is not measured; absent when
//	                the author does not measure
//	4  methods      array of uint, strictly ascending, 1 to 16 of them: ways to make a consensus that the author knows
//	5  previous     bytes: the sealed head of the newest consensus before this session that the author has; or absent
type Vote struct {
	Head        *VoteHead
	Listing     *Consensus // without a Head
	Descriptors []DescriptorRef
	Measured    []uint32
	Methods     []uint64
	Previous    []byte
	Extensions  Extensions

	previous *Head // of Previous
}

type wireRef struct {
	_         struct{} `cbor:",toarray"`
	Digest    []byte
	Issued    uint64
	Published uint64
}

type wireVote struct {
	Listing     cbor.RawMessage `cbor:"1,keyasint"`
	Descriptors []wireRef       `cbor:"2,keyasint"`
	Measured    []uint32        `cbor:"3,keyasint,omitempty"`
	Methods     []uint64        `cbor:"4,keyasint"`
	Previous    []byte          `cbor:"5,keyasint,omitempty"`
}

// SealVote makes the sealed head, signed by its author alone, and the body of a vote. It sets the length, the digest
// and the author of the head.
func SealVote(network *Network, v *Vote, signer cert.Signer) (head, body []byte, err error) {
	if body, err = v.body(); err == nil && len(body) > MaxVoteBody {
		err = fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(body), MaxVoteBody)
	}
	if err == nil {
		_, err = decodeVote(body, network) // nothing is signed that others would refuse
	}
	if err == nil {
		err = checkMilli(v.Head.ValidAfter, "valid after")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("making a vote: %w", err)
	}
	h := *v.Head
	h.Author, h.BodyLength, h.BodyDigest = signer.Identity(), uint32(len(body)), voteDigest(network.ID, body)
	document, err := h.body()
	if err == nil {
		err = h.check()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("making a vote: %w", err)
	}
	head, err = cert.Seal(cert.VoteDocument, network.ID, document, signer)
	return head, body, err
}

func (v *Vote) body() ([]byte, error) {
	listing, err := v.Listing.body()
	if err != nil {
		return nil, err
	}
	w := wireVote{Listing: listing, Descriptors: make([]wireRef, len(v.Descriptors)), Measured: v.Measured, Methods: v.Methods, Previous: v.Previous}
	for i := range v.Descriptors {
		d := &v.Descriptors[i]
		w.Descriptors[i] = wireRef{Digest: d.Digest[:], Issued: milli(d.Issued), Published: milli(d.Published)}
	}
	return encodeMap(w, v.Extensions)
}

// OpenVote decodes the body of a vote whose head was opened with OpenVoteHead. Length and digest are checked before
// anything is decoded.
func OpenVote(head *VoteHead, body []byte, network *Network) (*Vote, error) {
	if uint64(len(body)) != uint64(head.BodyLength) {
		return nil, fmt.Errorf("opening a vote: %w: a body of %d bytes, want %d", ErrDigest, len(body), head.BodyLength)
	}
	if voteDigest(network.ID, body) != head.BodyDigest {
		return nil, fmt.Errorf("opening a vote: body: %w", ErrDigest)
	}
	v, err := decodeVote(body, network)
	if err == nil {
		v.Head = head
		err = v.readPrevious(network)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the body of a vote: %w", err)
	}
	return v, nil
}

// readPrevious opens the head of the consensus that the author has. Its signatures prove it: nobody can say that there
// is one which there is not. Like all that counts it is judged by the time of the session.
func (v *Vote) readPrevious(network *Network) (err error) {
	if len(v.Previous) == 0 {
		return nil
	}
	v.previous, err = OpenHead(v.Previous, network, v.Head.ValidAfter)
	if err == nil && !v.previous.ValidAfter.Before(v.Head.ValidAfter) {
		err = fmt.Errorf("%w consensus before this one: of %v", ErrInvalid, v.previous.ValidAfter)
	}
	return err
}

func decodeVote(body []byte, network *Network) (*Vote, error) {
	var w wireVote
	ext, err := decodeMap(body, &w)
	if err != nil {
		return nil, err
	}
	v := &Vote{Measured: w.Measured, Methods: w.Methods, Previous: w.Previous, Extensions: ext}
	if v.Listing, err = decodeConsensus(w.Listing); err == nil {
		err = v.Listing.check(network)
	}
	if err != nil {
		return nil, fmt.Errorf("listing: %w", err)
	}
	n := len(v.Listing.Relays)
	switch {
	case len(w.Descriptors) != n:
		return nil, fmt.Errorf("%w: %d descriptors of %d relays", ErrInvalid, len(w.Descriptors), n)
	case len(v.Measured) != 0 && len(v.Measured) != n:
		return nil, fmt.Errorf("%w: %d measurements of %d relays", ErrInvalid, len(v.Measured), n)
	case len(v.Methods) == 0 || len(v.Methods) > maxMethods || v.Methods[0] == 0:
		return nil, fmt.Errorf("%w methods: %v", ErrInvalid, v.Methods)
	case len(v.Previous) > MaxConsensusHead:
		return nil, fmt.Errorf("%w: a head of %d bytes, at most %d", ErrTooLarge, len(v.Previous), MaxConsensusHead)
	}
	for i := range v.Methods {
		if i > 0 && v.Methods[i] <= v.Methods[i-1] {
			return nil, fmt.Errorf("methods: %w: not ascending", ErrNotCanonical)
		}
	}
	v.Descriptors = make([]DescriptorRef, n)
	for i := range w.Descriptors {
		if err := v.Descriptors[i].read(&w.Descriptors[i]); err != nil {
			return nil, fmt.Errorf("descriptor %d: %w", i, err)
		}
	}
	return v, nil
}

func (d *DescriptorRef) read(w *wireRef) (err error) {
	if d.Digest, err = read32(w.Digest, "digest"); err != nil {
		return err
	}
	if d.Issued, err = readMilli(w.Issued, "issued"); err != nil {
		return err
	}
	d.Published, err = readMilli(w.Published, "published")
	return err
}

// count is how many of the relays that it lists have all of these flags.
func (v *Vote) count(flags Flags) (n int) {
	for i := range v.Listing.Relays {
		n += b2i(v.Listing.Relays[i].Flags.Has(flags))
	}
	return n
}

// voteDigest is what a head says of the body of a vote.
func voteDigest(network cert.NetworkID, body []byte) cert.Digest {
	d := sha256.New()
	d.Write([]byte("cepa1 vote body"))
	d.Write(network[:])
	d.Write(body)
	return cert.Digest(d.Sum(nil))
}
