package node

import (
	"bytes"
	"crypto/sha256"
	"io/fs"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env/envtest"
)

// keeper is a relay's machine, with a store and a clock.
type keeper struct {
	t       testing.TB
	f       *envtest.Fake
	host    *envtest.Node
	network *directory.Network
	log     bytes.Buffer
}

func newKeeper(t testing.TB) *keeper {
	k := &keeper{t: t, f: envtest.NewFake(1)}
	k.f.Log = slog.New(slog.NewTextHandler(&k.log, nil))
	k.host = k.f.Node("relay")
	k.network = otherNetwork(t, "one")
	return k
}

// otherNetwork is a network of its own.
func otherNetwork(t testing.TB, name string) *directory.Network {
	t.Helper()
	host := envtest.NewFake(2).Node("authority")
	identity, err := NewIdentity(host.Env)
	if err != nil {
		t.Fatal(err)
	}
	id := cert.NetworkID(sha256.Sum256([]byte(name)))
	signer, err := NewSigner(host.Env, id, identity)
	if err != nil {
		t.Fatal(err)
	}
	return testNetwork(t, signer, id, 1, netip.MustParseAddrPort("45.0.0.1:9001"))
}

// restart loads the keys as a new process does.
func (k *keeper) restart() (*Keys, error) {
	k.f.Run(time.Second)
	k.host.Stop()
	k.host = k.f.Node("relay")
	keys, err := LoadKeys(k.host.Env, k.network)
	k.f.Run(time.Second)
	return keys, err
}

func (k *keeper) load() *Keys {
	k.t.Helper()
	keys, err := k.restart()
	if err != nil {
		k.t.Fatal(err)
	}
	return keys
}

func (k *keeper) blob(name string) string {
	data, err := k.host.Env.Store.Load(name)
	if err != nil {
		k.t.Fatal(err)
	}
	return string(data)
}

func (k *keeper) put(name, text string) {
	k.host.Env.Store.Save(name, []byte(text), nil)
	k.f.Run(time.Millisecond)
}

// lost is a Store without some blobs.
func (k *keeper) lose(names ...string) {
	k.f.Run(time.Second)
	blobs := map[string]string{}
	for _, name := range []string{identityKeyBlob, signingKeyBlob, signingCertBlob, signingNextBlob, onionKeysBlob} {
		if data, err := k.host.Env.Store.Load(name); err == nil {
			blobs[name] = string(data)
		}
	}
	for _, name := range names {
		delete(blobs, name)
	}
	now := time.Duration(k.f.Now())
	k.f = envtest.NewFake(uint64(now))
	k.f.Log = slog.New(slog.NewTextHandler(&k.log, nil))
	k.f.Run(now)
	k.host = k.f.Node("relay")
	for name, text := range blobs {
		k.put(name, text)
	}
}

func TestKeysSurviveRestart(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	first := k.load()
	second := k.load()
	b1, until1 := first.OnionKey()
	b2, until2 := second.OnionKey()
	if first.Identity() != second.Identity() || b1 != b2 || !until1.Equal(until2) {
		t.Error("a restart made other keys")
	}
	if !first.Signer().Certificate.Subject.Equal(second.Signer().Certificate.Subject) {
		t.Error("a restart made another signing key")
	}
	if _, _, err := second.Signer().Certificate.VerifySigning(k.network.ID, k.host.Env.Clock.Wall()); err != nil {
		t.Error(err)
	}
	if k.log.Len() > 0 {
		t.Errorf("logged: %s", &k.log)
	}
	for _, name := range []string{identityKeyBlob, signingKeyBlob} {
		if s := k.blob(name); len(s) != 65 || s[64] != '\n' {
			t.Errorf("%s: %d bytes", name, len(s))
		}
	}
}

// TestSigningKeyIsRenewed both at a start and while the relay runs, before its certificate ends.
func TestSigningKeyIsRenewed(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	keys := k.load()
	until := keys.Signer().Certificate.Until
	k.f.Run(20 * 24 * time.Hour)
	if err := keys.Rotate(); err != nil {
		t.Fatal(err)
	}
	if !keys.Signer().Certificate.Until.Equal(until) {
		t.Error("renewed too early")
	}
	k.f.Run(4 * 24 * time.Hour)
	if err := keys.Rotate(); err != nil {
		t.Fatal(err)
	}
	renewed := keys.Signer()
	if !renewed.Certificate.Until.After(until) || renewed.Identity() != keys.Identity() {
		t.Error("not renewed while the relay runs")
	}
	if again := k.load(); !again.Signer().Certificate.Subject.Equal(renewed.Certificate.Subject) {
		t.Error("the renewed key was not kept")
	}
	k.f.Run(90 * 24 * time.Hour) // off for long: the certificate has ended
	if again := k.load(); again.Identity() != keys.Identity() || !again.Signer().Certificate.Until.After(k.host.Env.Clock.Wall()) {
		t.Error("not renewed at a start")
	}
}

