package directory

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"cepa/cert"

	"github.com/fxamacker/cbor/v2"
)

// wireDiff is how the body of one consensus becomes that of another. It is made of what the bodies consist of, not of
// their bytes: an entry that joins a table moves the indices of most relays, and costs nothing here.
//
//	1   removed         array of gaps: relays of the old body that the new one does not list
//	2   key positions   array of gaps: relays with another onion key, and
//	3   keys            these keys, 32 bytes each, in one byte string
//	4   flags           column
//	5   weights         column: those that the next says nothing of
//	6   weight steps    column: by how many steps a weight changes, of those that have at most 4 significant bits,
//	                    written as 2n, or -2n-1 when it falls
//	7   ports           column: indices into the new table
//	8   protocols       column: indices into the new table
//	9   relays          array of maps as in the new body, strictly ascending by identity: those that are new, and those
//	                    that differ in anything else
//	10  port table      [array of gaps: entries removed, array of entries that are new]
//	11  protocol table  the same
//	12  families        the same
//	13  rest            map of the keys of the new body from 5 on, when they differ; then all of them
//
// A gap is the number of entries of the old array between this one and the one before it. A column is [array of gaps,
// array of as many values]. All are absent when they would be empty.
type wireDiff struct {
	Removed   []uint32          `cbor:"1,keyasint,omitempty"`
	KeysAt    []uint32          `cbor:"2,keyasint,omitempty"`
	Keys      []byte            `cbor:"3,keyasint,omitempty"`
	Flags     *column           `cbor:"4,keyasint,omitempty"`
	Weights   *column           `cbor:"5,keyasint,omitempty"`
	Steps     *column           `cbor:"6,keyasint,omitempty"`
	Ports     *column           `cbor:"7,keyasint,omitempty"`
	Protocols *column           `cbor:"8,keyasint,omitempty"`
	Relays    []cbor.RawMessage `cbor:"9,keyasint,omitempty"`

	PortTable     *tableDiff      `cbor:"10,keyasint,omitempty"`
	ProtocolTable *tableDiff      `cbor:"11,keyasint,omitempty"`
	Families      *tableDiff      `cbor:"12,keyasint,omitempty"`
	Rest          cbor.RawMessage `cbor:"13,keyasint,omitempty"`
}

// column are new values of one field of some relays.
type column struct {
	_      struct{} `cbor:",toarray"`
	Gaps   []uint32
	Values []uint32
}

// tableDiff is how one ascending table becomes another.
type tableDiff struct {
	_     struct{} `cbor:",toarray"`
	Gaps  []uint32
	Added []cbor.RawMessage
}

// wireRest is what a body has beside its relays and their tables.
type wireRest struct {
	Parameters    Parameters `cbor:"5,keyasint,omitempty"`
	Recommended   Protocols  `cbor:"6,keyasint,omitempty"`
	Required      Protocols  `cbor:"7,keyasint,omitempty"`
	NetworkSerial uint64     `cbor:"8,keyasint,omitempty"`
}

// errNoDiff: a diff would not be smaller than what it saves.
var errNoDiff = errors.New("no diff is worth while")

// parts is a body taken apart, but not understood.
type parts struct {
	tables [3][]cbor.RawMessage // ports, protocols, families
	raw    []cbor.RawMessage    // relays
	relays []wireRelay
	ext    []Extensions // of relays
	rest   []byte
}

const (
	portsTable = iota
	protocolsTable
	familiesTable
)

func takeApart(body []byte) (*parts, error) {
	var w wireConsensus
	ext, err := decodeMap(body, &w)
	if err != nil {
		return nil, err
	}
	p := &parts{raw: w.Relays, relays: make([]wireRelay, len(w.Relays)), ext: make([]Extensions, len(w.Relays))}
	p.tables[portsTable], p.tables[protocolsTable] = w.Ports, w.Protocols
	for _, f := range w.Families {
		raw, err := encoding.Marshal(f)
		if err != nil {
			return nil, err
		}
		p.tables[familiesTable] = append(p.tables[familiesTable], raw)
	}
	for i, raw := range w.Relays {
		if p.ext[i], err = decodeMap(raw, &p.relays[i]); err != nil {
			return nil, fmt.Errorf("relay %d: %w", i, err)
		}
	}
	p.rest, err = encodeMap(wireRest{w.Parameters, w.Recommended, w.Required, w.NetworkSerial}, ext)
	return p, err
}

// makeDiff returns the diff from one body to another, both of consensuses that were verified. It fails with errNoDiff
// when that has no less than half the size of the new body.
func makeDiff(from, to []byte) ([]byte, error) {
	diff, err := makeDiffParts(from, to)
	if err == nil && 2*len(diff) >= len(to) {
		err = errNoDiff
	}
	if err != nil {
		return nil, fmt.Errorf("making a diff of two consensuses: %w", err)
	}
	return diff, nil
}

