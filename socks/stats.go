package socks

import "sync/atomic"

// cause is why a connection was turned away before it carried data.
type cause uint8

const (
	causeLimit       cause = iota // over MaxConns, or evicted while it was still negotiating
	causeSilent                   // said too little within HandshakeTimeout
	causeHungUp                   // the application went away first
	causeGarbage                  // neither SOCKS nor HTTP
	causeHTTP                     // an HTTP request that is neither CONNECT nor for our own pages
	causeMalformed                // a request that breaks the rules of its protocol
	causeMethod                   // no authentication method in common
	causeCommand                  // a command that is not supported
	causeAddressType              // an address type that is not in RFC 1928
	causeDestination              // a destination that cannot be
	causeGeneral                  // reply 1 from here on: the Dialer's verdict
	causePolicy
	causeNetUnreachable
	causeHostUnreachable
	causeConnectionRefused
	causeTimedOut
	causeShutdown // the server was closed
	causes
)

var causeNames = [causes]string{
	causeLimit:             "connection limit",
	causeSilent:            "handshake timeout",
	causeHungUp:            "hung up",
	causeGarbage:           "unknown protocol",
	causeHTTP:              "http",
	causeMalformed:         "malformed",
	causeMethod:            "no acceptable method",
	causeCommand:           "command not supported",
	causeAddressType:       "address type not supported",
	causeDestination:       "bad destination",
	causeGeneral:           "general failure",
	causePolicy:            "not allowed",
	causeNetUnreachable:    "network unreachable",
	causeHostUnreachable:   "host unreachable",
	causeConnectionRefused: "connection refused",
	causeTimedOut:          "timed out",
	causeShutdown:          "shutdown",
}

// causeOf is the cause that a reply code is counted under.
func causeOf(code uint8) cause {
	switch code {
	case replyNotAllowed, replyOnionUnknown, replyOnionInvalid:
		return causePolicy
	case replyNetUnreachable:
		return causeNetUnreachable
	case replyHostUnreachable:
		return causeHostUnreachable
	case replyRefused:
		return causeConnectionRefused
	case replyTTLExpired:
		return causeTimedOut
	case replyCommandUnsupported:
		return causeCommand
	case replyAddressUnsupported:
		return causeAddressType
	}
	return causeGeneral
}

// Stats are counters since New. They name no destination and no client.
type Stats struct {
	Open       int               // connections now, also those that are negotiating
	Accepted   uint64            // connections ever
	Connected  uint64            // those that became a stream
	Served     uint64            // those that were answered by a look-up, or by a page about the port
	Aborted    uint64            // connected ones that ended by an error or a timeout instead of two ends of file
	Refused    map[string]uint64 // those turned away, by cause; causes that never happened are left out
	Sent       uint64            // bytes from applications to the overlay
	Received   uint64            // bytes from the overlay to applications
	AcceptErrs uint64            // failed accepts, survived
	Panics     uint64            // bugs that cost one connection each
}

type counters struct {
	accepted, connected, served atomic.Uint64
	aborted                     atomic.Uint64
	sent, received              atomic.Uint64
	acceptErrs, panics          atomic.Uint64
	refused                     [causes]atomic.Uint64
}

// Stats returns the counters. The map is the caller's. Connected, Served, all that are refused and those negotiating
// add up to Accepted once nothing is in motion.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.sessions)
	s.mu.Unlock()
	st := Stats{
		Open:       open,
		Accepted:   s.count.accepted.Load(),
		Connected:  s.count.connected.Load(),
		Served:     s.count.served.Load(),
		Aborted:    s.count.aborted.Load(),
		Refused:    make(map[string]uint64),
		Sent:       s.count.sent.Load(),
		Received:   s.count.received.Load(),
		AcceptErrs: s.count.acceptErrs.Load(),
		Panics:     s.count.panics.Load(),
	}
	for c := range causes {
		if n := s.count.refused[c].Load(); n > 0 {
			st.Refused[causeNames[c]] = n
		}
	}
	return st
}
