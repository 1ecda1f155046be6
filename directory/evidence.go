package directory

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"cepa/cert"
)

// EvidenceKind says what rule was broken.
type EvidenceKind uint8

// The kinds of evidence.
const (
	TwoVotes       EvidenceKind = 1 // two different votes in one session
	TwoConsensuses EvidenceKind = 2 // two different consensuses signed for one valid-after
)

// String returns the kind in lower-case words.
func (k EvidenceKind) String() string {
	switch k {
	case TwoVotes:
		return "two votes in one session"
	case TwoConsensuses:
		return "two consensuses for one time"
	}
	return fmt.Sprintf("evidence of kind %d", uint8(k))
}

// Evidence proves that an authority has signed two documents of which an honest one signs at most one. It needs no
// signature of whoever shows it.
type Evidence struct {
	Kind          EvidenceKind
	First, Second []byte // heads of votes or of consensuses, sealed, with the signature of the author alone

	// Author and ValidAfter are those of both. CheckEvidence sets them.
	Author     cert.Identity
	ValidAfter time.Time
}

// Bounds of evidence.
const (
	maxEvidence       = 64 // that an authority keeps, and
	maxEvidenceAuthor = 4  // of one author
	maxEvidenceHalf   = 4 << 10
	MaxEvidence       = maxEvidence * (2*maxEvidenceHalf + 64) // bytes of all
)

type wireEvidence struct {
	_      struct{} `cbor:",toarray"`
	Kind   EvidenceKind
	First  []byte
	Second []byte
}

// AppendEvidence appends a list of evidence, the body of the answer to AskEvidence, to b: an array of arrays of kind
// and two sealed documents.
func AppendEvidence(b []byte, list []Evidence) ([]byte, error) {
	w := make([]wireEvidence, len(list))
	for i, e := range list {
		w[i] = wireEvidence{Kind: e.Kind, First: e.First, Second: e.Second}
	}
	data, err := encoding.Marshal(w)
	return append(b, data...), err
}

// DecodeEvidence decodes such a list of at most maxEvidence entries. CheckEvidence says what each is worth.
func DecodeEvidence(data []byte) ([]Evidence, error) {
	if len(data) > MaxEvidence {
		return nil, fmt.Errorf("reading evidence: %w: %d bytes, at most %d", ErrTooLarge, len(data), MaxEvidence)
	}
	var w []wireEvidence
	if err := decoding.Unmarshal(data, &w); err != nil {
		return nil, fmt.Errorf("reading evidence: %w: %w", ErrMalformed, err)
	}
	if len(w) > maxEvidence {
		return nil, fmt.Errorf("reading evidence: %w: %d entries, at most %d", ErrTooLarge, len(w), maxEvidence)
	}
	out := make([]Evidence, len(w))
	for i := range w {
		if len(w[i].First) > maxEvidenceHalf || len(w[i].Second) > maxEvidenceHalf {
			return nil, fmt.Errorf("reading evidence: %w: entry %d", ErrTooLarge, i)
		}
		out[i] = Evidence{Kind: w[i].Kind, First: w[i].First, Second: w[i].Second}
	}
	if again, err := AppendEvidence(nil, out); err != nil || !slices.Equal(again, data) {
		return nil, fmt.Errorf("reading evidence: %w", ErrNotCanonical)
	}
	return out, nil
}

// CheckEvidence verifies e: both documents are signed by one authority of the network, are for one valid-after, and
// differ. It sets the author and the time.
func CheckEvidence(network *Network, e *Evidence) error {
	var digests [2]cert.Digest
	for i, sealed := range [][]byte{e.First, e.Second} {
		author, at, digest, err := openHalf(network, e.Kind, sealed)
		switch {
		case err != nil:
			return fmt.Errorf("checking evidence: %w", err)
		case i == 1 && (author != e.Author || !at.Equal(e.ValidAfter) || digest == digests[0]):
			return fmt.Errorf("checking evidence: %w: it does not show that somebody contradicts himself", ErrInvalid)
		}
		e.Author, e.ValidAfter, digests[i] = author, at, digest
	}
	return nil
}

