// Package tun makes the one TUN device of a network namespace, on Linux: the way out for all IPv4 packets of the programs
// in it. It reads and writes no packets, and knows nothing of IPv6. Packages internal/confine (cepa exec) and
// internal/netlink (machines of simulations over real kernels) call it.
//
// Its functions act on the namespace of the calling thread: who has several locks the goroutine to its thread. They keep
// no state.
package tun
