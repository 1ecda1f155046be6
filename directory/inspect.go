package directory

import (
	"fmt"
	"slices"
	"time"

	"cepa/cert"
)

// Names under which a node keeps the consensus in its Store, for tools that look at a folder.
const (
	HeadFile = headBlob
	BodyFile = bodyBlob
	// PreviousHeadFile is the head of the consensus before the one in use; its body is beside it.
	PreviousHeadFile = "previous.head"

	previousBodyFile = "previous.body"
)

// savePrevious stores the consensus that a newer one replaces, for people who want to compare the two. Nothing loads
// it.
func (f *Follower) savePrevious() {
	if p := f.previous; p != nil {
		f.env.Store.Save(previousBodyFile, p.body, nil)
		f.env.Store.Save(PreviousHeadFile, p.head, nil)
	}
}

// SignatureReport is what can be said of one signature of a consensus.
type SignatureReport struct {
	Identity  cert.Identity
	Authority bool      // the network file names it: only such signatures count
	Until     time.Time // end of the signing key's certificate
	Err       error     // nil: good, at the time of the inspection
}

// Good says whether the signature counts.
func (s SignatureReport) Good() bool { return s.Authority && s.Err == nil }

// Inspection is what can be said of a consensus for a person to read, also of one that no node would use. Nobody is
// to act upon it: that is what OpenHead and OpenBody are for.
type Inspection struct {
	Network    *Network
	Head       *Head // Digest and Signers are set; the Signers are those whose signatures count
	Signatures []SignatureReport
	State      State // of the dates, at the time of the inspection
	At         time.Time
	// Consensus is nil when there is no body, or it is not the one that the head commits to, or cannot be read:
	// BodyErr says so then.
	Consensus *Consensus
	BodyErr   error
}

// Inspect says what it can of a sealed head and its body (nil when there is none) at now. It fails when the head has
// not the form of one.
func Inspect(head, body []byte, network *Network, now time.Time) (*Inspection, error) {
	if len(head) > MaxConsensusHead {
		return nil, fmt.Errorf("inspecting a consensus: %w: a head of %d bytes, at most %d", ErrTooLarge, len(head), MaxConsensusHead)
	}
	doc, errs, err := cert.Inspect(head, network.ID, now, cert.ConsensusDocument, maxHeadBody)
	if err != nil {
		return nil, err
	}
	in := &Inspection{Network: network, At: now}
	if in.Head, err = decodeHead(doc.Body); err != nil {
		return nil, fmt.Errorf("inspecting a consensus: %w", err)
	}
	in.Head.Digest = doc.Digest
	for i, e := range doc.Endorsements {
		s := SignatureReport{Identity: e.Identity(), Authority: network.IsAuthority(e.Identity()), Until: e.Certificate.Until, Err: errs[i]}
		in.Signatures = append(in.Signatures, s)
		if s.Good() {
			in.Head.Signers = append(in.Head.Signers, s.Identity)
		}
	}
	in.State = in.Head.State(now)
	if body == nil {
		in.BodyErr = fmt.Errorf("inspecting a consensus: %w: there is no body", ErrInvalid)
		return in, nil
	}
	in.Consensus, in.BodyErr = OpenBody(in.Head, body, network)
	return in, nil
}

// Finding is the result of one check of Inspection.Verify.
type Finding struct {
	What   string // what was checked, in a word or two
	Err    error  // nil: nothing is wrong
	Detail string // for people
}

// Verify checks everything that a node checks before it uses a consensus, and says each; the consensus is one to be
// used when no Finding has an error.
func (in *Inspection) Verify() []Finding {
	var out []Finding
	add := func(what string, err error, format string, args ...any) {
		out = append(out, Finding{what, err, fmt.Sprintf(format, args...)})
	}
	n := in.Network
	for _, s := range in.Signatures {
		what := "signature of " + s.Identity.Short()
		switch {
		case !s.Authority:
			// It does no harm: others may sign as well.
			add(what, nil, "does not count: the network file names no such authority")
		case s.Err != nil:
			add(what, s.Err, "%v", s.Err)
		default:
			add(what, nil, "good; its signing key is certified until %s", s.Until.UTC().Format(time.DateTime))
		}
	}
	err := error(nil)
	if good := len(in.Head.Signers); good < n.Quorum {
		err = fmt.Errorf("%w: %d of %d authorities, and %d must", ErrSigners, good, len(n.Authorities), n.Quorum)
	}
	add("quorum", err, "%d of %d authorities have signed, %d must", len(in.Head.Signers), len(n.Authorities), n.Quorum)
	out = append(out, in.verifyDates())
	switch c := in.Consensus; {
	case c == nil:
		add("body", in.BodyErr, "%v", in.BodyErr)
	default:
		add("body", nil, "%d bytes, as the head says: %d relays, in the one form that they have", in.Head.BodyLength, len(c.Relays))
	}
	return out
}

// verifyDates judges the dates as a Follower does.
func (in *Inspection) verifyDates() Finding {
	h := in.Head
	f := Finding{What: "dates", Detail: fmt.Sprintf("%s; valid from %s to %s", in.State, h.ValidAfter.UTC().Format(time.DateTime), h.ValidUntil.UTC().Format(time.DateTime))}
	switch {
	case in.State == Expired:
		f.Err = fmt.Errorf("%w dates: it expired %v ago", ErrInvalid, in.At.Sub(h.ValidUntil).Round(time.Second))
	case h.State(in.At.Add(earlyTolerance)) == NotYetValid:
		f.Err = fmt.Errorf("%w dates: it is valid only in %v; is the clock here right?", ErrInvalid, h.ValidAfter.Sub(in.At).Round(time.Second))
	case in.State == Stale:
		f.Detail += "; a newer one should have come long ago"
	}
	return f
}

// Count returns how many relays have all of these flags.
func (c *Consensus) Count(want Flags) (n int) {
	for i := range c.Relays {
		if c.Relays[i].Flags.Has(want) {
			n++
		}
	}
	return n
}

// Names returns the names of the flags, in the order of their bits.
func (f Flags) Names() []string {
	names := []string{}
	for i := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, flagNames[i])
		}
	}
	if rest := f >> len(flagNames); rest != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest<<len(flagNames))))
	}
	return names
}

// ParseFlag returns the flag of a name, as Flags.String writes it.
func ParseFlag(name string) (Flags, error) {
	if i := slices.Index(flagNames[:], name); i >= 0 {
		return 1 << i, nil
	}
	return 0, fmt.Errorf("%w: there is no flag %q%s", ErrInvalid, name, suggestion(name, flagNames[:]))
}
