package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/control"
	"cepa/internal/socksclient"
)

// Verdicts of 'cepa check', and its exit statuses.
const (
	verdictProtected   = "protected"
	verdictTest        = "test"        // the path works, in a network that protects nobody
	verdictUnprotected = "unprotected" // what sites see is this machine
	verdictUnknown     = "unknown"

	exitUnknown = 3
)

// checked is what 'cepa check' has found out, as its JSON.
type checked struct {
	Verdict string       `json:"verdict"`
	Why     string       `json:"why"`
	Advice  string       `json:"advice,omitempty"`
	Socks   string       `json:"socks"`
	Echo    string       `json:"echo,omitempty"`
	Seen    netip.Addr   `json:"seen,omitzero"`     // by the echo address, through the overlay
	Outside []netip.Addr `json:"outside,omitempty"` // where guards see the client
	Direct  netip.Addr   `json:"direct,omitzero"`   // by the echo address, without the overlay
	Network string       `json:"network,omitempty"`
}

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "am I protected? compare what sites see with where you are",
		ArgsUsage: "[DIR]",
		Description: strings.TrimSpace(`
Asks an echo address, through the overlay, at what address it sees you, and compares that with
the addresses of this machine and with where the client's guards see it; the client whose
state is in DIR tells those. An echo address is an http or https URL that answers with the
address of who asks; the network file names one, or you decide whom to ask. Nothing is asked
outside the overlay, but with --direct.

Exits with 0 (protected, or a test network whose path works), 1 (not protected) or 3 (unknown).

Example:

   cepa demo --dir /tmp/overlay --processes &
   cepa status --wait 30s /tmp/overlay/client && cepa check /tmp/overlay/client`),
		Flags: []cli.Flag{
			socksFlag(),
			&cli.StringFlag{Name: "echo", Usage: "`URL` that answers with the address that it sees, in place of that of the network file", EnvVars: []string{"CEPA_ECHO"}},
			&cli.BoolFlag{Name: "direct", Usage: "ask the echo address also WITHOUT the overlay: it then knows you, and that you use one"},
			&cli.DurationFlag{Name: "timeout", Value: time.Minute, Usage: "wait this long for an answer"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: runCheck,
	}
}

func runCheck(c *cli.Context) error {
	if c.Args().Len() > 1 {
		return usagef("'cepa check' takes one DIR")
	}
	r := checked{Socks: c.String("socks"), Echo: c.String("echo")}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	if dir := c.Args().First(); dir != "" {
		if err := r.askClient(ctx, dir, c.IsSet("socks")); err != nil {
			return err
		}
	}
	switch {
	case r.Echo != "":
	case c.Args().Present():
		return usagef("the network file of that client names no echo address: give --echo URL; see 'cepa check --help'")
	default:
		return usagef("'cepa check' needs an echo address: the DIR of a client whose network file names one, or --echo URL; see 'cepa check --help'")
	}
	if u, err := url.Parse(r.Echo); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return usagef("--echo %q is no http or https URL", r.Echo)
	}
	var own []netip.Addr
	if list, err := net.InterfaceAddrs(); err == nil {
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				own = append(own, p.Addr().Unmap())
			}
		}
	}
	dialer := socksclient.Dialer{Address: r.Socks, User: "cepa check " + rand.Text()[:8]}
	seen, err := askEcho(ctx, r.Echo, func(ctx context.Context, _, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, err
		}
		return dialer.Dial(ctx, host, uint16(number))
	})
	r.Seen = seen
	if c.Bool("direct") {
		fmt.Fprintf(c.App.ErrWriter, "WARNING: asking %s without the overlay: it learns your address now\n", r.Echo)
		var direct net.Dialer
		var failed error
		if r.Direct, failed = askEcho(ctx, r.Echo, direct.DialContext); failed != nil {
			fmt.Fprintf(c.App.ErrWriter, "cepa: check: the direct request: %v\n", failed)
		}
	}
	r.judge(err, own)
	return r.print(c)
}

// askClient has the client tell its port and where its guards see it.
func (r *checked) askClient(ctx context.Context, dir string, socksSet bool) error {
	s, err := control.GetStatus(ctx, dir)
	if errors.Is(err, control.ErrNotRunning) {
		return fmt.Errorf("%w: DIR is the --dir of a running client", err)
	}
	if err != nil {
		return err
	}
	if s.Role != "client" {
		return usagef("the node in %s is no client but a %s", dir, s.Role)
	}
	r.Network = s.Network
	if r.Echo == "" {
		r.Echo = s.Echo
	}
	if !socksSet {
		r.Socks = s.Address
	}
	for _, text := range s.Outside {
		if a, err := netip.ParseAddr(text); err == nil {
			r.Outside = append(r.Outside, a.Unmap())
		}
	}
	return nil
}

