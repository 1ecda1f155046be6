// Package browser starts an installed Firefox or Chromium with a profile of its own, whose pages come through a SOCKS
// port and nothing else: names too are sent there, WebRTC has no other way, QUIC and all that a browser does of its
// own accord is off. It does not make the browser look like others. The command browse calls it.
package browser

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Program is an installed browser.
type Program struct {
	Path    string
	Firefox bool // else it is a Chromium, or what was made of one
}

// names are looked for in this order.
var names = []string{"firefox", "firefox-esr", "librewolf", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "brave-browser", "microsoft-edge"}

// places are where systems without a search path for such programs have them.
var places = map[string][]string{
	"darwin": {
		"/Applications/Firefox.app/Contents/MacOS/firefox", "/Applications/Chromium.app/Contents/MacOS/Chromium",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
	},
	"windows": {
		`C:\Program Files\Mozilla Firefox\firefox.exe`, `C:\Program Files\Google\Chrome\Application\chrome.exe`,
		`C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe`,
	},
}

// ErrNone says that there is no browser.
var ErrNone = errors.New("no Firefox and no Chromium is installed: install one (Debian: 'apt install firefox-esr' or 'apt install chromium'), or name its program with --browser")

// Find finds the browser that the user names, or the first that is installed.
func Find(wanted string) (Program, error) {
	if wanted != "" {
		path, err := exec.LookPath(wanted)
		if err != nil {
			return Program{}, fmt.Errorf("the browser %s: %w; give the name or path of an installed Firefox or Chromium", wanted, errors.Unwrap(err))
		}
		return program(path), nil
	}
	for _, n := range names {
		if path, err := exec.LookPath(n); err == nil {
			return program(path), nil
		}
	}
	for _, path := range places[runtime.GOOS] {
		if _, err := os.Stat(path); err == nil {
			return program(path), nil
		}
	}
	return Program{}, ErrNone
}

func program(path string) Program {
	base := strings.ToLower(filepath.Base(path))
	return Program{Path: path, Firefox: strings.Contains(base, "firefox") || strings.Contains(base, "librewolf")}
}

// Command makes the profile in the folder, which it creates, and returns the command that shows page. More options for
// the browser come before page; those that would undo what keeps it to the port are the user's affair.
func (p Program) Command(profile string, socks netip.AddrPort, page string, options []string) (*exec.Cmd, error) {
	if err := os.Mkdir(profile, 0o700); err != nil {
		return nil, fmt.Errorf("making a profile: %w", err)
	}
	var args []string
	if p.Firefox {
		if err := os.WriteFile(filepath.Join(profile, "user.js"), firefoxSettings(socks), 0o600); err != nil {
			return nil, fmt.Errorf("making a profile: %w", err)
		}
		args = append([]string{"--no-remote", "--new-instance", "--profile", profile}, options...)
	} else {
		if err := chromiumPreferences(profile); err != nil {
			return nil, fmt.Errorf("making a profile: %w", err)
		}
		args = append(chromiumOptions(profile, socks), options...)
	}
	cmd := exec.Command(p.Path, append(args, page)...)
	if p.Firefox {
		cmd.Env = append(cmd.Env, "MOZ_REMOTE_SETTINGS_DEVTOOLS=1") // else it does not heed where its settings come from
	}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd, nil
}

// chromiumOptions keep a Chromium to the port. "<-loopback>" takes away the rule that this machine's names and addresses
// need no proxy; the resolver rule makes any look-up of its own fail, but for the port's address. WebRTC has
// no candidates without a proxy for UDP; that their names are not hidden by multicast DNS keeps that off the network too.
func chromiumOptions(profile string, socks netip.AddrPort) []string {
	list := []string{
		"--user-data-dir=" + profile,
		"--proxy-server=socks5://" + socks.String(), "--proxy-bypass-list=<-loopback>",
		"--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE " + socks.Addr().String(),
		"--disable-quic", "--force-webrtc-ip-handling-policy=disable_non_proxied_udp", "--webrtc-ip-handling-policy=disable_non_proxied_udp",
		"--dns-prefetch-disable", "--no-pings", "--no-first-run", "--no-default-browser-check", "--no-service-autorun",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-breakpad",
		"--disable-domain-reliability", "--disable-client-side-phishing-detection", "--disable-extensions", "--metrics-recording-only",
		"--disable-field-trial-config", "--password-store=basic", "--use-mock-keychain",
		"--disable-features=WebRtcHideLocalIpsWithMdns,AsyncDns,DnsOverHttps,OptimizationHints,MediaRouter,DialMediaRouteProvider,Translate,InterestFeedContentSuggestions,AutofillServerCommunication,CertificateTransparencyComponentUpdater,NetworkTimeServiceQuerying,GlobalMediaControls",
	}
	if runtime.GOOS == "linux" && os.Geteuid() == 0 {
		list = append(list, "--no-sandbox") // it refuses to start as root with one
	}
	return list
}

// chromiumPreferences switch off what has no option.
func chromiumPreferences(profile string) error {
	if err := os.Mkdir(filepath.Join(profile, "Default"), 0o700); err != nil {
		return err
	}
	const text = `{
  "alternate_error_pages": {"enabled": false},
  "dns_prefetching": {"enabled": false},
  "net": {"network_prediction_options": 2},
  "safebrowsing": {"enabled": false},
  "search": {"suggest_enabled": false},
  "signin": {"allowed": false},
  "webrtc": {"ip_handling_policy": "disable_non_proxied_udp", "multiple_routes_enabled": false, "nonproxied_udp_enabled": false}
}
`
	return os.WriteFile(filepath.Join(profile, "Default", "Preferences"), []byte(text), 0o600)
}

