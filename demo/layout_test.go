package demo

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cepa/daemon"
	"cepa/directory"
)

var testPage = netip.MustParseAddrPort("127.0.0.1:8080")

func options(dir string, relays int) Options {
	return Options{
		Relays: relays, Authorities: 3, Socks: netip.MustParseAddrPort("127.0.0.1:9850"), Dir: dir, ExitPolicy: "all", LogLevel: "warn",
		Message: func(string, ...any) {},
	}
}

func TestLayout(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made if missing")
	o := options(dir, 7)
	o.TLSKeyLog = true
	l, err := prepare(o, testPage)
	if err != nil {
		t.Fatal(err)
	}
	network, err := daemon.LoadNetwork(l.network)
	if err != nil || !network.Test || len(network.Bootstrap) != 7 || len(network.Authorities) != 3 {
		t.Fatalf("%+v, %v", network, err)
	}
	if distinct := network.Param(directory.DistinctSubnets) == 1; distinct != loopbackNets() {
		t.Errorf("distinct subnets %v", distinct)
	}
	subnets, exits := map[netip.Prefix]bool{}, 0
	for i, n := range l.relays {
		c, err := daemon.LoadRelayConfig(n.path)
		if err != nil {
			t.Fatal(err)
		}
		a, err := netip.ParseAddrPort(c.Listen)
		if err != nil || !a.Addr().IsLoopback() || a.Port() == 0 {
			t.Errorf("%s listens on %q", n.name, c.Listen)
		}
		p, _ := a.Addr().Prefix(16)
		if subnets[p] && loopbackNets() {
			t.Errorf("%s shares a /16", n.name)
		}
		subnets[p] = true
		if n.exit != (i%2 == 1) || n.exit != (c.ExitPolicy == "all") || n.exit != (len(c.Serve) == 1) {
			t.Errorf("%s: exit %v, %+v", n.name, n.exit, c)
		}
		if n.exit {
			exits++
			if c.Serve[0] != (daemon.Service{Name: Hello, Port: 80, To: testPage.String()}) {
				t.Errorf("%s serves %+v", n.name, c.Serve)
			}
		}
		if c.TLSKeyLog != filepath.Join(l.dir, keyLogFile) || c.Nickname != n.name || strings.Contains(n.name, " ") {
			t.Errorf("%+v", c)
		}
	}
	if exits != 3 {
		t.Errorf("%d of 7 relays are exits", exits)
	}
	for i, n := range l.authorities {
		c, err := daemon.LoadAuthorityConfig(n.path)
		if err != nil {
			t.Fatal(err)
		}
		a, err := netip.ParseAddrPort(c.Listen)
		p, _ := a.Addr().Prefix(16)
		if err != nil || !a.Addr().IsLoopback() || a.Port() == 0 || subnets[p] && loopbackNets() {
			t.Errorf("%s listens on %q", n.name, c.Listen)
		}
		subnets[p] = true
		if n.name != "authority-"+strconv.Itoa(i+1) || c.TLSKeyLog != filepath.Join(l.dir, keyLogFile) || !daemon.HasKeys(c.Dir) {
			t.Errorf("%s: %+v", n.name, c)
		}
	}
	client, err := daemon.LoadClientConfig(filepath.Join(l.client.Dir, settingsClient))
	if err != nil || client.Socks != "127.0.0.1:9850" || client.Network != l.network {
		t.Errorf("%+v, %v", client, err)
	}
	l.remove()
	if _, err := os.Stat(l.network); err != nil {
		t.Error("a folder that was named is removed")
	}
}

