package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/loop"
	"cepa/node"
)

// Founding says what a new network is to be.
type Founding struct {
	Name       string
	Test       bool // a test network: private addresses are allowed
	Parameters directory.Parameters
	Echo       string          // URL of the echo address; empty is none
	Relays     []FoundingRelay // at least one authority, which need not be relays
}

// FoundingRelay is a relay that the network file names. Its identity key is made in Dir if
// it is not there.
type FoundingRelay struct {
	Dir       string
	Address   string
	Authority bool
	// NoBootstrap leaves an authority out of those from whom a client learns of the network first: there are relays
	// enough for that.
	NoBootstrap bool
}

// Found makes the keys of a new network and writes its network file, signed, to path. It
// refuses to replace a file.
func Found(path string, f Founding) error {
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("founding a network: %s exists; a new network needs another place", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("founding a network: %w", err)
	}
	network := directory.Network{
		Name: f.Name, Serial: 1, Created: time.Now().UTC().Truncate(time.Millisecond),
		Parameters: f.Parameters, Test: f.Test, Echo: f.Echo,
	}
	_, _ = rand.Read(network.ID[:]) // never fails
	made, err := foundRelays(f.Relays, network.ID)
	if err != nil {
		return fmt.Errorf("founding a network: %w", err)
	}
	var signers []cert.Signer
	for i, r := range f.Relays {
		address, err := netip.ParseAddrPort(r.Address)
		if err != nil {
			return fmt.Errorf("founding a network: the address %q of a relay is not an IP address and port", r.Address)
		}
		contact := directory.Contact{Identity: made[i].Identity(), Addresses: []netip.AddrPort{address}}
		if !r.NoBootstrap {
			network.Bootstrap = append(network.Bootstrap, contact)
		}
		if r.Authority {
			network.Authorities = append(network.Authorities, contact)
			signers = append(signers, made[i])
		}
	}
	network.Quorum = directory.Quorum(len(network.Authorities))
	signed, err := directory.NewNetwork(network, signers...)
	if err != nil {
		return fmt.Errorf("founding a network: %w", err)
	}
	text, err := signed.AppendTOML(nil)
	if err != nil {
		return fmt.Errorf("founding a network: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("founding a network: %w", err)
	}
	return WriteFileAtomic(path, text, 0o644)
}

// foundAtOnce is how many folders are written to at once: each save waits for the disk.
const foundAtOnce = 16

// foundRelays makes the keys of several relays.
func foundRelays(list []FoundingRelay, id cert.NetworkID) ([]cert.Signer, error) {
	made, errs := make([]cert.Signer, len(list)), make([]error, len(list))
	var wait sync.WaitGroup
	turn := make(chan struct{}, foundAtOnce)
	for i := range list {
		turn <- struct{}{}
		wait.Go(func() {
			made[i], errs[i] = foundRelay(list[i].Dir, id)
			<-turn
		})
	}
	wait.Wait()
	return made, errors.Join(errs...)
}

// foundRelay makes one relay's keys.
func foundRelay(dir string, id cert.NetworkID) (s cert.Signer, err error) {
	l, err := loop.New(loop.Options{StateDir: dir})
	if err != nil {
		return s, err
	}
	go l.Run()
	var failure error
	err = l.Do(context.Background(), func() {
		e := l.Env()
		var identity cert.IdentityKey
		if identity, failure = node.NewIdentity(e); failure == nil {
			s, failure = node.NewSigner(e, id, identity)
		}
	})
	l.Stop()
	<-l.Done() // what was saved is on the disk
	return s, errors.Join(err, failure)
}

// LoadNetwork reads and verifies a network file.
func LoadNetwork(path string) (*directory.Network, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &explained{"reading the network file: there is no file " + path + "; you get one from whoever runs the network, and 'cepa network new' founds one", err}
	case errors.Is(err, fs.ErrPermission):
		return nil, &explained{"reading the network file: this user may not read " + path + "; it is no secret: have it copied to where you may", err}
	case err != nil:
		return nil, fmt.Errorf("reading the network file: %w", err)
	case info.IsDir():
		return nil, fmt.Errorf("reading the network file: %s is a folder; the file in it is mostly called network.toml", path)
	}
	if info.Size() > directory.MaxNetworkFile {
		return nil, fmt.Errorf("reading the network file: %s has %d bytes, more than %d", path, info.Size(), directory.MaxNetworkFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the network file: %w", err)
	}
	network, err := directory.ParseNetworkFile(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (if it is the right file, get it again from whoever runs the network)", path, err)
	}
	return network, nil
}
