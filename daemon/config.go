package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"cepa/directory"
	"cepa/metrics"
	"cepa/nearest"
)

// RelayConfig is what the operator of a relay sets: a TOML file, the environment, flags, or all three. The tags are all
// that is written of a setting anywhere: see Settings.
type RelayConfig struct {
	Network string `toml:"network" path:"file" section:"The network, and this relay's folder" value:"FILE" example:"network.toml" help:"The network file: you get it from whoever runs the network."`
	Dir     string `toml:"dir" path:"dir" value:"DIR" example:"relay" help:"The folder for keys and state, made if it is missing. It is the relay's identity: keep it, and keep it secret. One process at a time uses it."`

	Listen          string `toml:"listen,omitempty" section:"Where it is" value:"ADDRESS" default:"0.0.0.0:9001" help:"The one TCP address for links, directory and gossip: an IP address of this machine, or 0.0.0.0 for all, and a port."`
	Address         string `toml:"address,omitempty" value:"ADDRESS" help:"The address that others reach the relay at, such as 203.0.113.7:9001, if listen does not say it: behind NAT, or in a container. It may differ from listen in address and port. With \"auto\" the relay asks the authorities at the start at which address they see it, and takes what those of three networks agree on, with the port of listen."`
	AssumeReachable bool   `toml:"assume_reachable,omitempty" help:"Publish the relay without asking other nodes first whether they reach it at its address. Without this it waits until one does, and says what to open."`

	Nickname   string   `toml:"nickname,omitempty" section:"What people see" reload:"yes" value:"NAME" help:"A name for people, 1 to 19 letters, digits and hyphens; public, and not unique."`
	Contact    string   `toml:"contact,omitempty" reload:"yes" help:"How to reach you, such as an e-mail address; public."`
	FamilyKeys []string `toml:"family_keys,omitempty" path:"file" flag:"family-key" reload:"yes" value:"FILE" help:"Files with the keys of families that the relay is in, from 'cepa keys family new': no circuit uses two relays of one family. Whoever runs several relays must give the same file to all of them."`

	ExitPolicy             string `toml:"exit_policy,omitempty" section:"Exit" reload:"yes" default:"none" value:"POLICY" help:"Which destinations streams may leave the network for: none, web (ports 80 and 443), reduced (common services), all (also called full), or rules such as \"accept *:443, reject *:*\", of which the first that matches decides. Private addresses and those of relays are never reached, except in a test network."`
	ExitMax                int    `toml:"exit_max,omitempty" reload:"yes" value:"NUMBER" help:"Most connections of the exit that are open at once; 0 is no limit but memory and open files."`
	ExitMaxPerCircuit      int    `toml:"exit_max_per_circuit,omitempty" reload:"yes" value:"NUMBER" help:"The same for one circuit."`
	ExitMaxPerDestination  int    `toml:"exit_max_per_destination,omitempty" reload:"yes" value:"NUMBER" help:"The same for one destination, an address and port."`
	ExitRate               int    `toml:"exit_rate,omitempty" reload:"yes" value:"NUMBER" help:"Most new connections of the exit a second, with a burst of ten times as many; 0 is no limit."`
	ExitRatePerCircuit     int    `toml:"exit_rate_per_circuit,omitempty" reload:"yes" value:"NUMBER" help:"The same for one circuit."`
	ExitRatePerDestination int    `toml:"exit_rate_per_destination,omitempty" reload:"yes" value:"NUMBER" help:"The same for one destination, an address and port."`
	ExitAddress            string `toml:"exit_address,omitempty" value:"IP" help:"The IPv4 address of this machine that connections of the exit come from; the system chooses if it is empty. Another than listen's keeps complaints away from the relay's own."`
	ExitAddress6           string `toml:"exit_address6,omitempty" value:"IP" help:"The same for IPv6."`
	Resolver               string `toml:"resolver,omitempty" value:"ADDRESS" help:"The DNS server that the exit asks, such as 127.0.0.1:53; the system's if it is empty."`
	ExitNotice             string `toml:"exit_notice,omitempty" value:"ADDRESS" help:"Serve a page at this address and port that says what an exit is, for people who look up where a connection came from. Give a port of its own: such as 0.0.0.0:80 for the world, or 127.0.0.1:8080 behind a web server. Nothing is served if it is empty."`
	ExitNoticeFile         string `toml:"exit_notice_file,omitempty" path:"file" value:"FILE" help:"The page, HTML; if it is empty, the one that comes with cepa, with your contact in it."`

	BandwidthMiB    int    `toml:"bandwidth_mib,omitempty" section:"How much it carries" flag:"bandwidth" reload:"yes" value:"MiB" help:"What the relay says that it offers, in MiB a second; 0 is no statement."`
	UplinkMbit      int    `toml:"uplink_mbit,omitempty" flag:"uplink" value:"MBIT" help:"What the machine can send, in Mbit/s (a million bits a second): the relay keeps a little below, and circuits share it evenly. 0: not known."`
	RateKiB         int    `toml:"rate_kib,omitempty" flag:"rate" reload:"yes" value:"KiB" help:"Most that the relay sends to other nodes, in KiB a second on average; 0 is no limit."`
	BurstKiB        int    `toml:"burst_kib,omitempty" flag:"burst" reload:"yes" value:"KiB" help:"How much of what rate_kib allows may go at once after a pause, in KiB; 0 is a second's worth."`
	AccountingGiB   int    `toml:"accounting_gib,omitempty" flag:"accounting" reload:"yes" value:"GiB" help:"Most traffic in a month, in GiB; 0 is no limit. When it is used up, the relay tells the network that it leaves, lets circuits end, and sleeps until the next month; what has been used is kept across restarts."`
	AccountingDay   int    `toml:"accounting_day,omitempty" reload:"yes" value:"DAY" default:"1" help:"The day of the month, 1 to 28, on which at 00:00 UTC the month of the accounting begins."`
	AccountingCount string `toml:"accounting_count,omitempty" reload:"yes" value:"WHAT" default:"sum" help:"What counts: sum of what is received and what is sent, out (what is sent), or max (the larger of the two)."`
	MemoryMiB       int    `toml:"memory_mib,omitempty" flag:"memory" value:"MiB" default:"256" help:"Bound for data queued for others, in MiB."`

	Drain         string        `toml:"drain,omitempty" section:"Running" reload:"yes" value:"TIME" help:"How long the relay, when it is told to end, waits for its circuits: it tells the network that it leaves, takes no new circuits, and ends when the last is gone or after this time, such as 30s or 5m. A second signal ends it at once. Empty is 30s, and no wait in a test network."`
	LogLevel      string        `toml:"log_level,omitempty" reload:"yes" value:"LEVEL" default:"info" help:"How much is logged: debug, info, warn or error."`
	LogFormat     string        `toml:"log_format,omitempty" value:"FORMAT" default:"text" help:"How the log is written: text or json."`
	LogAddresses  bool          `toml:"log_addresses,omitempty" help:"Leave addresses and names of destinations in the log, for the time of a search; such a log tells who used the node."`
	Metrics       string        `toml:"metrics,omitempty" section:"Monitoring" value:"ADDRESS" help:"Serve metrics for Prometheus, /healthz and /readyz on this address of this machine, such as 127.0.0.1:9100; nothing is served if it is empty."`
	MetricsPublic bool          `toml:"metrics_public,omitempty" help:"Allow metrics at an address that others can reach. Let a firewall admit the monitoring system alone."`
	TLSKeyLog     string        `toml:"tls_keylog,omitempty" section:"For test networks only" path:"file" flag:"-" value:"FILE" help:"A file for the secrets of the links' TLS sessions."`
	Serve         []Service     `toml:"serve,omitempty" help:"Local services that an exit offers under a name: a list of tables, such as {name = \"hello.demo\", port = 80, to = \"127.0.0.1:8080\"}."`
	Control       ControlConfig `toml:"control,omitempty" help:"How the node can be watched and steered from outside, beside the socket in its folder."`
}

