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
	IdentityKeyFile = identityKeyBlob // in a relay's folder
	SigningCertFile = signingCertBlob

	identityKeyBlob = "identity.key" // may be taken away and kept offline while signing.cert is valid
	signingKeyBlob  = "signing.key"
	signingCertBlob = "signing.cert"
	onionKeysBlob   = "onion.keys"
)

// renewSigning is how long before its end a signing certificate is renewed, if the identity
// key is at hand.
const renewSigning = 7 * 24 * time.Hour

// Keys are a relay's keys: its identity, the signing key in force and the onion keys that it
// accepts. They live in the Store of env; the link key is the shell's, made anew each start.
type Keys struct {
	env      env.Env
	network  *directory.Network
	identity *cert.IdentityKey // nil when it is kept elsewhere
	signer   cert.Signer
	onion    []onionKey // newest first
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
	signer, found, err := storedSigner(k.env, k.network.ID, k.env.Clock.Wall())
	switch {
	case found && err == nil && k.identity != nil && signer.Identity() != k.identity.Identity():
		return fmt.Errorf("%s is of relay %s and %s of another: put the right one back, or take away %s and %s",
			signingCertBlob, signer.Identity().Short(), identityKeyBlob, signingKeyBlob, signingCertBlob)
	case found && err == nil:
		k.signer = signer
		return k.renewSigner()
	case found && k.identity == nil:
		return fmt.Errorf("the signing key cannot be used on this network (%w), and the identity key to certify a new one is not here: put %s back", err, identityKeyBlob)
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

// renewSigner makes a new signing key when the certificate of the one in force ends soon.
func (k *Keys) renewSigner() error {
	until := k.signer.Certificate.Until
	switch {
	case until.Sub(k.env.Clock.Wall()) > renewSigning:
		return nil
	case k.identity == nil:
		k.env.Log.Warn("the signing certificate ends soon and the identity key to renew it is not here: put it back and start the relay again",
			"until", until.UTC().Format(time.RFC3339))
		return nil
	}
	signer, err := NewSigner(k.env, k.network.ID, *k.identity)
	if err == nil {
		k.signer = signer
	}
	return err
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
	o.key, err = ntor.NewOnionKey(o.seed)
	return o, err
}

// Rotate renews what ends soon: the signing key, if the identity key is at hand, and the onion
// key when the newest is no longer announced. It drops onion keys that no valid consensus can
// list any more: an hour past the valid-until of the last one that could. The daemon calls it
// now and then, and takes new credentials for links afterwards.
func (k *Keys) Rotate() error {
	if err := k.renewSigner(); err != nil {
		return err
	}
	return k.rotateOnion()
}

func (k *Keys) rotateOnion() error {
	now := k.env.Clock.Wall()
	keep := 24*k.network.Interval() + directory.DescriptorLifetime + time.Hour
	changed := false
	k.onion = slices.DeleteFunc(k.onion, func(o onionKey) bool {
		old := now.After(o.until.Add(keep))
		changed = changed || old
		return old
	})
	if len(k.onion) == 0 || !now.Before(k.onion[0].until) {
		o := onionKey{seed: freshSeed(k.env.Rand)}
		days := k.network.Param(directory.OnionKeyDays)
		o.until = now.Add(time.Duration(days) * 24 * time.Hour).Truncate(time.Millisecond)
		var err error
		if o.key, err = ntor.NewOnionKey(o.seed); err != nil {
			return fmt.Errorf("making an onion key: %w", err)
		}
		k.onion = slices.Insert(k.onion, 0, o)
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
