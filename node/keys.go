package node

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/onion/ntor"
)

// Names of the blobs in a relay's Store.
const (
	identityKeyBlob = "identity.key" // may be taken away and kept offline while signing.cert is valid
	signingKeyBlob  = "signing.key"
	signingCertBlob = "signing.cert"
	signingNextBlob = "signing.next" // a signing key that was certified elsewhere, with its certificate
	onionKeysBlob   = "onion.keys"
)

// Names of files in a relay's folder, for tools.
const (
	IdentityKeyFile = identityKeyBlob
	SigningCertFile = signingCertBlob
	SigningNextFile = signingNextBlob
)

// renewSigning is how long before its end a signing certificate is renewed, if the identity
// key is at hand.
const renewSigning = 7 * 24 * time.Hour

// renewLinkKey is for how long a relay shows the same link key.
const renewLinkKey = 20 * time.Hour

// sayAgain is how often a person is told that the identity key is missed.
const sayAgain = 24 * time.Hour

// Keys are a relay's keys: its identity, the signing key in force and the onion keys that it
// accepts. They live in the Store of env; the link key is the shell's, made anew each start.
type Keys struct {
	env      env.Env
	network  *directory.Network
	identity *cert.IdentityKey // nil when it is kept elsewhere
	signer   cert.Signer
	onion    []onionKey // newest first
	said     time.Time  // when a person was last told that the identity key is missed

	generation int
}

// onionKey is one onion key and until when it is announced; it is accepted for longer.
type onionKey struct {
	seed  [32]byte
	until time.Time
	key   *ntor.OnionKey
}

// LoadKeys reads the keys in e.Store, and makes those that are missing or too old.
// It is called while a node is being constructed.
func LoadKeys(e env.Env, network *directory.Network) (*Keys, error) {
	k := &Keys{env: e, network: network}
	if err := k.loadSigner(); err != nil {
		return nil, err
	}
	if err := k.loadOnionKeys(); err != nil {
		return nil, err
	}
	return k, nil
}

// NewIdentity makes an identity key in e.Store, or returns the one that is there.
func NewIdentity(e env.Env) (cert.IdentityKey, error) {
	seed, err := loadSeed(e, identityKeyBlob)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		seed = freshSeed(e.Rand)
		e.Store.Save(identityKeyBlob, formatSeed(seed), nil)
	case err != nil:
		return cert.IdentityKey{}, err
	}
	return cert.NewIdentityKey(seed), nil
}

// NewSigner makes a signing key and has key certify it.
func NewSigner(e env.Env, network cert.NetworkID, key cert.IdentityKey) (cert.Signer, error) {
	seed := freshSeed(e.Rand)
	signing := cert.NewSigningKey(seed)
	certificate, err := key.Certify(network, signing.Public(), e.Clock.Wall(), 0)
	if err != nil {
		return cert.Signer{}, fmt.Errorf("certifying a signing key: %w", err)
	}
	e.Store.Save(signingKeyBlob, formatSeed(seed), nil)
	e.Store.Save(signingCertBlob, []byte(hex.EncodeToString(certificate.AppendTo(nil))+"\n"), nil)
	return cert.Signer{Certificate: certificate, Key: signing}, nil
}

