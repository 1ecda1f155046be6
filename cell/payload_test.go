package cell

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestPayloadRejected(t *testing.T) {
	t.Parallel()
	payload := func(hex string) []byte { return padded(unhex(t, hex), PayloadSize) }
	full := func(hex string) []byte { // ends with these bytes after a DATA message
		end := unhex(t, hex)
		n := PayloadSize - MessageHeaderSize - len(end)
		b := append(unhex(t, "06 0001"), byte(n>>8), byte(n))
		return append(append(b, dirty(n)...), end...)
	}
	for _, tt := range []struct {
		payload []byte
		want    string
	}{
		{nil, "decoding payload at byte 0: 0 bytes instead of 2027"},
		{make([]byte, BodySize), "decoding payload at byte 0: 2043 bytes instead of 2027"},
		{payload(""), "decoding payload at byte 0: no message"},
		{payload("00 01"), "decoding payload at byte 1: byte 0x01 where the rest must be zeros"},
		{payload("06 0001 0001 aa 00 00 0001"), "decoding payload at byte 9: byte 0x01 where the rest must be zeros"},
		{full("00000001"), "decoding payload at byte 2026: byte 0x01 where the rest must be zeros"},
		{full("07000101"), "decoding payload at byte 2023: byte 0x07 where the rest must be zeros"},
		{full("0000000001"), "decoding payload at byte 2026: byte 0x01 where the rest must be zeros"},
		{full("0700010001"), "decoding payload at byte 2025: END of 1 bytes where 0 are left"},
		{payload("06 0001 07e7"), "decoding payload at byte 3: DATA of 2023 bytes where 2022 are left"},
		{payload("06 0001 0801 aa"), "decoding payload at byte 3: DATA of 2049 bytes where 2022 are left"},
		{payload("06 0001 ffff aa"), "decoding payload at byte 3: DATA of 65535 bytes where 2022 are left"},
		{payload("0d 0001 0000"), "decoding payload at byte 0: unknown message 13"},
		{payload("20 0001 0000"), "decoding payload at byte 0: unknown message 32"},
		{payload("0b 0000 0004 00000001 ff 0001 0000"), "decoding payload at byte 9: unknown message 255"},
		{payload("06 0000 0001 aa"), "decoding payload at byte 1: DATA without a stream"},
		{payload("04 0000 0001 aa"), "decoding payload at byte 1: BEGIN without a stream"},
		{payload("05 0000 0001 aa"), "decoding payload at byte 1: CONNECTED without a stream"},
		{payload("07 0000 0001 aa"), "decoding payload at byte 1: END without a stream"},
		{payload("08 0000 0001 aa"), "decoding payload at byte 1: RESOLVE without a stream"},
		{payload("09 0000 0001 aa"), "decoding payload at byte 1: RESOLVED without a stream"},
		{payload("0a 0000 0000"), "decoding payload at byte 1: BEGIN_DIR without a stream"},
		{payload("01 0001 0001 aa"), "decoding payload at byte 1: EXTEND on a stream"},
		{payload("02 0001 0001 aa"), "decoding payload at byte 1: EXTENDED on a stream"},
		{payload("03 0001 0001 aa"), "decoding payload at byte 1: EXTEND_FAILED on a stream"},
		{payload("0c ffff 0001 aa"), "decoding payload at byte 1: DROP on a stream"},
		{payload("06 0001 0000"), "decoding DATA at byte 5: no data"},
		{payload("0a 0001 0001 aa"), "decoding BEGIN_DIR at byte 5: 1 bytes too many"},
		{payload("07 0001 0001 00 0b 0001 0004 00000000"), "decoding WINDOW at byte 11: adds nothing"},
		{payload("07 0001 0001 00 04 0001 0009 00000001 02 01 61 0000"), "decoding BEGIN at byte 18: port 0"},
		{payload("07 0001 0001 00 01 0000 002b" + identityHex + "01 63 00 0001 0002 0000 0102"), "decoding payload at byte 6: EXTEND is not alone in its cell"},
		{payload("01 0000 002b" + identityHex + "01 63 00 0001 0001 0000 01 0c 0000 0000"), "decoding EXTEND at byte 42: handshake of 2 bytes, its total says 1"},
		{payload("01 0000 002a" + identityHex + "01 63 00 0001 0001 0000 01 0c 0000 0000"), "decoding payload at byte 0: EXTEND is not alone in its cell"},
	} {
		before := []Message{{MessageDrop, 0, []byte("x")}}
		got, err := ParsePayload(tt.payload, before)
		wantError(t, err, tt.want)
		if !reflect.DeepEqual(got, before) {
			t.Errorf("%v: messages handed out: %+v", err, got)
		}
	}
}

