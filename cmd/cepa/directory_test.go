package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/daemon"
	"cepa/directory"
)

// library is a network of three authorities and a way to put consensuses of it into folders.
type library struct {
	t       *testing.T
	dir     string // of the network: as that of a demo
	network *directory.Network
	signers []cert.Signer
	relays  []directory.Relay
}

func newLibrary(t *testing.T) *library {
	l := &library{t: t, dir: filepath.Join(t.TempDir(), "overlay")}
	f := daemon.Founding{Name: "library", Test: true, Parameters: directory.Parameters{directory.IntervalMillis: 60_000}}
	for i := range 3 {
		f.Relays = append(f.Relays, daemon.FoundingRelay{Dir: filepath.Join(l.dir, fmt.Sprint("authority-", i+1)), Address: fmt.Sprintf("127.0.0.1:%d", 9001+i), Authority: true})
	}
	path := filepath.Join(l.dir, "network.toml")
	if err := daemon.Found(path, f); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.network, err = daemon.LoadNetwork(path); err != nil {
		t.Fatal(err)
	}
	for _, r := range f.Relays {
		certificate, err := cert.DecodeCertificate(l.unhex(filepath.Join(r.Dir, "signing.cert")))
		if err != nil {
			t.Fatal(err)
		}
		l.signers = append(l.signers, cert.Signer{Certificate: certificate, Key: cert.NewSigningKey([32]byte(l.unhex(filepath.Join(r.Dir, "signing.key"))))})
	}
	for i := range 4 {
		l.relays = append(l.relays, directory.Relay{
			Identity: l.signers[i%3].Identity(), OnionKey: [32]byte{9, byte(i)}, Nickname: fmt.Sprint("relay-", 8+i),
			Addresses: []netip.AddrPort{netip.MustParseAddrPort(fmt.Sprintf("127.%d.0.1:9001", i+1))},
			Flags:     directory.FlagRunning | directory.FlagValid | directory.FlagGuard, Weight: uint32(10 * (i + 1)), Protocols: directory.OurProtocols(),
		})
		l.relays[i].Identity[31] ^= byte(i)
	}
	l.relays[1].Flags |= directory.FlagExit
	l.relays[1].Ports = directory.PortSummary{IPv4: []directory.PortRange{{From: 443, To: 443}}}
	return l
}

func (l *library) unhex(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	data, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		l.t.Fatal(err)
	}
	return data
}

