package link

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// sealed is a pair of both ends of one direction.
func sealed(t testing.TB, suiteID uint16, seq uint64) (*sealer, *opener) {
	t.Helper()
	s := suites[suiteID]
	secret := bytes.Repeat([]byte{7}, s.hash().Size())
	out, err := newTraffic(s, bytes.Clone(secret), seq)
	if err != nil {
		t.Fatal(err)
	}
	in, err := newTraffic(s, bytes.Clone(secret), seq)
	if err != nil {
		t.Fatal(err)
	}
	seal := &sealer{traffic: out}
	return seal, &opener{traffic: in, rekeyed: new(atomic.Bool)}
}

// openAll opens all records in b.
func openAll(o *opener, b []byte) ([]byte, error) {
	data := make([]byte, 0, len(b)+maxRecord)
	for len(b) > 0 {
		n := 5 + int(b[3])<<8 + int(b[4])
		var err error
		if data, err = o.open(data, b[:n]); err != nil {
			return data, err
		}
		b = b[n:]
	}
	return data, nil
}

// withRoom is p with room for a byte more.
func withRoom(p []byte) []byte { return append(p, 0)[:len(p)] }

func TestRecordsOpenAsTheyWereSealed(t *testing.T) {
	t.Parallel()
	for id := range suites {
		for _, size := range []int{1, 2048, maxPlain - 1, maxPlain, maxPlain + 1, 4*maxPlain + 5} {
			s, o := sealed(t, id, 3)
			want := pattern(size)
			data := withRoom(bytes.Clone(want))
			var wire []byte
			for range 3 {
				var err error
				if wire, err = s.sealAll(wire[:0], data); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(data, want) {
					t.Fatalf("%s, %d bytes: sealing changed what it was given", tls.CipherSuiteName(id), size)
				}
				got, err := openAll(o, wire)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%s: %d bytes came back as %d, %v", tls.CipherSuiteName(id), size, len(got), err)
				}
			}
			if n := s.records.Load(); n != 3*int64((size+maxPlain-1)/maxPlain) {
				t.Errorf("%d records for 3 times %d bytes", n, size)
			}
		}
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

// Each bit of a record counts, and so does its place among the others.
func TestAlteredRecordsAreRefused(t *testing.T) {
	t.Parallel()
	s, _ := sealed(t, tls.TLS_AES_128_GCM_SHA256, 0)
	whole, err := s.sealAll(nil, withRoom(pattern(20)))
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(whole) * 8 {
		if i := bit / 8; i == 3 || i == 4 {
			continue // another length is another record
		}
		_, o := sealed(t, tls.TLS_AES_128_GCM_SHA256, 0)
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		if data, err := openAll(o, b); !errors.Is(err, ErrTLS) || len(data) != 0 {
			t.Fatalf("bit %d: %d bytes, %v", bit, len(data), err)
		}
	}
	for _, seq := range []uint64{1, 1 << 40} {
		_, o := sealed(t, tls.TLS_AES_128_GCM_SHA256, seq)
		if _, err := openAll(o, whole); !errors.Is(err, ErrTLS) {
			t.Errorf("opened as record %d: %v", seq, err)
		}
	}
	_, o := sealed(t, tls.TLS_AES_128_GCM_SHA256, 0)
	for _, short := range [][]byte{whole[:5], whole[:6], whole[:21]} {
		if _, err := o.open(make([]byte, 0, maxRecord), short); !errors.Is(err, ErrTLS) {
			t.Errorf("a record of %d bytes: %v", len(short), err)
		}
	}
}

func TestWhatRecordsMayCarry(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind    byte
		content []byte
		times   int
		want    error // nil: taken
	}{
		"goodbye":                  {recordAlert, []byte{1, alertCloseNotify}, 1, io.EOF},
		"an alert":                 {recordAlert, []byte{2, 20}, 1, ErrTLS},
		"a strange alert":          {recordAlert, []byte{2}, 1, ErrTLS},
		"padding alone":            {0, []byte{0, 0, 0}, 1, ErrTLS},
		"nothing":                  {recordData, nil, maxUselessRecords, nil},
		"nothing too often":        {recordData, nil, maxUselessRecords + 1, ErrTLS},
		"padding":                  {0, []byte{'x', recordData, 0, 0}, 1, nil},
		"a ticket for a server":    {recordHandshake, []byte{newSessionTicket, 0, 0, 1, 0}, 1, ErrTLS},
		"a handshake message":      {recordHandshake, []byte{1, 0, 0, 0}, 1, ErrTLS},
		"half a message":           {recordHandshake, []byte{keyUpdate, 0, 0}, 1, ErrTLS},
		"a key update and more":    {recordHandshake, []byte{keyUpdate, 0, 0, 1, 0, 0}, 1, ErrTLS},
		"a key update of a kind":   {recordHandshake, []byte{keyUpdate, 0, 0, 1, 2}, 1, ErrTLS},
		"another type":             {24, []byte{1}, 1, ErrTLS},
		"change of cipher, sealed": {20, []byte{1}, 1, ErrTLS},
	} {
		s, o := sealed(t, tls.TLS_AES_128_GCM_SHA256, 0)
		var wire []byte
		for range c.times {
			wire = s.seal(wire, withRoom(bytes.Clone(c.content)), c.kind)
		}
		if _, err := openAll(o, wire); c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, o := sealed(t, tls.TLS_AES_128_GCM_SHA256, 0)
	o.client = true
	if _, err := openAll(o, s.seal(nil, withRoom([]byte{newSessionTicket, 0, 0, 1, 0}), recordHandshake)); err != nil {
		t.Errorf("a ticket for a client: %v", err)
	}
	// Longer than TLS allows, with a type.
	if _, err := openAll(o, s.seal(nil, withRoom(pattern(maxPlain+1)), recordData)); !errors.Is(err, ErrTLS) {
		t.Errorf("a record that is too long: %v", err)
	}
	if _, err := o.open(make([]byte, 0, maxRecord), []byte{recordAlert, 3, 3, 0, 2, 2, 80}); !errors.Is(err, ErrTLS) {
		t.Errorf("a record in the clear: %v", err)
	}
}

// A KeyUpdate changes the key of one direction, and may ask for that of the other.
func TestKeyUpdate(t *testing.T) {
	t.Parallel()
	for id := range suites {
		s, o := sealed(t, id, 0)
		back := new(sealer)
		o.rekeyed = &back.rekeyed
		for i := range 3 {
			wire := s.seal(nil, withRoom([]byte{keyUpdate, 0, 0, 1, 1}), recordHandshake)
			if err := s.update(); err != nil {
				t.Fatal(err)
			}
			wire, err := s.sealAll(wire, withRoom([]byte("after")))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := openAll(o, wire); err != nil || string(got) != "after" {
				t.Fatalf("%s, update %d: %q, %v", tls.CipherSuiteName(id), i, got, err)
			}
			if !back.rekeyed.Load() {
				t.Error("our own update was not asked for")
			}
		}
		// Ours goes before the next data.
		s.rekeyed.Store(true)
		wire, err := s.sealAll(nil, withRoom([]byte("ours")))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := openAll(o, wire); err != nil || string(got) != "ours" {
			t.Errorf("after our own update: %q, %v", got, err)
		}
		if s.rekeyed.Load() || s.seq != 1 {
			t.Errorf("record %d after an update", s.seq)
		}
	}
}

// The far end is crypto/tls, with each cipher suite: what one seals the other opens, goodbye included.
func TestRecordsOfCryptoTLS(t *testing.T) {
	t.Parallel()
	keys := newKeys(t, testNetwork, "records", time.Now())
	s, err := newSecrets(testNetwork, keys.credentials(t, testNetwork, time.Now()), time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, weServe := range []bool{false, true} {
		ours, theirs := net.Pipe()
		deadline := time.Now().Add(patience)
		ours.SetDeadline(deadline)
		theirs.SetDeadline(deadline)
		w := newWire(ours, &bufferPool{size: largeRead, limit: 8})
		var log strings.Builder
		k := &trafficSecrets{log: &log}
		us, them := tls.Client(w, k.in(s.client)), tls.Server(theirs, s.server)
		if weServe {
			us, them = tls.Server(w, k.in(s.server)), tls.Client(theirs, s.client)
		}
		done := make(chan error, 1)
		data := pattern(100_000)
		go func() {
			err := them.Handshake()
			if err == nil {
				_, err = them.Write(data)
			}
			got := make([]byte, len(data))
			if err == nil {
				_, err = io.ReadFull(them, got)
			}
			if err == nil && !bytes.Equal(got, data) {
				err = errors.New("other bytes came")
			}
			if err == nil {
				_, err = them.Read(got)
			}
			if err != io.EOF {
				done <- err
				return
			}
			done <- them.CloseWrite()
		}()
		if err := us.Handshake(); err != nil {
			t.Fatal(err)
		}
		w.given = 0
		w.stream()
		in, out, err := k.takeOver(us.ConnectionState(), !weServe, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		next := func(data []byte) ([]byte, error) {
			for !w.ready() {
				if err := w.fill(); err != nil {
					return data, err
				}
			}
			return in.open(data, w.take())
		}
		got := make([]byte, 0, len(data)+2*maxRecord)
		for len(got) < len(data) {
			if got, err = next(got); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, data) {
			t.Error("other bytes came")
		}
		if err := w.collect(out, withRoom(data)); err != nil {
			t.Fatal(err)
		}
		w.out = out.goodbye(w.out)
		if err := w.flush(func() {}); err != nil {
			t.Fatal(err)
		}
		if _, err := next(got[:0]); err != io.EOF {
			t.Errorf("goodbye came as %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("crypto/tls, we serve %v: %v", weServe, err)
		}
		if n := strings.Count(log.String(), "TRAFFIC_SECRET_0"); n != 2 {
			t.Errorf("the key log has %d traffic secrets", n)
		}
	}
}

func TestRecordsAllocateNothing(t *testing.T) {
	s, o := sealed(t, tls.TLS_AES_128_GCM_SHA256, 0)
	data := withRoom(pattern(2 * maxPlain))
	wire, plain := make([]byte, 0, 3*maxRecord), make([]byte, 0, 3*maxRecord)
	if n := testing.AllocsPerRun(50, func() {
		wire, _ = s.sealAll(wire[:0], data)
		p := plain
		for b := wire; len(b) > 0; {
			n := 5 + int(b[3])<<8 + int(b[4])
			p, _ = o.open(p, b[:n])
			b = b[n:]
		}
		if len(p) != len(data) {
			t.Error("lost something")
		}
	}); n != 0 {
		t.Errorf("%v allocations for two records", n)
	}
}

// FuzzOpen gives the opener what a hostile peer, who knows the keys, can seal.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{keyUpdate, 0, 0, 1, 1, recordHandshake})
	f.Add([]byte{1, 0, recordAlert})
	f.Add([]byte("data\x17\x00\x00"))
	f.Fuzz(func(t *testing.T, inner []byte) {
		if len(inner) > maxRecord-5-16 {
			return
		}
		s, o := sealed(t, tls.TLS_AES_128_GCM_SHA256, 0)
		var record []byte
		if len(inner) == 0 {
			record = []byte{recordData, 3, 3, 0, 0}
		} else {
			last := len(inner) - 1
			record = s.seal(nil, withRoom(bytes.Clone(inner[:last])), inner[last])
		}
		dst := make([]byte, 7, 7+maxRecord)
		got, err := o.open(dst, record)
		if len(got) < 7 || err != nil && len(got) != 7 {
			t.Errorf("%d bytes with error %v", len(got), err)
		}
		if n := len(got) - 7; n > 0 && !bytes.Equal(got[7:], inner[:n]) {
			t.Error("other data came out")
		}
	})
}
