package daemon

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/node"
)

// KeyReport says what keys are in a node's folder. It is made by node.InspectKeys.
type KeyReport = node.KeyReport

// InspectKeys says what keys are in a node's folder, for a network, at now. The node may be running.
func InspectKeys(dir string, network *directory.Network, now time.Time) (KeyReport, error) {
	load := func(name string) ([]byte, error) { return readBounded(filepath.Join(dir, name), maxKeyFile) }
	r, err := node.InspectKeys(load, network, now)
	if err != nil {
		return r, fmt.Errorf("reading the keys in %s: %w", dir, err)
	}
	return r, nil
}

// SignNetwork adds the signature of the authority whose keys are in dir to the draft of a network file.
func SignNetwork(draft *directory.Network, dir string) (*directory.Network, error) {
	load := func(name string) ([]byte, error) { return readBounded(filepath.Join(dir, name), maxKeyFile) }
	s, err := node.LoadSigner(load, draft.ID, draft.Created)
	if err != nil {
		return nil, fmt.Errorf("signing with the keys in %s: %w", dir, err)
	}
	return draft.Sign(s)
}

// LoadDraft reads the draft of a network file, which may have too few signatures.
func LoadDraft(path string) (*directory.Network, error) {
	text, err := readBounded(path, directory.MaxNetworkFile)
	if err != nil {
		return nil, fmt.Errorf("reading the draft: %w", err)
	}
	n, err := directory.ParseNetworkDraft(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// SaveNetwork writes a network file, or a draft of one, in one step.
func SaveNetwork(path string, n *directory.Network) error {
	text, err := n.AppendDraft(nil)
	if err != nil {
		return fmt.Errorf("writing the network file: %w", err)
	}
	return WriteFileAtomic(path, text, 0o644)
}

// NewKeys makes the keys of a relay or an authority in dir, for one that is yet to join, and returns its identity. It
// refuses a folder that has keys.
func NewKeys(dir string, network *directory.Network) (cert.Identity, error) {
	if HasKeys(dir) {
		return cert.Identity{}, fmt.Errorf("making keys: %s has keys already", dir)
	}
	s, err := foundRelay(dir, network.ID)
	if err != nil {
		return cert.Identity{}, fmt.Errorf("making keys: %w", err)
	}
	return s.Identity(), nil
}

// NewIdentityFile makes an identity key in a file of its own, for one that is never to be on a node's machine. It
// refuses to replace a file.
func NewIdentityFile(path string) (cert.Identity, error) {
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	if err := writeNew(path, []byte(hex.EncodeToString(seed[:])+"\n")); err != nil {
		return cert.Identity{}, fmt.Errorf("making an identity key: %w", err)
	}
	return cert.NewIdentityKey(seed).Identity(), nil
}

// RenewSigning makes a signing key in dir, certified for a lifetime (0 is the default) by the identity key in a file
// that may be anywhere, and is not copied. A node takes it at its next start, or when it is told (control.RefreshKeys).
// It returns the identity and the end of the certificate.
func RenewSigning(dir, identityFile string, network *directory.Network, lifetime time.Duration) (cert.Identity, time.Time, error) {
	id, until, err := renewSigning(dir, identityFile, network, lifetime)
	if err != nil {
		return id, until, fmt.Errorf("renewing the signing key: %w", err)
	}
	return id, until, nil
}

func renewSigning(dir, identityFile string, network *directory.Network, lifetime time.Duration) (id cert.Identity, until time.Time, err error) {
	text, err := readBounded(identityFile, maxKeyFile)
	if err != nil {
		return id, until, err
	}
	identity, err := node.ParseIdentityKey(text)
	if err != nil {
		return id, until, fmt.Errorf("%s is no identity key: %w", identityFile, err)
	}
	id = identity.Identity()
	now := time.Now()
	switch held, err := InspectKeys(dir, network, now); {
	case errors.Is(err, node.ErrNoKeys):
	case err != nil:
		return id, until, err
	case held.Identity != id:
		return id, until, fmt.Errorf("%s is the identity of %s, and %s holds keys of %s", identityFile, id.Short(), dir, held.Identity.Short())
	}
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	certificate, err := identity.Certify(network.ID, cert.NewSigningKey(seed).Public(), now, lifetime)
	if err != nil {
		return id, until, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return id, until, err
	}
	path := filepath.Join(dir, node.SigningNextFile)
	fresh := path + "_" // no name of a node's state, should it stay
	_ = os.Remove(fresh)
	if err := writeNew(fresh, node.FormatNext(seed, certificate)); err != nil {
		return id, until, err
	}
	return id, certificate.Until, os.Rename(fresh, path)
}

// TakeOffline moves the identity key of a node out of its folder to a file, which must not exist. It refuses to when
// the node could not start without it.
func TakeOffline(dir, to string, network *directory.Network) error {
	err := takeOffline(dir, to, network)
	if err != nil {
		return fmt.Errorf("taking the identity key offline: %w", err)
	}
	return nil
}

func takeOffline(dir, to string, network *directory.Network) error {
	held, err := InspectKeys(dir, network, time.Now())
	if err != nil {
		return err
	}
	switch {
	case !held.IdentityHere:
		return fmt.Errorf("%s has no %s: it is kept elsewhere already", dir, node.IdentityKeyFile)
	case held.SigningErr != nil:
		return fmt.Errorf("%s cannot do without it: its signing key is of no use (%w); start the node once", dir, held.SigningErr)
	}
	from := filepath.Join(dir, node.IdentityKeyFile)
	text, err := readBounded(from, maxKeyFile)
	if err != nil {
		return err
	}
	if err := writeNew(to, text); err != nil {
		return err
	}
	copied, err := readBounded(to, maxKeyFile)
	if err != nil || string(copied) != string(text) {
		return errors.Join(err, fmt.Errorf("%s was not written as it should be; nothing was removed", to))
	}
	return os.Remove(from)
}

// writeNew writes a file for its owner alone, which must not exist, and waits until it is on the disk.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists, and keys are not overwritten", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}