// TestMalformedLastMessageHidesTheFirst protects the rule that a cell acts as a whole or not at all, for every message.
func TestMalformedLastMessageHidesTheFirst(t *testing.T) {
	t.Parallel()
	for command, decode := range decoders {
		bad := []byte{0xff, 0, 0, 0, 0}
		if _, err := decode(bad); err == nil {
			t.Fatalf("%v accepts %x", command, bad)
		}
		var stream StreamID
		if checkStream(command, 0) != nil {
			stream = 1
		}
		if command == MessageExtend {
			continue // never behind another message
		}
		payload := make([]byte, PayloadSize)
		p := NewPacker(payload)
		p.Add(MessageData, 1, []byte("first"))
		p.Add(command, stream, bad)
		p.Finish()
		if got, err := ParsePayload(payload, nil); err == nil || got != nil {
			t.Errorf("%v: got %v, %v", command, got, err)
		}
	}
}

func TestEveryGoldenMessagePacksAndParses(t *testing.T) {
	t.Parallel()
	for _, tt := range goldenMessages {
		data := unhex(t, tt.hex)
		var stream StreamID
		if checkStream(tt.command, 0) != nil {
			stream = 0xffff
		}
		payload := dirty(PayloadSize)
		p := NewPacker(payload)
		if !p.Add(tt.command, stream, data) {
			t.Fatalf("%v does not fit", tt.command)
		}
		p.Finish()
		got, err := ParsePayload(payload, nil)
		if err != nil || !reflect.DeepEqual(got, []Message{{tt.command, stream, data}}) {
			t.Errorf("%v: %+v, %v", tt.command, got, err)
		}
	}
}

func TestWindowMayConcernTheCircuitOrAStream(t *testing.T) {
	t.Parallel()
	for _, stream := range []StreamID{0, 1, 0xffff} {
		payload := make([]byte, PayloadSize)
		p := NewPacker(payload)
		p.Add(MessageWindow, stream, []byte{0, 0, 0, 1})
		p.Finish()
		if _, err := ParsePayload(payload, nil); err != nil {
			t.Errorf("stream %d: %v", stream, err)
		}
	}
}

func TestPackerFillsAPayloadToTheLastByte(t *testing.T) {
	t.Parallel()
	for left := 0; left <= MessageHeaderSize+1; left++ { // bytes left behind the first message
		payload := dirty(PayloadSize)
		p := NewPacker(payload)
		if p.Free() != MaxData || !p.Empty() {
			t.Fatalf("new packer: free %d, empty %v", p.Free(), p.Empty())
		}
		first := bytes.Repeat([]byte{1}, MaxData-left)
		if !p.Add(MessageData, 1, first) || p.Empty() {
			t.Fatalf("%d bytes do not fit", len(first))
		}
		free := max(left-MessageHeaderSize, -1)
		if p.Free() != free {
			t.Errorf("%d bytes left: free %d, want %d", left, p.Free(), free)
		}
		if got := p.Add(MessageBeginDir, 2); got != (free >= 0) {
			t.Errorf("%d bytes left: empty message fits: %v", left, got)
		}
		p.Finish()
		got, err := ParsePayload(payload, nil)
		want := []Message{{MessageData, 1, first}}
		if free >= 0 {
			want = append(want, Message{MessageBeginDir, 2, []byte{}})
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%d bytes left: %d messages, %v", left, len(got), err)
		}
	}
}

func TestPackerRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	payload := dirty(PayloadSize)
	p := NewPacker(payload)
	if p.Add(MessageData, 1, make([]byte, MaxData+1)) || p.Add(MessageData, 1, make([]byte, MaxData), []byte{1}) {
		t.Error("more than MaxData fits")
	}
	if !p.Empty() || !bytes.Equal(payload, dirty(PayloadSize)) {
		t.Error("a message that did not fit left a trace")
	}
	if !p.Add(MessageData, 1, make([]byte, MaxData)) || p.Free() != -1 || p.Reserve(MessageData, 1, 1) != nil {
		t.Error("MaxData does not fill the payload")
	}
}

func TestPackerKeepsExtendAlone(t *testing.T) {
	t.Parallel()
	p := NewPacker(make([]byte, PayloadSize))
	p.Add(MessageWindow, 0, []byte{0, 0, 0, 1})
	if p.Add(MessageExtend, 0, []byte{1}) || p.Reserve(MessageExtend, 0, 10) != nil {
		t.Error("EXTEND fits behind a message")
	}
	p = NewPacker(make([]byte, PayloadSize))
	if !p.Add(MessageExtend, 0, []byte{1}) {
		t.Fatal("EXTEND does not fit")
	}
	if p.Free() != -1 || p.Add(MessageDrop, 0) || p.Reserve(MessageData, 1, 10) != nil {
		t.Error("a message fits behind EXTEND")
	}
}

func TestReserveAndCommitFillInPlace(t *testing.T) {
	t.Parallel()
	payload := dirty(PayloadSize)
	p := NewPacker(payload)

	if n := len(p.Reserve(MessageData, 1, 1<<20)); n != MaxData {
		t.Fatalf("reserved %d bytes", n)
	}
	p.Commit(0) // nothing to send after all
	if !p.Empty() {
		t.Error("Commit(0) added a message")
	}
	if p.Reserve(MessageData, 1, 0) != nil || p.Reserve(MessageData, 1, -1) != nil {
		t.Error("reserved no bytes")
	}
	p.Commit(copy(p.Reserve(MessageData, 1, 0), "no room"))
	copy(p.Reserve(MessageData, 1, 100), "hello")
	p.Commit(5)
	copy(p.Reserve(MessageData, 1, 100), "given up")
	p.Add(MessageEnd, 1, []byte{0})
	place := p.Reserve(MessageData, 2, 1<<20)
	if len(place) != p.Free() || cap(place) != len(place) {
		t.Errorf("reserved %d bytes, capacity %d, free %d", len(place), cap(place), p.Free())
	}
	copy(place, dirty(len(place)))
	p.Commit(3)
	p.Finish()

	got, err := ParsePayload(payload, nil)
	if want := []Message{
		{MessageData, 1, []byte("hello")}, {MessageEnd, 1, []byte{0}}, {MessageData, 2, dirty(3)},
	}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parsed %+v, %v", got, err)
	}
}

// TestPackerPanicsOnMisuse: what a peer would have to reject never leaves, and no input of a peer leads here.
func TestPackerPanicsOnMisuse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want string
		f    func(p *Packer)
	}{
		{"packing a payload of 2043 bytes instead of 2027", func(*Packer) { NewPacker(make([]byte, BodySize)) }},
		{"packing unknown END_OF_CELL", func(p *Packer) { p.Add(MessageEndOfCell, 0) }},
		{"packing unknown message 32", func(p *Packer) { p.Add(32, 0) }},
		{"packing DATA without a stream", func(p *Packer) { p.Add(MessageData, 0, []byte{1}) }},
		{"packing DATA without data", func(p *Packer) { p.Add(MessageData, 1, nil, nil) }},
		{"packing EXTEND on a stream", func(p *Packer) { p.Reserve(MessageExtend, 1, 5) }},
		{"committing 1 bytes of 0 reserved", func(p *Packer) { p.Commit(1) }},
		{"committing 6 bytes of 5 reserved", func(p *Packer) { p.Reserve(MessageData, 1, 5); p.Commit(6) }},
		{"committing -1 bytes of 5 reserved", func(p *Packer) { p.Reserve(MessageData, 1, 5); p.Commit(-1) }},
		{"committing 5 bytes of 0 reserved", func(p *Packer) { p.Reserve(MessageData, 1, 5); p.Commit(5); p.Commit(5) }},
		{"committing 5 bytes of 0 reserved", func(p *Packer) { p.Reserve(MessageData, 1, 5); p.Finish(); p.Commit(5) }},
	} {
		func() {
			defer func() {
				if got, _ := recover().(string); got != "cell: "+tt.want {
					t.Errorf("panic %q, want %q", got, "cell: "+tt.want)
				}
			}()
			p := NewPacker(make([]byte, PayloadSize))
			tt.f(&p)
		}()
	}
}