// firefoxSettings are the user.js of the profile.
func firefoxSettings(socks netip.AddrPort) []byte {
	var b bytes.Buffer
	set := func(name, value string) { fmt.Fprintf(&b, "user_pref(%q, %s);\n", name, value) }
	set("network.proxy.type", "1")
	set("network.proxy.socks", fmt.Sprintf("%q", socks.Addr().String()))
	set("network.proxy.socks_port", fmt.Sprint(socks.Port()))
	set("network.proxy.socks_version", "5")
	for _, name := range []string{
		"network.proxy.socks_remote_dns", "network.proxy.socks5_remote_dns", "network.proxy.allow_hijacking_localhost",
		"network.dns.disablePrefetch", "network.dns.disablePrefetchFromHTTPS", "network.dns.disabled",
		"privacy.resistFingerprinting", "browser.privatebrowsing.autostart", "dom.security.https_first",
		"media.peerconnection.ice.proxy_only", "media.peerconnection.ice.no_host",
	} {
		set(name, "true")
	}
	for _, name := range []string{
		"media.peerconnection.enabled", "network.http.http3.enable", "network.prefetch-next", "network.predictor.enabled",
		"network.captive-portal-service.enabled", "network.connectivity-service.enabled", "network.proxy.failover_direct",
		"network.http.speculative-connect.enabled", "beacon.enabled",
		"browser.safebrowsing.malware.enabled", "browser.safebrowsing.phishing.enabled", "browser.safebrowsing.downloads.remote.enabled",
		"browser.search.update", "browser.search.suggest.enabled", "browser.urlbar.suggest.searches", "browser.urlbar.speculativeConnect.enabled",
		"app.update.enabled", "app.update.auto", "app.normandy.enabled", "app.shield.optoutstudies.enabled", "extensions.update.enabled",
		"extensions.getAddons.cache.enabled", "extensions.systemAddon.update.enabled", "toolkit.telemetry.enabled", "toolkit.telemetry.unified",
		"toolkit.telemetry.archive.enabled", "datareporting.healthreport.uploadEnabled", "datareporting.policy.dataSubmissionEnabled",
		"browser.newtabpage.enabled", "browser.newtabpage.activity-stream.feeds.telemetry", "browser.newtabpage.activity-stream.feeds.topsites",
		"browser.region.update.enabled", "browser.places.speculativeConnect.enabled", "browser.shell.checkDefaultBrowser", "dom.push.connection.enabled",
		"identity.fxaccounts.enabled", "browser.aboutwelcome.enabled",
		"toolkit.telemetry.newProfilePing.enabled", "toolkit.telemetry.firstShutdownPing.enabled", "toolkit.telemetry.shutdownPingSender.enabled",
		"toolkit.telemetry.updatePing.enabled", "toolkit.telemetry.bhrPing.enabled",
		"browser.newtabpage.activity-stream.telemetry", "browser.newtabpage.activity-stream.feeds.system.topstories",
		"browser.newtabpage.activity-stream.showSponsored", "browser.newtabpage.activity-stream.showSponsoredTopSites",
		"browser.newtabpage.activity-stream.unifiedAds.spocs.enabled", "browser.newtabpage.activity-stream.unifiedAds.tiles.enabled",
		"browser.newtabpage.activity-stream.unifiedAds.adsFeed.enabled", "browser.topsites.contile.enabled", "browser.discovery.enabled",
		"media.gmp-manager.updateEnabled", "media.gmp-provider.enabled", "media.gmp-widevinecdm.enabled", "media.gmp-gmpopenh264.enabled", "media.eme.enabled",
		"browser.safebrowsing.downloads.enabled", "browser.messaging-system.whatsNewPanel.enabled", "messaging-system.rsexperimentloader.enabled",
		"nimbus.rollouts.enabled", "browser.urlbar.quicksuggest.enabled", "browser.ping-centre.telemetry", "default-browser-agent.enabled",
	} {
		set(name, "false")
	}
	set("network.trr.mode", "5")
	set("network.proxy.no_proxies_on", `""`)
	set("network.http.speculative-parallel-limit", "0")
	for _, name := range []string{ // whom it would ask of its own accord
		"toolkit.telemetry.server", "media.gmp-manager.url", "media.gmp-manager.url.override", "extensions.systemAddon.update.url",
		"browser.region.network.url", "geo.provider.network.url", "app.normandy.api_url", "browser.safebrowsing.provider.mozilla.updateURL",
		"browser.safebrowsing.provider.google4.updateURL", "extensions.blocklist.detailsURL", "breakpad.reportURL",
		"browser.newtabpage.activity-stream.unifiedAds.endpoint", "browser.newtabpage.activity-stream.discoverystream.endpoints",
	} {
		set(name, `""`)
	}
	set("services.settings.server", `"data:,#remote-settings-dummy/v1"`) // which counts where the environment says so
	set("telemetry.fog.test.localhost_port", "-1")                       // reports are not sent
	set("browser.startup.homepage", `"about:blank"`)
	set("browser.startup.homepage_override.mstone", `"ignore"`)
	set("network.gio.supported-protocols", `""`)
	set("network.file.disable_unc_paths", "true")
	return b.Bytes()
}
