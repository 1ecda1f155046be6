package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"cepa/daemon"
	"cepa/directory"
)

// Hello is the name of the page that the demo serves behind its exits.
const Hello = "hello.demo"

// NetworkName is the name of a demo's network.
const NetworkName = "demo"

// Bounds of the demo's size. Each relay is a whole node; three are the least for a circuit.
const (
	MinRelays     = 3
	MaxRelays     = 100
	DefaultRelays = 7

	MaxAuthorities     = 32
	DefaultAuthorities = 3
)

// Options says what a demo is to be.
type Options struct {
	Relays      int // besides the authorities
	Authorities int
	Socks       netip.AddrPort
	Ports       []string // more of the client's local ports, as daemon.ClientConfig has them
	DNS         string   // the address of its DNS port; none if empty
	AnySocks    bool     // when Socks is taken, any free port will do
	Dir         string   // keeps the network's state; "" is a temporary folder that is removed
	Processes   bool     // every node is a process of its own
	ExitPolicy  string   // of the exits
	LogLevel    string
	TLSKeyLog   bool   // DIR/tls-keys.log gets the secrets of all links
	Executable  string // the cepa to run for Processes; "" is this one
	Version     string
	Message     func(format string, args ...any) // a line for the person at the terminal
}

// layout is a demo's folder: one network file, one folder with a settings file a node.
type layout struct {
	dir         string
	network     string // path of the network file
	authorities []authorityNode
	relays      []relayNode
	client      daemon.ClientConfig
	owned       bool // the folder is temporary and ours to remove
}

type relayNode struct {
	name   string
	exit   bool
	config daemon.RelayConfig
	path   string // of the settings file
}

type authorityNode struct {
	name   string
	config daemon.AuthorityConfig
	path   string // of the settings file
}

const (
	settingsRelay     = "relay.toml"
	settingsAuthority = "authority.toml"
	settingsClient    = "client.toml"
	networkFile       = "network.toml"
	keyLogFile        = "tls-keys.log"
)

// parameters of the demo's network: short intervals, so that a relay that comes or goes is
// known within seconds.
func parameters(relays int, distinct bool) directory.Parameters {
	p := directory.Parameters{
		directory.IntervalMillis:  4_000,
		directory.KeepaliveMillis: 1_000,
		directory.MinRelays:       int64(relays),
		// All relays share this machine: to measure them would only slow them down.
		directory.MeasureIntervals: 0,
	}
	if !distinct {
		p[directory.DistinctSubnets] = 0
	}
	return p
}

// loopbackNets says whether the system answers on all of 127.0.0.0/8, so that each relay can
// have a /16 of its own.
func loopbackNets() bool { return runtime.GOOS == "linux" }

// prepare makes the folder, or reads the one that an earlier demo left.
func prepare(o Options, page netip.AddrPort) (*layout, error) {
	l := &layout{dir: o.Dir}
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "cepa-demo-")
		if err != nil {
			return nil, fmt.Errorf("making a folder for the demo: %w", err)
		}
		l.dir, l.owned = dir, true
	} else if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the demo's folder: %w", err)
	}
	dir, err := filepath.Abs(l.dir)
	if err != nil {
		return nil, err
	}
	l.dir, l.network = dir, filepath.Join(dir, networkFile)
	if err := l.fill(o, page); err != nil {
		l.remove()
		return nil, err
	}
	return l, nil
}

func (l *layout) remove() {
	if l.owned {
		_ = os.RemoveAll(l.dir)
	}
}

func (l *layout) fill(o Options, page netip.AddrPort) error {
	founded, err := l.founded(o)
	if err != nil {
		return err
	}
	old, err := l.previous()
	if err != nil {
		return err
	}
	if err := l.makeAuthorities(o, old); err != nil {
		return err
	}
	if err := l.makeRelays(o, page, old); err != nil {
		return err
	}
	if !founded {
		if err := l.found(); err != nil {
			return err
		}
	}
	for _, n := range l.authorities {
		if err := n.config.Save(n.path); err != nil {
			return err
		}
	}
	for _, n := range l.relays {
		if err := n.config.Save(n.path); err != nil {
			return err
		}
	}
	l.client = daemon.ClientConfig{
		Network: l.network, Dir: filepath.Join(l.dir, "client"), Socks: o.Socks.String(), Ports: o.Ports, DNS: o.DNS, LogLevel: o.LogLevel, TLSKeyLog: l.keyLog(o),
	}
	if err := os.MkdirAll(l.client.Dir, 0o700); err != nil {
		return err
	}
	return l.client.Save(filepath.Join(l.client.Dir, settingsClient))
}

