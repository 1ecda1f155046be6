package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"cepa/node"
)

// HasKeys says whether a folder holds the keys of a relay or an authority: its identity key, or the certificate of a
// signing key when the identity is kept elsewhere.
func HasKeys(dir string) bool {
	for _, name := range []string{node.IdentityKeyFile, node.SigningCertFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// maxKeyFile bounds a file of keys, in bytes.
const maxKeyFile = 4096

// readKeyFiles reads what others may have changed in the folder of a running node.
func readKeyFiles(dir string) (f node.KeyFiles, err error) {
	for name, into := range map[string]*[]byte{node.IdentityKeyFile: &f.Identity, node.SigningNextFile: &f.Next} {
		data, err := readBounded(filepath.Join(dir, name), maxKeyFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return f, err
		}
		*into = data
	}
	return f, nil
}
