package cell

import "encoding/binary"

// Limits of cell bodies, in bytes unless named otherwise.
const (
	MaxCreateHandshake = BodySize - 8                    // 2035: handshake in CREATE and CREATED
	MaxCreditPairs     = (BodySize - 2) / creditPairSize // 340 pairs in a CREDIT
	MaxGossip          = BodySize - 2                    // 2041: packet in a GOSSIP
	MaxHello           = BodySize - 2                    // 2041: content of a HELLO

	creditPairSize = 6
)

// Create is the body of a CREATE or CREATED cell: one half of the handshake between a hop and who extends the circuit
// to it (docs/protocol.md, "Circuit handshake").
type Create struct {
	Credit uint16 // cells that the sender takes towards itself before the first CREDIT, at least 1
	Type   uint16 // of the handshake
	// Total is the length of the whole handshake and Offset where this part of it begins. In this version a handshake
	// has one part: Offset is 0 and Total the length of Handshake.
	Total, Offset uint16
	Handshake     []byte // 1 to MaxCreateHandshake bytes
}

// Created is the body of a CREATED cell, which has the fields and the layout of CREATE.
type Created = Create

// Put writes c to body, all BodySize bytes of it.
func (c Create) Put(body []byte) error {
	const what = "CREATE or CREATED"
	switch {
	case len(body) != BodySize:
		return encodeError(what, "body of %d bytes instead of %d", len(body), BodySize)
	case c.Credit == 0:
		return encodeError(what, "no initial credit")
	}
	if err := checkHandshake(c.Total, c.Offset, len(c.Handshake), MaxCreateHandshake); err != nil {
		return encodeError(what, "%v", err)
	}
	binary.BigEndian.PutUint16(body[0:], c.Credit)
	binary.BigEndian.PutUint16(body[2:], c.Type)
	binary.BigEndian.PutUint16(body[4:], c.Total)
	binary.BigEndian.PutUint16(body[6:], c.Offset)
	n := copy(body[8:], c.Handshake)
	clear(body[8+n:])
	return nil
}

// DecodeCreate reads the body of a CREATE cell. Handshake aliases body.
//
//	0  2      initial credit in cells, at least 1
//	2  2      handshake type
//	4  2      total length of the handshake, 1 to 2035
//	6  2      offset of this part, 0
//	8  total  handshake
//	          zeros to the end of the body
func DecodeCreate(body []byte) (Create, error) { return decodeCreate("CREATE", body) }

// DecodeCreated reads the body of a CREATED cell, which has the layout of CREATE. Handshake aliases body.
func DecodeCreated(body []byte) (Created, error) { return decodeCreate("CREATED", body) }

func decodeCreate(what string, body []byte) (Create, error) {
	r := newBodyReader(what, body)
	var c Create
	if c.Credit = r.uint16("initial credit"); c.Credit == 0 {
		r.failf("no initial credit")
	}
	c.Type = r.uint16("handshake type")
	c.Total = r.uint16("handshake total")
	total := r.at
	c.Offset = r.uint16("handshake offset")
	r.at = total
	if err := checkHandshake(c.Total, c.Offset, int(c.Total), MaxCreateHandshake); err != nil {
		r.failf("%v", err)
	}
	c.Handshake = r.bytes(int(c.Total), "handshake")
	if err := r.finishZeros(); err != nil {
		return Create{}, err
	}
	return c, nil
}

// PutDestroy writes the body of a DESTROY cell, all BodySize bytes of it.
func PutDestroy(body []byte, reason Reason) error {
	if len(body) != BodySize {
		return encodeError("DESTROY", "body of %d bytes instead of %d", len(body), BodySize)
	}
	body[0] = byte(reason)
	clear(body[1:])
	return nil
}

// DecodeDestroy reads the body of a DESTROY cell.
//
//	0  1  reason
//	      zeros to the end of the body
func DecodeDestroy(body []byte) (Reason, error) {
	r := newBodyReader("DESTROY", body)
	reason := Reason(r.uint8("reason"))
	if err := r.finishZeros(); err != nil {
		return 0, err
	}
	return reason, nil
}

// CreditPair grants Add more cells on Circuit to the receiver of a CREDIT; in a RETURN it gives back so many.
type CreditPair struct {
	Circuit CircuitID // not 0
	Add     uint16    // at least 1
}

