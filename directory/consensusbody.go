package directory

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"cepa/cert"

	"github.com/fxamacker/cbor/v2"
)

// Consensus is the whole of a consensus: what all clients know of the network. It must not be modified.
//
// The body, to which the head commits, is a map:
//
//	1  relays       array of maps, strictly ascending by identity, at most 65,535:
//	   1  identity    32 bytes
//	   2  onion key   32 bytes
//	   3  addresses   array of 1 to 8: address (4 or 16 bytes) and port (2 bytes) in one byte string
//	   4  flags       uint of 32 bits
//	   5  weight      uint of 32 bits, KiB a second; absent when 0
//	   6  ports       uint, index into 2; absent when 0
//	   7  protocols   uint, index into 3; absent when 0
//	   8  families    array of 1 to 4 indices into 4, strictly ascending; or absent
//	   9  nickname    text; or absent
//	2  ports        array of maps, strictly ascending by their bytes:
//	   1  IPv4        array of first port, last port, first port, …; ascending with gaps; absent when empty
//	   2  IPv6        the same
//	3  protocols    array of arrays of uint, strictly ascending by their bytes
//	4  families     array of 32 bytes, strictly ascending; absent when empty
//	5  parameters   map of text to int; absent when empty
//	6  recommended  array of uint: protocols that every node should speak; absent when empty
//	7  required     array of uint: protocols without which a node must stop; absent when empty
//	8  serial       uint, of the newest network file that the authorities use; absent when it is not said
type Consensus struct {
	Head        *Head
	Relays      []Relay // strictly ascending by identity; they share the tables' slices
	Parameters  Parameters
	Recommended Protocols
	Required    Protocols
	// NetworkSerial is that of the newest network file that the authorities use; 0 when they do not say.
	NetworkSerial uint64
	Extensions    Extensions

	memo cert.Memo // of the network that it was opened with
	key  [32]byte  // of all but Head
}

// Once returns what make returns, which depends on nothing but the consensus without its head and must not be modified.
// When the network remembers (see Network.Remember), it is made once for all who hold a consensus with this body; kind
// then says what it is.
func (c *Consensus) Once(kind string, make func() (value any, size int)) any {
	if c.memo == nil {
		value, _ := make()
		return value
	}
	return c.memo.Once(cert.MemoKey(kind, c.key[:]), make)
}

type wireRelay struct {
	Identity  []byte   `cbor:"1,keyasint"`
	OnionKey  []byte   `cbor:"2,keyasint"`
	Addresses [][]byte `cbor:"3,keyasint"`
	Flags     Flags    `cbor:"4,keyasint"`
	Weight    uint32   `cbor:"5,keyasint,omitempty"`
	Ports     uint32   `cbor:"6,keyasint,omitempty"`
	Protocols uint32   `cbor:"7,keyasint,omitempty"`
	Families  []uint32 `cbor:"8,keyasint,omitempty"`
	Nickname  string   `cbor:"9,keyasint,omitempty"`
}

type wireConsensus struct {
	Relays      []cbor.RawMessage `cbor:"1,keyasint"`
	Ports       []cbor.RawMessage `cbor:"2,keyasint"`
	Protocols   []cbor.RawMessage `cbor:"3,keyasint"`
	Families    [][]byte          `cbor:"4,keyasint,omitempty"`
	Parameters  Parameters        `cbor:"5,keyasint,omitempty"`
	Recommended Protocols         `cbor:"6,keyasint,omitempty"`
	Required    Protocols         `cbor:"7,keyasint,omitempty"`

	NetworkSerial uint64 `cbor:"8,keyasint,omitempty"`
}

// ConsensusInput is what authorities agree on before they make a consensus.
type ConsensusInput struct {
	ValidAfter  time.Time   // whole milliseconds
	Previous    cert.Digest // of the consensus before this one; zero for the first
	PreviousAt  time.Time   // its valid after; zero says nothing
	Relays      []Relay     // in any order
	Parameters  Parameters
	Recommended Protocols
	Required    Protocols
	// NetworkSerial is that of the newest network file that the authorities use; 0 says nothing.
	NetworkSerial uint64
}

// BuildConsensus makes the body of a head, which authorities sign as a cert.ConsensusDocument, and the body that the
// head commits to. The same input gives the same bytes everywhere, whatever the order of relays. The interval is
// that of the parameters.
func BuildConsensus(network *Network, in ConsensusInput) (head, body []byte, err error) {
	head, body, err = buildConsensus(network, in)
	if err != nil {
		return nil, nil, fmt.Errorf("making a consensus: %w", err)
	}
	return head, body, nil
}