// TestIdentityKeyKeptElsewhere: a relay runs without its identity key as long as its signing
// certificate is valid, and then says what to do instead of becoming another relay.
func TestIdentityKeyKeptElsewhere(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	identity := k.load().Identity()
	secret := k.blob(identityKeyBlob)
	k.lose(identityKeyBlob)
	keys := k.load()
	if keys.Identity() != identity || k.log.Len() > 0 {
		t.Errorf("identity %v, logged %s", keys.Identity(), &k.log)
	}
	if _, err := k.host.Env.Store.Load(identityKeyBlob); err == nil {
		t.Error("an identity key was made")
	}
	k.f.Run(25 * 24 * time.Hour)
	if err := keys.Rotate(); err != nil || !strings.Contains(k.log.String(), "put identity.key back") {
		t.Errorf("near its end: %v, logged %s", err, &k.log)
	}
	if again := k.load(); again.Identity() != identity {
		t.Error("another relay")
	}
	k.f.Run(10 * 24 * time.Hour)
	if _, err := k.restart(); err == nil || !strings.Contains(err.Error(), identityKeyBlob) {
		t.Errorf("with a certificate that has ended: %v", err)
	}
	k.put(identityKeyBlob, secret)
	if again := k.load(); again.Identity() != identity {
		t.Error("with the key back it is another relay")
	}
	k.lose(identityKeyBlob, signingCertBlob)
	if _, err := k.restart(); err == nil {
		t.Error("without its certificate it became another relay")
	}
}

// TestDamagedKeyFiles: each is told by name, and no new identity is made.
func TestDamagedKeyFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		heals      bool // the identity key makes what is damaged anew
	}{
		{identityKeyBlob, "", false},
		{identityKeyBlob, "xyz", false},
		{identityKeyBlob, strings.Repeat("0", 62), false},
		{identityKeyBlob, strings.Repeat("g", 64), false},
		{onionKeysBlob, "xyz 12", false},
		{onionKeysBlob, strings.Repeat("0", 64), false},
		{onionKeysBlob, strings.Repeat("0", 64) + " soon", false},
		{signingKeyBlob, "xyz", true},
		{signingKeyBlob, strings.Repeat("1", 64), true},
		{signingCertBlob, "xyz", true},
		{signingCertBlob, "", true},
		{signingCertBlob, "0102", true},
	} {
		k := newKeeper(t)
		identity := k.load().Identity()
		k.put(c.name, c.text)
		keys, err := k.restart()
		if c.heals {
			if err != nil || keys.Identity() != identity || k.log.Len() == 0 {
				t.Errorf("%s %q: %v, logged %s", c.name, c.text, err, &k.log)
			}
			k.lose(identityKeyBlob)
			k.put(c.name, c.text)
			if _, err = k.restart(); err == nil {
				t.Errorf("%s %q without the identity key: no error", c.name, c.text)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.name) {
			t.Errorf("%s %q: %v", c.name, c.text, err)
		}
	}
}

// TestKeysOfAnotherRelay: a folder into which two relays' files were copied is refused.
func TestKeysOfAnotherRelay(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	k.load()
	k.put(identityKeyBlob, strings.Repeat("7", 64)+"\n")
	if _, err := k.restart(); err == nil || !strings.Contains(err.Error(), "another") {
		t.Errorf("%v", err)
	}
}

// TestKeysOfAnotherNetwork: the identity stays, the certificate does not hold.
func TestKeysOfAnotherNetwork(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	identity := k.load().Identity()
	k.network = otherNetwork(t, "two")
	keys := k.load()
	if _, _, err := keys.Signer().Certificate.VerifySigning(k.network.ID, k.host.Env.Clock.Wall()); err != nil || keys.Identity() != identity {
		t.Errorf("%v", err)
	}
	k.lose(identityKeyBlob)
	k.network = otherNetwork(t, "three")
	if _, err := k.restart(); err == nil {
		t.Error("a certificate of another network was taken")
	}
}

