package cell

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
)

// Flags say which addresses of a name an exit may use. They do not concern a destination that is an IP address.
type Flags uint32

// The flags of BEGIN and RESOLVE.
const (
	AllowIPv4  Flags = 1 << 0
	AllowIPv6  Flags = 1 << 1
	PreferIPv6 Flags = 1 << 2 // when the name has both and both are allowed

	knownFlags = AllowIPv4 | AllowIPv6 | PreferIPv6
)

func (r *reader) flags() Flags {
	f := Flags(r.uint32("flags"))
	if f&^knownFlags != 0 {
		r.failf("unknown flags %#x", uint32(f&^knownFlags))
	}
	return f
}

// Begin is the data of a BEGIN message: connect a new stream to a destination (docs/protocol.md, "BEGIN").
type Begin struct {
	Flags   Flags
	Address Address
	Port    uint16 // not 0
}

// AppendTo appends the encoding of m to b. After an error, an *Error, b comes back as it was.
func (m Begin) AppendTo(b []byte) ([]byte, error) {
	if m.Flags&^knownFlags != 0 {
		return b, encodeError("BEGIN", "unknown flags %#x", uint32(m.Flags&^knownFlags))
	}
	if err := m.Address.check(); err != nil {
		return b, encodeError("BEGIN", "%v", err)
	}
	if m.Port == 0 {
		return b, encodeError("BEGIN", "port 0")
	}
	w := cryptobyte.NewBuilder(b)
	w.AddUint32(uint32(m.Flags))
	addAddress(w, m.Address)
	w.AddUint16(m.Port)
	return finishMessage("BEGIN", b, w)
}

// DecodeBegin reads the data of a BEGIN message.
//
//	0   4  flags: 1 IPv4 allowed, 2 IPv6 allowed, 4 IPv6 preferred; others zero
//	4      typed address: type (1), length (1), value (length);
//	       type 1: IPv4 (4); type 2: host name (1 to 255); type 3: IPv6 (16)
//	+0  2  port, not 0
func DecodeBegin(data []byte) (Begin, error) {
	r := newReader("BEGIN", data)
	m := Begin{Flags: r.flags(), Address: r.address(), Port: r.uint16("port")}
	if m.Port == 0 {
		r.failf("port 0")
	}
	if err := r.finish(); err != nil {
		return Begin{}, err
	}
	return m, nil
}

// Connected is the data of a CONNECTED message: the stream is open.
type Connected struct {
	IP netip.Addr // that the exit connected to; the zero Addr when it does not tell, as after BEGIN_DIR
}

// AppendTo appends the encoding of m to b. After an error, an *Error, b comes back as it was.
func (m Connected) AppendTo(b []byte) ([]byte, error) {
	if !m.IP.IsValid() {
		return append(b, addressNone, 0), nil
	}
	if err := checkIP(m.IP); err != nil {
		return b, encodeError("CONNECTED", "%v", err)
	}
	w := cryptobyte.NewBuilder(b)
	addAddress(w, Address{IP: m.IP})
	return finishMessage("CONNECTED", b, w)
}

// DecodeConnected reads the data of a CONNECTED message.
//
//	0  1       type: 0 not told, 1 IPv4, 3 IPv6
//	1  1       length: 0, 4, 16
//	2  length  address
func DecodeConnected(data []byte) (Connected, error) {
	r := newReader("CONNECTED", data)
	var a Address
	if bytes.HasPrefix(data, []byte{addressNone, 0}) {
		r.bytes(2, "address")
	} else if a = r.address(); a.Host != "" {
		r.at = 0
		r.failf("host name instead of an IP address")
	}
	if err := r.finish(); err != nil {
		return Connected{}, err
	}
	return Connected{a.IP}, nil
}

// End is the data of an END message. With ReasonEOF the sender sends no more DATA and the other direction goes on; with
// any other reason both directions are dead.
type End struct {
	Reason Reason
}

// AppendTo appends the encoding of m to b. The error is always nil.
func (m End) AppendTo(b []byte) ([]byte, error) { return append(b, byte(m.Reason)), nil }

// DecodeEnd reads the data of an END message.
//
//	0  1  reason; 0 is end of file
func DecodeEnd(data []byte) (End, error) {
	r := newReader("END", data)
	m := End{Reason(r.uint8("reason"))}
	if err := r.finish(); err != nil {
		return End{}, err
	}
	return m, nil
}