// TestLayoutIsReused: identities and ports are those of the last time; what the command line
// says anew is taken.
func TestLayoutIsReused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := prepare(options(dir, 4), testPage)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(first.network)
	if err != nil {
		t.Fatal(err)
	}
	o := options(dir, 4)
	o.ExitPolicy, o.Socks = "web", netip.MustParseAddrPort("127.0.0.1:1234")
	other := netip.MustParseAddrPort("127.0.0.1:9999")
	second, err := prepare(o, other)
	if err != nil {
		t.Fatal(err)
	}
	for i := range first.authorities {
		if first.authorities[i].config.Listen != second.authorities[i].config.Listen {
			t.Errorf("%s moved", first.authorities[i].name)
		}
	}
	for i := range first.relays {
		if first.relays[i].config.Listen != second.relays[i].config.Listen {
			t.Errorf("%s moved", first.relays[i].name)
		}
	}
	c, err := daemon.LoadRelayConfig(second.relays[1].path)
	if err != nil || c.ExitPolicy != "web" || c.Serve[0].To != other.String() || second.client.Socks != "127.0.0.1:1234" {
		t.Errorf("%+v, %v", c, err)
	}
	if again, err := os.ReadFile(second.network); err != nil || !slices.Equal(again, file) {
		t.Error("the network file was replaced")
	}
}

// TestLayoutThatDoesNotFit is refused before anything is changed, with what to do.
func TestLayoutThatDoesNotFit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := prepare(options(dir, 5), testPage); err != nil {
		t.Fatal(err)
	}
	list := func() (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	before := list()
	for _, n := range []int{4, 6} {
		_, err := prepare(options(dir, n), testPage)
		if err == nil || !strings.Contains(err.Error(), "--relays 5") {
			t.Errorf("%d relays: %v", n, err)
		}
	}
	o := options(dir, 5)
	o.Authorities = 4
	if _, err := prepare(o, testPage); err == nil || !strings.Contains(err.Error(), "--authorities 3") {
		t.Errorf("4 authorities: %v", err)
	}
	if after := list(); !slices.Equal(before, after) {
		t.Errorf("%v became %v", before, after)
	}
	settings := filepath.Join(dir, "authority-1", settingsAuthority)
	if err := os.Rename(settings, settings+".away"); err != nil { // as it was when relay-1 was the authority
		t.Fatal(err)
	}
	if _, err := prepare(options(dir, 5), testPage); err == nil || !strings.Contains(err.Error(), "earlier version") {
		t.Errorf("an older layout: %v", err)
	}
	if err := os.Rename(settings+".away", settings); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "relay-2", settingsRelay), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := prepare(options(dir, 5), testPage); err == nil || !strings.Contains(err.Error(), "to start afresh") {
		t.Errorf("damaged settings: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, networkFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := prepare(options(dir, 5), testPage); err == nil || !strings.Contains(err.Error(), "to start afresh") {
		t.Errorf("a damaged network file: %v", err)
	}
	if _, err := prepare(options(filepath.Join(dir, networkFile), 5), testPage); err == nil {
		t.Error("a file in the place of the folder")
	}
}

// TestTemporaryLayout is removed, also when it cannot be completed.
func TestTemporaryLayout(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("TMP", os.Getenv("TMPDIR"))
	l, err := prepare(options("", 3), testPage)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(l.dir, os.Getenv("TMPDIR")) {
		t.Errorf("made in %s", l.dir)
	}
	l.remove()
	o := options("", 3)
	o.Relays = 300 // there is no 127.256.0.1
	if loopbackNets() {
		if _, err := prepare(o, testPage); err == nil {
			t.Error("300 relays have addresses")
		}
	}
	if entries, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestShellLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   []string
		want string
	}{
		{[]string{"cepa", "relay", "--config", "/tmp/a-b_c/relay.toml"}, "cepa relay --config /tmp/a-b_c/relay.toml"},
		{[]string{"a b"}, "'a b'"},
		{[]string{"it's"}, `'it'\''s'`},
		{[]string{""}, "''"},
		{[]string{"$HOME", "`x`", "a\nb", "*", "~", "ü", "a;b", `a\b`}, "'$HOME' '`x`' 'a\nb' '*' '~' 'ü' 'a;b' 'a\\b'"},
		{nil, ""},
	} {
		if got := shellLine(c.in); got != c.want {
			t.Errorf("%q: %s, want %s", c.in, got, c.want)
		}
	}
}