// maxEcho bounds what is read of an echo address's answer, in bytes.
const maxEcho = 64 << 10

// askEcho fetches the URL over connections that dial makes, and no others, and finds an address in the answer.
func askEcho(ctx context.Context, at string, dial func(context.Context, string, string) (net.Conn, error)) (netip.Addr, error) {
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true} // no proxy of the environment
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	request.Header.Set("User-Agent", "curl/8.0") // one of many, and no mark of this program
	request.Header.Set("Accept", "*/*")
	client := &http.Client{Transport: transport}
	response, err := client.Do(request)
	if err != nil {
		var e *socksclient.Error
		if errors.As(err, &e) {
			err = e
		}
		return netip.Addr{}, fmt.Errorf("asking %s: %w", at, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxEcho))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("asking %s: %w", at, err)
	}
	if response.StatusCode != http.StatusOK {
		return netip.Addr{}, fmt.Errorf("asking %s: it answered %s", at, response.Status)
	}
	if a, ok := findAddress(string(text)); ok {
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("asking %s: its answer has no IP address", at)
}

// findAddress finds the first IP address in a text.
func findAddress(text string) (netip.Addr, bool) {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'f' || 'A' <= r && r <= 'F' || r == '.' || r == ':')
	}) {
		if a, err := netip.ParseAddr(strings.Trim(word, ".")); err == nil && len(word) > 2 {
			return a.Unmap(), true
		}
	}
	return netip.Addr{}, false
}

// judge decides. own are the addresses of this machine's interfaces.
func (r *checked) judge(err error, own []netip.Addr) {
	var e *socksclient.Error
	switch {
	case errors.As(err, &e) && e.Code == socksclient.CodeNoAnswer:
		r.Verdict, r.Why = verdictUnprotected, "no client is running: "+err.Error()
		r.Advice = "start a client; programs that are not set to its port go out directly"
	case err != nil:
		r.Verdict, r.Why = verdictUnknown, err.Error()
		r.Advice = "nothing left this machine but through the client; 'cepa status DIR' says how it is"
	case r.Seen.IsLoopback() || r.Seen.IsPrivate() || r.Seen.IsLinkLocalUnicast():
		r.Verdict, r.Why = verdictTest, fmt.Sprintf("the overlay carries requests (the site saw %s), but this is a test network on one machine or site: it hides nobody", r.Seen)
	case r.Seen == r.Direct, slices.Contains(r.Outside, r.Seen), slices.Contains(own, r.Seen):
		r.Verdict, r.Why = verdictUnprotected, fmt.Sprintf("sites see %s, which is you", r.Seen)
		r.Advice = "do not use this port: is it a client's (--socks), and is the exit on your own network?"
	case len(r.Outside) == 0 && !r.Direct.IsValid():
		r.Verdict, r.Why = verdictUnknown, fmt.Sprintf("sites see %s; whether that is you cannot be said without your own address", r.Seen)
		r.Advice = "name the client's folder: cepa check DIR"
	default:
		r.Verdict, r.Why = verdictProtected, fmt.Sprintf("sites see %s, an exit, and not you", r.Seen)
		r.Advice = "that is so for programs that use the port; 'cepa exec' makes sure of one"
	}
}

func (r *checked) print(c *cli.Context) error {
	w := c.App.Writer
	if c.Bool("json") {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else {
		heading := map[string]string{verdictProtected: "PROTECTED", verdictTest: "IT WORKS (test network)", verdictUnprotected: "NOT PROTECTED", verdictUnknown: "CANNOT TELL"}[r.Verdict]
		fmt.Fprintf(w, "%s: %s\n", heading, r.Why)
		for _, a := range r.Outside {
			fmt.Fprintf(w, "  you, as a guard sees you   %s\n", a)
		}
		if r.Direct.IsValid() {
			fmt.Fprintf(w, "  you, asked directly        %s\n", r.Direct)
		}
		if r.Seen.IsValid() {
			fmt.Fprintf(w, "  you, as sites see you      %s\n", r.Seen)
		}
		if r.Advice != "" {
			fmt.Fprintf(w, "%s\n", r.Advice)
		}
	}
	switch r.Verdict {
	case verdictUnprotected:
		return statusError{exitFailure}
	case verdictUnknown:
		return statusError{exitUnknown}
	}
	return nil
}