// AuthorityConfig is what the operator of a directory authority sets that is no relay.
type AuthorityConfig struct {
	Network       string        `toml:"network" path:"file" section:"The network, and this authority's folder" value:"FILE" example:"network.toml" help:"The network file, which names this authority."`
	Dir           string        `toml:"dir" path:"dir" value:"DIR" example:"authority" help:"The folder with the authority's keys, that 'cepa network new' made, and for its state. Keep it secret. One process at a time uses it."`
	Listen        string        `toml:"listen,omitempty" section:"Where it is" value:"ADDRESS" default:"0.0.0.0:9001" help:"The one TCP address for links, directory and gossip: an IP address of this machine, or 0.0.0.0 for all, and a port."`
	Address       string        `toml:"address,omitempty" value:"ADDRESS" help:"The address that others reach the authority at, such as 203.0.113.7:9001, if listen does not say it."`
	MemoryMiB     int           `toml:"memory_mib,omitempty" section:"Running" flag:"memory" value:"MiB" default:"256" help:"Bound for queued data, in MiB."`
	LogLevel      string        `toml:"log_level,omitempty" reload:"yes" value:"LEVEL" default:"info" help:"How much is logged: debug, info, warn or error."`
	LogFormat     string        `toml:"log_format,omitempty" value:"FORMAT" default:"text" help:"How the log is written: text or json."`
	LogAddresses  bool          `toml:"log_addresses,omitempty" help:"Leave addresses and names of destinations in the log, for the time of a search; such a log tells who used the node."`
	Metrics       string        `toml:"metrics,omitempty" section:"Monitoring" value:"ADDRESS" help:"Serve metrics for Prometheus, /healthz and /readyz on this address of this machine, such as 127.0.0.1:9100; nothing is served if it is empty."`
	MetricsPublic bool          `toml:"metrics_public,omitempty" help:"Allow metrics at an address that others can reach. Let a firewall admit the monitoring system alone."`
	TLSKeyLog     string        `toml:"tls_keylog,omitempty" section:"For test networks only" path:"file" flag:"-" value:"FILE" help:"A file for the secrets of the links' TLS sessions."`
	Control       ControlConfig `toml:"control,omitempty" help:"How the node can be watched and steered from outside, beside the socket in its folder."`
}