func openHalf(network *Network, kind EvidenceKind, sealed []byte) (author cert.Identity, at time.Time, digest cert.Digest, err error) {
	switch kind {
	case TwoVotes:
		h, _, err := OpenVoteHead(sealed, network)
		if err != nil {
			return author, at, digest, err
		}
		return h.Author, h.ValidAfter, h.Digest, nil
	case TwoConsensuses:
		doc, err := cert.Parse(sealed, cert.ConsensusDocument, maxHeadBody)
		if err != nil {
			return author, at, digest, err
		}
		h, err := decodeHead(doc.Body)
		if err != nil {
			return author, at, digest, err
		}
		if doc, err = network.open(sealed, h.ValidAfter, cert.ConsensusDocument, maxHeadBody); err != nil {
			return author, at, digest, err
		}
		if signers := doc.Signers(); len(signers) != 1 || !network.IsAuthority(signers[0]) {
			return author, at, digest, fmt.Errorf("%w: want one authority", ErrSigners)
		}
		return doc.Signers()[0], h.ValidAfter, doc.Digest, nil
	}
	return author, at, digest, fmt.Errorf("%w kind of evidence: %d", ErrInvalid, uint8(kind))
}

// evidenceHalf is a document that somebody has signed, and that would be evidence beside another.
type evidenceHalf struct {
	digest cert.Digest
	sealed []byte
}

// evidenceBlob is the name under which evidence is stored.
const evidenceBlob = "authority.evidence"

// Evidence returns what this authority knows of others that have broken the rules, oldest first.
func (a *Authority) Evidence() []Evidence { return slices.Clone(a.evidence) }

// noteVote remembers that an author has signed a vote; the second in a session is evidence.
func (a *Authority) noteVote(s *session, head *VoteHead, document []byte, e cert.Endorsement) {
	seen := s.seen[head.Author]
	if len(seen) >= votesPerAuthor || slices.ContainsFunc(seen, func(h *evidenceHalf) bool { return h.digest == head.Digest }) {
		return
	}
	sealed, err := cert.Join(cert.VoteDocument, document, e)
	if err != nil {
		return
	}
	seen = append(seen, &evidenceHalf{head.Digest, sealed})
	s.seen[head.Author] = seen
	if len(seen) == votesPerAuthor {
		a.accuse(Evidence{TwoVotes, seen[0].sealed, seen[1].sealed, head.Author, head.ValidAfter})
	}
}

// accuse keeps evidence, durably, and says so.
func (a *Authority) accuse(e Evidence) {
	a.stats.Equivocations++
	a.gripes.warn("an authority contradicts itself: tell its operator and those of the others; the evidence is stored",
		"authority", e.Author.Short(), "what", e.Kind.String(), "valid_after", e.ValidAfter)
	same := 0
	for _, o := range a.evidence {
		if o.Author == e.Author {
			same++
			if o.Kind == e.Kind && o.ValidAfter.Equal(e.ValidAfter) {
				return
			}
		}
	}
	if same >= maxEvidenceAuthor || len(a.evidence) >= maxEvidence {
		return // what is kept says enough
	}
	a.evidence = append(a.evidence, e)
	data, err := AppendEvidence(nil, a.evidence)
	if err != nil {
		a.gripes.warn("evidence cannot be stored", "err", err)
		return
	}
	a.env.Store.Save(evidenceBlob, data, func(err error) {
		if err != nil {
			a.gripes.warn("evidence cannot be stored", "err", err)
		}
	})
}

// loadEvidence takes up what was stored. What does not verify any more, since the network file has changed, is dropped.
func (a *Authority) loadEvidence() error {
	data, err := a.env.Store.Load(evidenceBlob)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var list []Evidence
	if err == nil {
		list, err = DecodeEvidence(data)
	}
	for _, e := range list {
		if CheckEvidence(a.network, &e) == nil {
			a.evidence = append(a.evidence, e)
		}
	}
	return err
}

// onEvidence answers AskEvidence.
func (a *Authority) onEvidence() []byte {
	data, err := AppendEvidence(nil, a.evidence)
	if err != nil {
		return AppendAnswer(nil, StatusNotFound, nil)
	}
	return AppendAnswer(nil, StatusOK, data)
}