// PutCredit writes the body of a CREDIT cell with 1 to MaxCreditPairs pairs, all BodySize bytes of it. Pairs keep their
// order; a circuit may occur twice.
func PutCredit(body []byte, pairs []CreditPair) error {
	switch {
	case len(body) != BodySize:
		return encodeError("CREDIT", "body of %d bytes instead of %d", len(body), BodySize)
	case len(pairs) == 0 || len(pairs) > MaxCreditPairs:
		return encodeError("CREDIT", "%d pairs, 1 to %d are possible", len(pairs), MaxCreditPairs)
	}
	for i, p := range pairs {
		if p.Circuit == 0 {
			return encodeError("CREDIT", "pair %d without a circuit", i)
		}
		if p.Add == 0 {
			return encodeError("CREDIT", "pair %d adds nothing", i)
		}
	}
	binary.BigEndian.PutUint16(body, uint16(len(pairs)))
	rest := body[2:]
	for _, p := range pairs {
		binary.BigEndian.PutUint32(rest, uint32(p.Circuit))
		binary.BigEndian.PutUint16(rest[4:], p.Add)
		rest = rest[creditPairSize:]
	}
	clear(rest)
	return nil
}

// DecodeCredit reads the body of a CREDIT cell and appends its pairs to dst; with room for MaxCreditPairs there it does
// not allocate. After an error dst comes back as it was.
//
//	0  2        count of pairs, 1 to 340
//	2  6*count  pairs: circuit id (4, not 0), cells added (2, at least 1)
//	            zeros to the end of the body
func DecodeCredit(body []byte, dst []CreditPair) ([]CreditPair, error) {
	r := newBodyReader("CREDIT", body)
	count := int(r.uint16("count"))
	if count == 0 || count > MaxCreditPairs {
		r.failf("%d pairs, 1 to %d are possible", count, MaxCreditPairs)
	}
	list := r.bytes(count*creditPairSize, "pairs")
	if err := r.finishZeros(); err != nil {
		return dst, err
	}
	pairs := dst
	for at := 0; at < len(list); at += creditPairSize {
		pair := list[at : at+creditPairSize] // by hand: up to 340 of them in each of many cells
		p := CreditPair{CircuitID(binary.BigEndian.Uint32(pair)), binary.BigEndian.Uint16(pair[4:])}
		if p.Circuit == 0 {
			return dst, decodeError("CREDIT", 2+at, "pair %d without a circuit", at/creditPairSize)
		}
		if p.Add == 0 {
			return dst, decodeError("CREDIT", 2+at+4, "pair %d adds nothing", at/creditPairSize)
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// PutGossip writes the body of a GOSSIP cell with a packet of 1 to MaxGossip bytes, all BodySize bytes of it.
func PutGossip(body, packet []byte) error { return putCounted("GOSSIP", body, packet) }

// DecodeGossip reads the body of a GOSSIP cell. The packet, which this package does not interpret, aliases body.
//
//	0  2       length of the packet, 1 to 2041
//	2  length  packet
//	           zeros to the end of the body
func DecodeGossip(body []byte) (packet []byte, err error) { return decodeCounted("GOSSIP", body) }

// PutHello writes the body of a HELLO cell with 1 to MaxHello bytes of content, all BodySize bytes of it.
func PutHello(body, content []byte) error { return putCounted("HELLO", body, content) }

// DecodeHello reads the body of a HELLO cell, which has the layout of GOSSIP. The content, which package link
// interprets, aliases body.
func DecodeHello(body []byte) (content []byte, err error) { return decodeCounted("HELLO", body) }

func putCounted(what string, body, content []byte) error {
	switch {
	case len(body) != BodySize:
		return encodeError(what, "body of %d bytes instead of %d", len(body), BodySize)
	case len(content) == 0 || len(content) > BodySize-2:
		return encodeError(what, "content of %d bytes, 1 to %d are possible", len(content), BodySize-2)
	}
	binary.BigEndian.PutUint16(body, uint16(len(content)))
	n := copy(body[2:], content)
	clear(body[2+n:])
	return nil
}

func decodeCounted(what string, body []byte) ([]byte, error) {
	r := newBodyReader(what, body)
	n := int(r.uint16("length"))
	if n == 0 || n > BodySize-2 {
		r.failf("content of %d bytes, 1 to %d are possible", n, BodySize-2)
	}
	content := r.bytes(n, "content")
	if err := r.finishZeros(); err != nil {
		return nil, err
	}
	return content, nil
}

// CheckEmpty checks the body of a LINK_DRAIN cell: BodySize zeros. To encode one, clear the body.
func CheckEmpty(body []byte) error {
	r := newBodyReader("LINK_DRAIN", body)
	return r.finishZeros()
}
