package cgo

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"testing"
)

// Tor's bodies have 509 bytes.
const vectorBodySize = 509

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

type stateVector struct {
	Keys, Nonce, TPrime hexBytes
}

type vectors struct {
	Polyval []struct {
		Source             string
		Key, Input, Output hexBytes
	}
	ET []struct {
		Name                       string
		Encrypt                    bool
		Keys, Tweak, Block, Output hexBytes
	}
	PRF []struct {
		Name                string
		T                   int
		Keys, Input, Output hexBytes
	}
	UIV []struct {
		Name        string
		Encrypt     bool
		Keys, Tweak hexBytes
		XL          hexBytes `json:"x_l"`
		XR          hexBytes `json:"x_r"`
		YL          hexBytes `json:"y_l"`
		YR          hexBytes `json:"y_r"`
	}
	UIVUpdate []struct {
		Name        string
		Keys, Nonce hexBytes
		NewKeys     hexBytes `json:"new_keys"`
		NewNonce    hexBytes `json:"new_nonce"`
	} `json:"uiv_update"`
	Relay []struct {
		Name          string
		Inbound       bool
		StateIn       stateVector `json:"state_in"`
		Cmd, Tag, Msg hexBytes
		StateOut      stateVector `json:"state_out"`
		TagOut        hexBytes    `json:"tag_out"`
		MsgOut        hexBytes    `json:"msg_out"`
	}
	RelayOriginate []struct {
		Name     string
		StateIn  stateVector `json:"state_in"`
		Cmd, Msg hexBytes
		StateOut stateVector `json:"state_out"`
		TagOut   hexBytes    `json:"tag_out"`
		MsgOut   hexBytes    `json:"msg_out"`
	} `json:"relay_originate"`
	ClientOriginate []struct {
		Name      string
		StateIn   []stateVector `json:"state_in"`
		TargetHop int           `json:"target_hop"`
		Cmd, Msg  hexBytes
		StateOut  []stateVector `json:"state_out"`
		TagOut    hexBytes      `json:"tag_out"`
		MsgOut    hexBytes      `json:"msg_out"`
	} `json:"client_originate"`
}

func loadVectors(t *testing.T) *vectors {
	t.Helper()
	data, err := os.ReadFile("testdata/cgo_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
	return v
}

// vectorLayer returns a layer with the given state. Missing keys are zeros.
func vectorLayer(kern kernel, s stateVector) *layer {
	var keys [layerKeySize]byte
	copy(keys[:64], s.Keys)
	copy(keys[64:], s.Nonce)
	l := new(layer)
	l.init(kern, vectorBodySize, &keys)
	copy(l.chain[:], s.TPrime)
	return l
}

// checkState fails the test unless l is in the state want.
func checkState(t *testing.T, what string, l *layer, want stateVector) {
	t.Helper()
	if len(want.Keys) != 64 || len(want.Nonce) != 16 || len(want.TPrime) != 16 {
		t.Fatalf("%s: the vector's state is incomplete", what)
	}
	ref := vectorLayer(l.kern, want)
	if !sameKeys(l, ref) {
		t.Errorf("%s: other keys than the vector's", what)
	}
	if l.nonce != ref.nonce {
		t.Errorf("%s: nonce %x, want %x", what, l.nonce, ref.nonce)
	}
	if l.chain != ref.chain {
		t.Errorf("%s: chained tag %x, want %x", what, l.chain, ref.chain)
	}
}

// sameKeys compares keys by what they do, because the portable kernel's cannot
// be read back.
func sameKeys(a, b *layer) bool {
	var xs [2][3]block
	for i, l := range []*layer{a, b} {
		l.kern.encrypt(&l.kb, &xs[i][0], new(block))
		l.kern.encrypt(&l.k, &xs[i][1], new(block))
		xs[i][2][0] = 1
		l.kern.hash(&l.ku, &xs[i][2], nil)
	}
	return xs[0] == xs[1] && a.b == b.b
}

func equal(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %x\nwant %x", what, got, want)
	}
}

func join(a, b []byte) []byte { return append(append([]byte(nil), a...), b...) }

// TestVectors checks every published vector with every kernel, and that none is
// left out.
func TestVectors(t *testing.T) {
	t.Parallel()
	v := loadVectors(t)
	published := len(v.ET) + len(v.PRF) + len(v.UIV) + len(v.UIVUpdate) + len(v.Relay) +
		len(v.RelayOriginate) + len(v.ClientOriginate)
	if published != 44 || len(v.Polyval) != 1 {
		t.Fatalf("%d vectors of CGO and %d of POLYVAL in the file, want 44 and 1", published, len(v.Polyval))
	}
	for _, kern := range kernels() {
		t.Run(kern.name(), func(t *testing.T) {
			t.Parallel()
			ran := 0
			run := func(kind string, i int, name string, f func(t *testing.T)) {
				ran++
				t.Run(fmt.Sprintf("%s/%d %s", kind, i, name), f)
			}
			checkPrimitives(v, kern, run)
			checkPermutation(v, kern, run)
			checkRelay(v, kern, run)
			checkClient(v, kern, run)
			if ran != 45 {
				t.Errorf("%d vectors ran, want 45", ran)
			}
		})
	}
}

