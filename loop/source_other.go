//go:build !unix

package loop

import "net"

// newSource gives the source that suits c.
func newSource(c net.Conn) source { return &stream{c: c} }