// Resolve is the data of a RESOLVE message: look up the addresses of a host name, or the names of an IP address.
type Resolve struct {
	Flags   Flags
	Address Address
}

// AppendTo appends the encoding of m to b. After an error, an *Error, b comes back as it was.
func (m Resolve) AppendTo(b []byte) ([]byte, error) {
	if m.Flags&^knownFlags != 0 {
		return b, encodeError("RESOLVE", "unknown flags %#x", uint32(m.Flags&^knownFlags))
	}
	if err := m.Address.check(); err != nil {
		return b, encodeError("RESOLVE", "%v", err)
	}
	w := cryptobyte.NewBuilder(b)
	w.AddUint32(uint32(m.Flags))
	addAddress(w, m.Address)
	return finishMessage("RESOLVE", b, w)
}

// DecodeResolve reads the data of a RESOLVE message.
//
//	0  4  flags, as in BEGIN
//	4     typed address, as in BEGIN: the name to look up, or the IP address whose names are wanted
func DecodeResolve(data []byte) (Resolve, error) {
	r := newReader("RESOLVE", data)
	m := Resolve{Flags: r.flags(), Address: r.address()}
	if err := r.finish(); err != nil {
		return Resolve{}, err
	}
	return m, nil
}

// Resolved is the data of a RESOLVED message: the answer to a RESOLVE, after which the stream is closed.
type Resolved struct {
	Reason  Reason    // ReasonNone when there are answers
	TTL     uint32    // seconds for which the answer, also a negative one, holds
	Answers []Address // 1 to 255, or none when there is a reason
}

// AppendTo appends the encoding of m to b. After an error, an *Error, b comes back as it was.
func (m Resolved) AppendTo(b []byte) ([]byte, error) {
	if err := checkAnswers(m.Reason, len(m.Answers)); err != "" {
		return b, encodeError("RESOLVED", "%s", err)
	}
	if len(m.Answers) > 255 {
		return b, encodeError("RESOLVED", "%d answers, at most 255 are possible", len(m.Answers))
	}
	for _, a := range m.Answers {
		if err := a.check(); err != nil {
			return b, encodeError("RESOLVED", "%v", err)
		}
	}
	w := cryptobyte.NewBuilder(b)
	w.AddUint8(uint8(m.Reason))
	w.AddUint32(m.TTL)
	w.AddUint8(uint8(len(m.Answers)))
	for _, a := range m.Answers {
		addAddress(w, a)
	}
	return finishMessage("RESOLVED", b, w)
}

// DecodeResolved reads the data of a RESOLVED message.
//
//	0  1  reason; 0 is success
//	1  4  time to live, seconds
//	5  1  count of answers; 0 if and only if the reason is not 0
//	6     answers: typed addresses as in BEGIN
func DecodeResolved(data []byte) (Resolved, error) {
	r := newReader("RESOLVED", data)
	m := Resolved{Reason: Reason(r.uint8("reason")), TTL: r.uint32("time to live")}
	count := int(r.uint8("count of answers"))
	if why := checkAnswers(m.Reason, count); why != "" {
		r.failf("%s", why)
	}
	for i := 0; i < count && r.err == nil; i++ {
		m.Answers = append(m.Answers, r.address())
	}
	if err := r.finish(); err != nil {
		return Resolved{}, err
	}
	return m, nil
}

func checkAnswers(reason Reason, n int) (why string) {
	switch {
	case reason == ReasonNone && n == 0:
		return "success without an answer"
	case reason != ReasonNone && n != 0:
		return "answers beside a reason for having none"
	}
	return ""
}

// Window is the data of a WINDOW message: the sender takes Add more bytes of DATA on the stream, or on the whole circuit
// when the stream id is 0.
type Window struct {
	Add uint32 // at least 1
}

// AppendTo appends the encoding of m to b. After an error, an *Error, b comes back as it was.
func (m Window) AppendTo(b []byte) ([]byte, error) {
	if m.Add == 0 {
		return b, encodeError("WINDOW", "adds nothing")
	}
	return binary.BigEndian.AppendUint32(b, m.Add), nil
}

// DecodeWindow reads the data of a WINDOW message.
//
//	0  4  bytes added, at least 1
func DecodeWindow(data []byte) (Window, error) {
	r := newReader("WINDOW", data)
	m := Window{r.uint32("bytes added")}
	if m.Add == 0 {
		r.failf("adds nothing")
	}
	if err := r.finish(); err != nil {
		return Window{}, err
	}
	return m, nil
}
