package directory

import (
	"bytes"
	"testing"
	"time"

	"cepa/cert"
)

// The decoders of bodies are fuzzed behind the signature: nobody who cannot sign gets that far, but the signer of a
// descriptor may be anybody.

func FuzzDecodeDescriptor(f *testing.F) {
	network := testNetwork(f, 1)
	d := testDescriptor(f, 7)
	f.Add(must[[]byte](f)(d.body()))
	d.Extensions = Extensions{99: {0x01}}
	f.Add(must[[]byte](f)(d.body()))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := decodeDescriptor(body)
		if err != nil {
			return
		}
		same(t, body)(d.body())
		_ = d.check(network)
		_ = d.checkPublished(testNow)
	})
}

func FuzzDecodeOnionKey(f *testing.F) {
	f.Add(must[[]byte](f)(encodeMap(wireOnionKey{make([]byte, 32), 1000}, nil)))
	f.Fuzz(func(t *testing.T, body []byte) {
		if k, err := decodeOnionKey(body); err == nil {
			same(t, body)(encodeMap(wireOnionKey{k.Key[:], milli(k.Until)}, k.Extensions))
			_ = k.checkTime(testNow)
		}
	})
}

func FuzzDecodeRumour(f *testing.F) {
	network := testNetwork(f, 1)
	a := addr("7.1.0.1:9001")
	f.Add(must[[]byte](f)(encodeMap(wireRumour{make([]byte, 32), addrBytes(a), milli(testNow), milli(testNow.Add(time.Hour))}, nil)))
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := decodeRumour(body); err == nil {
			same(t, body)(encodeMap(wireRumour{r.Descriptor[:], addrBytes(r.Address), milli(r.Published), milli(r.Expires)}, r.Extensions))
			_ = r.check(network)
		}
	})
}

func FuzzDecodeHead(f *testing.F) {
	head, _ := build(f, testNetwork(f, 1), testInput(f, 3))
	f.Add(head)
	f.Fuzz(func(t *testing.T, body []byte) {
		if h, err := decodeHead(body); err == nil {
			same(t, body)(h.body())
			h.State(testNow)
		}
	})
}

func FuzzDecodeConsensus(f *testing.F) {
	network := testNetwork(f, 1)
	_, body := build(f, network, testInput(f, 4))
	f.Add(body)
	_, body = build(f, network, testInput(f, 1))
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := decodeConsensus(body)
		if err != nil || c.check(network) != nil {
			return
		}
		same(t, body)(c.body())
	})
}

func FuzzDecodeRequest(f *testing.F) {
	for _, r := range testRequests() {
		f.Add(must[[]byte](f)(r.AppendTo(nil))[2:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := DecodeRequest(body); err == nil {
			wire, err := r.AppendTo(nil)
			same(t, body)(wire[min(2, len(wire)):], err)
		}
	})
}

func FuzzAnswerReader(f *testing.F) {
	f.Add(AppendAnswer(nil, StatusOK, []byte("a document")), 3)
	f.Add(AppendAnswer(nil, StatusBusy, nil), 1)
	f.Fuzz(func(t *testing.T, wire []byte, cut int) {
		cut = max(0, min(cut, len(wire)))
		whole, parts := NewAnswerReader(1000), NewAnswerReader(1000)
		done, err := whole.Read(wire)
		if done && !bytes.Equal(AppendAnswer(nil, whole.Status(), whole.Body()), wire) {
			t.Error("an answer does not re-encode to its own bytes")
		}
		doneFirst, errFirst := parts.Read(wire[:cut])
		if errFirst != nil {
			if err == nil {
				t.Errorf("in two parts: %v", errFirst)
			}
			return
		}
		doneSecond, errSecond := parts.Read(wire[cut:])
		if (errSecond == nil) != (err == nil) || doneSecond != done || doneFirst && cut < len(wire) && errSecond == nil {
			t.Errorf("whole: %v %v, in two parts: %v %v", done, err, doneSecond, errSecond)
		}
	})
}

func FuzzDecodeDigests(f *testing.F) {
	f.Add(make([]byte, 32), 0)
	f.Fuzz(func(t *testing.T, data []byte, bucket int) {
		digests, err := DecodeDigests(data, bucket)
		if err != nil {
			return
		}
		if len(digests) > 0 {
			same(t, data)(AppendDigests(nil, digests, bucket, maxBucketDigests), nil)
		}
	})
}

func FuzzDecodeSummary(f *testing.F) {
	s := SummaryOf([]cert.Digest{{1}})
	f.Add(s.AppendTo(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := DecodeSummary(data); err == nil {
			same(t, data)(s.AppendTo(nil), nil)
		}
	})
}

// FuzzOpen covers the way from the wire: the envelope with everything in it.
func FuzzOpen(f *testing.F) {
	network := testNetwork(f, 1)
	f.Add(must[[]byte](f)(SealDescriptor(network, testDescriptor(f, 7), testSigner(f, 7))))
	head, _ := build(f, network, testInput(f, 3))
	f.Add(sealHead(f, head, testSigner(f, 0)))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		_, _ = OpenDescriptor(sealed, network, testNow)
		_, _ = OpenHead(sealed, network, testNow)
		_, _ = OpenRumour(sealed, network, testNow)
		_, _ = OpenOnionKey(sealed, testID, testNow)
	})
}

func same(t *testing.T, want []byte) func([]byte, error) {
	return func(got []byte, err error) {
		t.Helper()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("decode then encode: %v\n from %x\n   to %x", err, want, got)
		}
	}
}