func makeDiffParts(from, to []byte) ([]byte, error) {
	a, err := takeApart(from)
	if err != nil {
		return nil, err
	}
	b, err := takeApart(to)
	if err != nil {
		return nil, err
	}
	var w wireDiff
	var moved [3][]int
	for i, to := range [...]**tableDiff{&w.PortTable, &w.ProtocolTable, &w.Families} {
		*to, moved[i] = diffTables(a.tables[i], b.tables[i])
	}
	if !bytes.Equal(a.rest, b.rest) {
		w.Rest = b.rest
	}
	var removed, keys, flags, weights, steps, ports, protocols positions
	for i, j := 0, 0; i < len(a.relays) || j < len(b.relays); {
		order := 0
		switch {
		case i == len(a.relays):
			order = 1
		case j == len(b.relays):
			order = -1
		default:
			order = bytes.Compare(a.relays[i].Identity, b.relays[j].Identity)
		}
		if order < 0 {
			w.Removed = removed.add(w.Removed, i)
			i++
			continue
		}
		if order > 0 || !alike(&a.relays[i], &b.relays[j], a.ext[i], b.ext[j], moved[familiesTable]) {
			w.Relays = append(w.Relays, b.raw[j])
			if order == 0 {
				i++
			}
			j++
			continue
		}
		x, y := &a.relays[i], &b.relays[j]
		if !bytes.Equal(x.OnionKey, y.OnionKey) {
			w.KeysAt = keys.add(w.KeysAt, i)
			w.Keys = append(w.Keys, y.OnionKey...)
		}
		w.Flags = flags.put(w.Flags, i, uint32(x.Flags) != uint32(y.Flags), uint32(y.Flags))
		if a, b, ok := stepsOf(x.Weight, y.Weight); ok {
			w.Steps = steps.put(w.Steps, i, a != b, zigzag(int32(b-a)))
		} else {
			w.Weights = weights.put(w.Weights, i, x.Weight != y.Weight, y.Weight)
		}
		w.Ports = ports.put(w.Ports, i, moved[portsTable][x.Ports] != int(y.Ports), y.Ports)
		w.Protocols = protocols.put(w.Protocols, i, moved[protocolsTable][x.Protocols] != int(y.Protocols), y.Protocols)
		i++
		j++
	}
	return encodeMap(w, nil)
}

func stepsOf(x, y uint32) (a, b uint32, ok bool) {
	a, ok1 := stepOf(x)
	b, ok2 := stepOf(y)
	return a, b, ok1 && ok2
}

// alike says whether the columns can say all in which two states of a relay differ.
func alike(x, y *wireRelay, extX, extY Extensions, families []int) bool {
	return extX == nil && extY == nil && x.Nickname == y.Nickname && len(x.OnionKey) == len(y.OnionKey) &&
		slices.EqualFunc(x.Addresses, y.Addresses, bytes.Equal) &&
		slices.EqualFunc(x.Families, y.Families, func(a, b uint32) bool { return families[a] == int(b) })
}

// positions are written as the gaps between them.
type positions struct{ next int }

func (p *positions) add(gaps []uint32, at int) []uint32 {
	gap := at - p.next
	p.next = at + 1
	return append(gaps, uint32(gap))
}

func (p *positions) put(c *column, at int, differs bool, value uint32) *column {
	if !differs {
		return c
	}
	if c == nil {
		c = new(column)
	}
	c.Gaps = p.add(c.Gaps, at)
	c.Values = append(c.Values, value)
	return c
}

// diffTables compares two ascending tables. moved are the new indices of the old entries, -1 for those that have gone.
func diffTables(a, b []cbor.RawMessage) (diff *tableDiff, moved []int) {
	d := tableDiff{Gaps: []uint32{}, Added: []cbor.RawMessage{}}
	moved = make([]int, len(a))
	var removed positions
	j := 0
	for i := range a {
		for j < len(b) && bytes.Compare(b[j], a[i]) < 0 {
			d.Added = append(d.Added, b[j])
			j++
		}
		if j < len(b) && bytes.Equal(b[j], a[i]) {
			moved[i] = j
			j++
			continue
		}
		moved[i] = -1
		d.Gaps = removed.add(d.Gaps, i)
	}
	d.Added = append(d.Added, b[j:]...)
	if len(d.Gaps) == 0 && len(d.Added) == 0 {
		return nil, moved
	}
	return &d, moved
}

