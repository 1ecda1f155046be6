package cell

// Reason says why a stream, a circuit or an attempt to extend one ended: one table for END, DESTROY, EXTEND_FAILED and
// RESOLVED (docs/protocol.md, "Reasons"). A reason that was received is never forwarded.
//
// Decoders keep the number as it came, so that a newer peer's reason can be encoded again; act on [Reason.Known].
type Reason uint8

// The reasons.
const (
	ReasonNone            Reason = 0   // DESTROY: nothing is told; RESOLVED: success
	ReasonEOF             Reason = 0   // END: no more DATA from this side, the other direction goes on
	ReasonProtocol        Reason = 1   // the peer broke the protocol
	ReasonInternal        Reason = 2   // a failure of the sender's own
	ReasonResource        Reason = 3   // out of memory, ids, streams or budget
	ReasonDestroyed       Reason = 4   // the circuit was destroyed further along
	ReasonTimeout         Reason = 5   // something took too long
	ReasonShutdown        Reason = 6   // the relay is going away
	ReasonConnectFailed   Reason = 7   // no link to the next relay
	ReasonWrongIdentity   Reason = 8   // the next relay is not who it should be
	ReasonNoSuchRelay     Reason = 9   // the next relay is unknown, or may not be extended to
	ReasonPolicy          Reason = 10  // exit policy or previous hop forbid it
	ReasonNoSuchHost      Reason = 11  // the name does not exist
	ReasonResolveFailed   Reason = 12  // the name could not be resolved now
	ReasonRefused         Reason = 13  // the destination refused the connection
	ReasonHostUnreachable Reason = 14  // no way to the destination's host
	ReasonNetUnreachable  Reason = 15  // no way to the destination's network
	ReasonReset           Reason = 16  // the destination or the application reset the connection
	ReasonNotDirectory    Reason = 17  // BEGIN_DIR to a relay that serves no directory
	ReasonBadHandshake    Reason = 18  // the circuit handshake failed
	ReasonUnsupported     Reason = 19  // a handshake or extension that the relay does not have
	ReasonRateLimited     Reason = 20  // too many of these from there
	ReasonHibernating     Reason = 21  // the relay has used up its allowance for now
	ReasonOther           Reason = 255 // anything else
)

var reasonNames = [...]string{
	ReasonNone:            "none",
	ReasonProtocol:        "protocol violation",
	ReasonInternal:        "internal error",
	ReasonResource:        "resource limit",
	ReasonDestroyed:       "circuit destroyed",
	ReasonTimeout:         "timed out",
	ReasonShutdown:        "relay shutting down",
	ReasonConnectFailed:   "could not connect to the next relay",
	ReasonWrongIdentity:   "next relay has another identity",
	ReasonNoSuchRelay:     "no such relay",
	ReasonPolicy:          "refused by policy",
	ReasonNoSuchHost:      "no such host",
	ReasonResolveFailed:   "temporary failure in name resolution",
	ReasonRefused:         "connection refused",
	ReasonHostUnreachable: "host unreachable",
	ReasonNetUnreachable:  "network unreachable",
	ReasonReset:           "connection reset",
	ReasonNotDirectory:    "not a directory",
	ReasonBadHandshake:    "bad handshake",
	ReasonUnsupported:     "not supported",
	ReasonRateLimited:     "rate limited",
	ReasonHibernating:     "relay hibernating",
}

// Known returns r, or ReasonOther when this version does not have r.
func (r Reason) Known() Reason {
	if int(r) < len(reasonNames) {
		return r
	}
	return ReasonOther
}

// String returns a phrase for logs and errors, "connection refused"; "other" when this version does not have r.
func (r Reason) String() string {
	if r = r.Known(); r == ReasonOther {
		return "other"
	}
	return reasonNames[r]
}
