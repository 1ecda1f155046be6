// Package daemon runs nodes for real: it gives the actors of package node a loop, links over
// TCP and TLS, files, a SOCKS port, gossip on memberlist and a control socket. It holds no
// protocol decisions. It is called by cmd/cepa and by package demo.
//
// It is a shell: what it exports may be used from any goroutine.
package daemon