// applyDiff makes the body that a diff leads to from one that was verified. The result has at most limit bytes, and is
// nothing before its digest has been compared with a signed head's: a diff is signed by nobody. What it costs in time
// and memory is a multiple of the size of the two bodies, whatever the diff says.
func applyDiff(from, diff []byte, limit int) ([]byte, error) {
	body, err := applyParts(from, diff, limit)
	if err != nil {
		return nil, fmt.Errorf("applying a diff to a consensus: %w", err)
	}
	return body, nil
}

func applyParts(from, diff []byte, limit int) ([]byte, error) {
	w, err := decodeDiff(diff)
	if err != nil {
		return nil, err
	}
	a, err := takeApart(from)
	if err != nil {
		return nil, err
	}
	p := patch{old: a, limit: limit}
	for i, t := range [...]*tableDiff{w.PortTable, w.ProtocolTable, w.Families} {
		if p.tables[i], p.moved[i], err = applyTable(a.tables[i], t); err != nil {
			return nil, err
		}
	}
	if err := p.relays(w); err != nil {
		return nil, err
	}
	rest := a.rest
	if len(w.Rest) > 0 {
		rest = w.Rest
	}
	return p.body(rest)
}

// decodeDiff decodes a diff and checks its form.
func decodeDiff(diff []byte) (*wireDiff, error) {
	var w wireDiff
	ext, err := decodeMap(diff, &w)
	switch {
	case err != nil:
		return nil, err
	case ext != nil:
		return nil, fmt.Errorf("%w: unknown key", ErrMalformed)
	case len(w.Keys) != 32*len(w.KeysAt):
		return nil, fmt.Errorf("%w: %d bytes of keys for %d relays", ErrMalformed, len(w.Keys), len(w.KeysAt))
	}
	for _, c := range []*column{w.Flags, w.Weights, w.Steps, w.Ports, w.Protocols} {
		if c != nil && (len(c.Gaps) == 0 || len(c.Gaps) != len(c.Values)) {
			return nil, fmt.Errorf("%w: %d values for %d relays", ErrMalformed, len(c.Values), len(c.Gaps))
		}
	}
	for _, t := range []*tableDiff{w.PortTable, w.ProtocolTable, w.Families} {
		if t != nil && len(t.Gaps) == 0 && len(t.Added) == 0 {
			return nil, fmt.Errorf("%w: an empty table", ErrMalformed)
		}
	}
	return &w, nil
}

// cursor walks over positions written as gaps.
type cursor struct {
	gaps []uint32
	next uint64 // position of gaps[0]; past all when there is none
	at   int    // of gaps[0] in the whole
}

func newCursor(gaps []uint32) cursor {
	c := cursor{gaps: gaps}
	if len(gaps) > 0 {
		c.next = uint64(gaps[0])
	}
	return c
}

// take says whether i is a position, and which it is in the order of positions. It is asked for every i in order.
func (c *cursor) take(i int) (at int, ok bool) {
	if len(c.gaps) == 0 || c.next != uint64(i) {
		return 0, false
	}
	at = c.at
	c.at++
	if c.gaps = c.gaps[1:]; len(c.gaps) > 0 {
		c.next += 1 + uint64(c.gaps[0])
	}
	return at, true
}

func (c *cursor) left() bool { return len(c.gaps) > 0 }

// errBeyond: a diff speaks of more than the old consensus has.
var errBeyond = fmt.Errorf("%w: a position beyond the end", ErrInvalid)

// applyTable makes the new table, ascending, and the new indices of the old entries.
func applyTable(old []cbor.RawMessage, d *tableDiff) (table []cbor.RawMessage, moved []int, err error) {
	moved = make([]int, len(old))
	if d == nil {
		for i := range moved {
			moved[i] = i
		}
		return old, moved, nil
	}
	removed := newCursor(d.Gaps)
	added := d.Added
	for i := range old {
		for len(added) > 0 && bytes.Compare(added[0], old[i]) < 0 {
			table = append(table, added[0])
			added = added[1:]
		}
		if _, gone := removed.take(i); gone {
			moved[i] = -1
			continue
		}
		moved[i] = len(table)
		table = append(table, old[i])
	}
	table = append(table, added...)
	if removed.left() {
		return nil, nil, errBeyond
	}
	return table, moved, nil
}

// patch is a body in the making.
type patch struct {
	old    *parts
	tables [3][]cbor.RawMessage
	moved  [3][]int
	out    []cbor.RawMessage
	size   int
	limit  int
}

func (p *patch) add(raw []byte) error {
	p.out = append(p.out, raw)
	p.size += len(raw)
	if len(p.out) > MaxRelays || p.size > p.limit {
		return fmt.Errorf("%w: %d relays with %d bytes, at most %d", ErrTooLarge, len(p.out), p.size, p.limit)
	}
	return nil
}

// columns are the positions and values of a diff.
type columns struct {
	removed, keys, flags, weights, steps, ports, protocols cursor
	*wireDiff
}