// put writes a consensus of that time, signed by so many, into a node's folder under a name.
func (l *library) put(folder, name string, validAfter time.Time, signers int) {
	l.t.Helper()
	head, body, err := directory.BuildConsensus(l.network, directory.ConsensusInput{ValidAfter: validAfter.Truncate(time.Second), Relays: l.relays, Parameters: l.network.Parameters})
	if err != nil {
		l.t.Fatal(err)
	}
	sealed, err := cert.Seal(cert.ConsensusDocument, l.network.ID, head, l.signers[:signers]...)
	if err != nil {
		l.t.Fatal(err)
	}
	dir := filepath.Join(l.dir, folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.t.Fatal(err)
	}
	for end, data := range map[string][]byte{".head": sealed, ".body": body} {
		if err := os.WriteFile(filepath.Join(dir, name+end), data, 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
}

// object runs a command that writes one JSON object.
func (l *library) object(args ...string) map[string]any {
	l.t.Helper()
	status, stdout, stderr := words(args...)
	if status != 0 {
		l.t.Fatalf("%q: status %d, %s", args, status, stderr)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(stdout), &m); err != nil {
		l.t.Fatalf("%q: %v in %s", args, err, stdout)
	}
	return m
}

// TestDirectoryShow: what the JSON has is what the documents promise, and a demo's folder stands for its client.
func TestDirectoryShow(t *testing.T) {
	l := newLibrary(t)
	now := time.Now()
	l.put("client", "consensus", now, 2)
	m := l.object("directory", "show", "--json", "--dir", l.dir)
	for _, key := range []string{"valid_after", "fresh_until", "valid_until"} {
		at, err := time.Parse(time.RFC3339, m[key].(string))
		if err != nil || !strings.HasSuffix(m[key].(string), "Z") || at.Before(now.Add(-time.Minute)) || at.After(now.Add(time.Hour)) {
			t.Errorf("%s is %v: %v", key, m[key], err)
		}
	}
	if d, err := hex.DecodeString(m["digest"].(string)); err != nil || len(d) != 32 {
		t.Errorf("digest %v", m["digest"])
	}
	signatures, relays := m["signatures"].([]any), m["relays"].([]any)
	if len(signatures) != 2 || len(relays) != 4 || m["valid"] != true {
		t.Fatalf("%v", m)
	}
	for _, s := range signatures {
		if s := s.(map[string]any); s["valid"] != true || len(s["identity"].(string)) != 64 {
			t.Errorf("%v", s)
		}
	}
	r := relays[1].(map[string]any)
	if r["name"] != "relay-9" || r["weight"] != 20. || fmt.Sprint(r["addresses"]) != "[127.2.0.1:9001]" || fmt.Sprint(r["flags"]) != "[Guard Exit Running Valid]" || r["identity"] != l.relays[1].Identity.String() {
		t.Errorf("%v", r)
	}
	for _, dir := range []string{l.dir, filepath.Join(l.dir, "client"), filepath.Join(l.dir, "client", "consensus.head")} {
		status, stdout, stderr := words("directory", "show", "--dir", dir)
		if status != 0 || !strings.Contains(stdout, "relay-9") || !strings.Contains(stdout, "2 of 3 authorities") || strings.Contains(stdout, "NOT VALID") {
			t.Errorf("%s: status %d, %s%s", dir, status, stdout, stderr)
		}
		for line := range strings.Lines(stdout) {
			if len(line) > 81 && !strings.Contains(line, l.dir) {
				t.Errorf("wider than 80 columns: %s", line)
			}
		}
	}
	elsewhere := filepath.Join(t.TempDir(), "node")
	if err := os.CopyFS(elsewhere, os.DirFS(filepath.Join(l.dir, "client"))); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := words("directory", "show", "--dir", elsewhere); status != exitFailure || !strings.Contains(stderr, "--network FILE") {
		t.Errorf("without a network file: status %d, %s", status, stderr)
	}
	if status, _, _ := words("directory", "show", "--dir", elsewhere, "--network", filepath.Join(l.dir, "network.toml")); status != 0 {
		t.Errorf("with one: status %d", status)
	}
	settings := daemon.ClientConfig{Network: filepath.Join(l.dir, "network.toml"), Dir: elsewhere}
	if err := settings.Save(filepath.Join(elsewhere, "client.toml")); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := words("directory", "show", "--dir", elsewhere); status != 0 {
		t.Errorf("with settings that name one: status %d, %s", status, stderr)
	}
}

// TestDirectoryVerify ends with 1 when something is wrong, and says what; a fork between nodes of one folder is.
func TestDirectoryVerify(t *testing.T) {
	l := newLibrary(t)
	now := time.Now()
	flip := func(folder, name string) {
		path := filepath.Join(l.dir, folder, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-1] ^= 1
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, wrong ...string) {
		t.Helper()
		status, stdout, stderr := words("directory", "verify", "--dir", l.dir)
		want := 0
		if len(wrong) > 0 {
			want = exitFailure
		}
		var got []string
		for line := range strings.Lines(stdout) {
			if rest, ok := strings.CutPrefix(line, "WRONG"); ok {
				got = append(got, strings.Fields(rest)[0])
			}
		}
		if status != want || !slices.Equal(got, wrong) || (stderr == "") != (want == 0) {
			t.Errorf("%s: status %d, wrong %q; want %d, %q\n%s%s", what, status, got, want, wrong, stdout, stderr)
		}
		if status, stdout, _ := words("directory", "verify", "--json", "--dir", l.dir); status != want || !strings.Contains(stdout, fmt.Sprintf(`"ok": %v`, want == 0)) {
			t.Errorf("%s: status %d, %s", what, status, stdout)
		}
	}
	l.put("client", "consensus", now, 3)
	l.put("relay-1", "consensus", now, 2)
	check("good")
	l.put("client", "consensus", now, 1)
	check("one signature", "quorum")
	l.put("client", "consensus", now.Add(-48*time.Hour), 2)
	check("two days old", "dates")
	l.put("client", "consensus", now, 2)
	flip("client", "consensus.body")
	check("a bit of the body", "body")
	l.put("client", "consensus", now, 2)
	l.relays[0].Weight++
	l.put("relay-1", "consensus", now, 2)
	check("a fork", "other")
	l.put("relay-1", "consensus", now, 1)
	check("a fork that too few have signed")
	l.put("client", "consensus", now, 2)
	flip("client", "consensus.head")
	if status, _, stderr := words("directory", "verify", "--dir", l.dir); status != exitFailure || stderr == "" {
		t.Errorf("a damaged head: status %d, %q", status, stderr)
	}
}

func TestDirectoryDiffAndRelays(t *testing.T) {
	l := newLibrary(t)
	now := time.Now()
	l.put("client", "previous", now.Add(-time.Minute), 2)
	l.put("relay-1", "consensus", now.Add(-time.Minute), 2)
	l.relays[1].Weight = 500
	l.relays = l.relays[:3]
	l.put("client", "consensus", now, 2)
	for _, args := range []string{
		"--dir " + l.dir,
		"--from " + filepath.Join(l.dir, "relay-1") + " --to " + l.dir,
		"--from " + filepath.Join(l.dir, "client", "previous.head") + " --dir " + l.dir,
	} {
		status, stdout, stderr := words(append([]string{"directory", "diff"}, strings.Fields(args)...)...)
		if status != 0 || !strings.Contains(stdout, "relay-11") || !strings.Contains(stdout, "weight: 20 -> 500") || !strings.Contains(stdout, "1 gone, 0 new, 1 changed") {
			t.Errorf("%s: status %d, %s%s", args, status, stdout, stderr)
		}
	}
	m := l.object("directory", "diff", "--json", "--dir", l.dir)
	if len(m["gone"].([]any)) != 1 || len(m["new"].([]any)) != 0 || len(m["changed"].([]any)) != 1 {
		t.Errorf("%v", m)
	}
	client := filepath.Join(l.dir, "client")
	if status, stdout, _ := words("directory", "diff", "--from", client, "--to", client); status != 0 || !strings.Contains(stdout, "Nothing has changed") {
		t.Errorf("status %d, %s", status, stdout)
	}
	if status, _, stderr := words("directory", "diff", "--dir", filepath.Join(l.dir, "relay-1")); status != exitFailure || !strings.Contains(stderr, "--from") {
		t.Errorf("without one before: status %d, %s", status, stderr)
	}
	names := func(args ...string) (names []string) {
		for _, r := range l.object(append([]string{"directory", "relays", "--json", "--dir", l.dir}, args...)...)["relays"].([]any) {
			names = append(names, r.(map[string]any)["name"].(string))
		}
		return names
	}
	for want, args := range map[string][]string{
		"relay-8 relay-9 relay-10": {}, "relay-9 relay-10 relay-8": {"--sort", "weight"}, "relay-10 relay-9 relay-8": {"--reverse"},
		"relay-9": {"--flag", "Guard", "--flag", "Exit"}, "": {"--flag", "BadExit"},
	} {
		if got := strings.Join(names(args...), " "); got != want {
			t.Errorf("%v: %s, want %s", args, got, want)
		}
	}
	if status, stdout, _ := words("directory", "relays", "--dir", l.dir, "--flag", "BadExit"); status != 0 || !strings.Contains(stdout, "0 of 3 relays") {
		t.Errorf("status %d, %s", status, stdout)
	}
}

func TestDirectoryFailures(t *testing.T) {
	l := newLibrary(t)
	empty := t.TempDir()
	for _, c := range []struct {
		args, want string
	}{
		{"show --dir " + l.dir, "no consensus"},
		{"show --dir " + filepath.Join(l.dir, "authority-1"), "no consensus"},
		{"show --dir " + empty, "no consensus"},
		{"verify --dir " + filepath.Join(empty, "nowhere"), "nowhere"},
		{"show --dir " + filepath.Join(l.dir, "network.toml"), "NAME.head"},
	} {
		status, stdout, stderr := words(append([]string{"directory"}, strings.Fields(c.args)...)...)
		if status != exitFailure || !strings.Contains(stderr, c.want) || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: status %d, %q, %q", c.args, status, stdout, stderr)
		}
	}
}