// TestOnionKeysRotate: a key is announced for its time, accepted for as long as a consensus
// may list it, and then dropped; a restart changes nothing in this.
func TestOnionKeysRotate(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	keys := k.load()
	old, until := keys.OnionKey()
	days := time.Duration(k.network.Param(directory.OnionKeyDays)) * 24 * time.Hour
	if d := until.Sub(k.host.Env.Clock.Wall()); d > days || d < days-time.Minute {
		t.Errorf("announced for %v", d)
	}
	accepted := func(keys *Keys) bool {
		for _, o := range keys.OnionKeys() {
			if o.Public() == old {
				return true
			}
		}
		return false
	}
	k.f.Run(days)
	if err := keys.Rotate(); err != nil {
		t.Fatal(err)
	}
	young, _ := keys.OnionKey()
	if young == old || !accepted(keys) || keys.OnionKeys()[0].Public() != young {
		t.Error("after its time the old key must be accepted and not announced")
	}
	if keys = k.load(); !accepted(keys) || len(keys.OnionKeys()) != 2 {
		t.Error("a restart forgot the old key")
	}
	// Listed last in a consensus made when its descriptor ended, and an hour more.
	keep := directory.DescriptorLifetime + 24*k.network.Interval() + time.Hour
	k.f.Run(until.Add(keep).Sub(k.host.Env.Clock.Wall()) - time.Minute)
	if err := keys.Rotate(); err != nil || !accepted(keys) {
		t.Errorf("dropped too early: %v", err)
	}
	k.f.Run(2 * time.Minute)
	if err := keys.Rotate(); err != nil || accepted(keys) {
		t.Errorf("not dropped: %v", err)
	}
	if keys = k.load(); accepted(keys) {
		t.Error("a restart brought it back")
	}
	statement, err := keys.Statement()
	if err != nil || len(statement) == 0 {
		t.Errorf("no statement: %v", err)
	}
	if strings.Count(k.blob(onionKeysBlob), "\n") > 2 {
		t.Error("old keys stay in the file")
	}
}

// TestLoadErrorsAreKept: a store that cannot be read is an error, not a reason for new keys.
func TestStoreThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, name := range []string{identityKeyBlob, signingKeyBlob, signingCertBlob, signingNextBlob, onionKeysBlob} {
		k := newKeeper(t)
		k.load()
		k.lose(identityKeyBlob)
		if name == identityKeyBlob {
			k = newKeeper(t)
			k.load()
		}
		e := k.host.Env
		e.Store = brokenStore{e.Store, name}
		if _, err := LoadKeys(e, k.network); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

type brokenStore struct {
	inner interface {
		Load(string) ([]byte, error)
		Save(string, []byte, func(error))
	}
	name string
}

func (s brokenStore) Load(name string) ([]byte, error) {
	if name == s.name {
		return nil, &fs.PathError{Op: "load", Path: name, Err: fs.ErrPermission}
	}
	return s.inner.Load(name)
}
func (s brokenStore) Save(name string, data []byte, done func(error)) { s.inner.Save(name, data, done) }

// TestClockThatIsSetRight: keys that a relay made while its clock was wrong by days are of use when the clock has been
// set, or others take their place as soon as it looks.
func TestClockThatIsSetRight(t *testing.T) {
	t.Parallel()
	for _, wrong := range []time.Duration{-4 * 24 * time.Hour, 4 * 24 * time.Hour, -400 * 24 * time.Hour, 400 * 24 * time.Hour} {
		k := newKeeper(t)
		k.host.Skew = wrong
		keys, err := LoadKeys(k.host.Env, k.network)
		if err != nil {
			t.Fatal(err)
		}
		taken := k.host.Env.Clock.Wall()
		k.f.Run(time.Minute)
		k.host.Skew = 0
		now := k.host.Env.Clock.Wall()
		if !LinkKeyDue(taken, now) {
			t.Errorf("a clock that was off by %v: the link key stays", wrong)
		}
		if err := keys.Rotate(); err != nil {
			t.Fatal(err)
		}
		if c := keys.Signer().Certificate; c.From.After(now) || c.Until.Before(now.Add(renewSigning)) {
			t.Errorf("a clock that was off by %v: signing key from %v until %v, now is %v", wrong, c.From, c.Until, now)
		}
		life := time.Duration(k.network.Param(directory.OnionKeyDays)) * 24 * time.Hour
		if _, until := keys.OnionKey(); until.Before(now.Add(keys.onionLead())) || until.After(now.Add(life+cert.BackDate)) {
			t.Errorf("a clock that was off by %v: onion key until %v, now is %v", wrong, until, now)
		}
	}
	at := envtest.Epoch
	for age, due := range map[time.Duration]bool{0: false, 19 * time.Hour: false, 20 * time.Hour: true, -time.Hour: false, -13 * time.Hour: true} {
		if LinkKeyDue(at, at.Add(age)) != due {
			t.Errorf("a link key of %v is due: %v", age, !due)
		}
	}
}
