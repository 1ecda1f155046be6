package directory

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cepa/cert"
)

// Bounds of a network file.
const (
	MaxNetworkFile = 256 << 10 // bytes of the text
	maxNetworkName = 64        // bytes
	maxNetworkBody = 96 << 10  // bytes of the signed body
	maxBootstrap   = 256
	maxEcho        = 256     // bytes
	maxSerial      = 1 << 53 // serials are numbers that every reader of TOML and JSON holds exactly
)

// Contact is a node that can be connected to.
type Contact struct {
	Identity  cert.Identity
	Addresses []netip.AddrPort // 1 to 8
}

// Network is what a network file says: who the authorities are, how many of them must sign a consensus, where to
// start from, and the parameters. A Network from NewNetwork or ParseNetworkFile is valid and signed; it must not be
// modified.
type Network struct {
	Name        string // 1 to 64 bytes of printable text
	ID          cert.NetworkID
	Serial      uint64    // 1 for the first file of a network; a file with a higher serial replaces this one
	Created     time.Time // whole milliseconds; the signers' certificates must be valid at this time
	Authorities []Contact // 1 to 32, ascending by identity
	Quorum      int       // signatures that a consensus needs: more than half of the authorities
	Bootstrap   []Contact // relays to start from, at most 256
	Parameters  Parameters
	Test        bool // private addresses are allowed, and exits reach them
	// Echo is the URL of a page that answers with the address of who asks, for 'cepa check': http or https, at most 256
	// printable characters without space; empty if there is none.
	Echo string

	endorsements []cert.Endorsement
	memo         cert.Memo // see Remember
}

// Remember returns a copy of n with which documents are opened by what a Memo remembers: for simulations, in which many
// nodes read the same documents. What opening them says is the same.
func (n *Network) Remember(m cert.Memo) *Network {
	remembering := *n
	remembering.memo = m
	return &remembering
}

// open is cert.Open for documents of this network.
func (n *Network) open(sealed []byte, now time.Time, kind cert.DocumentType, maxBody int) (cert.Document, error) {
	return cert.Verifier{Memo: n.memo}.Open(sealed, n.ID, now, kind, maxBody)
}

// Quorum returns the quorum for n authorities: floor((n+f)/2)+1 with f = floor((n-1)/3), so that two quorums share
// an honest authority as long as at most f are malicious.
func Quorum(n int) int { return (n+(n-1)/3)/2 + 1 }

// NewNetwork checks n, sorts its authorities and returns a signed copy. A Serial of 0 becomes 1 and a Quorum of 0
// that of the formula. The signers must be at least a quorum of the authorities; for a file that replaces an older
// one they must be a quorum of the older file's authorities too (see Replaces).
func NewNetwork(n Network, signers ...cert.Signer) (*Network, error) {
	made, err := n.draft()
	var body, sealed []byte
	if err == nil {
		body, err = made.body()
	}
	if err == nil {
		sealed, err = cert.Seal(cert.NetworkDocument, n.ID, body, signers...)
	}
	if err == nil {
		err = made.verify(sealed)
	}
	if err != nil {
		return nil, fmt.Errorf("making a network file: %w", err)
	}
	return made, nil
}

// draft returns a checked copy without signatures.
func (n Network) draft() (*Network, error) {
	n.Created = n.Created.Truncate(time.Millisecond).UTC()
	n.Authorities = slices.Clone(n.Authorities)
	slices.SortFunc(n.Authorities, func(a, b Contact) int { return a.Identity.Compare(b.Identity) })
	if n.Serial == 0 {
		n.Serial = 1
	}
	if n.Quorum == 0 {
		n.Quorum = Quorum(len(n.Authorities))
	}
	n.endorsements = nil
	return &n, n.check()
}