type runVector func(kind string, i int, name string, f func(t *testing.T))

func checkPrimitives(v *vectors, kern kernel, run runVector) {
	for i, p := range v.Polyval {
		run("polyval", i, p.Source, func(t *testing.T) {
			var hk hashKey
			kern.expandHash(&hk, (*block)(p.Key))
			x := block(p.Input[:16])
			kern.hash(&hk, &x, p.Input[16:])
			equal(t, "hash", x[:], p.Output)
		})
	}
	for i, e := range v.ET {
		run("et", i, e.Name, func(t *testing.T) {
			l := vectorLayer(kern, stateVector{Keys: e.Keys, TPrime: e.Tweak[:16]})
			body := join(e.Block, e.Tweak[17:])
			if e.Encrypt {
				l.encryptTag(e.Tweak[16], body)
			} else {
				l.decryptTag(e.Tweak[16], body)
			}
			equal(t, "tag", body[:TagSize], e.Output)
			equal(t, "rest of the body", body[TagSize:], e.Tweak[17:])
		})
	}
	for i, p := range v.PRF {
		run("prf", i, p.Name, func(t *testing.T) {
			l := vectorLayer(kern, stateVector{Keys: join(make([]byte, 32), p.Keys)})
			first, size := uint8(0), 493
			if p.T == 1 {
				first, size = l.first, 80
			}
			stream := make([]byte, size)
			l.keystream((*block)(p.Input), first, stream)
			equal(t, "keystream", stream, p.Output)
		})
	}
}

func checkPermutation(v *vectors, kern kernel, run runVector) {
	for i, u := range v.UIV {
		run("uiv", i, u.Name, func(t *testing.T) {
			l := vectorLayer(kern, stateVector{Keys: u.Keys, TPrime: u.Tweak[:16]})
			body := join(u.XL, u.XR)
			if u.Encrypt {
				l.encrypt(u.Tweak[16], body)
			} else {
				l.decrypt(u.Tweak[16], body)
			}
			equal(t, "body", body, join(u.YL, u.YR))
			if u.Encrypt {
				l.decrypt(u.Tweak[16], body)
			} else {
				l.encrypt(u.Tweak[16], body)
			}
			equal(t, "body after the inverse", body, join(u.XL, u.XR))
		})
	}
	for i, u := range v.UIVUpdate {
		run("uiv_update", i, u.Name, func(t *testing.T) {
			l := vectorLayer(kern, stateVector{Keys: u.Keys, Nonce: u.Nonce})
			l.update()
			checkState(t, "updated", l, stateVector{u.NewKeys, u.NewNonce, make([]byte, 16)})
		})
	}
}

func checkRelay(v *vectors, kern kernel, run runVector) {
	for i, c := range v.Relay {
		run("relay", i, c.Name, func(t *testing.T) {
			body := join(c.Tag, c.Msg)
			var l *layer
			if c.Inbound {
				r := &Relay{backward: *vectorLayer(kern, c.StateIn)}
				r.Backward(c.Cmd[0], body)
				l = &r.backward
			} else {
				r := &Relay{forward: *vectorLayer(kern, c.StateIn)}
				if r.Forward(c.Cmd[0], body) {
					t.Error("recognised a cell that is not for this relay")
				}
				l = &r.forward
			}
			equal(t, "body", body, join(c.TagOut, c.MsgOut))
			checkState(t, "state", l, c.StateOut)
		})
	}
	for i, c := range v.RelayOriginate {
		run("relay_originate", i, c.Name, func(t *testing.T) {
			r := &Relay{backward: *vectorLayer(kern, c.StateIn)}
			body := join(bytes.Repeat([]byte{0xa5}, TagSize), c.Msg)
			r.Originate(c.Cmd[0], body)
			equal(t, "body", body, join(c.TagOut, c.MsgOut))
			checkState(t, "state", &r.backward, c.StateOut)
		})
	}
}

func checkClient(v *vectors, kern kernel, run runVector) {
	for i, c := range v.ClientOriginate {
		run("client_originate", i, c.Name, func(t *testing.T) {
			hops := make([]*Client, len(c.StateIn))
			for i, s := range c.StateIn {
				hops[i] = &Client{forward: *vectorLayer(kern, s)}
			}
			body := join(bytes.Repeat([]byte{0xa5}, TagSize), c.Msg)
			hops[c.TargetHop-1].Originate(c.Cmd[0], body)
			for i := c.TargetHop - 2; i >= 0; i-- {
				hops[i].Forward(c.Cmd[0], body)
			}
			equal(t, "body", body, join(c.TagOut, c.MsgOut))
			if len(c.StateOut) != len(hops) {
				t.Fatalf("states of %d hops in the vector, want %d", len(c.StateOut), len(hops))
			}
			for i, s := range c.StateOut {
				checkState(t, fmt.Sprintf("state of hop %d", i+1), &hops[i].forward, s)
			}
		})
	}
}
