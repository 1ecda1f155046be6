package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"cepa/nearest"
)

// RelayConfig is what the operator of a relay sets: a TOML file, flags, or both (flags win).
type RelayConfig struct {
	// Network is the path of the network file.
	Network string `toml:"network"`
	// Dir holds the relay's keys and state; it is created if it is missing.
	Dir string `toml:"dir"`
	// Listen is the one TCP address for links, directory and gossip, such as 0.0.0.0:9001.
	Listen string `toml:"listen"`
	// Address is how others reach the relay, if Listen does not say.
	Address string `toml:"address,omitempty"`
	// ExitPolicy is none (the default), web, reduced, all, or rules such as "accept *:443, reject *:*".
	ExitPolicy string `toml:"exit_policy,omitempty"`
	// Nickname and Contact are for people; both are public.
	Nickname string `toml:"nickname,omitempty"`
	Contact  string `toml:"contact,omitempty"`
	// FamilyKeys are files with the keys of families that the relay is in: no circuit uses two relays of one.
	FamilyKeys []string `toml:"family_keys,omitempty"`
	// BandwidthMiB is what the relay offers, in MiB a second; 0 is no statement.
	BandwidthMiB int `toml:"bandwidth_mib,omitempty"`
	// UplinkMbit is the rate at which the relay's machine can send, in Mbit/s (a million bits), headers of IP included.
	// The relay sends a little less, so that what waits does so in its own queues, where circuits take turns. 0: it is
	// not known.
	UplinkMbit int `toml:"uplink_mbit,omitempty"`
	// MemoryMiB bounds what the relay queues for others.
	MemoryMiB int `toml:"memory_mib,omitempty"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `toml:"log_level,omitempty"`
	// Metrics is where Prometheus finds the node, such as 127.0.0.1:9100; empty is nowhere. Anything but loopback
	// needs MetricsPublic.
	Metrics       string `toml:"metrics,omitempty"`
	MetricsPublic bool   `toml:"metrics_public,omitempty"`
	// LogFormat is text or json. LogAddresses writes addresses and names of destinations into the log as they are; they
	// are left out otherwise.
	LogFormat    string `toml:"log_format,omitempty"`
	LogAddresses bool   `toml:"log_addresses,omitempty"`
	// Serve are local services that an exit of a test network offers under a name.
	Serve []Service `toml:"serve,omitempty"`
	// TLSKeyLog is a file for the secrets of the links' TLS sessions; test networks only.
	TLSKeyLog string `toml:"tls_keylog,omitempty"`
}

// AuthorityConfig is what the operator of a directory authority sets that is no relay.
type AuthorityConfig struct {
	Network   string `toml:"network"`
	Dir       string `toml:"dir"`
	Listen    string `toml:"listen"`
	Address   string `toml:"address,omitempty"`
	MemoryMiB int    `toml:"memory_mib,omitempty"`
	LogLevel  string `toml:"log_level,omitempty"`
	// Metrics is where Prometheus finds the node, such as 127.0.0.1:9100; empty is nowhere. Anything but loopback
	// needs MetricsPublic.
	Metrics       string `toml:"metrics,omitempty"`
	MetricsPublic bool   `toml:"metrics_public,omitempty"`
	// LogFormat is text or json. LogAddresses writes addresses and names of destinations into the log as they are; they
	// are left out otherwise.
	LogFormat    string `toml:"log_format,omitempty"`
	LogAddresses bool   `toml:"log_addresses,omitempty"`
	TLSKeyLog    string `toml:"tls_keylog,omitempty"`
}

// Service is a name and port behind the exits of a test network, and where it really is.
type Service struct {
	Name string `toml:"name"`
	Port uint16 `toml:"port"`
	To   string `toml:"to"`
}

// ClientConfig is what the user of a client sets.
type ClientConfig struct {
	Network string `toml:"network"`
	Dir     string `toml:"dir"`
	// Socks is the first port for programs: an address or unix:PATH, and words that say what is isolated (ports.go).
	Socks string `toml:"socks"`
	// Ports are more of them, whose streams share no circuit with those of others.
	Ports []string `toml:"ports,omitempty"`
	// DNS is the address of a port that resolves names through the network, over UDP and TCP; "" is none.
	DNS string `toml:"dns,omitempty"`
	// AllowRemote allows ports at addresses that others can reach.
	AllowRemote bool   `toml:"allow_remote,omitempty"`
	MemoryMiB   int    `toml:"memory_mib,omitempty"`
	LogLevel    string `toml:"log_level,omitempty"`
	// Metrics is where Prometheus finds the node, such as 127.0.0.1:9100; empty is nowhere. Anything but loopback
	// needs MetricsPublic.
	Metrics       string `toml:"metrics,omitempty"`
	MetricsPublic bool   `toml:"metrics_public,omitempty"`
	// LogFormat is text or json. LogAddresses writes addresses and names of destinations into the log as they are; they
	// are left out otherwise.
	LogFormat    string `toml:"log_format,omitempty"`
	LogAddresses bool   `toml:"log_addresses,omitempty"`
	TLSKeyLog    string `toml:"tls_keylog,omitempty"`
	// Paths restricts which relays circuits use.
	Paths Paths `toml:"paths,omitempty"`
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
func LoadRelayConfig(path string) (RelayConfig, error) {
	var c RelayConfig
	if err := loadTOML(path, &c); err != nil {
		return c, err
	}
	for i := range c.FamilyKeys {
		relativeTo(path, &c.FamilyKeys[i])
	}
	for _, p := range []*string{&c.Network, &c.Dir, &c.TLSKeyLog} {
		relativeTo(path, p)
	}
	return c, nil
}

// LoadAuthorityConfig reads an authority's TOML file, as LoadRelayConfig does a relay's.
func LoadAuthorityConfig(path string) (AuthorityConfig, error) {
	var c AuthorityConfig
	if err := loadTOML(path, &c); err != nil {
		return c, err
	}
	for _, p := range []*string{&c.Network, &c.Dir, &c.TLSKeyLog} {
		relativeTo(path, p)
	}
	return c, nil
}

// LoadClientConfig reads a client's TOML file, as LoadRelayConfig does a relay's.
func LoadClientConfig(path string) (ClientConfig, error) {
	var c ClientConfig
	if err := loadTOML(path, &c); err != nil {
		return c, err
	}
	relativePort(path, &c.Socks)
	for i := range c.Ports {
		relativePort(path, &c.Ports[i])
	}
	for _, p := range []*string{&c.Network, &c.Dir, &c.TLSKeyLog} {
		relativeTo(path, p)
	}
	return c, nil
}

func relativeTo(file string, p *string) {
	if *p != "" && !filepath.IsAbs(*p) {
		*p = filepath.Join(filepath.Dir(file), *p)
	}
}

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

func loadTOML(path string, into any) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("reading the settings: %w", err)
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
	return nil
}

func decodeTOML(data []byte, into any) error {
	d := toml.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		e := strict.Errors[0]
		row, _ := e.Position()
		key := strings.Join(e.Key(), ".")
		return fmt.Errorf("line %d: there is no setting %q%s", row, key, suggestion(e.Key(), reflect.TypeOf(into)))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, column := decode.Position()
		return fmt.Errorf("line %d, column %d: %w", row, column, err)
	}
	return err
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
	if c.Listen == "" {
		c.Listen = fmt.Sprintf("0.0.0.0:%d", DefaultRelayPort)
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = DefaultRelayMemoryMiB
	}
	if c.MemoryMiB < 16 || c.MemoryMiB > 1<<20 {
		return listen, fmt.Errorf("memory_mib is %d: it must be from 16 to %d", c.MemoryMiB, 1<<20)
	}
	if c.BandwidthMiB < 0 || c.BandwidthMiB > 1<<20 {
		return listen, fmt.Errorf("bandwidth_mib is %d: it must be from 0 to %d", c.BandwidthMiB, 1<<20)
	}
	if c.UplinkMbit < 0 || c.UplinkMbit > 1<<20 {
		return listen, fmt.Errorf("uplink_mbit is %d: it must be from 0 to %d", c.UplinkMbit, 1<<20)
	}
	listen, err = netip.ParseAddrPort(c.Listen)
	if err != nil {
		return listen, fmt.Errorf("--listen %q is not an IP address and port such as 0.0.0.0:%d", c.Listen, DefaultRelayPort)
	}
	return listen, nil
}

// check fills in defaults and finds what cannot work.
func (c *ClientConfig) check() (ports localPorts, err error) {
	if c.Network == "" {
		return ports, errors.New("no network file: set --network FILE (you get it from whoever runs the network)")
	}
	if c.Dir == "" {
		return ports, errors.New("no folder for state: set --dir DIR")
	}
	if c.Socks == "" {
		c.Socks = DefaultSocks
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = DefaultClientMemoryMiB
	}
	if c.MemoryMiB < 16 || c.MemoryMiB > 1<<20 {
		return ports, fmt.Errorf("memory_mib is %d: it must be from 16 to %d", c.MemoryMiB, 1<<20)
	}
	return c.localPorts()
}
