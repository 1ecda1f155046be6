package directory

import (
	"fmt"
	"slices"

	"cepa/cert"
)

// A network file that replaces another needs signatures of several people, who keep their keys apart. It begins as a
// draft, which each of them signs (Sign) where the key is; copies that were signed at the same time are put together
// (Merge); AppendDraft and ParseNetworkDraft are the way between them. When Complete says nil, it can be given out.

// DraftNetwork checks n, sorts its authorities and returns a copy that nobody has signed. A Serial of 0 becomes 1 and a
// Quorum of 0 that of the formula.
func DraftNetwork(n Network) (*Network, error) {
	draft, err := n.draft()
	if err != nil {
		return nil, fmt.Errorf("making a network file: %w", err)
	}
	return draft, nil
}

// ParseNetworkDraft parses the text of a network file that may have too few signatures, or none. Those that it has are
// verified. Nothing must be believed of a network because of a draft.
func ParseNetworkDraft(text []byte) (*Network, error) {
	n, err := parseNetworkFile(text, true)
	if err != nil {
		return nil, fmt.Errorf("reading the draft of a network file: %w", err)
	}
	return n, nil
}

// Sign returns a copy of the file with the signature of one more authority, of this file or of the one that it is to
// replace; a signature of that identity before is replaced. The signer's certificate must have been valid when the
// draft was made.
func (n *Network) Sign(signer cert.Signer) (*Network, error) {
	body, err := n.body()
	if err != nil {
		return nil, err
	}
	e, err := cert.Endorse(cert.NetworkDocument, n.ID, body, signer)
	if err == nil {
		_, err = e.Verify(cert.NetworkDocument, n.ID, body, n.Created)
	}
	if err != nil {
		return nil, fmt.Errorf("signing a network file made at %v: %w", n.Created, err)
	}
	return n.with(e)
}

// Merge returns a copy of the file with the signatures of another copy of it as well.
func (n *Network) Merge(o *Network) (*Network, error) {
	mine, err := n.body()
	if err != nil {
		return nil, err
	}
	theirs, err := o.body()
	if err != nil {
		return nil, err
	}
	if !slices.Equal(mine, theirs) {
		return nil, fmt.Errorf("merging two network files: %w: they differ in more than their signatures", ErrInvalid)
	}
	return n.with(o.endorsements...)
}

// with returns a copy with some endorsements, which take the place of those of the same identities.
func (n *Network) with(endorsements ...cert.Endorsement) (*Network, error) {
	out := *n
	out.endorsements = slices.DeleteFunc(slices.Clone(n.endorsements), func(e cert.Endorsement) bool {
		return slices.ContainsFunc(endorsements, func(o cert.Endorsement) bool { return o.Identity() == e.Identity() })
	})
	out.endorsements = append(out.endorsements, endorsements...)
	slices.SortFunc(out.endorsements, func(a, b cert.Endorsement) int { return a.Identity().Compare(b.Identity()) })
	if len(out.endorsements) > cert.MaxSigners {
		return nil, fmt.Errorf("signing a network file: %w: %d, at most %d", ErrSigners, len(out.endorsements), cert.MaxSigners)
	}
	return &out, nil
}

// Complete returns nil when the file has the signatures that it needs: of a quorum of its own authorities, and, unless
// old is nil, of a quorum of those of the file that it is to replace. The error says what is missing.
func (n *Network) Complete(old *Network) error {
	if have := n.countAuthorities(n.Signers()); have < max(n.Quorum, 1) {
		return fmt.Errorf("%w: %d of its own authorities, want %d", ErrSigners, have, n.Quorum)
	}
	if old == nil {
		return nil
	}
	return n.Replaces(old)
}
