// Package confine runs a program that has no network but the overlay: its TCP and its names go through the SOCKS port of
// a running client, and there is nothing else.
//
// The program runs in namespaces of its own (user, network, mount, process; Linux only). Its one network device is a TUN
// whose other end is a TCP/IP stack in this process (gVisor's), which opens a SOCKS stream for each TCP connection and
// answers questions for addresses with addresses that stand for names, so that names travel in SOCKS requests. All other
// packets end here. A system call filter closes what is no packet: sockets of other families, paths to other processes
// that could fetch something for the program, and the terminal's input queue.
//
//	program ─▶ kernel ─▶ TUN ─▶ filter ─▶ stack ─▶ SOCKS port ─▶ overlay
//	                               └─▶ ICMP "prohibited"
//
// It does not keep a program from files: what it writes there, another program may read and act on.
//
// cmd/cepa calls Run, and Hook first of all in main: the processes inside are this program again. Run is called once a
// process, on the main goroutine.
package confine

import (
	"errors"
)

// Config says what is run, and how.
type Config struct {
	Socks   string   // host:port of a client's SOCKS port, on this machine
	Program []string // with its arguments
	// UnixSockets lets the program use Unix sockets, as graphical programs must. Every server on this machine that
	// takes requests on such a socket can then act for it.
	UnixSockets bool
}

// ErrNoProgram says that the program cannot be found or may not be run; the error that it comes with says which.
var ErrNoProgram = errors.New("there is no such program to run")

// ErrUnsupported says that this system, or its settings, can have no such namespaces.
var ErrUnsupported = errors.New("this program cannot be confined here")
