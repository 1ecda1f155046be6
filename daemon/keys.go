package daemon

import (
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
