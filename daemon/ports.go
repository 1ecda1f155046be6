package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"cepa/nearest"
	"cepa/socks"
)

// relativePort makes the path of a Unix socket in a port setting relative to the folder of the file of settings.
func relativePort(file string, setting *string) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(*setting), unixPrefix)
	if !ok {
		return
	}
	socket, words, _ := strings.Cut(rest, " ")
	relativeTo(file, &socket)
	*setting = strings.TrimSpace(unixPrefix + socket + " " + words)
}

// maxPorts bounds the local ports of a client.
const maxPorts = 64

// unixPrefix marks the path of a Unix socket among addresses.
const unixPrefix = "unix:"

// maxUnixPath bounds the path of a Unix socket: the shortest limit of the systems that cepa runs on is 103 bytes, and while it
// is made the socket is in a folder beside its place, which takes up to 15.
const maxUnixPath = 88

// localPort is one port of a client for applications: a TCP address, or the path of a Unix socket.
type localPort struct {
	tcp  netip.AddrPort
	unix string // absolute or relative to the working directory; "" of a TCP port
	// rules are the Config of its server, but for what all ports have in common.
	rules socks.Config
}

func (p localPort) String() string {
	if p.unix != "" {
		return unixPrefix + p.unix
	}
	return p.tcp.String()
}

// portWords are the words that may follow the address of a port, as Tor's flags do in a SocksPort line.
var portWords = []struct {
	word  string
	apply func(*socks.Config)
}{
	{"auth", func(c *socks.Config) { c.ShareCredentials = false }},
	{"no-auth", func(c *socks.Config) { c.ShareCredentials = true }},
	{"client", func(c *socks.Config) { c.ShareClients = false }},
	{"no-client", func(c *socks.Config) { c.ShareClients = true }},
	{"destination", func(c *socks.Config) { c.IsolateDestination = true }},
	{"destination-port", func(c *socks.Config) { c.IsolatePort = true }},
	{"protocol", func(c *socks.Config) { c.IsolateProtocol = true }},
	{"extended-errors", func(c *socks.Config) { c.ExtendedErrors = true }},
}

// parsePort reads a port setting: an address such as 127.0.0.1:9850 or unix:/run/user/1000/cepa.sock, and the words that
// say what is isolated and how. remote allows addresses that others can reach.
func parsePort(text string, remote bool) (p localPort, err error) {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return p, errors.New("it is empty; give an address such as " + DefaultSocks)
	}
	address, words := fields[0], fields[1:]
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		if path == "" || len(path) > maxUnixPath {
			return p, fmt.Errorf("the path of a Unix socket has 1 to %d bytes: %q has %d", maxUnixPath, path, len(path))
		}
		p.unix = path
	} else if p.tcp, err = parseLocal(address, remote); err != nil {
		return p, err
	}
	seen := map[string]bool{}
	for _, word := range words {
		if err := p.apply(word); err != nil {
			return p, err
		}
		other, negative := strings.CutPrefix(word, "no-")
		if !negative {
			other = "no-" + word
		}
		if seen[word] || seen[other] {
			return p, fmt.Errorf("%q is there twice, or with its opposite", word)
		}
		seen[word] = true
	}
	return p, nil
}

func (p *localPort) apply(word string) error {
	var all []string
	for _, w := range portWords {
		if w.word == word {
			w.apply(&p.rules)
			return nil
		}
		all = append(all, w.word)
	}
	hint := "; there are " + strings.Join(all, ", ")
	if name := nearest.Name(word, all); name != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", name)
	}
	return fmt.Errorf("%q is nothing that can follow an address%s", word, hint)
}

// parseLocal reads an address to listen on for programs of this machine.
func parseLocal(text string, remote bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(text)
	switch {
	case err != nil:
		return a, fmt.Errorf("%q is not an IP address and port such as %s, or %sPATH", text, DefaultSocks, unixPrefix)
	case a.Addr().Zone() != "":
		return a, fmt.Errorf("%s has a zone; leave it out", text)
	case !a.Addr().Unmap().IsLoopback() && !remote:
		return a, fmt.Errorf("%s is not a loopback address: whoever reaches the port could use this client, and its traffic to "+
			"the port is not encrypted; if that is meant, set --allow-remote (allow_remote = true)", a)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// localPorts are those that the settings ask for: applications' ports, the first one first, and the one of the DNS,
// which is the zero AddrPort when there is none.
type localPorts struct {
	ports []localPort
	dns   netip.AddrPort
}

// localPorts reads the settings. The error names the one that is wrong.
func (c *ClientConfig) localPorts() (l localPorts, err error) {
	if len(c.Ports) >= maxPorts {
		return l, fmt.Errorf("ports has %d entries, at most %d", len(c.Ports), maxPorts-1)
	}
	seen := map[string]bool{}
	for i, text := range append([]string{c.Socks}, c.Ports...) {
		name := "--socks"
		if i > 0 {
			name = "--port"
		}
		p, err := parsePort(text, c.AllowRemote)
		if err != nil {
			return l, fmt.Errorf("%s %q: %w", name, text, err)
		}
		if p.tcp.Port() != 0 || p.unix != "" {
			if seen[p.String()] {
				return l, fmt.Errorf("%s %q: there is a port at %s already", name, text, p)
			}
			seen[p.String()] = true
		}
		l.ports = append(l.ports, p)
	}
	if c.DNS != "" {
		if l.dns, err = parseLocal(c.DNS, c.AllowRemote); err != nil {
			return l, fmt.Errorf("--dns: %w", err)
		}
		if l.dns.Port() != 0 && seen[l.dns.String()] {
			return l, fmt.Errorf("--dns %s: there is a port at that address already", l.dns)
		}
	}
	return l, nil
}

// remote are the ports that others than this machine's programs may reach.
func (l localPorts) remote() (addresses []string) {
	for _, p := range l.ports {
		if p.unix == "" && !p.tcp.Addr().IsLoopback() {
			addresses = append(addresses, p.String())
		}
	}
	if l.dns.IsValid() && !l.dns.Addr().IsLoopback() {
		addresses = append(addresses, l.dns.String())
	}
	return addresses
}

// free says what keeps the ports from being opened, without opening one: an open port means that the client is ready.
func (l localPorts) free() error {
	for _, p := range l.ports {
		if p.unix != "" {
			if err := freeSocket(p.unix); err != nil {
				return fmt.Errorf("opening the local port: %w", err)
			}
		} else if _, err := FreePort(p.tcp); err != nil {
			return PortFault("the SOCKS port", p.String(), "--socks (or --port)", err)
		}
	}
	if l.dns.IsValid() {
		if _, err := FreePort(l.dns); err != nil {
			return PortFault("the DNS port", l.dns.String(), "--dns", err)
		}
	}
	return nil
}

// freeSocket says why there can be no Unix socket at path. One that nobody answers on is no obstacle.
func freeSocket(path string) error {
	if info, err := os.Stat(filepath.Dir(path)); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", filepath.Dir(path))
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0 && runtime.GOOS != "windows":
		return fmt.Errorf("%s is there and is not a socket", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("another program answers on %s", path)
	}
	return nil
}

// listen opens the port. A Unix socket is its user's alone: whoever opens it can use the client.
func (p localPort) listen() (net.Listener, error) {
	if p.unix == "" {
		return net.Listen("tcp", p.tcp.String())
	}
	if err := freeSocket(p.unix); err != nil {
		return nil, err
	}
	if err := os.Remove(p.unix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return listenPrivate(p.unix)
}