func buildConsensus(network *Network, in ConsensusInput) (head, body []byte, err error) {
	c := Consensus{
		Relays:      slices.Clone(in.Relays),
		Parameters:  in.Parameters,
		Recommended: in.Recommended,
		Required:    in.Required,

		NetworkSerial: in.NetworkSerial,
	}
	slices.SortFunc(c.Relays, func(a, b Relay) int { return a.Identity.Compare(b.Identity) })
	if err := checkMilli(in.ValidAfter, "valid after"); err != nil {
		return nil, nil, err
	}
	if err := c.check(network); err != nil {
		return nil, nil, err
	}
	if body, err = c.body(); err != nil {
		return nil, nil, err
	}
	if len(body) > MaxConsensusBody {
		return nil, nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(body), MaxConsensusBody)
	}
	// What the form of the input leaves open, the ranges of ports say, the reader checks: nothing is signed that
	// clients would refuse.
	if _, err := decodeConsensus(body); err != nil {
		return nil, nil, err
	}
	interval := time.Duration(in.Parameters.Value(IntervalMillis)) * time.Millisecond
	h := Head{
		ValidAfter: in.ValidAfter.UTC(),
		FreshUntil: in.ValidAfter.Add(interval).UTC(),
		ValidUntil: in.ValidAfter.Add(validIntervals * interval).UTC(),
		Previous:   in.Previous,
		PreviousAt: in.PreviousAt,
		Method:     ConsensusMethod,
		BodyLength: uint32(len(body)),
		BodyDigest: bodyDigest(network.ID, body),
	}
	if err := h.check(); err != nil {
		return nil, nil, err
	}
	head, err = h.body()
	return head, body, err
}

// body encodes a consensus that was checked. Its tables hold what its relays use.
func (c *Consensus) body() ([]byte, error) {
	ports, portIndex, err := table(c.Relays, func(r *Relay) any { return r.Ports.wire() })
	if err != nil {
		return nil, err
	}
	protocols, protocolIndex, err := table(c.Relays, func(r *Relay) any { return append(Protocols{}, r.Protocols...) })
	if err != nil {
		return nil, err
	}
	var families []cert.FamilyID
	for i := range c.Relays {
		families = append(families, c.Relays[i].Families...)
	}
	slices.SortFunc(families, compareFamilies)
	families = slices.Compact(families)
	w := wireConsensus{
		Relays:      make([]cbor.RawMessage, len(c.Relays)),
		Ports:       ports,
		Protocols:   protocols,
		Parameters:  c.Parameters,
		Recommended: c.Recommended,
		Required:    c.Required,

		NetworkSerial: c.NetworkSerial,
	}
	for _, f := range families {
		w.Families = append(w.Families, f[:])
	}
	for i := range c.Relays {
		r := &c.Relays[i]
		wr := wireRelay{
			Identity:  r.Identity[:],
			OnionKey:  r.OnionKey[:],
			Addresses: encodeAddrs(r.Addresses),
			Flags:     r.Flags,
			Weight:    r.Weight,
			Ports:     portIndex[i],
			Protocols: protocolIndex[i],
			Nickname:  r.Nickname,
		}
		for _, f := range r.Families {
			at, _ := slices.BinarySearchFunc(families, f, compareFamilies)
			wr.Families = append(wr.Families, uint32(at))
		}
		if w.Relays[i], err = encodeMap(wr, r.Extensions); err != nil {
			return nil, fmt.Errorf("relay %s: %w", r.Identity.Short(), err)
		}
	}
	return encodeMap(w, c.Extensions)
}

// table encodes one value of each relay, and returns the distinct encodings in ascending order and the index of each
// relay's.
func table(relays []Relay, value func(*Relay) any) (entries []cbor.RawMessage, index []uint32, err error) {
	all := make([]cbor.RawMessage, len(relays))
	for i := range relays {
		if all[i], err = encoding.Marshal(value(&relays[i])); err != nil {
			return nil, nil, err
		}
	}
	entries = slices.Clone(all)
	slices.SortFunc(entries, func(a, b cbor.RawMessage) int { return bytes.Compare(a, b) })
	entries = slices.CompactFunc(entries, func(a, b cbor.RawMessage) bool { return bytes.Equal(a, b) })
	index = make([]uint32, len(all))
	for i, v := range all {
		at, _ := slices.BinarySearchFunc(entries, v, func(a, b cbor.RawMessage) int { return bytes.Compare(a, b) })
		index[i] = uint32(at)
	}
	return slices.Clip(entries), index, nil
}

func compareFamilies(a, b cert.FamilyID) int { return bytes.Compare(a[:], b[:]) }

// OpenBody decodes the body of a consensus whose head was opened with OpenHead. Length and digest are checked before
// anything is decoded.
func OpenBody(head *Head, body []byte, network *Network) (*Consensus, error) {
	c, _, err := openBody(head, body, network)
	return c, err
}