// check checks everything but the signatures.
func (n *Network) check() error {
	if err := checkText(n.Name, "name", maxNetworkName); err != nil {
		return err
	}
	count := len(n.Authorities)
	switch {
	case n.Name == "":
		return fmt.Errorf("%w name: empty", ErrInvalid)
	case n.ID.IsZero():
		return fmt.Errorf("%w id: all zero", ErrInvalid)
	case n.Serial == 0 || n.Serial > maxSerial:
		return fmt.Errorf("%w serial %d: want 1 to 2^53", ErrInvalid, n.Serial)
	case count == 0 || count > cert.MaxSigners:
		return fmt.Errorf("%w: %d authorities, want 1 to %d", ErrInvalid, count, cert.MaxSigners)
	case n.Quorum > count:
		return fmt.Errorf("%w quorum %d: there are %d authorities", ErrInvalid, n.Quorum, count)
	case 2*n.Quorum <= count:
		return fmt.Errorf("%w quorum %d of %d authorities: two halves of them could sign two different consensuses; want at least %d",
			ErrInvalid, n.Quorum, count, Quorum(count))
	case len(n.Bootstrap) > maxBootstrap:
		return fmt.Errorf("%w: %d bootstrap relays, at most %d", ErrInvalid, len(n.Bootstrap), maxBootstrap)
	}
	if err := checkMilli(n.Created, "created"); err != nil {
		return err
	}
	if err := n.Parameters.check(); err != nil {
		return err
	}
	if err := n.checkEcho(); err != nil {
		return err
	}
	for i, c := range n.Authorities {
		if err := n.checkContact(c); err != nil {
			return fmt.Errorf("authority %s: %w", c.Identity.Short(), err)
		}
		if i > 0 && c.Identity.Compare(n.Authorities[i-1].Identity) <= 0 {
			return fmt.Errorf("authority %s: %w: not in ascending order of identities", c.Identity.Short(), ErrNotCanonical)
		}
	}
	for i, c := range n.Bootstrap {
		if err := n.checkContact(c); err != nil {
			return fmt.Errorf("bootstrap relay %s: %w", c.Identity.Short(), err)
		}
		if slices.ContainsFunc(n.Bootstrap[:i], func(o Contact) bool { return o.Identity == c.Identity }) {
			return fmt.Errorf("bootstrap relay %s: %w: twice", c.Identity.Short(), ErrInvalid)
		}
	}
	return nil
}

func (n *Network) checkEcho() error {
	if n.Echo == "" {
		return nil
	}
	if err := checkText(n.Echo, "echo", maxEcho); err != nil {
		return err
	}
	scheme, rest, _ := strings.Cut(n.Echo, "://")
	host, _, _ := strings.Cut(rest, "/")
	if scheme != "http" && scheme != "https" || host == "" || strings.ContainsAny(n.Echo, " @") {
		return fmt.Errorf("%w echo %q: want a URL such as https://example.net/address", ErrInvalid, n.Echo)
	}
	return nil
}

func (n *Network) checkContact(c Contact) error {
	if c.Identity.IsZero() {
		return fmt.Errorf("%w identity: all zero", ErrInvalid)
	}
	return checkAddrs(c.Addresses, n.Test)
}

// verify opens sealed, whose body must be that of n, and keeps its endorsements. The certificates must be valid at
// the time of creation: a network file outlives them.
func (n *Network) verify(sealed []byte) error {
	if err := n.verifySignatures(sealed); err != nil {
		return err
	}
	if have := n.countAuthorities(n.Signers()); have < n.Quorum {
		return fmt.Errorf("%w: %d of its authorities, want %d", ErrSigners, have, n.Quorum)
	}
	return nil
}

// verifySignatures is verify for a file that may have too few signatures.
func (n *Network) verifySignatures(sealed []byte) error {
	doc, err := n.open(sealed, n.Created, cert.NetworkDocument, maxNetworkBody)
	if err != nil {
		return err
	}
	n.endorsements = doc.Endorsements
	return nil
}

// countAuthorities returns how many of ids, which are distinct, are authorities.
func (n *Network) countAuthorities(ids []cert.Identity) int {
	count := 0
	for _, id := range ids {
		if n.IsAuthority(id) {
			count++
		}
	}
	return count
}

// IsAuthority reports whether id is one of the authorities.
func (n *Network) IsAuthority(id cert.Identity) bool {
	_, found := slices.BinarySearchFunc(n.Authorities, id, func(c Contact, id cert.Identity) int { return c.Identity.Compare(id) })
	return found
}

// Param returns the value of a parameter: what the file sets, or its default. It panics for an unknown name.
func (n *Network) Param(name Parameter) int64 { return n.Parameters.Value(name) }

