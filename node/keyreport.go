package node

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env"
)

// ErrNoKeys says that there are no keys.
var ErrNoKeys = errors.New("no keys")

// KeyReport says what keys a node has, for people.
type KeyReport struct {
	Identity     cert.Identity
	IdentityHere bool             // its key is in the folder
	Authority    bool             // the network file names it as one
	Signing      cert.Certificate // of the signing key that the next start would use
	SigningErr   error            // why it cannot be used: missing, damaged, ended, of another network
	Renewed      bool             // it was certified elsewhere
	Onion        []OnionReport    // newest first
}

// OnionReport is one onion key.
type OnionReport struct {
	Public   [32]byte
	Until    time.Time // announced until then
	Accepted time.Time // and accepted until then
}

// InspectKeys says what keys there are, in the words of an env.Store's Load: nothing is made or changed. It fails with
// ErrNoKeys when there are none, and when what there is belongs to different nodes.
func InspectKeys(load func(name string) ([]byte, error), network *directory.Network, now time.Time) (r KeyReport, err error) {
	store := env.Store(loader(load))
	e := env.Env{Store: store}
	text, err := load(identityKeyBlob)
	if err == nil {
		key, err := ParseIdentityKey(text)
		if err != nil {
			return r, fmt.Errorf("reading %s: %w", identityKeyBlob, err)
		}
		r.Identity, r.IdentityHere = key.Identity(), true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	s, found, err := storedSigner(e, network.ID, now)
	r.Signing, r.SigningErr = s.Certificate, err
	if next, err := load(signingNextBlob); err == nil {
		n, nextErr := parseSigner(next, network.ID, now)
		if nextErr == nil && (!found || r.SigningErr != nil || supersedes(n.Certificate, s.Certificate)) {
			s, found, r.Signing, r.SigningErr, r.Renewed = n, true, n.Certificate, nil, true
		}
	}
	switch certified := s.Certificate.Issuer.Bytes != nil; {
	case !found && !r.IdentityHere:
		return r, ErrNoKeys
	case !found:
		r.SigningErr = errors.New("there is none; it is made at the next start")
	case certified && r.IdentityHere && s.Identity() != r.Identity:
		return r, fmt.Errorf("%s is of %s, and the signing key of %s", identityKeyBlob, r.Identity.Short(), s.Identity().Short())
	case certified:
		r.Identity = s.Identity()
	}
	r.Authority = network.IsAuthority(r.Identity)
	r.Onion, err = onionReports(load, network)
	return r, err
}

// LoadSigner returns the signing key that InspectKeys reports, to sign with it: for tools that run beside a node. Its
// certificate must be good for the network at now.
func LoadSigner(load func(name string) ([]byte, error), network cert.NetworkID, now time.Time) (cert.Signer, error) {
	s, found, err := storedSigner(env.Env{Store: loader(load)}, network, now)
	if next, nextErr := load(signingNextBlob); nextErr == nil {
		n, nextErr := parseSigner(next, network, now)
		if nextErr == nil && (!found || err != nil || supersedes(n.Certificate, s.Certificate)) {
			return n, nil
		}
	}
	if !found {
		return s, ErrNoKeys
	}
	return s, err
}

func onionReports(load func(string) ([]byte, error), network *directory.Network) (out []OnionReport, err error) {
	text, err := load(onionKeysBlob)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for n, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if line == "" {
			continue
		}
		o, err := parseOnionKey(line)
		if err != nil {
			return nil, fmt.Errorf("reading %s, line %d: %w", onionKeysBlob, n+1, err)
		}
		out = append(out, OnionReport{o.key.Public(), o.until, o.until.Add(keepOnion(network))})
	}
	return out, nil
}

// loader is a Store that is only read.
type loader func(name string) ([]byte, error)

func (l loader) Load(name string) ([]byte, error) { return l(name) }

func (l loader) Save(string, []byte, func(error)) {}