func (k *Keys) loadSigner() error {
	seed, err := loadSeed(k.env, identityKeyBlob)
	switch {
	case err == nil:
		identity := cert.NewIdentityKey(seed)
		k.identity = &identity
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	signer, found, err := k.newestSigner()
	switch {
	case errors.Is(err, errUnreadable):
		return err
	case found && err == nil && k.identity != nil && signer.Identity() != k.identity.Identity():
		return fmt.Errorf("%s is of relay %s and %s of another: put the right one back, or take away %s and %s",
			signingCertBlob, signer.Identity().Short(), identityKeyBlob, signingKeyBlob, signingCertBlob)
	case found && err == nil:
		k.signer = signer
		return k.renewSigner()
	case found && k.identity == nil:
		return fmt.Errorf("the signing key cannot be used on this network (%w), and the identity key to certify a new one is not here: put %s back, or certify one with 'cepa keys renew'", err, identityKeyBlob)
	case found:
		k.env.Log.Warn("a new signing key takes the place of one that cannot be used", "err", err)
	case k.identity == nil:
		identity, err := NewIdentity(k.env)
		if err != nil {
			return err
		}
		k.identity = &identity
	}
	k.signer, err = NewSigner(k.env, k.network.ID, *k.identity)
	return err
}

// errUnreadable says that a file of keys must be looked at by a person: it is no reason for new keys.
var errUnreadable = errors.New("no keys are made")

// newestSigner is the stored signing key, or the one that was certified elsewhere if that is the younger.
func (k *Keys) newestSigner() (signer cert.Signer, found bool, err error) {
	now := k.env.Clock.Wall()
	signer, found, err = storedSigner(k.env, k.network.ID, now)
	next, nextErr := k.env.Store.Load(signingNextBlob)
	if errors.Is(nextErr, fs.ErrNotExist) {
		return signer, found, err
	}
	if nextErr != nil {
		return signer, found, fmt.Errorf("%w: %w", errUnreadable, nextErr)
	}
	s, nextErr := parseSigner(next, k.network.ID, now)
	switch {
	case nextErr != nil:
		if !errors.Is(nextErr, cert.ErrExpired) { // it was of use once
			k.env.Log.Warn("a signing key that was certified elsewhere is of no use", "file", signingNextBlob, "err", nextErr)
		}
	case signer.Certificate.Issuer.Bytes != nil && signer.Identity() != s.Identity():
		return signer, true, fmt.Errorf("%s is of relay %s and %s of %s: take the wrong one away: %w",
			signingNextBlob, s.Identity().Short(), signingCertBlob, signer.Identity().Short(), errUnreadable)
	case !found || err != nil || supersedes(s.Certificate, signer.Certificate):
		saveSigner(k.env, s, next)
		return s, true, nil
	}
	return signer, found, err
}

// renewSigner makes a new signing key when the certificate of the one in force ends soon, or was made by a clock that
// was ahead.
func (k *Keys) renewSigner() error {
	c, now := &k.signer.Certificate, k.env.Clock.Wall()
	switch {
	case c.Until.Sub(now) > renewSigning && (k.identity == nil || !c.From.After(now)):
		return nil
	case k.identity == nil:
		if now.Sub(k.said).Abs() >= sayAgain {
			k.said = now
			k.env.Log.Warn(k.missed())
		}
		return nil
	}
	signer, err := NewSigner(k.env, k.network.ID, *k.identity)
	if err == nil {
		k.signer = signer
		k.generation++
	}
	return err
}

// missed tells a person that the identity key is wanted.
func (k *Keys) missed() string {
	return fmt.Sprintf("the signing certificate ends at %s and the identity key is not here to renew it: run 'cepa keys renew' with the identity, or put %s back",
		k.signer.Certificate.Until.UTC().Format(time.RFC3339), identityKeyBlob)
}

// Warnings are what the operator should know of the keys; none if all is well.
func (k *Keys) Warnings() []directory.Warning {
	if k.identity == nil && k.signer.Certificate.Until.Sub(k.env.Clock.Wall()) <= renewSigning {
		return []directory.Warning{{Code: directory.WarnKeys, Text: k.missed()}}
	}
	return nil
}

// KeyFiles are the files in a relay's folder that others may change while it runs; nil for one that is not there.
type KeyFiles struct {
	Identity []byte // IdentityKeyFile
	Next     []byte // SigningNextFile
}

// Refresh takes note of what has become of the files: an identity key that was taken away is forgotten, one that was put
// back is used, and a signing key that was certified elsewhere takes the place of the one in force if it was certified
// later. What is of another relay or network is an error, and nothing changes.
func (k *Keys) Refresh(f KeyFiles) error {
	identity := (*cert.IdentityKey)(nil)
	if f.Identity != nil {
		key, err := ParseIdentityKey(f.Identity)
		if err != nil {
			return fmt.Errorf("reading %s: %w", identityKeyBlob, err)
		}
		if key.Identity() != k.Identity() {
			return fmt.Errorf("%s is of relay %s, and this one is %s", identityKeyBlob, key.Identity().Short(), k.Identity().Short())
		}
		identity = &key
	}
	if f.Next != nil {
		s, err := parseSigner(f.Next, k.network.ID, k.env.Clock.Wall())
		switch {
		case errors.Is(err, cert.ErrExpired): // an old one that nobody took away
		case err != nil:
			return fmt.Errorf("reading %s: %w", signingNextBlob, err)
		case s.Identity() != k.Identity():
			return fmt.Errorf("%s is of relay %s, and this one is %s", signingNextBlob, s.Identity().Short(), k.Identity().Short())
		case supersedes(s.Certificate, k.signer.Certificate):
			k.signer = s
			k.generation++
			saveSigner(k.env, s, f.Next)
		}
	}
	k.identity = identity
	return nil
}

// supersedes says whether a certificate was issued after another, for another key. One that ends earlier may do so on
// purpose.
func supersedes(a, b cert.Certificate) bool {
	return !a.From.Before(b.From) && !a.Subject.Equal(b.Subject)
}

// saveSigner writes down a signing key that came in the form of SigningNextFile. The one before it is overwritten: a
// signing key that is no longer used is good for nothing but mischief.
func saveSigner(e env.Env, s cert.Signer, next []byte) {
	seed, _, _ := strings.Cut(strings.TrimSpace(string(next)), " ") // parseSigner has seen it
	e.Store.Save(signingKeyBlob, []byte(seed+"\n"), nil)
	e.Store.Save(signingCertBlob, []byte(hex.EncodeToString(s.Certificate.AppendTo(nil))+"\n"), nil)
}

// FormatNext is the content of SigningNextFile: the seed of a signing key and its certificate.
func FormatNext(seed [32]byte, c cert.Certificate) []byte {
	return []byte(hex.EncodeToString(seed[:]) + " " + hex.EncodeToString(c.AppendTo(nil)) + "\n")
}

// parseSigner reads what FormatNext wrote, and verifies it.
func parseSigner(text []byte, network cert.NetworkID, now time.Time) (s cert.Signer, err error) {
	seedText, certText, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	seed, err := parseSeed(seedText)
	if err != nil {
		return s, err
	}
	data, err := hex.DecodeString(certText)
	if err != nil {
		return s, errors.New("want a seed and a certificate, both hexadecimal")
	}
	if s.Certificate, err = cert.DecodeCertificate(data); err != nil {
		return s, err
	}
	s.Key = cert.NewSigningKey(seed)
	_, key, err := s.Certificate.VerifySigning(network, now)
	if err == nil && !key.Equal(s.Key.Public()) {
		err = errors.New("the certificate is of another key")
	}
	return s, err
}

// ParseIdentityKey reads the content of IdentityKeyFile.
func ParseIdentityKey(text []byte) (cert.IdentityKey, error) {
	seed, err := parseSeed(strings.TrimSpace(string(text)))
	if err != nil {
		return cert.IdentityKey{}, err
	}
	return cert.NewIdentityKey(seed), nil
}

// storedSigner reads the signing key and its certificate. found is false when there is
// neither; the error says why they cannot be used: one is missing or damaged, they do not
// belong together, the certificate is too old or of another network.
func storedSigner(e env.Env, network cert.NetworkID, now time.Time) (s cert.Signer, found bool, err error) {
	seed, err := loadSeed(e, signingKeyBlob)
	text, certErr := e.Store.Load(signingCertBlob)
	switch {
	case errors.Is(err, fs.ErrNotExist) && errors.Is(certErr, fs.ErrNotExist):
		return s, false, nil
	case err != nil:
		return s, true, err
	case certErr != nil:
		return s, true, certErr
	}
	data, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err == nil {
		s.Certificate, err = cert.DecodeCertificate(data)
	}
	if err != nil {
		return s, true, fmt.Errorf("reading %s: %w", signingCertBlob, err)
	}
	s.Key = cert.NewSigningKey(seed)
	_, key, err := s.Certificate.VerifySigning(network, now)
	if err == nil && !key.Equal(s.Key.Public()) {
		err = fmt.Errorf("reading %s: it is for another key than %s", signingCertBlob, signingKeyBlob)
	}
	return s, true, err
}

// Signer is the signing key in force with its certificate.
func (k *Keys) Signer() cert.Signer { return k.signer }

// Identity names the relay.
func (k *Keys) Identity() cert.Identity { return k.signer.Identity() }

func (k *Keys) loadOnionKeys() error {
	text, err := k.env.Store.Load(onionKeysBlob)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for n, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if line == "" {
			continue
		}
		o, err := parseOnionKey(line)
		if err != nil {
			return fmt.Errorf("reading %s, line %d: %w", onionKeysBlob, n+1, err)
		}
		k.onion = append(k.onion, o)
	}
	return k.rotateOnion()
}

