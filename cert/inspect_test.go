package cert

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// TestInspect: it tells the good signatures from the bad where Open refuses them all, and refuses what has no form.
func TestInspect(t *testing.T) {
	t.Parallel()
	body := []byte("a consensus")
	now := testNow
	good, other := signer(t, 1, now), signer(t, 2, now)
	late := signer(t, 3, now.Add(-SigningLifetime-time.Hour))
	sealed, err := Seal(ConsensusDocument, testNetwork, body, good, other, late)
	if err != nil {
		t.Fatal(err)
	}
	altered := bytes.Clone(sealed)
	at := 3 + EndorsementSize - 1 // the last byte of the first signature
	altered[at] ^= 1
	for _, c := range []struct {
		name string
		data []byte
		bad  int
	}{{"one is late", sealed, 1}, {"and one altered", altered, 2}} {
		if _, err := Open(c.data, testNetwork, now, ConsensusDocument, 100); err == nil {
			t.Errorf("%s: Open takes it", c.name)
		}
		doc, errs, err := Inspect(c.data, testNetwork, now, ConsensusDocument, 100)
		if err != nil || !bytes.Equal(doc.Body, body) || len(errs) != 3 || doc.Digest != DigestOf(ConsensusDocument, testNetwork, body) {
			t.Fatalf("%s: %+v, %v, %v", c.name, doc, errs, err)
		}
		bad := 0
		for i, e := range errs {
			if e != nil {
				bad++
			}
			if isLate := doc.Endorsements[i].Identity() == late.Identity(); isLate && !errors.Is(e, ErrExpired) {
				t.Errorf("%s: of the late one: %v", c.name, e)
			}
		}
		if bad != c.bad {
			t.Errorf("%s: %v", c.name, errs)
		}
	}
	for _, data := range [][]byte{nil, sealed[:len(sealed)-1], append(bytes.Clone(sealed), 0)} {
		if _, _, err := Inspect(data, testNetwork, now, ConsensusDocument, 100); err == nil {
			t.Errorf("%d bytes of %d have a form", len(data), len(sealed))
		}
	}
	if _, _, err := Inspect(sealed, testNetwork, now, ConsensusDocument, len(body)-1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a body over the bound: %v", err)
	}
}
