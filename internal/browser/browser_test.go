package browser

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestFirefoxProfileIsKeptToThePort(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "p")
	cmd, err := Program{Path: "/x/firefox", Firefox: true}.Command(dir, netip.MustParseAddrPort("127.0.0.1:9850"), "http://a.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(cmd.Args, dir) || cmd.Args[len(cmd.Args)-1] != "http://a.example/" {
		t.Error(cmd.Args)
	}
	text, err := os.ReadFile(filepath.Join(dir, "user.js"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		m := regexp.MustCompile(`^user_pref\("([a-zA-Z0-9._-]+)", (true|false|-?[0-9]+|"[^"]*")\);\n$`).FindStringSubmatch(line)
		if m == nil || seen[m[1]] {
			t.Errorf("%q is no setting, or there twice", line)
			continue
		}
		seen[m[1]] = true
	}
	for _, want := range []string{
		`"network.proxy.socks", "127.0.0.1"`, `"network.proxy.socks_port", 9850`, `"network.proxy.socks_remote_dns", true`, `"network.proxy.allow_hijacking_localhost", true`,
		`"media.peerconnection.enabled", false`, `"network.http.http3.enable", false`, `"network.proxy.failover_direct", false`, `"network.trr.mode", 5`,
	} {
		if !strings.Contains(string(text), "user_pref("+want+");\n") {
			t.Errorf("there is no %s", want)
		}
	}
}

func TestChromiumIsKeptToThePort(t *testing.T) {
	t.Setenv("http_proxy", "http://elsewhere:1")
	dir := filepath.Join(t.TempDir(), "p")
	cmd, err := Program{Path: "/x/chromium"}.Command(dir, netip.MustParseAddrPort("127.0.0.1:9850"), "http://a.example/", []string{"--headless"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--proxy-server=socks5://127.0.0.1:9850", "--proxy-bypass-list=<-loopback>", "--disable-quic", "--headless", "--user-data-dir=" + dir} {
		if !slices.Contains(cmd.Args, want) {
			t.Errorf("there is no %s in %q", want, cmd.Args)
		}
	}
	if slices.ContainsFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, "http_proxy=") }) {
		t.Error("it gets a proxy of the environment")
	}
	text, err := os.ReadFile(filepath.Join(dir, "Default", "Preferences"))
	if err != nil || !json.Valid(text) {
		t.Errorf("%v: %s", err, text)
	}
}

func TestFindSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Find(""); len(places) > 0 && err != nil && !strings.Contains(err.Error(), "apt install") {
		t.Error(err)
	}
	if _, err := Find("no-such-browser"); err == nil || !strings.Contains(err.Error(), "no-such-browser") {
		t.Error(err)
	}
}