func (l *layout) makeAuthorities(o Options, old map[string]string) error {
	for i := 1; i <= o.Authorities; i++ {
		n := authorityNode{name: "authority-" + strconv.Itoa(i)}
		n.config = daemon.AuthorityConfig{
			Network: l.network, Dir: filepath.Join(l.dir, n.name), MemoryMiB: 128, LogLevel: o.LogLevel, TLSKeyLog: l.keyLog(o),
		}
		n.path = filepath.Join(n.config.Dir, settingsAuthority)
		if err := os.MkdirAll(n.config.Dir, 0o700); err != nil {
			return err
		}
		var err error
		if n.config.Listen, err = l.address(firstAuthority+i, n.name, old); err != nil {
			return err
		}
		l.authorities = append(l.authorities, n)
	}
	return nil
}

func (l *layout) makeRelays(o Options, page netip.AddrPort, old map[string]string) error {
	for i := 1; i <= o.Relays; i++ {
		n := relayNode{name: "relay-" + strconv.Itoa(i), exit: i%2 == 0}
		n.config = daemon.RelayConfig{
			Network: l.network, Dir: filepath.Join(l.dir, n.name), Nickname: n.name, ExitPolicy: "none",
			MemoryMiB: 128, LogLevel: o.LogLevel, TLSKeyLog: l.keyLog(o),
		}
		n.path = filepath.Join(n.config.Dir, settingsRelay)
		if err := os.MkdirAll(n.config.Dir, 0o700); err != nil {
			return err
		}
		if n.exit {
			n.config.ExitPolicy = o.ExitPolicy
			n.config.Serve = []daemon.Service{{Name: Hello, Port: 80, To: page.String()}}
		}
		var err error
		if n.config.Listen, err = l.address(i, n.name, old); err != nil {
			return err
		}
		l.relays = append(l.relays, n)
	}
	return nil
}

// keyLog is the file for the secrets of TLS sessions, if one is wanted.
func (l *layout) keyLog(o Options) string {
	if !o.TLSKeyLog {
		return ""
	}
	return filepath.Join(l.dir, keyLogFile)
}

// previous reads the addresses of the nodes of an earlier demo in the same folder: others know them by these.
func (l *layout) previous() (map[string]string, error) {
	old := make(map[string]string)
	if _, err := os.Stat(l.network); errors.Is(err, fs.ErrNotExist) {
		return old, nil
	}
	damaged := func(err error) error { return fmt.Errorf("%w; remove %s to start afresh", err, l.dir) }
	for i := 1; i <= MaxAuthorities; i++ {
		name := "authority-" + strconv.Itoa(i)
		c, err := daemon.LoadAuthorityConfig(filepath.Join(l.dir, name, settingsAuthority))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, damaged(err)
		}
		old[name] = c.Listen
	}
	for i := 1; i <= MaxRelays; i++ {
		name := "relay-" + strconv.Itoa(i)
		c, err := daemon.LoadRelayConfig(filepath.Join(l.dir, name, settingsRelay))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, damaged(err)
		}
		old[name] = c.Listen
	}
	return old, nil
}

// firstAuthority is the number of the /16 before that of the first authority: those below are the relays'.
const firstAuthority = 200

// address finds where a node listens: where it did, or on a free port of the net-th /16.
func (l *layout) address(net16 int, name string, old map[string]string) (string, error) {
	if at := old[name]; at != "" {
		return at, nil
	}
	host := "127.0.0.1"
	if loopbackNets() {
		host = fmt.Sprintf("127.%d.0.1", net16)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", fmt.Errorf("finding a port for %s: %w", name, err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// founded says whether the folder has a network already. One of another size is an error, told
// before anything is made.
func (l *layout) founded(o Options) (bool, error) {
	network, err := daemon.LoadNetwork(l.network)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%w; remove %s to start afresh", err, l.dir)
	}
	if _, err := os.Stat(filepath.Join(l.dir, "authority-1", settingsAuthority)); errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%s holds a demo of an earlier version, whose authority was a relay: remove it to start afresh, or give another --dir", l.dir)
	}
	for _, size := range []struct {
		what        string
		held, asked int
	}{{"relays", len(network.Bootstrap), o.Relays}, {"authorities", len(network.Authorities), o.Authorities}} {
		if size.held != size.asked {
			return false, fmt.Errorf("%s holds a demo of %d %s and %d are asked for: give --%s %d, or another --dir",
				l.dir, size.held, size.what, size.asked, size.what, size.held)
		}
	}
	return true, nil
}

// found writes the network file.
func (l *layout) found() error {
	f := daemon.Founding{
		Name:       NetworkName,
		Test:       true,
		Echo:       "http://" + Hello + AddressPath,
		Parameters: parameters(len(l.relays), loopbackNets()),
	}
	for _, n := range l.authorities {
		f.Relays = append(f.Relays, daemon.FoundingRelay{Dir: n.config.Dir, Address: n.config.Listen, Authority: true, NoBootstrap: true})
	}
	for _, n := range l.relays {
		f.Relays = append(f.Relays, daemon.FoundingRelay{Dir: n.config.Dir, Address: n.config.Listen})
	}
	return daemon.Found(l.network, f)
}
