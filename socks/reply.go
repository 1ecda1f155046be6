package socks

import (
	"context"
	"errors"
	"net"

	"cepa/cell"
)

// Error is why a Dialer could not open a stream. It decides the reply that the application gets.
type Error struct {
	Reason cell.Reason
	Text   string // for a person; it may name the destination, so it is not for logs
}

// Error returns Text, or the phrase of the reason when there is none.
func (e *Error) Error() string {
	if e.Text == "" {
		return e.Reason.String()
	}
	return e.Text
}

// Reply codes of RFC 1928, section 6.
const (
	replySucceeded          = 0
	replyGeneralFailure     = 1
	replyNotAllowed         = 2
	replyNetUnreachable     = 3
	replyHostUnreachable    = 4
	replyRefused            = 5
	replyTTLExpired         = 6
	replyCommandUnsupported = 7
	replyAddressUnsupported = 8
)

// replyCode is the SOCKS5 reply code (RFC 1928, section 6) for a stream that could not be opened: one table, the only
// place that decides. It is never 0, also for ReasonNone and ReasonEOF: a stream that ended before it was open did not
// succeed, whatever the reason says.
//
// Where RFC 1928 leaves a choice the codes are those of Tor, which applications know: 6 (TTL expired) for a timeout,
// 5 for a connection reset before it was open, 2 for an exit's policy, 4 for a name that does not resolve.
func replyCode(reason cell.Reason) uint8 {
	switch reason {
	case cell.ReasonPolicy:
		return replyNotAllowed
	case cell.ReasonNetUnreachable:
		return replyNetUnreachable
	case cell.ReasonNoSuchHost, cell.ReasonResolveFailed, cell.ReasonHostUnreachable:
		return replyHostUnreachable
	case cell.ReasonRefused, cell.ReasonReset:
		return replyRefused
	case cell.ReasonTimeout:
		return replyTTLExpired
	}
	return replyGeneralFailure
}

// reasonOf finds the reason in what a Dialer returned. An error that is no *Error and no timeout is a failure of ours.
func reasonOf(err error) cell.Reason {
	var e *Error
	if errors.As(err, &e) && e != nil {
		return e.Reason
	}
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return cell.ReasonTimeout
	}
	return cell.ReasonInternal
}

// appendReply appends a SOCKS5 reply. The bound address is always 0.0.0.0:0: the address that the exit connected from
// is of no use to an application, and the client's own means nothing there.
//
//	0  1  version, 5
//	1  1  code
//	2  1  reserved, 0
//	3  1  address type, 1
//	4  4  address, 0
//	8  2  port, 0
func appendReply(b []byte, code uint8) []byte {
	return append(b, version5, code, 0, 1, 0, 0, 0, 0, 0, 0)
}
