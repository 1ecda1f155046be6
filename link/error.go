package link

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"cepa/cert"
	"cepa/env"
)

// Reasons for which a link does not come up or goes down, for errors.Is. The errors that carry them say more.
var (
	// ErrClosed: the Transport has been closed.
	ErrClosed = errors.New("this node is shutting down")
	// ErrMoved: the address that the link came from is no longer this machine's.
	ErrMoved = errors.New("this machine has left the network that the link went over")
	// ErrLimit: as many links, dials or unfinished handshakes as are allowed exist already.
	ErrLimit = errors.New("limit reached")
	// ErrTimeout: the far end did not do its part in time.
	ErrTimeout = errors.New("timed out")
	// ErrNotTLS: the far end speaks something else than TLS. Its errors are env.ErrNotRelay too.
	ErrNotTLS = errors.New("the far end speaks no TLS")
	// ErrTLS: the TLS handshake failed: wrong version, key exchange or certificate.
	ErrTLS = errors.New("TLS handshake failed")
	// ErrHello: what came was not one well-formed HELLO cell.
	ErrHello = errors.New("bad HELLO")
	// ErrNetwork: the far end belongs to another network.
	ErrNetwork = errors.New("the far end is on another network")
	// ErrVersion: there is no link protocol version that both ends speak.
	ErrVersion = errors.New("no common link protocol version")
	// ErrCertificate: the far end did not prove the identity that it claims.
	ErrCertificate = errors.New("the far end does not prove its identity")
	// ErrIdentity: the far end is another relay than the one that was dialled. The error is a *IdentityError.
	ErrIdentity = errors.New("the far end is another relay")
	// ErrSelf: the link leads from this node to itself.
	ErrSelf = errors.New("the far end is this node itself")
	// ErrRefused: the handler of this node did not want the link.
	ErrRefused = errors.New("refused by this node")
	// ErrPeerClosed: the far end closed an established link in an orderly way.
	ErrPeerClosed = errors.New("closed by the far end")
)

// Error says what was being done with which far end when something failed. Unwrap gives the reason.
type Error struct {
	Op   string // "dialling", "handshake with", "link with"
	Peer string // the address of the far end
	Err  error
}

// Error reads "handshake with 127.1.0.1:9001: the far end speaks no TLS (HTTP): ...".
func (e *Error) Error() string { return e.Op + " " + e.Peer + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// IdentityError says that a relay answered at the address of another one. It is ErrIdentity to errors.Is.
type IdentityError struct{ Want, Got cert.Identity }

// Error names both relays.
func (e *IdentityError) Error() string {
	return fmt.Sprintf("%v: %s answered where %s was expected; the address may have passed to another relay",
		ErrIdentity, e.Got.Short(), e.Want.Short())
}

// Is makes it ErrIdentity, also that of package env.
func (e *IdentityError) Is(target error) bool {
	return target == ErrIdentity || target == env.ErrIdentity
}

// foreign marks what no relay does: env.ErrNotRelay to errors.Is.
type foreign struct{ error }

func (e foreign) Unwrap() error        { return e.error }
func (e foreign) Is(target error) bool { return target == env.ErrNotRelay }

// offline marks what happens without a network: env.ErrOffline to errors.Is.
type offline struct{ error }

func (e offline) Unwrap() error        { return e.error }
func (e offline) Is(target error) bool { return target == env.ErrOffline }

// explainTLS turns an error of crypto/tls, or of the socket under it, into one that a person who does not know
// crypto/tls understands. The original stays in the chain.
func explainTLS(err error) error {
	var header tls.RecordHeaderError
	var opErr *net.OpError
	switch {
	case errors.As(err, &header):
		if what := protocolOf(header.RecordHeader); what != "" {
			return foreign{fmt.Errorf("%w (%s): is this the port of a relay?", ErrNotTLS, what)}
		}
		if strings.Contains(header.Msg, "first record") || strings.Contains(header.Msg, "SSLv2") {
			return foreign{fmt.Errorf("%w: %w", ErrNotTLS, err)}
		}
		return fmt.Errorf("%w: broken by the far end: %w", ErrTLS, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w in the TLS handshake: the far end is silent, overloaded or no relay", ErrTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the far end closed the connection before it was done", ErrTLS)
	case errors.As(err, &opErr) && opErr.Op == "remote error":
		alert := opErr.Err.Error()
		err := fmt.Errorf("%w: the far end refused it with the alert %q%s", ErrTLS, alert, alertHint(alert))
		if strings.Contains(alert, "protocol version") || strings.Contains(alert, "handshake failure") {
			return foreign{err}
		}
		return err
	case strings.Contains(err.Error(), "unsupported versions"), strings.Contains(err.Error(), "legacy version"),
		strings.Contains(err.Error(), "unsupported protocol version"):
		return foreign{fmt.Errorf("%w: the far end offers no TLS 1.3, the only version in use here: %w", ErrTLS, err)}
	case strings.Contains(err.Error(), "no key exchanges"), strings.Contains(err.Error(), "unsupported group"):
		return foreign{fmt.Errorf("%w: the far end offers no X25519MLKEM768, the only key exchange in use here: %w", ErrTLS, err)}
	case strings.Contains(err.Error(), "no supported elliptic curves"):
		return fmt.Errorf("%w: X25519MLKEM768 is switched off in this process: check the GODEBUG environment variable: %w", ErrTLS, err)
	}
	return fmt.Errorf("%w: %w", ErrTLS, err)
}

func alertHint(alert string) string {
	switch {
	case strings.Contains(alert, "protocol version"):
		return ": it speaks no TLS 1.3"
	case strings.Contains(alert, "handshake failure"):
		return ": it speaks no X25519MLKEM768, so it is no relay of a network like this"
	case strings.Contains(alert, "internal error"):
		return ": it may have as many links as it takes; try again later"
	}
	return ""
}

// protocolOf guesses from the 5 bytes that should have been the header of a TLS record what they were.
func protocolOf(header [5]byte) string {
	s := string(header[:])
	for _, method := range [...]string{"GET ", "POST ", "HEAD ", "PUT ", "CONNE", "OPTIO", "DELET", "PATCH", "PRI *"} {
		if strings.HasPrefix(s, method) {
			return "an HTTP request"
		}
	}
	switch {
	case s == "HTTP/":
		return "an HTTP answer"
	case s == "SSH-2" || s == "SSH-1":
		return "SSH"
	case header[0] == 5 || header[0] == 4 && header[1] == 1:
		return "SOCKS"
	}
	return ""
}

// explainRead is explainTLS for the wait for HELLO, after the TLS handshake.
func explainRead(err error) error {
	var opErr *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w waiting for HELLO", ErrTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the far end closed the connection instead; it may run another network or version, or be this node", ErrHello)
	case errors.As(err, &opErr) && opErr.Op == "remote error":
		return fmt.Errorf("%w: the far end refused our certificate or key with the alert %q", ErrTLS, opErr.Err.Error())
	}
	return fmt.Errorf("waiting for HELLO: %w", err)
}

// agree is by how much two clocks may differ and still count as one.
const agree = 10 * time.Minute

// clockHint compares the peer's clock with ours, for an error about dates.
func clockHint(skew time.Duration) string {
	switch {
	case skew > agree:
		return fmt.Sprintf("the far end's clock is %s ahead of ours: check the clock of this machine", roughly(skew))
	case skew < -agree:
		return fmt.Sprintf("the far end's clock is %s behind ours: check the clock of this machine", roughly(-skew))
	}
	return "the clocks of both ends agree, so its operator has to renew it"
}

func roughly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d minutes", int(d.Minutes()))
}
