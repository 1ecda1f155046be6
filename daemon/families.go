package daemon

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"cepa/cert"
)

// NewFamilyFile makes the key of a family in a file that must not exist, and returns the family's id. Whoever runs
// several relays gives the file to each of them, and to nobody else.
func NewFamilyFile(path string) (cert.FamilyID, error) {
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return cert.FamilyID{}, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return cert.FamilyID{}, fmt.Errorf("making the key of a family: %w", err)
	}
	_, err = f.WriteString(hex.EncodeToString(seed[:]) + "\n")
	if err2 := f.Sync(); err == nil {
		err = err2
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return cert.FamilyID{}, fmt.Errorf("making the key of a family: %w", err)
	}
	return cert.NewFamilyKey(seed).ID(), nil
}

// familyFileSize is that of a file that NewFamilyFile makes, with room for spaces.
const familyFileSize = 256

// loadFamily reads the key of a family.
func loadFamily(path string) (cert.FamilyKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return cert.FamilyKey{}, fmt.Errorf("the key of a family: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, familyFileSize))
	if err != nil {
		return cert.FamilyKey{}, fmt.Errorf("the key of a family: %w", err)
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(seed) != 32 {
		return cert.FamilyKey{}, fmt.Errorf("the key of a family: %s does not hold 64 hexadecimal digits; make one with 'cepa keys family new'", path)
	}
	return cert.NewFamilyKey([32]byte(seed)), nil
}

// maxFamilies is how many families a descriptor has room for.
const maxFamilies = 4

// families makes a relay's memberships of the families whose keys are in these files.
func families(paths []string, network cert.NetworkID, relay cert.Identity) ([]cert.Membership, error) {
	if len(paths) > maxFamilies {
		return nil, fmt.Errorf("family_keys has %d files: a relay is in at most %d families", len(paths), maxFamilies)
	}
	var list []cert.Membership
	for _, path := range paths {
		key, err := loadFamily(path)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			if m.Family == key.ID() {
				return nil, fmt.Errorf("family_keys holds the key of family %s twice", key.ID())
			}
		}
		list = append(list, key.Admit(network, relay))
	}
	return list, nil
}
