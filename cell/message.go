package cell

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// MessageCommand is what a relay message is for (docs/protocol.md, "Relay messages").
type MessageCommand uint8

// The relay messages. 32 to 71 are reserved for features that are negotiated when the circuit is made; this version
// has none of them.
const (
	MessageEndOfCell    MessageCommand = 0  // no further message in this cell
	MessageExtend       MessageCommand = 1  // circuit: one hop more, see Extend
	MessageExtended     MessageCommand = 2  // circuit: the answer, see Extended
	MessageExtendFailed MessageCommand = 3  // circuit: the other answer, see ExtendFailed
	MessageBegin        MessageCommand = 4  // stream: connect to a destination, see Begin
	MessageConnected    MessageCommand = 5  // stream: it is connected, see Connected
	MessageData         MessageCommand = 6  // stream: 1 to MaxData bytes
	MessageEnd          MessageCommand = 7  // stream: one direction or both end, see End
	MessageResolve      MessageCommand = 8  // stream: look a name or an address up, see Resolve
	MessageResolved     MessageCommand = 9  // stream: the answer, see Resolved
	MessageBeginDir     MessageCommand = 10 // stream: connect to the relay's own directory; no data
	MessageWindow       MessageCommand = 11 // stream, or the circuit with stream id 0: see Window
	MessageDrop         MessageCommand = 12 // circuit: padding of any content
)

var messageNames = [...]string{
	"END_OF_CELL", "EXTEND", "EXTENDED", "EXTEND_FAILED", "BEGIN", "CONNECTED", "DATA", "END", "RESOLVE", "RESOLVED",
	"BEGIN_DIR", "WINDOW", "DROP",
}

// Known reports whether this version has the message. END_OF_CELL is not a message.
func (c MessageCommand) Known() bool { return c != MessageEndOfCell && int(c) < len(messageNames) }

// String returns the name used in docs/protocol.md, "EXTEND_FAILED".
func (c MessageCommand) String() string {
	if int(c) >= len(messageNames) {
		return "message " + strconv.Itoa(int(c))
	}
	return messageNames[c]
}

// StreamID names a stream on one circuit; 0 is the circuit itself.
type StreamID uint16

// Message is one relay message. Data is at most MaxData bytes; from ParsePayload it aliases the payload.
type Message struct {
	Command MessageCommand
	Stream  StreamID
	Data    []byte
}

// ParsePayload checks a whole payload of PayloadSize bytes and appends its messages, at least one, to dst. All of it
// is checked before any message is handed out: commands and lengths, that a message belongs to a stream or to the
// circuit as it must, the data of each message as its own decoder checks it, that EXTEND is alone, and that the rest
// is zeros. After an error, which closes the circuit, dst comes back as it was. It does not allocate as long as dst
// has room and the messages are DATA, END, WINDOW or DROP.
//
// Messages follow each other without gaps. The last is followed by a zero command byte, or by fewer than 5 bytes; all
// that follows it is zeros. Each is:
//
//	0  1       command
//	1  2       stream id; 0 for the circuit
//	3  2       length of the data, at most 2022 (the top 5 bits are zero)
//	5  length  data
func ParsePayload(payload []byte, dst []Message) ([]Message, error) {
	if len(payload) != PayloadSize {
		return dst, decodeError("payload", 0, "%d bytes instead of %d", len(payload), PayloadSize)
	}
	messages := dst
	extendAt := -1
	at := 0
	for len(payload)-at >= MessageHeaderSize && payload[at] != byte(MessageEndOfCell) {
		m, err := parseMessage(payload, at)
		if err != nil {
			return dst, err
		}
		if m.Command == MessageExtend {
			extendAt = at
		}
		messages = append(messages, m)
		at += MessageHeaderSize + len(m.Data)
	}
	if i := firstNonZero(payload[at:]); i >= 0 {
		return dst, decodeError("payload", at+i, "byte %#02x where the rest must be zeros", payload[at+i])
	}
	switch n := len(messages) - len(dst); {
	case n == 0:
		return dst, decodeError("payload", 0, "no message")
	case n > 1 && extendAt >= 0:
		return dst, decodeError("payload", extendAt, "EXTEND is not alone in its cell")
	}
	return messages, nil
}

// parseMessage checks the message that begins at payload[at], where at least MessageHeaderSize bytes are left.
func parseMessage(payload []byte, at int) (Message, error) {
	header := payload[at : at+MessageHeaderSize]
	m := Message{
		Command: MessageCommand(header[0]),
		Stream:  StreamID(binary.BigEndian.Uint16(header[1:])),
	}
	length := int(binary.BigEndian.Uint16(header[3:]))
	if !m.Command.Known() {
		return Message{}, decodeError("payload", at, "unknown %v", m.Command)
	}
	if err := checkStream(m.Command, m.Stream); err != nil {
		return Message{}, decodeError("payload", at+1, "%v %v", m.Command, err)
	}
	start := at + MessageHeaderSize
	if length > len(payload)-start {
		return Message{}, decodeError("payload", at+3, "%v of %d bytes where %d are left",
			m.Command, length, len(payload)-start)
	}
	m.Data = payload[start : start+length : start+length]
	if err := checkData(m.Command, m.Data); err != nil {
		var e *Error
		if errors.As(err, &e) { // count from the start of the payload
			e.Offset += start
		}
		return Message{}, err
	}
	return m, nil
}

var (
	errNoStream  = errors.New("without a stream")
	errHasStream = errors.New("on a stream")
)

// checkStream says whether a message with this command can carry this stream id.
func checkStream(c MessageCommand, stream StreamID) error {
	switch c {
	case MessageExtend, MessageExtended, MessageExtendFailed, MessageDrop:
		if stream != 0 {
			return errHasStream
		}
	case MessageWindow:
	default:
		if stream == 0 {
			return errNoStream
		}
	}
	return nil
}

// checkData decodes the data of a message for its errors only.
func checkData(c MessageCommand, data []byte) (err error) {
	switch c {
	case MessageData:
		if len(data) == 0 {
			err = decodeError("DATA", 0, "no data")
		}
	case MessageBeginDir:
		if len(data) != 0 {
			err = decodeError("BEGIN_DIR", 0, "%d bytes too many", len(data))
		}
	case MessageExtend:
		_, err = DecodeExtend(data)
	case MessageExtended:
		_, err = DecodeExtended(data)
	case MessageExtendFailed:
		_, err = DecodeExtendFailed(data)
	case MessageBegin:
		_, err = DecodeBegin(data)
	case MessageConnected:
		_, err = DecodeConnected(data)
	case MessageEnd:
		_, err = DecodeEnd(data)
	case MessageResolve:
		_, err = DecodeResolve(data)
	case MessageResolved:
		_, err = DecodeResolved(data)
	case MessageWindow:
		_, err = DecodeWindow(data)
	case MessageDrop:
	}
	return err
}
