//go:build !linux

package confine

import (
	"fmt"
	"runtime"
)

// Hook does nothing here.
func Hook() {}

// Run refuses: only Linux has what it needs.
func Run(Config) (status int, err error) {
	return 0, fmt.Errorf("%w: it needs namespaces and a TUN device, which Linux has and %s has not; set the program's own SOCKS5 proxy instead", ErrUnsupported, runtime.GOOS)
}