// parseOnionKey reads "SEED UNTIL", in hexadecimal and Unix milliseconds.
func parseOnionKey(line string) (o onionKey, err error) {
	seed, until, _ := strings.Cut(line, " ")
	if o.seed, err = parseSeed(seed); err != nil {
		return o, err
	}
	ms, err := strconv.ParseInt(until, 10, 64)
	if err != nil {
		return o, errors.New("want a seed and a time in milliseconds")
	}
	o.until = time.UnixMilli(ms)
	o.key = ntor.NewOnionKey(o.seed)
	return o, nil
}

// Rotate renews what ends soon: the signing key, if the identity key is at hand, and the onion
// key in time for a consensus to list the new one before the old is no longer announced. It drops
// onion keys that no valid consensus can list any more: an hour past the valid-until of the last
// one that could. The daemon calls it every quarter of an hour; if Generation has changed then,
// links need new credentials and the descriptor is another.
func (k *Keys) Rotate() error {
	if err := k.renewSigner(); err != nil {
		return err
	}
	return k.rotateOnion()
}

// LinkKeyDue reports whether a relay that took a link key at a time is to take the next: twice within the 48 hours that
// its certificate holds, and when the clock was set since so that it is not valid. Both are wall times.
func LinkKeyDue(taken, now time.Time) bool {
	age := now.Round(0).Sub(taken.Round(0))
	return age >= renewLinkKey || age < -cert.BackDate/2
}