// openBody is OpenBody. When the network remembers, the body that it returns may be another slice with the same bytes,
// and the slices of the consensus are those of others who have it too: neither is modified by anybody.
func openBody(head *Head, body []byte, network *Network) (*Consensus, []byte, error) {
	if uint64(len(body)) != uint64(head.BodyLength) {
		return nil, nil, fmt.Errorf("opening a consensus: %w: a body of %d bytes, want %d", ErrDigest, len(body), head.BodyLength)
	}
	if bodyDigest(network.ID, body) != head.BodyDigest {
		return nil, nil, fmt.Errorf("opening a consensus: body: %w", ErrDigest)
	}
	if network.memo == nil {
		return openAnyBody(head, body, network)
	}
	key := cert.MemoKey("consensus", head.BodyDigest[:], []byte{byte(b2i(network.Test))})
	s := network.memo.Once(key, func() (any, int) {
		c, _, err := openAnyBody(nil, body, network)
		if err != nil {
			return sharedBody{err: err}, 0
		}
		c.memo, c.key = network.memo, key
		return sharedBody{consensus: c, body: bytes.Clone(body)}, 6 * len(body)
	}).(sharedBody)
	if s.err != nil {
		return nil, nil, s.err
	}
	c := *s.consensus
	c.Head = head
	return &c, s.body, nil
}

// sharedBody is a body that was read, for all who have the same.
type sharedBody struct {
	consensus *Consensus // without its head
	body      []byte
	err       error
}

// openAnyBody decodes a body that may not be the head's.
func openAnyBody(head *Head, body []byte, network *Network) (*Consensus, []byte, error) {
	c, err := decodeConsensus(body)
	if err == nil {
		err = c.check(network)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the body of a consensus: %w", err)
	}
	c.Head = head
	return c, body, nil
}

// decodeConsensus decodes a body; check is for the caller.
func decodeConsensus(body []byte) (*Consensus, error) {
	var w wireConsensus
	ext, err := decodeMap(body, &w)
	if err != nil {
		return nil, err
	}
	t, err := readTables(&w)
	if err != nil {
		return nil, err
	}
	c := &Consensus{
		Relays:      make([]Relay, len(w.Relays)),
		Parameters:  w.Parameters,
		Recommended: w.Recommended,
		Required:    w.Required,
		Extensions:  ext,

		NetworkSerial: w.NetworkSerial,
	}
	for i, raw := range w.Relays {
		if err := t.readRelay(raw, &c.Relays[i]); err != nil {
			return nil, fmt.Errorf("relay %d: %w", i, err)
		}
	}
	if used := t.unused(); used != "" {
		return nil, fmt.Errorf("%s: %w: an entry that no relay uses", used, ErrNotCanonical)
	}
	return c, nil
}

// tables are the decoded tables of a body, with a mark at each entry that a relay used.
type tables struct {
	ports     []PortSummary
	protocols []Protocols
	families  []cert.FamilyID

	portsUsed, protocolsUsed, familiesUsed []bool
}

func readTables(w *wireConsensus) (*tables, error) {
	t := &tables{
		ports:         make([]PortSummary, len(w.Ports)),
		protocols:     make([]Protocols, len(w.Protocols)),
		families:      make([]cert.FamilyID, len(w.Families)),
		portsUsed:     make([]bool, len(w.Ports)),
		protocolsUsed: make([]bool, len(w.Protocols)),
		familiesUsed:  make([]bool, len(w.Families)),
	}
	for i, raw := range w.Ports {
		var ws wireSummary
		if i > 0 && bytes.Compare(raw, w.Ports[i-1]) <= 0 {
			return nil, fmt.Errorf("ports: %w: not ascending", ErrNotCanonical)
		}
		ext, err := decodeMap(raw, &ws)
		if err == nil && ext != nil {
			err = fmt.Errorf("%w: unknown key", ErrMalformed)
		}
		if err == nil {
			t.ports[i], err = ws.summary()
		}
		if err != nil {
			return nil, fmt.Errorf("ports %d: %w", i, err)
		}
	}
	for i, raw := range w.Protocols {
		if i > 0 && bytes.Compare(raw, w.Protocols[i-1]) <= 0 {
			return nil, fmt.Errorf("protocols: %w: not ascending", ErrNotCanonical)
		}
		if err := decoding.Unmarshal(raw, &t.protocols[i]); err != nil || t.protocols[i] == nil {
			return nil, fmt.Errorf("protocols %d: %w: want an array of 32-bit numbers", i, ErrMalformed)
		}
		if again, err := encoding.Marshal(t.protocols[i]); err != nil || !bytes.Equal(again, raw) {
			return nil, fmt.Errorf("protocols %d: %w", i, ErrNotCanonical)
		}
	}
	for i, raw := range w.Families {
		var err error
		if t.families[i], err = read32(raw, "family id"); err != nil {
			return nil, err
		}
		if i > 0 && compareFamilies(t.families[i], t.families[i-1]) <= 0 {
			return nil, fmt.Errorf("families: %w: not ascending", ErrNotCanonical)
		}
	}
	return t, nil
}

