package cell

import (
	"encoding/binary"
	"fmt"
)

// Packer fills one payload with relay messages, in place and without allocating. Every message must be one that
// ParsePayload accepts: an unknown command, a stream id that the command cannot carry and DATA without data are bugs
// of the caller and panic. That an EXTEND stays alone is kept by the Packer: nothing fits beside it.
// A Packer is not to be copied once it holds a message.
type Packer struct {
	payload  []byte
	used     int
	reserved int // bytes handed out by Reserve
	command  MessageCommand
	stream   StreamID
	extend   bool // holds an EXTEND, which stays alone
}

// NewPacker returns a Packer that writes to payload, which is PayloadSize bytes long (anything else panics), may hold
// anything, and belongs to the Packer until Finish.
func NewPacker(payload []byte) Packer {
	if len(payload) != PayloadSize {
		panic(fmt.Sprintf("cell: packing a payload of %d bytes instead of %d", len(payload), PayloadSize))
	}
	return Packer{payload: payload}
}

// Free returns how many bytes of data one more message could carry, or -1 when not even an empty one fits. An EXTEND
// needs an empty Packer besides.
func (p *Packer) Free() int {
	if p.extend {
		return -1
	}
	return max(len(p.payload)-p.used-MessageHeaderSize, -1)
}

// Empty reports whether no message was added yet.
func (p *Packer) Empty() bool { return p.used == 0 }

// Add appends a message whose data is the concatenation of data, which is copied. It reports whether the message fit;
// if not, nothing has changed. More than MaxData bytes never fit.
func (p *Packer) Add(command MessageCommand, stream StreamID, data ...[]byte) bool {
	n := 0
	for _, d := range data {
		n += len(d)
	}
	checkPacked(command, stream)
	if command == MessageData && n == 0 {
		panic("cell: packing DATA without data")
	}
	p.reserved = 0
	if !p.fits(command, n) {
		return false
	}
	at := p.used + MessageHeaderSize
	for _, d := range data {
		at += copy(p.payload[at:], d)
	}
	p.putMessage(command, stream, n)
	return true
}

// Reserve returns the place for the data of a message, at most "most" bytes of it, for the caller to fill before Commit.
// It returns nil when not one byte fits. Another Reserve, Add or Finish before Commit takes the place back.
func (p *Packer) Reserve(command MessageCommand, stream StreamID, most int) []byte {
	checkPacked(command, stream)
	p.reserved = 0
	n := min(p.Free(), most)
	if n < 1 || !p.fits(command, n) {
		return nil
	}
	p.reserved, p.command, p.stream = n, command, stream
	at := p.used + MessageHeaderSize
	return p.payload[at : at+n : at+n]
}

// Commit adds the message whose place Reserve returned last, with the first n bytes of that place as its data. With n
// 0, which is right also after Reserve returned nil, there is no message. More than was reserved panics.
func (p *Packer) Commit(n int) {
	if n < 0 || n > p.reserved {
		panic(fmt.Sprintf("cell: committing %d bytes of %d reserved", n, p.reserved))
	}
	p.reserved = 0
	if n > 0 {
		p.putMessage(p.command, p.stream, n)
	}
}

// Finish writes zeros behind the last message; the payload is then complete. A payload without a message does not
// parse: look at Empty first.
func (p *Packer) Finish() {
	p.reserved = 0
	clear(p.payload[p.used:])
}

func (p *Packer) fits(command MessageCommand, n int) bool {
	return n <= p.Free() && (command != MessageExtend || p.Empty())
}

// putMessage writes the header before n bytes of data that are in place.
func (p *Packer) putMessage(command MessageCommand, stream StreamID, n int) {
	header := p.payload[p.used : p.used+MessageHeaderSize]
	header[0] = byte(command)
	binary.BigEndian.PutUint16(header[1:], uint16(stream))
	binary.BigEndian.PutUint16(header[3:], uint16(n))
	p.used += MessageHeaderSize + n
	p.extend = p.extend || command == MessageExtend
}

func checkPacked(command MessageCommand, stream StreamID) {
	if !command.Known() {
		panic(fmt.Sprintf("cell: packing unknown %v", command))
	}
	if err := checkStream(command, stream); err != nil {
		panic(fmt.Sprintf("cell: packing %v %v", command, err))
	}
}
