// Package netlink joins network namespaces of one Linux machine by links in user space, with the delay,
// rate, jitter, queue and loss that a network between real machines would have: what runs in the
// namespaces is real, with the kernel's own TCP, and only the wires are not.
//
// Each host is a namespace with one TUN device, to which its default route leads. A single thread
// reads what the hosts send, and writes it to where it goes when its time has come:
//
//	host ─▶ TUN ─▶ rate and queue up ─▶ loss, delay, jitter ─▶ rate and queue down ─▶ TUN ─▶ host
//
// It knows nothing of the overlay. Tests that compare the simulator with reality call it. It
// needs Linux, /dev/net/tun, and the right to make namespaces; New says ErrUnsupported where
// these are missing. A Network may be used from any goroutine.
package netlink
