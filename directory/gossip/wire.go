package gossip

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
)

// Messages of memberlist, by the first byte of a packet or of a part of a compound.
const (
	aliveMessage    = 4
	deadMessage     = 5
	compoundMessage = 7
	crcMessage      = 12
	labelMessage    = 244
)

// wireIncarnation stands in every alive message on the wire.
const wireIncarnation = 1

const (
	nameSize  = 2 * len(cert.Identity{})
	minMeta   = 32 // what is shorter is encoded differently; a sealed rumour has ten times as much
	maxParts  = 8  // of a compound; not even five of the smallest rumours fit
	crcHeader = 5  // what memberlist puts before a packet for a peer of its protocol version 5
)

// The constant parts of an alive message: memberlist's struct as MessagePack, keys sorted.
const (
	aliveAddr        = "\x04\x86\xa4Addr\xa4\xc0\x00\x00\x08"
	aliveIncarnation = "\xabIncarnation"
	aliveMeta        = "\xa4Meta\xda" // then the length as u16
	aliveNode        = "\xa4Node\xda\x00\x40"
	aliveEnd         = "\xa4Port\x01\xa3Vsn\xa6\x01\x05\x02\x00\x00\x00"
)

// address and port are those of aliveAddr and aliveEnd.
const (
	address = "192.0.0.8"
	port    = 1
)

// alive says that a member is there, and its rumour.
type alive struct {
	id          cert.Identity
	meta        []byte // the sealed rumour; aliases what was decoded
	incarnation uint32
}

// appendAlive appends the message; meta has minMeta to directory.MaxRumour bytes.
//
//	04                 alive
//	86                 map of 6
//	a4 "Addr"          a4 c0 00 00 08
//	ab "Incarnation"   01 on the wire; any shortest unsigned integer towards memberlist
//	a4 "Meta"          da, length u16 (32 to 512), sealed rumour
//	a4 "Node"          da 00 40, identity in 64 lower-case hexadecimal digits
//	a4 "Port"          01
//	a3 "Vsn"           a6 01 05 02 00 00 00
func appendAlive(b []byte, a alive) []byte {
	b = append(b, aliveAddr...)
	b = appendUint(append(b, aliveIncarnation...), a.incarnation)
	b = binary.BigEndian.AppendUint16(append(b, aliveMeta...), uint16(len(a.meta)))
	b = append(append(b, a.meta...), aliveNode...)
	b = hex.AppendEncode(b, a.id[:])
	return append(b, aliveEnd...)
}

// appendDead appends a message that says that a member is dead; it is for memberlist here, never for the wire.
func appendDead(b []byte, id, from cert.Identity, incarnation uint32) []byte {
	b = hex.AppendEncode(append(b, "\x05\x83\xa4From\xda\x00\x40"...), from[:])
	b = appendUint(append(b, aliveIncarnation...), incarnation)
	return hex.AppendEncode(append(b, aliveNode...), id[:])
}

// appendUint appends the shortest MessagePack form of v.
func appendUint(b []byte, v uint32) []byte {
	switch {
	case v < 1<<7:
		return append(b, byte(v))
	case v < 1<<8:
		return append(b, 0xcc, byte(v))
	case v < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 0xcd), uint16(v))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xce), v)
}

// reader walks over one message; after a failure it stays failed.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("alive message at byte %d: %s", r.at, fmt.Sprintf(format, args...))
	}
}

