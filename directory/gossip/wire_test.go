package gossip

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
)

// The structs of memberlist v0.7.0 (net.go), which it does not export.
type (
	memberlistAlive struct {
		Incarnation uint32
		Node        string
		Addr        []byte
		Port        uint16
		Meta        []byte
		Vsn         []uint8
	}
	memberlistDead struct {
		Incarnation uint32
		Node        string
		From        string
	}
)

func msgpack(t testing.TB, kind byte, v any) []byte {
	t.Helper()
	b := bytes.NewBuffer([]byte{kind})
	if err := codec.NewEncoder(b, &codec.MsgpackHandle{}).Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestMessagesAreMemberlistsOwn compares the hand-written encoding with what memberlist's own library writes.
func TestMessagesAreMemberlistsOwn(t *testing.T) {
	t.Parallel()
	id, other := cert.Identity{0xab, 31: 1}, cert.Identity{2}
	for _, incarnation := range []uint32{0, 1, 127, 128, 255, 256, 65535, 65536, 1<<32 - 1} {
		for _, size := range []int{minMeta, 255, 256, directory.MaxRumour} {
			meta := bytes.Repeat([]byte{0xf5}, size)
			want := msgpack(t, aliveMessage, memberlistAlive{incarnation, id.String(), []byte{192, 0, 0, 8}, port, meta, []uint8{1, 5, 2, 0, 0, 0}})
			got := appendAlive(nil, alive{id, meta, incarnation})
			if !bytes.Equal(got, want) {
				t.Fatalf("alive, incarnation %d, %d bytes:\n got %x\nwant %x", incarnation, size, got, want)
			}
			a, err := decodeAlive(got)
			if err != nil || a.id != id || a.incarnation != incarnation || !bytes.Equal(a.meta, meta) {
				t.Fatalf("decoded %v, %v", a, err)
			}
		}
		want := msgpack(t, deadMessage, memberlistDead{incarnation, id.String(), other.String()})
		if got := appendDead(nil, id, other, incarnation); !bytes.Equal(got, want) {
			t.Fatalf("dead, incarnation %d:\n got %x\nwant %x", incarnation, got, want)
		}
	}
}

func TestAliveOnTheWireIsThePublishedForm(t *testing.T) {
	t.Parallel()
	meta := bytes.Repeat([]byte{0xee}, minMeta)
	const want = "0486" + "a441646472" + "a4c0000008" + "ab496e6361726e6174696f6e" + "01" + "a44d657461" + "da0020" + "META" +
		"a44e6f6465" + "da0040" + "NAME" + "a4506f7274" + "01" + "a356736e" + "a6010502000000"
	id := cert.Identity{1, 2, 3}
	full := strings.NewReplacer("META", hex.EncodeToString(meta), "NAME", hex.EncodeToString([]byte(id.String()))).Replace(want)
	if got := hex.EncodeToString(appendAlive(nil, alive{id, meta, wireIncarnation})); got != full {
		t.Errorf("got  %s\nwant %s", got, full)
	}
}

// packets are one of every kind that memberlist knows, and forms that are nearly right.
func packets() map[string]struct {
	packet []byte
	reason Reason
} {
	meta := bytes.Repeat([]byte{7}, 300)
	id := cert.Identity{1}
	good := appendAlive(nil, alive{id, meta, 1})
	replace := func(old, new string) []byte { return bytes.Replace(good, []byte(old), []byte(new), 1) }
	type p = struct {
		packet []byte
		reason Reason
	}
	cut := func(b []byte, n int) []byte { return b[:len(b)-n] }
	return map[string]p{
		"ping": {[]byte{0, 0x80}, DropPing}, "indirect ping": {[]byte{1, 0x80}, DropIndirectPing}, "ack": {[]byte{2, 0x80}, DropAck},
		"suspect":   {[]byte{3, 0x80}, DropSuspect},
		"dead":      {appendDead(nil, id, cert.Identity{2}, 1<<32-1), DropDead},
		"push/pull": {[]byte{6, 0x80}, DropPushPull}, "user": {[]byte{8, 1}, DropUser}, "compressed": {[]byte{9, 0x80}, DropCompressed},
		"encrypted": {[]byte{10, 1}, DropEncrypted}, "nack": {[]byte{11, 0x80}, DropNack},
		"checksummed": {append([]byte{12, 1, 2, 3, 4}, good...), DropChecksummed},
		"error":       {[]byte{13, 0x80}, DropError}, "label": {[]byte{244, 1, 'x'}, DropLabelled}, "unknown": {[]byte{14}, DropUnknown},
		"empty":              {nil, DropMalformed},
		"too large":          {make([]byte, cell.MaxGossip+1), DropMalformed},
		"nested":             {appendPacket(nil, [][]byte{good, appendPacket(nil, [][]byte{good, good})}), DropNested},
		"dead in a compound": {appendPacket(nil, [][]byte{good, appendDead(nil, id, id, 9)}), DropDead},
		"compound of none":   {[]byte{7, 0}, DropMalformed},
		"compound of one":    {append([]byte{7, 1, byte(len(good) >> 8), byte(len(good))}, good...), DropMalformed},
		"compound of nine":   {appendPacket(nil, [][]byte{{4}, {4}, {4}, {4}, {4}, {4}, {4}, {4}, {4}}), DropMalformed},
		"count cut":          {[]byte{7}, DropMalformed},
		"lengths cut":        {[]byte{7, 2, 0, 1, 0}, DropMalformed},
		"empty part":         {append([]byte{7, 2, 0, 0, byte(len(good) >> 8), byte(len(good))}, good...), DropMalformed},
		"part cut":           {cut(appendPacket(nil, [][]byte{good, good}), 1), DropMalformed},
		"behind the parts":   {append(appendPacket(nil, [][]byte{good, good}), 0), DropMalformed},
		"behind an alive":    {append(bytes.Clone(good), 0), DropMalformed},
		"alive cut":          {cut(good, 1), DropMalformed},
		"only a type":        {[]byte{4}, DropMalformed},
		"incarnation 2":      {appendAlive(nil, alive{id, meta, 2}), DropIncarnation},
		"incarnation max":    {appendAlive(nil, alive{id, meta, 1<<32 - 1}), DropIncarnation},
		"incarnation long":   {replace("Incarnation\x01", "Incarnation\xcc\x01"), DropMalformed},
		"incarnation signed": {replace("Incarnation\x01", "Incarnation\xff"), DropMalformed},
		"incarnation nil":    {replace("Incarnation\x01", "Incarnation\xc0"), DropMalformed},
		"address":            {replace("\xc0\x00\x00\x08", "\x7f\x00\x00\x01"), DropMalformed},
		"port":               {replace("Port\x01", "Port\x02"), DropMalformed},
		"versions":           {replace("\xa6\x01\x05", "\xa6\x00\x05"), DropMalformed},
		"key twice":          {replace("\xa4Port", "\xa4Addr"), DropMalformed},
		"name in capitals":   {appendName(good, "0A"), DropMalformed},
		"name not digits":    {appendName(good, "zz"), DropMalformed},
		"short metadata":     {appendAlive(nil, alive{id, meta[:minMeta-1], 1}), DropMalformed},
		"long metadata":      {appendAlive(nil, alive{id, make([]byte, directory.MaxRumour+1), 1}), DropMalformed},
		"no metadata":        {replace("\xa4Meta\xda", "\xa4Meta\xa0"), DropMalformed},
	}
}

// appendName returns an alive message whose name begins otherwise.
func appendName(b []byte, begin string) []byte {
	b = bytes.Clone(b)
	copy(b[bytes.Index(b, []byte("Node"))+7:], begin)
	return b
}

func TestFilterRefusesByKind(t *testing.T) {
	t.Parallel()
	for name, p := range packets() {
		alives, reason, err := decodePacket(p.packet)
		if err == nil || alives != nil || reason != p.reason {
			t.Errorf("%s: %d messages, reason %q, error %v; want reason %q", name, len(alives), reason, err, p.reason)
		}
	}
}

func TestFilterPassesOneToFourRumours(t *testing.T) {
	t.Parallel()
	var messages [][]byte
	for n := byte(1); n <= 4; n++ {
		messages = append(messages, appendAlive(nil, alive{cert.Identity{n}, bytes.Repeat([]byte{n}, 340), 1}))
		packet := appendPacket(nil, messages)
		if size := packetSize(len(messages), len(messages)*len(messages[0])); size != len(packet) || size > cell.MaxGossip {
			t.Errorf("%d messages: %d bytes, computed %d", n, len(packet), size)
		}
		alives, _, err := decodePacket(packet)
		if err != nil || len(alives) != int(n) || alives[n-1].id != (cert.Identity{n}) {
			t.Errorf("%d messages: %v, %v", n, alives, err)
		}
	}
}

// FuzzFilter: the filter never panics, and what it accepts is written again byte by byte.
func FuzzFilter(f *testing.F) {
	for _, p := range packets() {
		f.Add(p.packet)
	}
	good := appendAlive(nil, alive{cert.Identity{1}, bytes.Repeat([]byte{7}, minMeta), 1})
	f.Add(good)
	f.Add(appendPacket(nil, [][]byte{good, good}))
	f.Fuzz(func(t *testing.T, packet []byte) {
		alives, reason, err := decodePacket(packet)
		if err != nil {
			if reason == 0 || reason >= reasons || alives != nil {
				t.Fatalf("reason %d with %v", reason, err)
			}
			return
		}
		var messages [][]byte
		for _, a := range alives {
			messages = append(messages, appendAlive(nil, a))
		}
		if again := appendPacket(nil, messages); !bytes.Equal(again, packet) {
			t.Fatalf("%x is written as %x", packet, again)
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	var messages [][]byte
	for n := byte(1); n <= 4; n++ {
		messages = append(messages, appendAlive(nil, alive{cert.Identity{n}, bytes.Repeat([]byte{n}, 340), 1}))
	}
	packet := appendPacket(nil, messages)
	for b.Loop() {
		if _, _, err := decodePacket(packet); err != nil {
			b.Fatal(err)
		}
	}
}