// Service is a name and port behind the exits of a test network, and where it really is.
type Service struct {
	Name string `toml:"name"`
	Port uint16 `toml:"port"`
	To   string `toml:"to"`
}

// ClientConfig is what the user of a client sets.
type ClientConfig struct {
	Network       string        `toml:"network" path:"file" section:"The network, and this client's folder" value:"FILE" example:"network.toml" help:"The network file: you get it from whoever runs the network."`
	Dir           string        `toml:"dir" path:"dir" value:"DIR" example:"client" help:"The folder for state, made if it is missing: guards, and what is known of the network. One process at a time uses it."`
	Socks         string        `toml:"socks" path:"port" section:"For programs on this machine" value:"ADDRESS" default:"127.0.0.1:9850" help:"The address of the local port, or unix:PATH, and words on isolation behind it: destination, destination-port and protocol keep apart more, no-auth and no-client less; extended-errors answers .onion names by Tor's codes."`
	Ports         []string      `toml:"ports,omitempty" path:"port" flag:"port" value:"ADDRESS" help:"More ports, each written as socks is. Ports share no circuit with each other."`
	DNS           string        `toml:"dns,omitempty" value:"ADDRESS" help:"The address of a port that resolves names through the network, by the DNS, over UDP and TCP; none if it is empty."`
	AllowRemote   bool          `toml:"allow_remote,omitempty" help:"Allow ports at addresses that others can reach; they can then use this client."`
	MemoryMiB     int           `toml:"memory_mib,omitempty" section:"Running" flag:"memory" value:"MiB" default:"256" help:"Bound for queued data, in MiB."`
	NoSpares      bool          `toml:"no_spare_circuits,omitempty" help:"Build a circuit only when a request waits for it. Requests then take longer to begin, and relays make no handshakes in vain."`
	LogLevel      string        `toml:"log_level,omitempty" reload:"yes" value:"LEVEL" default:"info" help:"How much is logged: debug, info, warn or error."`
	LogFormat     string        `toml:"log_format,omitempty" value:"FORMAT" default:"text" help:"How the log is written: text or json."`
	LogAddresses  bool          `toml:"log_addresses,omitempty" help:"Leave addresses and names of destinations in the log, for the time of a search; such a log tells who used the node."`
	Metrics       string        `toml:"metrics,omitempty" section:"Monitoring" value:"ADDRESS" help:"Serve metrics for Prometheus, /healthz and /readyz on this address of this machine, such as 127.0.0.1:9100; nothing is served if it is empty."`
	MetricsPublic bool          `toml:"metrics_public,omitempty" help:"Allow metrics at an address that others can reach. Let a firewall admit the monitoring system alone."`
	TLSKeyLog     string        `toml:"tls_keylog,omitempty" section:"For test networks only" path:"file" flag:"-" value:"FILE" help:"A file for the secrets of the links' TLS sessions."`
	Control       ControlConfig `toml:"control,omitempty" help:"How the node can be watched and steered from outside, beside the socket in its folder."`
	// Paths restricts which relays circuits use.
	Paths Paths `toml:"paths,omitempty" help:"Circuits use any relays that the network offers. Whoever must can leave some out, or ask for some: each is an identity (64 hexadecimal digits), family: and the id of a family, an address, or a prefix such as 192.0.2.0/24. Fewer relays are slower and make your circuits stand out; what cannot be done within these settings fails."`
}

