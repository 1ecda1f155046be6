package cell

import (
	"encoding/binary"
	"strconv"
)

// Sizes in bytes. A cell is a header and a body; the onion body of a RELAY or RELAY_EARLY cell is the tag of the relay
// crypto and a payload of relay messages.
const (
	Size              = 2048                            // a cell, on every link, in both directions
	HeaderSize        = 5                               // circuit id, command
	BodySize          = Size - HeaderSize               // 2043
	TagSize           = 16                              // tag of Counter Galois Onion
	PayloadSize       = BodySize - TagSize              // 2027
	MessageHeaderSize = 5                               // command, stream id, length
	MaxData           = PayloadSize - MessageHeaderSize // 2022: the most data in one relay message
)

// Command is what a cell is for. The numbers are input of the relay crypto and never change (docs/protocol.md, "Cells").
type Command uint8

// The cell commands. 10 is reserved for negotiating padding and is not known in this version.
const (
	CommandPadding    Command = 0 // link: to be ignored, with any body
	CommandCreate     Command = 1 // circuit: first half of a handshake, see Create
	CommandCreated    Command = 2 // circuit: second half of a handshake, see Created
	CommandRelay      Command = 3 // circuit: an onion body
	CommandDestroy    Command = 4 // circuit: it ends, see DecodeDestroy
	CommandHello      Command = 5 // link: first cell of each side, see DecodeHello
	CommandCredit     Command = 6 // link: hop credits, see DecodeCredit
	CommandGossip     Command = 7 // link: a packet of the rumour protocol, see DecodeGossip
	CommandLinkDrain  Command = 8 // link: no new circuits here, see CheckEmpty
	CommandRelayEarly Command = 9 // circuit: as RELAY, the first 8 cells forward

	CommandReturn Command = 11 // link: hop credits given back, with the body of a CREDIT
)

// Commands is one more than the highest command of this version, the size of a table by command.
const Commands = int(CommandReturn) + 1

var commandNames = [Commands]string{
	"PADDING", "CREATE", "CREATED", "RELAY", "DESTROY", "HELLO", "CREDIT", "GOSSIP", "LINK_DRAIN", "RELAY_EARLY",
	"", "RETURN",
}

// Known reports whether this version has the command.
func (c Command) Known() bool { return int(c) < len(commandNames) && commandNames[c] != "" }

// String returns the name used in docs/protocol.md, "RELAY_EARLY".
func (c Command) String() string {
	if !c.Known() {
		return "command " + strconv.Itoa(int(c))
	}
	return commandNames[c]
}

// ForLink reports whether cells with this command concern the link itself and so carry circuit id 0. All others carry
// the id of a circuit.
func (c Command) ForLink() bool {
	switch c {
	case CommandPadding, CommandHello, CommandCredit, CommandGossip, CommandLinkDrain, CommandReturn:
		return true
	}
	return false
}

// CircuitID names a circuit on one link; 0 is the link itself.
type CircuitID uint32

// InitiatorBit is set in the ids picked by the side that opened the link, and clear in those picked by the other, so
// that both may pick at once.
const InitiatorBit CircuitID = 1 << 31

// DryFlag is the top bit of the command byte: the sender used its last credit with this cell and has more to send. It
// is meant for the next hop only, and is not part of the command that the relay crypto sees.
const DryFlag = 0x80

// Header is what a neighbour sees of a cell.
type Header struct {
	Circuit CircuitID
	Command Command
	Dry     bool // see DryFlag; on RELAY and RELAY_EARLY only
}

// Put writes the 5 bytes of h to the start of b. It does not judge h: a header that DecodeHeader rejects is a bug of
// the caller that the peer will report.
func (h Header) Put(b []byte) {
	_ = b[HeaderSize-1]
	binary.BigEndian.PutUint32(b, uint32(h.Circuit))
	b[4] = byte(h.Command)
	if h.Dry {
		b[4] |= DryFlag
	}
}

// DecodeHeader reads the header at the start of b; what follows the 5 bytes is not looked at. It rejects an unknown
// command, the dry flag on anything but RELAY and RELAY_EARLY, and a circuit id where the command wants none or none
// where it wants one; each of these closes the link (docs/protocol.md, "Cells").
//
//	0  4  circuit id, big endian; 0 for the link itself
//	4  1  top bit: dry; low 7 bits: command
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, decodeError("cell header", 0, "%d bytes instead of %d", len(b), HeaderSize)
	}
	h := Header{
		Circuit: CircuitID(binary.BigEndian.Uint32(b)),
		Command: Command(b[4] &^ DryFlag),
		Dry:     b[4]&DryFlag != 0,
	}
	switch {
	case !h.Command.Known():
		return Header{}, decodeError("cell header", 4, "unknown %v", h.Command)
	case h.Dry && h.Command != CommandRelay && h.Command != CommandRelayEarly:
		return Header{}, decodeError("cell header", 4, "dry flag on %v", h.Command)
	case h.Command.ForLink() && h.Circuit != 0:
		return Header{}, decodeError("cell header", 0, "%v on circuit %d instead of the link", h.Command, h.Circuit)
	case !h.Command.ForLink() && h.Circuit == 0:
		return Header{}, decodeError("cell header", 0, "%v without a circuit", h.Command)
	}
	return h, nil
}
