package directory

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"time"

	"cepa/cert"
)

// plainMemo remembers everything.
type plainMemo struct {
	kept     map[[32]byte]any
	recalled int
}

func (m *plainMemo) Once(key [32]byte, make func() (any, int)) any {
	if v, ok := m.kept[key]; ok {
		m.recalled++
		return v
	}
	v, size := make()
	if size > 0 {
		m.kept[key] = v
	}
	return v
}

// TestRememberingChangesNoResult: at each time, of documents that are good, false or cut short, a network that remembers
// says what one that does not says, the first time and after it has seen all of them at other times.
func TestRememberingChangesNoResult(t *testing.T) {
	t.Parallel()
	plain := testNetwork(t, 3)
	memo := &plainMemo{kept: make(map[[32]byte]any)}
	remembering := plain.Remember(memo)
	d := testDescriptor(t, 7)
	d.Published = testNow
	sealed, err := SealDescriptor(plain, d, testSigner(t, 7))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := OpenDescriptor(sealed, plain, testNow)
	if err != nil {
		t.Fatal(err)
	}
	rumour, err := SealRumour(plain, RumourOf(opened), testSigner(t, 7))
	if err != nil {
		t.Fatal(err)
	}
	head, body := build(t, plain, testInput(t, 9))
	sealedHead := sealHead(t, head, testSigners(t, 3)...)
	variants := func(p []byte) [][]byte {
		all := [][]byte{p, p[:len(p)-1], append(bytes.Clone(p), 0)}
		for i := range 12 {
			changed := bytes.Clone(p)
			changed[i*(len(p)-1)/11] ^= 1
			all = append(all, changed)
		}
		return all
	}
	open := func(n *Network, kind int, p []byte, now time.Time) (value any, err error) {
		switch kind {
		case 0:
			var x *Descriptor
			if x, err = OpenDescriptor(p, n, now); x != nil {
				x := *x
				x.sealed = nil
				return x, err
			}
			return nil, err
		case 1:
			return OpenRumour(p, n, now)
		case 2:
			return OpenHead(p, n, now)
		}
		h, err := OpenHead(sealedHead, n, testNow)
		if err != nil {
			t.Fatal(err)
		}
		c, err := OpenBody(h, p, n)
		if c == nil {
			return nil, err
		}
		x := *c
		x.memo, x.key = nil, [32]byte{}
		return x, err
	}
	times := []time.Time{testNow, testNow.Add(time.Hour), testNow.Add(-time.Hour), testNow.Add(20 * time.Hour), testNow.Add(-48 * time.Hour), testNow.Add(100 * 24 * time.Hour)}
	for round := range 2 {
		for _, now := range times {
			for kind, p := range [][]byte{sealed, rumour, sealedHead, body} {
				for i, v := range variants(p) {
					want, wantErr := open(plain, kind, v, now)
					got, gotErr := open(remembering, kind, v, now)
					if fmt.Sprint(wantErr) != fmt.Sprint(gotErr) || wantErr == nil && !reflect.DeepEqual(want, got) {
						t.Errorf("round %d, kind %d, variant %d, %v: %v %v, without memory %v %v", round, kind, i, now.Sub(testNow), got, gotErr, want, wantErr)
					}
				}
			}
		}
	}
	if memo.recalled < 30 {
		t.Errorf("only %d results were remembered", memo.recalled)
	}
}

// TestSharedConsensusIsDerivedOnce: who holds the same body shares what is made from it; the heads stay their own.
func TestSharedConsensusIsDerivedOnce(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 3).Remember(&plainMemo{kept: make(map[[32]byte]any)})
	head, body := build(t, network, testInput(t, 9))
	made := 0
	var first *Consensus
	for _, signers := range [][]cert.Signer{testSigners(t, 3), testSigners(t, 2)} {
		if len(signers) < network.Quorum {
			continue
		}
		h := must[*Head](t)(OpenHead(sealHead(t, head, signers...), network, testNow))
		c, held, err := openBody(h, bytes.Clone(body), network)
		if err != nil || !bytes.Equal(held, body) || c.Head != h {
			t.Fatal(err)
		}
		if n := c.Once("count", func() (any, int) { made++; return len(c.Relays), 8 }); n != 9 {
			t.Errorf("%v relays", n)
		}
		if first == nil {
			first = c
		} else if &first.Relays[0] != &c.Relays[0] {
			t.Error("the relays are there twice")
		}
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
}