// Defaults of the configuration.
const (
	DefaultSocks           = "127.0.0.1:9850"
	DefaultRelayPort       = 9001
	DefaultRelayMemoryMiB  = 256
	DefaultClientMemoryMiB = 256
	DefaultLogLevel        = "info"
)

// LoadRelayConfig reads a relay's TOML file. Unknown keys are errors; relative paths are
// relative to the file's folder.
func LoadRelayConfig(path string) (c RelayConfig, err error) { return c, loadTOML(path, &c) }

// LoadAuthorityConfig reads an authority's TOML file, as LoadRelayConfig does a relay's.
func LoadAuthorityConfig(path string) (c AuthorityConfig, err error) { return c, loadTOML(path, &c) }

// LoadClientConfig reads a client's TOML file, as LoadRelayConfig does a relay's.
func LoadClientConfig(path string) (c ClientConfig, err error) { return c, loadTOML(path, &c) }

func relativeTo(file string, p *string) {
	if *p != "" && !filepath.IsAbs(*p) {
		*p = filepath.Join(filepath.Dir(file), *p)
	}
}

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

func loadTOML(path string, into any) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &explained{"reading the settings: there is no file " + path + "; 'cepa config new ROLE --out " + path + "' makes one", err}
	case err != nil:
		return fmt.Errorf("reading the settings: %w", err)
	case info.IsDir():
		return fmt.Errorf("reading the settings: %s is a folder, not a file", path)
	}
	if info.Size() > maxConfig {
		return fmt.Errorf("reading the settings: %s has %d bytes, more than %d", path, info.Size(), maxConfig)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the settings: %w", err)
	}
	if err := decodeTOML(data, into); err != nil {
		return fmt.Errorf("reading the settings: %s: %w", path, err)
	}
	if reflect.TypeOf(into).Elem().Kind() != reflect.Struct {
		return nil
	}
	for _, set := range Settings(into) {
		set.relativeTo(path, into)
	}
	return nil
}

func decodeTOML(data []byte, into any) error {
	d := toml.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		var all []string
		for _, e := range strict.Errors[:min(len(strict.Errors), 10)] {
			row, column := e.Position()
			all = append(all, fmt.Sprintf("line %d, column %d: there is no setting %q%s", row, column, strings.Join(e.Key(), "."), suggestion(e.Key(), reflect.TypeOf(into))))
		}
		return errors.New(strings.Join(all, "\n   "))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, column := decode.Position()
		text := strings.TrimPrefix(decode.Error(), "toml: ")
		if m := wrongType.FindStringSubmatch(text); m != nil {
			text = fmt.Sprintf("%s has %s where %s is wanted", strings.Join(decode.Key(), "."), typeNames[m[1]], typeNames[m[2]])
		}
		return fmt.Errorf("line %d, column %d: %s", row, column, text)
	}
	return err
}

// wrongType is how the library says that a value is of another type than the setting: the TOML type, and Go's.
var wrongType = regexp.MustCompile(`^cannot decode TOML (\w+(?: \w+)?) into (?:struct field \S+ |a Go value )?of type (\S+)$`)

var typeNames = map[string]string{
	"string": "a text", "int": "a number", "integer": "a number", "float": "a number with a point", "bool": "true or false", "boolean": "true or false",
	"array": "a list", "inline table": "a table", "table": "a table", "[]string": "a list of texts", "uint16": "a number",
	"[]daemon.Service": "a list of tables", "local date": "a date", "local time": "a time", "datetime": "a time",
}