func TestDataOfAMessageCannotGrowIntoTheNext(t *testing.T) {
	t.Parallel()
	payload := make([]byte, PayloadSize)
	p := NewPacker(payload)
	p.Add(MessageData, 1, []byte("one"))
	p.Add(MessageData, 1, []byte("two"))
	p.Finish()
	messages, err := ParsePayload(payload, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(messages[0].Data, "XXXXXXXXXX"...)
	if string(messages[1].Data) != "two" {
		t.Errorf("second message became %q", messages[1].Data)
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	// Not parallel: AllocsPerRun counts for the whole process.
	cell := make([]byte, Size)
	body := cell[HeaderSize:]
	payload := make([]byte, PayloadSize)
	p := NewPacker(payload)
	p.Add(MessageWindow, 0, []byte{0, 0, 0, 1})
	p.Add(MessageEnd, 3, []byte{0})
	p.Add(MessageDrop, 0)
	p.Add(MessageData, 1, make([]byte, 1000))
	p.Finish()
	var pairs []CreditPair
	for i := range MaxCreditPairs {
		pairs = append(pairs, CreditPair{CircuitID(i + 1), 1})
	}
	credit := make([]byte, BodySize)
	if err := PutCredit(credit, pairs); err != nil {
		t.Fatal(err)
	}
	messages := make([]Message, 0, 8)
	data := []byte("some data")
	one, zero := []byte{0, 0, 0, 1}, []byte{0}
	scratch := make([]byte, 0, 64)
	for _, tt := range []struct {
		name string
		f    func() error
	}{
		{"Header.Put", func() error { Header{1, CommandRelay, true}.Put(cell); return nil }},
		{"DecodeHeader", func() error { _, err := DecodeHeader(cell); return err }},
		{"ParsePayload", func() (err error) { messages, err = ParsePayload(payload, messages[:0]); return err }},
		{"PutCredit", func() error { return PutCredit(body, pairs) }},
		{"DecodeCredit", func() (err error) { pairs, err = DecodeCredit(credit, pairs[:0]); return err }},
		{"PutDestroy", func() error { return PutDestroy(body, ReasonDestroyed) }},
		{"DecodeDestroy", func() error { clear(body); _, err := DecodeDestroy(body); return err }},
		{"Window.AppendTo", func() error { _, err := Window{1}.AppendTo(scratch); return err }},
		{"DecodeWindow", func() error { _, err := DecodeWindow(one); return err }},
		{"End.AppendTo", func() error { _, err := End{1}.AppendTo(scratch); return err }},
		{"DecodeEnd", func() error { _, err := DecodeEnd(zero); return err }},
		{"Packer", func() error {
			p := NewPacker(body[TagSize:])
			p.Add(MessageData, 1, data, data)
			p.Commit(copy(p.Reserve(MessageData, 1, MaxData), data))
			p.Finish()
			return nil
		}},
	} {
		var err error
		if n := testing.AllocsPerRun(100, func() {
			if e := tt.f(); e != nil {
				err = e
			}
		}); n != 0 || err != nil {
			t.Errorf("%s: %v allocations, error %v", tt.name, n, err)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, tt := range [][2]string{
		{CommandPadding.String(), "PADDING"}, {CommandRelayEarly.String(), "RELAY_EARLY"}, {Command(10).String(), "command 10"},
		{MessageEndOfCell.String(), "END_OF_CELL"}, {MessageExtendFailed.String(), "EXTEND_FAILED"},
		{MessageDrop.String(), "DROP"}, {MessageCommand(13).String(), "message 13"},
		{ReasonNone.String(), "none"}, {ReasonRefused.String(), "connection refused"},
		{ReasonNoSuchHost.String(), "no such host"}, {ReasonHibernating.String(), "relay hibernating"},
		{ReasonOther.String(), "other"}, {Reason(22).String(), "other"}, {Reason(254).String(), "other"},
	} {
		if tt[0] != tt[1] {
			t.Errorf("got %q, want %q", tt[0], tt[1])
		}
	}
	for r := range 256 {
		if name := Reason(r).String(); name == "" || strings.ToLower(name) != name {
			t.Errorf("reason %d is called %q", r, name)
		}
		want := Reason(r)
		if r > int(ReasonHibernating) {
			want = ReasonOther
		}
		if Reason(r).Known() != want {
			t.Errorf("reason %d reads as %d", r, Reason(r).Known())
		}
	}
}

// TestNumbersNeverChange: cell commands are input of the relay crypto, and all of them are the protocol.
func TestNumbersNeverChange(t *testing.T) {
	t.Parallel()
	for i, c := range []Command{
		CommandPadding, CommandCreate, CommandCreated, CommandRelay, CommandDestroy, CommandHello, CommandCredit,
		CommandGossip, CommandLinkDrain, CommandRelayEarly,
	} {
		if int(c) != i || !c.Known() {
			t.Errorf("%v is %d, known %v", c, c, c.Known())
		}
	}
	if CommandReturn != 11 || !CommandReturn.Known() || Command(10).Known() {
		t.Error("RETURN is 11, and 10 is not known yet")
	}
	for i, c := range []MessageCommand{
		MessageEndOfCell, MessageExtend, MessageExtended, MessageExtendFailed, MessageBegin, MessageConnected,
		MessageData, MessageEnd, MessageResolve, MessageResolved, MessageBeginDir, MessageWindow, MessageDrop,
	} {
		if int(c) != i || c.Known() != (i > 0) {
			t.Errorf("%v is %d, known %v", c, c, c.Known())
		}
	}
	for i, r := range []Reason{
		ReasonEOF, ReasonProtocol, ReasonInternal, ReasonResource, ReasonDestroyed, ReasonTimeout, ReasonShutdown,
		ReasonConnectFailed, ReasonWrongIdentity, ReasonNoSuchRelay, ReasonPolicy, ReasonNoSuchHost,
		ReasonResolveFailed, ReasonRefused, ReasonHostUnreachable, ReasonNetUnreachable, ReasonReset,
		ReasonNotDirectory, ReasonBadHandshake, ReasonUnsupported, ReasonRateLimited, ReasonHibernating,
	} {
		if int(r) != i {
			t.Errorf("%v is %d, want %d", r, r, i)
		}
	}
	if ReasonOther != 255 || ReasonNone != 0 {
		t.Error("ReasonOther or ReasonNone changed")
	}
}

func BenchmarkDecodeHeader(b *testing.B) {
	cell := make([]byte, Size)
	Header{1, CommandRelay, false}.Put(cell)
	for b.Loop() {
		if _, err := DecodeHeader(cell); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParsePayload(b *testing.B) {
	for _, tt := range []struct {
		name string
		data int
	}{{"short", 100}, {"full", MaxData}} {
		b.Run(tt.name, func(b *testing.B) {
			payload := make([]byte, PayloadSize)
			p := NewPacker(payload)
			p.Add(MessageData, 1, dirty(tt.data))
			p.Finish()
			messages := make([]Message, 0, 1)
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if messages, err = ParsePayload(payload, messages[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeCredit(b *testing.B) {
	body := make([]byte, BodySize)
	pairs := make([]CreditPair, MaxCreditPairs)
	for i := range pairs {
		pairs[i] = CreditPair{CircuitID(i + 1), 1}
	}
	if err := PutCredit(body, pairs); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if pairs, err = DecodeCredit(body, pairs[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