func (r *reader) take(n int, what string) []byte {
	if r.err == nil && len(r.b)-r.at < n {
		r.fail("%s cut short", what)
	}
	if r.err != nil {
		return nil
	}
	b := r.b[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}

func (r *reader) constant(want, what string) {
	if r.err == nil && (len(r.b)-r.at < len(want) || string(r.b[r.at:r.at+len(want)]) != want) {
		r.fail("not the %s that belongs here", what)
	}
	r.at += len(want)
}

func (r *reader) uint() (v uint32) {
	first := r.take(1, "incarnation")
	if r.err != nil {
		return 0
	}
	var least uint32
	switch {
	case first[0] < 1<<7:
		return uint32(first[0])
	case first[0] == 0xcc:
		if b := r.take(1, "incarnation"); b != nil {
			v, least = uint32(b[0]), 1<<7
		}
	case first[0] == 0xcd:
		if b := r.take(2, "incarnation"); b != nil {
			v, least = uint32(binary.BigEndian.Uint16(b)), 1<<8
		}
	case first[0] == 0xce:
		if b := r.take(4, "incarnation"); b != nil {
			v, least = binary.BigEndian.Uint32(b), 1<<16
		}
	default:
		r.fail("incarnation is not an unsigned integer of 32 bits")
	}
	if v < least {
		r.fail("incarnation %d not in its shortest form", v)
	}
	return v
}

// decodeAlive decodes b, which must be one whole message in exactly the form that appendAlive writes, with any
// incarnation. It does not verify the rumour. The result aliases b.
func decodeAlive(b []byte) (a alive, err error) {
	r := &reader{b: b}
	r.constant(aliveAddr, "head and address")
	r.constant(aliveIncarnation, "key Incarnation")
	a.incarnation = r.uint()
	r.constant(aliveMeta, "key Meta")
	if length := r.take(2, "length of the metadata"); length != nil {
		n := int(binary.BigEndian.Uint16(length))
		if n < minMeta || n > directory.MaxRumour {
			r.fail("metadata of %d bytes, %d to %d are possible", n, minMeta, directory.MaxRumour)
		}
		a.meta = r.take(n, "metadata")
	}
	r.constant(aliveNode, "key Node")
	if name := r.take(nameSize, "name"); name != nil {
		var ok bool
		if a.id, ok = parseName(name); !ok {
			r.fail("name is not an identity in lower-case hexadecimal digits")
		}
	}
	r.constant(aliveEnd, "port and versions")
	if r.err == nil && r.at != len(b) {
		r.fail("%d bytes too many", len(b)-r.at)
	}
	if r.err != nil {
		return alive{}, r.err
	}
	return a, nil
}

// parseName reads the name of a member: what Identity.String writes, and nothing else.
func parseName(name []byte) (id cert.Identity, ok bool) {
	if len(name) != nameSize || bytes.ContainsAny(name, "ABCDEF") {
		return id, false
	}
	_, err := hex.Decode(id[:], name)
	return id, err == nil
}

// appendPacket appends the messages, at least one, as one packet: a single one as it is, several as a compound.
//
//	07                 compound
//	count      u8      2 to 8
//	lengths    u16 each
//	messages
func appendPacket(b []byte, messages [][]byte) []byte {
	if len(messages) > 1 {
		b = append(b, compoundMessage, byte(len(messages)))
		for _, m := range messages {
			b = binary.BigEndian.AppendUint16(b, uint16(len(m)))
		}
	}
	for _, m := range messages {
		b = append(b, m...)
	}
	return b
}

// packetSize is the size in bytes of a packet of so many messages of so many bytes together.
func packetSize(messages, bytes int) int {
	if messages > 1 {
		return 2 + 2*messages + bytes
	}
	return bytes
}

// splitPacket splits a packet into the messages of its compound, without looking into them. The messages alias b.
func splitPacket(b []byte) ([][]byte, error) {
	if len(b) == 0 {
		return nil, errors.New("empty packet")
	}
	if b[0] != compoundMessage {
		return [][]byte{b}, nil
	}
	if len(b) < 2 || b[1] < 2 || b[1] > maxParts {
		return nil, fmt.Errorf("compound without a count of 2 to %d", maxParts)
	}
	n := int(b[1])
	lengths, rest := b[2:], []byte(nil)
	if len(lengths) < 2*n {
		return nil, errors.New("compound ends in its lengths")
	}
	lengths, rest = lengths[:2*n], lengths[2*n:]
	messages := make([][]byte, n)
	for i := range messages {
		size := int(binary.BigEndian.Uint16(lengths[2*i:]))
		if size == 0 || size > len(rest) {
			return nil, fmt.Errorf("message %d of a compound has %d bytes, and %d are left", i, size, len(rest))
		}
		messages[i], rest = rest[:size:size], rest[size:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes behind the last message of a compound", len(rest))
	}
	return messages, nil
}

// decodePacket is the filter that everything from the wire passes first: alive messages in the one form that this
// package writes, and nothing else. Whatever it accepts, appendPacket and appendAlive write again byte by byte. With an
// error it says why, for the counters; then nothing of the packet is used. The result aliases b.
func decodePacket(b []byte) ([]alive, Reason, error) {
	if len(b) > cell.MaxGossip {
		return nil, DropMalformed, fmt.Errorf("packet of %d bytes, at most %d", len(b), cell.MaxGossip)
	}
	messages, err := splitPacket(b)
	if err != nil {
		return nil, DropMalformed, err
	}
	alives := make([]alive, len(messages))
	for i, m := range messages {
		if m[0] != aliveMessage {
			reason := reasonOf(m[0])
			return nil, reason, fmt.Errorf("message of type %d: %v", m[0], reason)
		}
		if alives[i], err = decodeAlive(m); err != nil {
			return nil, DropMalformed, err
		}
		if alives[i].incarnation != wireIncarnation {
			return nil, DropIncarnation, fmt.Errorf("incarnation %d instead of %d", alives[i].incarnation, wireIncarnation)
		}
	}
	return alives, 0, nil
}
