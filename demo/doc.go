// Package demo runs a whole overlay network on one machine: relays with real keys, real TCP
// and TLS on loopback addresses, an authority, a client with its SOCKS5 port, and a page
// behind the exits. The nodes are those of package daemon, all in this process or each in a
// process of its own; nothing is short-circuited. It is called by `cepa demo`.
package demo
