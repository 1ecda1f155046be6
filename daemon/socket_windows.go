package daemon

import "net"

// listenPrivate opens a Unix socket. On Windows the access list of its folder says who may use it.
func listenPrivate(path string) (net.Listener, error) { return net.Listen("unix", path) }