// suggestion names the setting that a wrong key may have meant, of the same table.
func suggestion(key []string, table reflect.Type) string {
	for table.Kind() != reflect.Struct { // a pointer to one, or a list of them
		table = table.Elem()
	}
	var names []string
	for i := range table.NumField() {
		name, _, _ := strings.Cut(table.Field(i).Tag.Get("toml"), ",")
		if len(key) > 1 && name == key[0] {
			return suggestion(key[1:], table.Field(i).Type)
		}
		names = append(names, name)
	}
	if name := nearest.Name(key[0], names); name != "" {
		return fmt.Sprintf(" (did you mean %q?)", name)
	}
	return ""
}

// Save writes the configuration to path, for `cepa relay --config`.
func (c RelayConfig) Save(path string) error { return saveTOML(path, c) }

// Save writes the configuration to path, for `cepa authority --config`.
func (c AuthorityConfig) Save(path string) error { return saveTOML(path, c) }

// Save writes the configuration to path, for `cepa client --config`.
func (c ClientConfig) Save(path string) error { return saveTOML(path, c) }

func saveTOML(path string, v any) error {
	data, err := toml.Marshal(v)
	if err != nil {
		return err
	}
	return WriteFileAtomic(path, data, 0o600)
}

// WriteFileAtomic replaces path in one step, so that a reader sees the old or the new file.
func WriteFileAtomic(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(data); err == nil {
		err = f.Chmod(mode)
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// check fills in defaults and finds what cannot work, before anything is started.
func (c *RelayConfig) check() (listen netip.AddrPort, err error) {
	if c.Network == "" {
		return listen, errors.New("no network file: set --network FILE (make one with 'cepa network new')")
	}
	if c.Dir == "" {
		return listen, errors.New("no folder for keys and state: set --dir DIR")
	}
	fillDefaults(c)
	if c.MemoryMiB < 16 || c.MemoryMiB > 1<<20 {
		return listen, fmt.Errorf("memory_mib is %d: it must be from 16 to %d", c.MemoryMiB, 1<<20)
	}
	if c.BandwidthMiB < 0 || c.BandwidthMiB > 1<<20 {
		return listen, fmt.Errorf("bandwidth_mib is %d: it must be from 0 to %d", c.BandwidthMiB, 1<<20)
	}
	if c.UplinkMbit < 0 || c.UplinkMbit > 1<<20 {
		return listen, fmt.Errorf("uplink_mbit is %d: it must be from 0 to %d", c.UplinkMbit, 1<<20)
	}
	if err := c.checkMore(); err != nil {
		return listen, err
	}
	if err := directory.CheckNickname(c.Nickname); err != nil {
		return listen, fmt.Errorf("nickname %q: %w", c.Nickname, err)
	}
	if err := directory.CheckContact(c.Contact); err != nil {
		return listen, fmt.Errorf("contact: %w", err)
	}
	if err := errors.Join(c.Control.check(), checkMetrics(c.Metrics, c.MetricsPublic)); err != nil {
		return listen, err
	}
	listen, err = netip.ParseAddrPort(c.Listen)
	if err != nil {
		return listen, fmt.Errorf("--listen %q is not an IP address and port such as 0.0.0.0:%d", c.Listen, DefaultRelayPort)
	}
	return listen, nil
}

// checkMetrics finds what is wrong with the port for monitoring.
func checkMetrics(address string, public bool) error {
	if address == "" {
		return nil
	}
	_, err := metrics.Check(address, public)
	return err
}

// check fills in defaults and finds what cannot work.
func (c *ClientConfig) check() (ports localPorts, err error) {
	if c.Network == "" {
		return ports, errors.New("no network file: set --network FILE (you get it from whoever runs the network)")
	}
	if c.Dir == "" {
		return ports, errors.New("no folder for state: set --dir DIR")
	}
	fillDefaults(c)
	if c.MemoryMiB < 16 || c.MemoryMiB > 1<<20 {
		return ports, fmt.Errorf("memory_mib is %d: it must be from 16 to %d", c.MemoryMiB, 1<<20)
	}
	if err := errors.Join(c.Control.check(), checkMetrics(c.Metrics, c.MetricsPublic)); err != nil {
		return ports, err
	}
	return c.localPorts()
}