// Interval returns the time from one consensus to the next.
func (n *Network) Interval() time.Duration {
	return time.Duration(n.Param(IntervalMillis)) * time.Millisecond
}

// IdleKeepalive is the same for a link without circuits: a sixtieth of the interval, at most a minute.
func (n *Network) IdleKeepalive() time.Duration {
	return max(n.Keepalive(), min(n.Interval()/60, time.Minute))
}

// Keepalive returns the time after which an idle link sends padding.
func (n *Network) Keepalive() time.Duration {
	return time.Duration(n.Param(KeepaliveMillis)) * time.Millisecond
}

// Signers returns the identities that signed the file, ascending.
func (n *Network) Signers() []cert.Identity {
	return cert.Document{Endorsements: n.endorsements}.Signers()
}

// ErrNoReplacement: a network file does not replace the one in use.
var ErrNoReplacement = errors.New("not a replacement of the network file in use")

// Replaces returns nil when n may replace old without a person being asked: it is of the same network, has a higher
// serial, is not older, and is signed by a quorum of old's authorities. The certificates of the signers are judged by
// the time of creation that the file itself states, so a signing key that leaks is good for this even after its
// certificate has ended: signing keys are to be destroyed when they are replaced.
func (n *Network) Replaces(old *Network) error {
	switch {
	case n.ID != old.ID:
		return fmt.Errorf("%w: another network, %s instead of %s", ErrNoReplacement, n.ID.Short(), old.ID.Short())
	case n.Serial <= old.Serial:
		return fmt.Errorf("%w: serial %d after %d", ErrNoReplacement, n.Serial, old.Serial)
	case n.Created.Before(old.Created):
		return fmt.Errorf("%w: made before it", ErrNoReplacement)
	case n.Test != old.Test:
		return fmt.Errorf("%w: a test network stays one, and no other becomes one", ErrNoReplacement)
	case old.countAuthorities(n.Signers()) < old.Quorum:
		return fmt.Errorf("%w: %w: %d of the present authorities, want %d", ErrNoReplacement, ErrSigners,
			old.countAuthorities(n.Signers()), old.Quorum)
	}
	return nil
}

// wireContact is a Contact in the signed body of a network file.
type wireContact struct {
	Identity  []byte   `cbor:"1,keyasint"`
	Addresses [][]byte `cbor:"2,keyasint"`
}

// wireNetwork is the signed body of a network file. It is never sent alone: it is made from the text, so it needs no
// decoder.
//
//	1  name         text
//	2  id           32 bytes
//	3  serial       uint
//	4  created      uint, ms
//	5  authorities  array of {1 identity, 2 addresses}, ascending by identity
//	6  quorum       uint
//	7  bootstrap    array of the same, in the order of the text
//	8  parameters   map of text to int
//	9  test         true, or absent
//	10 echo         text, or absent
type wireNetwork struct {
	Name        string        `cbor:"1,keyasint"`
	ID          []byte        `cbor:"2,keyasint"`
	Serial      uint64        `cbor:"3,keyasint"`
	Created     uint64        `cbor:"4,keyasint"`
	Authorities []wireContact `cbor:"5,keyasint"`
	Quorum      uint          `cbor:"6,keyasint"`
	Bootstrap   []wireContact `cbor:"7,keyasint,omitempty"`
	Parameters  Parameters    `cbor:"8,keyasint,omitempty"`
	Test        bool          `cbor:"9,keyasint,omitempty"`
	Echo        string        `cbor:"10,keyasint,omitempty"`
}

// body returns the signed body.
func (n *Network) body() ([]byte, error) {
	return encodeMap(wireNetwork{
		Name:        n.Name,
		ID:          n.ID[:],
		Serial:      n.Serial,
		Created:     milli(n.Created),
		Authorities: wireContacts(n.Authorities),
		Quorum:      uint(n.Quorum),
		Bootstrap:   wireContacts(n.Bootstrap),
		Parameters:  n.Parameters,
		Test:        n.Test,
		Echo:        n.Echo,
	}, nil)
}

func wireContacts(contacts []Contact) []wireContact {
	out := make([]wireContact, len(contacts))
	for i, c := range contacts {
		out[i] = wireContact{c.Identity[:], encodeAddrs(c.Addresses)}
	}
	return out
}
