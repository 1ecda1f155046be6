package node

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/directory"
)

// certify is what `cepa keys renew` does on the machine where the identity is.
func certify(t testing.TB, identity string, network cert.NetworkID, now time.Time, seed string) []byte {
	t.Helper()
	key, err := ParseIdentityKey([]byte(identity))
	if err != nil {
		t.Fatal(err)
	}
	s := sha256.Sum256([]byte(seed))
	c, err := key.Certify(network, cert.NewSigningKey(s).Public(), now, 0)
	if err != nil {
		t.Fatal(err)
	}
	return FormatNext(s, c)
}

// TestIdentityStaysOffline: a relay whose identity key is never on its machine keeps one identity and always has a signing
// key that is valid, over a year of renewals, taken while it runs or at a start, whichever comes first.
func TestIdentityStaysOffline(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	identity := k.load().Identity()
	secret := k.blob(identityKeyBlob)
	k.lose(identityKeyBlob)
	keys := k.load()
	valid := func() {
		t.Helper()
		now := k.host.Env.Clock.Wall()
		if _, _, err := keys.Signer().Certificate.VerifySigning(k.network.ID, now); err != nil || keys.Identity() != identity {
			t.Fatalf("at %v: %v", now, err)
		}
	}
	taken := map[string]bool{}
	for day := range 365 {
		k.f.Run(24 * time.Hour)
		if day%25 == 24 { // before the 30 days of a certificate are over
			next := certify(t, secret, k.network.ID, k.host.Env.Clock.Wall(), time.Duration(day).String())
			k.put(signingNextBlob, string(next))
			if day%50 == 24 {
				if err := keys.Refresh(KeyFiles{Next: next}); err != nil {
					t.Fatal(err)
				}
				if keys.Signer().Certificate.Until.Sub(k.host.Env.Clock.Wall()) < cert.SigningLifetime-time.Second {
					t.Error("it was not taken at once")
				}
			} else {
				keys = k.load()
			}
			if len(keys.Warnings()) > 0 {
				t.Errorf("day %d, after a renewal: %q", day, keys.Warnings())
			}
		}
		if err := keys.Rotate(); err != nil {
			t.Fatal(err)
		}
		valid()
		taken[string(keys.Signer().Certificate.Subject.Bytes)] = true
		if day%7 == 0 {
			keys = k.load()
			valid()
		}
	}
	if len(taken) < 14 {
		t.Errorf("%d signing keys in a year", len(taken))
	}
	if _, err := k.host.Env.Store.Load(identityKeyBlob); err == nil {
		t.Error("the identity key is on the machine")
	}
	k.f.Run(24 * 24 * time.Hour)
	if w := keys.Warnings(); len(w) != 1 || !strings.Contains(w[0].Text, "cepa keys renew") {
		t.Errorf("before the end: %q", w)
	}
	before := strings.Count(k.log.String(), "keys renew")
	for range 96 {
		k.f.Run(15 * time.Minute)
		if err := keys.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(k.log.String(), "keys renew") - before; n != 1 {
		t.Errorf("said %d times in a day", n)
	}
}

// TestRefresh: what is of another relay or network is refused and changes nothing; an identity key that was taken away
// is used no more, and one that was put back is.
func TestRefresh(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	keys := k.load()
	secret := k.blob(identityKeyBlob)
	now := k.host.Env.Clock.Wall()
	was := keys.Signer().Certificate.Subject
	later := now.Add(time.Hour)
	other := strings.Repeat("7", 64)
	for name, f := range map[string]KeyFiles{
		"another relay's identity":        {Identity: []byte(other)},
		"no identity at all":              {Identity: []byte("xyz")},
		"another relay's signing key":     {Identity: []byte(secret), Next: certify(t, other, k.network.ID, later, "a")},
		"another network's":               {Identity: []byte(secret), Next: certify(t, secret, cert.NetworkID{1}, later, "a")},
		"nonsense":                        {Identity: []byte(secret), Next: []byte("nonsense")},
		"a seed alone":                    {Identity: []byte(secret), Next: []byte(other)},
		"another key's certificate":       {Identity: []byte(secret), Next: append([]byte(other), certify(t, secret, k.network.ID, later, "a")[64:]...)},
		"a certificate of the far future": {Identity: []byte(secret), Next: certify(t, secret, k.network.ID, now.Add(1000*time.Hour), "a")},
	} {
		if err := keys.Refresh(f); err == nil {
			t.Errorf("%s: no error", name)
		}
		if !keys.Signer().Certificate.Subject.Equal(was) || keys.identity == nil {
			t.Errorf("%s: something has changed", name)
		}
	}
	old := certify(t, secret, k.network.ID, now.Add(-time.Hour), "old")
	expired := certify(t, secret, k.network.ID, now.Add(-cert.SigningLifetime-time.Hour), "expired")
	for name, next := range map[string][]byte{"older than the one in force": old, "one that has ended": expired} {
		if err := keys.Refresh(KeyFiles{Identity: []byte(secret), Next: next}); err != nil || !keys.Signer().Certificate.Subject.Equal(was) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := keys.Refresh(KeyFiles{}); err != nil {
		t.Fatal(err)
	}
	k.f.Run(25 * 24 * time.Hour)
	if err := keys.Rotate(); err != nil || !keys.Signer().Certificate.Subject.Equal(was) || len(keys.Warnings()) != 1 {
		t.Errorf("an identity key that was taken away was used: %v", err)
	}
	if err := keys.Refresh(KeyFiles{Identity: []byte(secret)}); err != nil {
		t.Fatal(err)
	}
	generation := keys.Generation()
	if err := keys.Rotate(); err != nil || keys.Generation() == generation || keys.Signer().Certificate.Subject.Equal(was) || len(keys.Warnings()) != 0 {
		t.Errorf("one that was put back was not: %v", err)
	}
}

// TestNextOfAnotherRelay in the folder is told at a start; the relay does not become that one.
func TestNextOfAnotherRelay(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.load()
	k.lose(identityKeyBlob)
	k.put(signingNextBlob, string(certify(t, strings.Repeat("7", 64), k.network.ID, k.host.Env.Clock.Wall(), "x")))
	if _, err := k.restart(); err == nil || !strings.Contains(err.Error(), signingNextBlob) {
		t.Errorf("%v", err)
	}
	k.put(signingNextBlob, "nonsense")
	if _, err := k.restart(); err != nil || !strings.Contains(k.log.String(), signingNextBlob) {
		t.Errorf("%v, logged %s", err, &k.log)
	}
}

// TestSigningKeyFromElsewhereOnly: a folder in which only a certified signing key lies is that relay's.
func TestSigningKeyFromElsewhereOnly(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	secret := strings.Repeat("7", 64)
	key, err := ParseIdentityKey([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	k.put(signingNextBlob, string(certify(t, secret, k.network.ID, k.host.Env.Clock.Wall(), "x")))
	for range 2 {
		if keys := k.load(); keys.Identity() != key.Identity() {
			t.Errorf("%s", keys.Identity())
		}
	}
	if _, err := k.host.Env.Store.Load(identityKeyBlob); err == nil {
		t.Error("an identity key was made")
	}
}

// TestAnnouncedOnionKeyNeverEnds while the daemon rotates in time: a relay whose key has ended is in no consensus.
func TestAnnouncedOnionKeyNeverEnds(t *testing.T) {
	t.Parallel()
	for _, days := range []int64{1, 7} {
		k := newKeeper(t)
		k.network = withParameters(t, k.network, directory.Parameters{directory.OnionKeyDays: days, directory.IntervalMillis: 3_600_000})
		keys := k.load()
		seen := map[[32]byte]bool{}
		for range 60 * 96 { // 60 days
			k.f.Run(15 * time.Minute)
			if err := keys.Rotate(); err != nil {
				t.Fatal(err)
			}
			key, until := keys.OnionKey()
			seen[key] = true
			if left := until.Sub(k.host.Env.Clock.Wall()); left < 2*k.network.Interval() {
				t.Fatalf("%d days: a key is announced that ends in %v", days, left)
			}
		}
		if most := int(60/days) + 10; len(seen) > most || len(seen) < int(60/days) {
			t.Errorf("%d days: %d keys in 60 days", days, len(seen))
		}
		if n := len(keys.OnionKeys()); n > 6 {
			t.Errorf("%d days: %d keys are kept", days, n)
		}
	}
}

// TestOnionKeysRotateInUse: in the hour after all relays have taken new onion keys, a client whose consensus lists the old
// ones gets through; and when consensuses list the new ones, too.
func TestOnionKeysRotateInUse(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, 1, 5, nil, directory.Parameters{
		directory.IntervalMillis: 3_600_000, directory.KeepaliveMillis: 60_000, directory.MinRelays: 3, directory.OnionKeyDays: 1, directory.ReconcileMillis: 3_600_000,
	})
	w.serve("45.99.0.1:80", "answer")
	rotate := func() (changed int) {
		for i := range w.relays {
			w.f.Do(func() {
				before := w.keys[i].Generation()
				if err := w.keys[i].Rotate(); err != nil {
					t.Error(err)
				}
				if w.keys[i].Generation() != before {
					changed++
					w.hosts[i].OnionKey, _ = w.keys[i].OnionKey()
					w.relays[i].KeysChanged()
				}
			})
		}
		return changed
	}
	current := func() (new, old int) { // of the keys that the client's consensus lists
		c := w.client.follower.Current()
		for i := range w.relays {
			key, _ := w.keys[i].OnionKey()
			if r := c.Lookup(w.relays[i].Identity()); r == nil {
				t.Errorf("relay %d is not listed", i)
			} else if r.OnionKey == key {
				new++
			} else {
				old++
			}
		}
		return new, old
	}
	fetch := func(when string) {
		t.Helper()
		for range 5 {
			w.isolation += "x" // in circuits of its own
			if got, err := w.download("45.99.0.1", 80, 30*time.Second); err != nil || got != "answer" {
				t.Errorf("%s: %q, %v", when, got, err)
			}
		}
	}
	w.f.Run(time.Minute)
	w.join()
	w.f.RunUntil(time.Minute, func() bool { return w.ready > 0 })
	fetch("with the first keys")
	rotations := 0
	for range 4 * 30 {
		w.f.Run(15 * time.Minute)
		if changed := rotate(); changed > 0 {
			rotations++
			if changed != len(w.relays) {
				t.Errorf("%d relays have new keys", changed)
			}
			if _, old := current(); old != len(w.relays) {
				t.Errorf("the client already knows %d of the new keys", len(w.relays)-old)
			}
			fetch("with the old keys")
		}
		if _, old := current(); old > 0 && rotations == 0 {
			t.Error("a key is listed that no relay announces")
		}
	}
	if rotations < 1 {
		t.Fatalf("%d rotations in 30 hours", rotations)
	}
	w.f.Run(3 * time.Hour)
	if _, old := current(); old > 0 {
		t.Errorf("after three hours %d old keys are listed", old)
	}
	fetch("with the new keys")
}