func (t *tables) unused() string {
	switch {
	case slices.Contains(t.portsUsed, false):
		return "ports"
	case slices.Contains(t.protocolsUsed, false):
		return "protocols"
	case slices.Contains(t.familiesUsed, false):
		return "families"
	}
	return ""
}

func (t *tables) readRelay(raw []byte, r *Relay) (err error) {
	var w wireRelay
	if r.Extensions, err = decodeMap(raw, &w); err != nil {
		return err
	}
	r.Flags, r.Weight, r.Nickname = w.Flags, w.Weight, w.Nickname
	if r.Identity, err = read32(w.Identity, "identity"); err != nil {
		return err
	}
	if r.OnionKey, err = read32(w.OnionKey, "onion key"); err != nil {
		return err
	}
	if r.Addresses, err = readAddrs(w.Addresses); err != nil {
		return err
	}
	if uint64(w.Ports) >= uint64(len(t.ports)) || uint64(w.Protocols) >= uint64(len(t.protocols)) {
		return fmt.Errorf("%w index: ports %d of %d, protocols %d of %d", ErrInvalid, w.Ports, len(t.ports), w.Protocols, len(t.protocols))
	}
	r.Ports, r.Protocols = t.ports[w.Ports], t.protocols[w.Protocols]
	t.portsUsed[w.Ports], t.protocolsUsed[w.Protocols] = true, true
	for _, f := range w.Families {
		if uint64(f) >= uint64(len(t.families)) {
			return fmt.Errorf("%w index: family %d of %d", ErrInvalid, f, len(t.families))
		}
		r.Families = append(r.Families, t.families[f])
		t.familiesUsed[f] = true
	}
	return nil
}

// check checks all that the form of the bytes leaves open, for those who make a consensus and those who read it.
func (c *Consensus) check(network *Network) error {
	if len(c.Relays) == 0 || len(c.Relays) > MaxRelays {
		return fmt.Errorf("%w: %d relays, want 1 to %d", ErrInvalid, len(c.Relays), MaxRelays)
	}
	if c.NetworkSerial > maxSerial {
		return fmt.Errorf("%w serial of the network file: %d", ErrInvalid, c.NetworkSerial)
	}
	if err := c.Parameters.checkForm(); err != nil {
		return err
	}
	if err := c.Recommended.check(); err != nil {
		return fmt.Errorf("recommended %w", err)
	}
	if err := c.Required.check(); err != nil {
		return fmt.Errorf("required %w", err)
	}
	for i := range c.Relays {
		r := &c.Relays[i]
		if i > 0 && r.Identity.Compare(c.Relays[i-1].Identity) <= 0 {
			return fmt.Errorf("relay %s: %w: not ascending by identity", r.Identity.Short(), ErrNotCanonical)
		}
		if err := r.check(network.Test); err != nil {
			return fmt.Errorf("relay %s: %w", r.Identity.Short(), err)
		}
	}
	return nil
}

func (r *Relay) check(test bool) error {
	if r.Identity.IsZero() {
		return fmt.Errorf("%w identity: all zero", ErrInvalid)
	}
	if err := (OnionKey{Key: r.OnionKey}).check(); err != nil {
		return err
	}
	if err := checkAddrs(r.Addresses, test); err != nil {
		return err
	}
	if err := CheckNickname(r.Nickname); err != nil {
		return err
	}
	if err := r.Protocols.check(); err != nil {
		return err
	}
	if len(r.Families) > maxFamilies {
		return fmt.Errorf("%w: %d families, at most %d", ErrInvalid, len(r.Families), maxFamilies)
	}
	for i := range r.Families {
		if i > 0 && compareFamilies(r.Families[i], r.Families[i-1]) <= 0 {
			return fmt.Errorf("families: %w: not ascending", ErrNotCanonical)
		}
	}
	return nil
}

// Lookup returns the relay with an identity, or nil.
func (c *Consensus) Lookup(id cert.Identity) *Relay {
	at, found := slices.BinarySearchFunc(c.Relays, id, func(r Relay, id cert.Identity) int { return r.Identity.Compare(id) })
	if !found {
		return nil
	}
	return &c.Relays[at]
}

// Param returns the value of a parameter: what the consensus sets, or its default. It panics for an unknown name.
func (c *Consensus) Param(name Parameter) int64 { return c.Parameters.Value(name) }
