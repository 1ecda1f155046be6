package socks

import (
	"bytes"
	"context"
	"crypto/sha3"
	"encoding/base32"
	"errors"
	"net"
	"slices"
	"strings"

	"cepa/cell"
)

// Error is why a Dialer could not open a stream. It decides the reply that the application gets.
type Error struct {
	Reason cell.Reason
	Text   string // for a person; it may name the destination, so it is not for logs
	// Scrubbed is Text without the destination, or "": for the log, and for HTTP clients.
	Scrubbed string
	// Here says that it failed before the destination, or its name, came into it: at this client, or for want of a
	// circuit.
	Here bool
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

// Tor's extended reply codes (socks-extensions.txt, section 1.2; proposal 304) that can be true here: there are no onion
// services in this network, so none can be found, and an address can be none.
const (
	replyOnionUnknown = 0xf0
	replyOnionInvalid = 0xf6
)

// replyTo is the reply code for a request that failed by err.
func (c *session) replyTo(err error) uint8 {
	if c.server.config.ExtendedErrors {
		if label, ok := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(c.request.Host, ".")), ".onion"); ok {
			if isOnion(label[strings.LastIndexByte(label, '.')+1:]) {
				return replyOnionUnknown
			}
			return replyOnionInvalid
		}
	}
	return replyCode(reasonOf(err))
}

// isOnion says whether label is the address of an onion service, version 3 (Tor's rend-spec-v3, section 6): base32 of a
// key of 32 bytes, 2 bytes of a checksum and the version.
func isOnion(label string) bool {
	b, err := base32.StdEncoding.DecodeString(strings.ToUpper(label))
	if err != nil || len(b) != 35 || b[34] != 3 {
		return false
	}
	sum := sha3.Sum256(slices.Concat([]byte(".onion checksum"), b[:32], b[34:]))
	return bytes.Equal(sum[:2], b[32:34])
}

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