// Generation grows with every new signing or onion key.
func (k *Keys) Generation() int { return k.generation }

// onionLead is how long before its end an onion key is followed by the next: a relay whose key has ended is not listed.
func (k *Keys) onionLead() time.Duration {
	life := time.Duration(k.network.Param(directory.OnionKeyDays)) * 24 * time.Hour
	return min(2*k.network.Interval()+time.Hour, life/2)
}

// keepOnion is for how long an onion key is accepted when it is no longer announced.
func keepOnion(network *directory.Network) time.Duration {
	return 24*network.Interval() + directory.DescriptorLifetime + time.Hour
}

func (k *Keys) rotateOnion() error {
	now := k.env.Clock.Wall()
	keep := keepOnion(k.network)
	changed := false
	k.onion = slices.DeleteFunc(k.onion, func(o onionKey) bool {
		old := now.After(o.until.Add(keep))
		changed = changed || old
		return old
	})
	life := time.Duration(k.network.Param(directory.OnionKeyDays)) * 24 * time.Hour
	// One that ends later than any that is made now was made by a clock that was ahead.
	if len(k.onion) == 0 || !now.Before(k.onion[0].until.Add(-k.onionLead())) || k.onion[0].until.Sub(now) > life+cert.BackDate {
		o := onionKey{seed: freshSeed(k.env.Rand)}
		o.until = now.Add(life).Truncate(time.Millisecond)
		o.key = ntor.NewOnionKey(o.seed)
		k.onion = slices.Insert(k.onion, 0, o)
		k.generation++
		changed = true
	}
	if changed {
		var text []byte
		for _, o := range k.onion {
			text = fmt.Appendf(text, "%s %d\n", hex.EncodeToString(o.seed[:]), o.until.UnixMilli())
		}
		k.env.Store.Save(onionKeysBlob, text, nil)
	}
	return nil
}

// OnionKeys are those that the relay accepts, the newest first.
func (k *Keys) OnionKeys() []*ntor.OnionKey {
	keys := make([]*ntor.OnionKey, len(k.onion))
	for i, o := range k.onion {
		keys[i] = o.key
	}
	return keys
}

// OnionKey is the one that the relay announces, and until when it is so announced.
func (k *Keys) OnionKey() (public [32]byte, until time.Time) {
	return k.onion[0].key.Public(), k.onion[0].until
}

// Statement is the announced onion key as HELLO carries it, sealed.
func (k *Keys) Statement() ([]byte, error) {
	public, until := k.OnionKey()
	// It is shown for as long as the process lives, which is longer than it is announced.
	return directory.SealOnionKey(k.network.ID, directory.OnionKey{Key: public, Until: until.Add(24 * time.Hour)}, k.signer)
}

func freshSeed(rand io.Reader) (seed [32]byte) {
	_, _ = io.ReadFull(rand, seed[:]) // env.Rand never fails
	return seed
}

func loadSeed(e env.Env, name string) ([32]byte, error) {
	text, err := e.Store.Load(name)
	if err != nil {
		return [32]byte{}, err
	}
	seed, err := parseSeed(strings.TrimSpace(string(text)))
	if err != nil {
		return seed, fmt.Errorf("reading %s: %w", name, err)
	}
	return seed, nil
}

func parseSeed(text string) (seed [32]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(seed) {
		return seed, errors.New("want 64 hexadecimal digits")
	}
	return [32]byte(b), nil
}

func formatSeed(seed [32]byte) []byte { return []byte(hex.EncodeToString(seed[:]) + "\n") }