// relays merges the old relays that remain with those that the diff brings.
func (p *patch) relays(w *wireDiff) error {
	gaps := func(c *column) cursor {
		if c == nil {
			return cursor{}
		}
		return newCursor(c.Gaps)
	}
	c := columns{newCursor(w.Removed), newCursor(w.KeysAt), gaps(w.Flags), gaps(w.Weights), gaps(w.Steps), gaps(w.Ports), gaps(w.Protocols), w}
	added := w.Relays
	var first wireRelay // added[0], decoded
	next := func() error {
		first = wireRelay{}
		if len(added) == 0 {
			return nil
		}
		_, err := decodeMap(added[0], &first)
		return err
	}
	if err := next(); err != nil {
		return err
	}
	for i := range p.old.relays {
		id := p.old.relays[i].Identity
		for len(added) > 0 && bytes.Compare(first.Identity, id) < 0 {
			if err := p.add(added[0]); err != nil {
				return err
			}
			added = added[1:]
			if err := next(); err != nil {
				return err
			}
		}
		raw, err := p.relay(i, &c)
		if err == nil && len(added) > 0 && bytes.Equal(first.Identity, id) {
			raw, added = added[0], added[1:]
			err = next()
		}
		if err == nil && raw != nil {
			err = p.add(raw)
		}
		if err != nil {
			return err
		}
	}
	for _, raw := range added {
		if err := p.add(raw); err != nil {
			return err
		}
	}
	for _, at := range []*cursor{&c.removed, &c.keys, &c.flags, &c.weights, &c.steps, &c.ports, &c.protocols} {
		if at.left() {
			return errBeyond
		}
	}
	return nil
}

// relay returns what becomes of relay i of the old body: nil when it is removed. One whose table entries have gone and
// that gets no others is nil as well; the diff brings it anew, or the digest will be wrong.
func (p *patch) relay(i int, c *columns) ([]byte, error) {
	if _, gone := c.removed.take(i); gone {
		return nil, nil
	}
	r, changed := p.old.relays[i], false
	if at, ok := c.keys.take(i); ok {
		r.OnionKey, changed = c.Keys[32*at:32*at+32], true
	}
	if at, ok := c.flags.take(i); ok {
		r.Flags, changed = Flags(c.wireDiff.Flags.Values[at]), true
	}
	if at, ok := c.weights.take(i); ok {
		r.Weight, changed = c.Weights.Values[at], true
	}
	if at, ok := c.steps.take(i); ok {
		step, round := stepOf(r.Weight)
		if round {
			r.Weight, round = weightOf(step + uint32(fromZigzag(c.Steps.Values[at])))
		}
		if !round {
			return nil, fmt.Errorf("%w weight", ErrInvalid)
		}
		changed = true
	}
	for _, x := range []struct {
		index *uint32
		at    *cursor
		from  *column
		moved []int
	}{
		{&r.Ports, &c.ports, c.Ports, p.moved[portsTable]},
		{&r.Protocols, &c.protocols, c.Protocols, p.moved[protocolsTable]},
	} {
		to := x.moved[*x.index]
		if at, ok := x.at.take(i); ok {
			to = int(x.from.Values[at])
		}
		if to < 0 {
			return nil, nil
		}
		changed = changed || uint32(to) != *x.index
		*x.index = uint32(to)
	}
	r.Families = slices.Clone(r.Families)
	for k, f := range r.Families {
		to := p.moved[familiesTable][f]
		if to < 0 {
			return nil, nil
		}
		changed = changed || uint32(to) != f
		r.Families[k] = uint32(to)
	}
	if !changed {
		return p.old.raw[i], nil
	}
	return encodeMap(r, p.old.ext[i])
}

// body puts the whole together.
func (p *patch) body(rest []byte) ([]byte, error) {
	var r wireRest
	ext, err := decodeMap(rest, &r)
	if err != nil {
		return nil, err
	}
	w := wireConsensus{
		Relays: p.out, Ports: p.tables[portsTable], Protocols: p.tables[protocolsTable],
		Parameters: r.Parameters, Recommended: r.Recommended, Required: r.Required, NetworkSerial: r.NetworkSerial,
	}
	for _, raw := range p.tables[familiesTable] {
		var f []byte
		if err := decoding.Unmarshal(raw, &f); err != nil {
			return nil, fmt.Errorf("%w: a family that is no byte string", ErrMalformed)
		}
		w.Families = append(w.Families, f)
	}
	body, err := encodeMap(w, ext)
	if err == nil && len(body) > p.limit {
		err = fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(body), p.limit)
	}
	return body, err
}

// diffKey names a diff by the heads of two consensuses.
type diffKey struct{ from, to cert.Digest }
