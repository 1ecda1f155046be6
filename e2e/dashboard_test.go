//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// dashboardOf runs `cepa dashboard` and returns the address that it prints.
func dashboardOf(t *testing.T, args ...string) (*process, string) {
	t.Helper()
	p, err := launch(command(t, append([]string{"dashboard", "--print"}, args...)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	address := ""
	within(t, 20*time.Second, "an address is printed", func() bool {
		address = regexp.MustCompile(`http://127\.0\.0\.1:\d+/dashboard/#token=[0-9a-f]{64}`).FindString(p.output())
		return address != "" || !p.running()
	})
	if address == "" {
		t.Fatalf("cepa dashboard printed:\n%s", p.output())
	}
	return p, address
}

// newClient runs a client of the shared overlay, with a folder of its own, and more settings.
func newClient(t *testing.T, o *overlay, settings string) (dir string, start func() *process) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "client")
	config := filepath.Join(t.TempDir(), "client.toml")
	text := fmt.Sprintf("network = %q\ndir = %q\nsocks = \"127.0.0.1:0\"\nlog_level = \"info\"\n%s", filepath.Join(o.dir, "network.toml"), dir, settings)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, func() *process {
		p, err := launch(command(t, "client", "--config", config))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.end)
		return p
	}
}

func awaitReady(t *testing.T, dir string) {
	t.Helper()
	if out, code := finish(t, 60*time.Second, command(t, "status", "--wait", "50s", dir)); code != 0 {
		t.Fatalf("%d\n%s", code, out)
	}
}

// slowSite serves a page without end, some hundred KiB a second.
func slowSite(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write(make([]byte, 32<<10))
			time.Sleep(100 * time.Millisecond)
		}
	})}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { server.Close() })
	return "http://" + ln.Addr().String() + "/"
}

// A person watches a client in a browser while something is fetched, sorts and filters the relays, takes a new identity,
// and sees it go and come back; on a wide and a narrow screen, in light and dark.
func TestDashboard(t *testing.T) {
	notShort(t)
	o := shared(t)
	dir, start := newClient(t, o, "")
	client := start()
	awaitReady(t, dir)
	_, address := dashboardOf(t, dir)
	u, _ := url.Parse(address)
	origin := "http://" + u.Host
	s, err := status(dir)
	if err != nil {
		t.Fatal(err)
	}

	p := openPage(t)
	p.look(1280, false)
	p.do(chromedp.Navigate(address))
	p.until(15*time.Second, "the client is ready", `document.getElementById("state").textContent === "ready"`)
	if at := value[string](p, "location.href"); strings.Contains(at, "token") {
		t.Errorf("the token stays in the address: %s", at)
	}
	p.until(10*time.Second, "relays are listed", `document.querySelectorAll("#relay-table tbody tr").length === 7`)

	curl := command(t)
	curl.Path, curl.Args = need(t, "curl"), []string{"curl", "-sS", "-o", "/dev/null", "--socks5-hostname", s.Address, slowSite(t)}
	transfer, err := launch(curl)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transfer.end)
	openStream(t, s.Address, "somebody")
	p.until(15*time.Second, "the transfer's circuit is drawn, and its bytes", `/in use/.test(picture.textContent) && /\d\s(KiB|MiB) in/.test(picture.textContent)`)
	if n := value[int](p, `document.querySelectorAll("#picture .mark").length`); n < 5 {
		t.Errorf("%d marks in the picture, two circuits of three relays have more", n)
	}
	p.until(15*time.Second, "traffic is plotted", `document.querySelectorAll("#plot path").length === 4 && /(KiB|MiB)\/s/.test(document.getElementById("rate-in").textContent)`)

	sortAndFilter(p)
	newIdentity(p)
	looks(p)
	keyboard(p)
	if list := p.takeFaults(); len(list) > 0 {
		t.Errorf("faults: %q", list)
	}

	// The node goes, and comes back: with another process, and so another log.
	transfer.end()
	client.end()
	p.until(15*time.Second, "the page says that the node has gone", `/not running/.test(document.getElementById("banner").innerText)`)
	p.shot("gone-wide-light")
	p.look(360, true)
	if list := value[[]string](p, overflow); len(list) > 0 {
		t.Errorf("with the node gone: too wide: %q", list)
	}
	p.shot("gone-narrow-dark")
	start()
	awaitReady(t, dir)
	p.run(`document.getElementById("retry").click()`)
	p.until(20*time.Second, "the page goes on by itself", `document.getElementById("state").textContent === "ready" && banner.hidden`)
	p.until(5*time.Second, "it says that there was a restart", `/started again/.test(toast.textContent)`)
	for _, f := range p.takeFaults() {
		if !strings.Contains(f, "502") && !strings.Contains(f, "ERR_") { // which Chromium says of each answer that is none
			t.Errorf("fault: %s", f)
		}
	}
	if list := p.strangers(origin); len(list) > 0 {
		t.Errorf("requests to elsewhere: %q", list)
	}
}

func sortAndFilter(p *page) {
	p.t.Helper()
	names := func() []string {
		return value[[]string](p, `[...document.querySelectorAll("#relay-table td.name bdi")].map(e => e.textContent)`)
	}
	head := `#relay-table th:first-child button`
	p.do(chromedp.Click(chromedp.CSS(head)))
	up := names()
	p.do(chromedp.Click(chromedp.CSS(head)))
	down := names()
	if len(up) != 7 || up[0] != "relay-1" || up[6] != "relay-7" || down[0] != "relay-7" || down[6] != "relay-1" {
		p.t.Errorf("sorted by name: %q, and the other way %q", up, down)
	}
	if sorted := value[string](p, `document.querySelector("#relay-table th").getAttribute("aria-sort")`); sorted != "descending" {
		p.t.Errorf("aria-sort is %q", sorted)
	}
	p.do(chromedp.SendKeys(chromedp.CSS("#relay-filter"), "relay-4"))
	if got := names(); len(got) != 1 || got[0] != "relay-4" {
		p.t.Errorf("filtered: %q", got)
	}
	p.do(chromedp.SendKeys(chromedp.CSS("#relay-filter"), strings.Repeat(kb.Backspace, 7)+"no such"))
	if text := value[string](p, `document.getElementById("relay-empty").innerText`); !strings.Contains(text, "No relay") {
		p.t.Errorf("nothing matches, and the page says %q", text)
	}
	p.do(chromedp.SendKeys(chromedp.CSS("#relay-filter"), strings.Repeat(kb.Backspace, 7)))
	p.run(`[...document.querySelectorAll(".chip")].find(c => c.textContent === "Exit").click()`)
	if got := names(); len(got) != 3 {
		p.t.Errorf("exits: %q", got)
	}
	p.run(`[...document.querySelectorAll(".chip")].find(c => c.textContent === "Exit").click()`)
}

func newIdentity(p *page) {
	p.t.Helper()
	before := value[int](p, `Math.max(...[...document.querySelectorAll("#circuit-table td:first-child .value")].map(e => Number(e.textContent.slice(1))))`)
	p.do(chromedp.Click(chromedp.CSS("#new-identity")))
	p.until(5*time.Second, "the page says what a new identity did", `/New identity: .*nothing new/.test(toast.textContent)`)
	p.until(10*time.Second, "the transfer's circuit ends with its streams", `/last streams/.test(picture.textContent)`)
	p.until(10*time.Second, "there is a new circuit", fmt.Sprintf(`[...document.querySelectorAll("#circuit-table td:first-child .value")].some(e => Number(e.textContent.slice(1)) > %d)`, before))
	p.until(10*time.Second, "the log has a line about it", `/INFO.*new identity: nothing new uses/s.test(document.getElementById("log-lines").innerText)`)
}

func looks(p *page) {
	p.t.Helper()
	time.Sleep(10 * time.Second) // for a plot that is worth a picture, and the message to go
	for _, width := range []int64{1280, 768, 360} {
		for _, dark := range []bool{false, true} {
			p.look(width, dark)
			name := fmt.Sprintf("client-%d-%v", width, map[bool]string{false: "light", true: "dark"}[dark])
			if list := value[[]string](p, overflow); len(list) > 0 {
				p.t.Errorf("%s: too wide: %q", name, list)
			}
			if list := value[[]string](p, pale); len(list) > 0 {
				p.t.Errorf("%s: too pale: %q", name, list)
			}
			if list := value[[]string](p, nameless); len(list) > 0 {
				p.t.Errorf("%s: without a name: %q", name, list)
			}
			p.shot(name)
		}
	}
	p.run(`document.querySelectorAll("details").forEach(d => d.open = true)`)
	p.look(360, false)
	if list := value[[]string](p, overflow); len(list) > 0 {
		p.t.Errorf("with tables open: too wide: %q", list)
	}
	p.shot("client-360-tables")
	p.look(1280, true)
	p.shot("client-1280-tables")
	// The switch wins over the system.
	ground := `getComputedStyle(document.body).backgroundColor`
	dark := value[string](p, ground)
	p.do(chromedp.Click(chromedp.CSS("#theme")))
	light := value[string](p, ground)
	p.do(chromedp.Click(chromedp.CSS("#theme")))
	if again := value[string](p, ground); light == dark || again != dark {
		p.t.Errorf("grounds: %s by the system, %s light, %s dark", dark, light, again)
	}
	p.do(chromedp.Click(chromedp.CSS("#theme")))
}

// keyboard goes through the page by Tab, and reads the plot by arrow keys.
func keyboard(p *page) {
	p.t.Helper()
	p.run(`document.activeElement.blur(); scrollTo(0, 0)`)
	seen := map[string]bool{}
	for range 60 {
		p.do(chromedp.KeyEvent(kb.Tab))
		seen[value[string](p, `document.activeElement.id || document.activeElement.textContent.trim().slice(0, 20)`)] = true
	}
	for _, id := range []string{"new-identity", "theme", "plot", "relay-filter", "log-filter", "log-level", "log-lines"} {
		if !seen[id] {
			p.t.Errorf("Tab does not come to %s, only to %v", id, seen)
		}
	}
	p.do(chromedp.Focus(chromedp.CSS("#plot")), chromedp.KeyEvent(kb.ArrowLeft), chromedp.KeyEvent(kb.ArrowLeft))
	if text := value[string](p, `document.getElementById("plot-note").textContent`); !strings.Contains(text, "received") {
		p.t.Errorf("arrow keys in the plot show %q", text)
	}
}

// A page without a token, or with a wrong one, says so, and shows nothing; so does a node that has come nowhere yet.
func TestDashboardWithoutToken(t *testing.T) {
	notShort(t)
	o := shared(t)
	_, address := dashboardOf(t, o.node(t, "client").Dir)
	bare, _, _ := strings.Cut(address, "#")
	p := openPage(t)
	p.look(1280, false)
	p.do(chromedp.Navigate(bare))
	p.until(10*time.Second, "the page asks for a token", `/needs a token/.test(door.innerText) && main.hidden`)
	p.shot("door-wide-light")
	p.do(chromedp.SendKeys(chromedp.CSS("#door-token"), strings.Repeat("0", 64)+kb.Enter))
	p.until(10*time.Second, "the page says that it is wrong", `/not right/.test(door.innerText) && main.hidden`)
	p.look(360, true)
	for what, list := range map[string][]string{"too wide": value[[]string](p, overflow), "too pale": value[[]string](p, pale)} {
		if len(list) > 0 {
			t.Errorf("%s: %q", what, list)
		}
	}
	p.shot("door-narrow-dark")
	p.do(chromedp.SendKeys(chromedp.CSS("#door-token"), address+kb.Enter)) // the whole address will do
	p.until(10*time.Second, "the page opens", `document.getElementById("state").textContent.startsWith("ready")`)
	p.do(chromedp.Reload())
	p.until(10*time.Second, "the tab keeps the token", `document.getElementById("state").textContent.startsWith("ready")`)
}

// A client that reaches nobody shows how far it is, and that it has no circuits; a relay shows its links. Both serve the
// page on their own control port.
func TestDashboardOfOtherNodes(t *testing.T) {
	notShort(t)
	o := newOverlay(t)
	control := "[control]\nlisten = \"127.0.0.1:0\"\n"
	dir, start := newClient(t, o, control)
	for _, n := range o.nodes {
		if n.Name != "client" {
			_ = syscall.Kill(n.Pid, syscall.SIGSTOP)
			defer func() { _ = syscall.Kill(n.Pid, syscall.SIGCONT) }()
		}
	}
	start()
	within(t, 20*time.Second, "the client answers", func() bool { _, err := status(dir); return err == nil })
	command, address := dashboardOf(t, dir)
	within(t, 5*time.Second, "the command ends, since the node has a port", func() bool { return !command.running() })
	p := openPage(t)
	p.look(1280, false)
	p.do(chromedp.Navigate(address))
	p.until(15*time.Second, "how far it is", `/starting, \d+ %/.test(document.getElementById("state").textContent) && progress.checkVisibility()`)
	p.until(5*time.Second, "that there are no circuits", `/No circuits yet/.test(circuits.innerText)`)
	p.until(5*time.Second, "that no relay is known", `/no consensus yet/.test(relays.innerText)`)
	p.shot("young-wide-light")
	p.look(360, true)
	for what, list := range map[string][]string{"too wide": value[[]string](p, overflow), "too pale": value[[]string](p, pale)} {
		if len(list) > 0 {
			t.Errorf("%s: %q", what, list)
		}
	}
	p.shot("young-narrow-dark")
	for _, n := range o.nodes {
		_ = syscall.Kill(n.Pid, syscall.SIGCONT)
	}
	p.until(60*time.Second, "the client becomes ready before one's eyes", `document.getElementById("state").textContent.startsWith("ready")`)

	_, address = dashboardOf(t, o.relays()[0].Dir)
	p.look(1280, false)
	p.do(chromedp.Navigate(address))
	p.until(15*time.Second, "links of the relay", `document.querySelectorAll("#link-table tbody tr").length > 2 && !document.getElementById("new-identity").checkVisibility() && circuits.hidden`)
	p.shot("relay-1280-light")
	p.look(360, true)
	for what, list := range map[string][]string{"too wide": value[[]string](p, overflow), "too pale": value[[]string](p, pale)} {
		if len(list) > 0 {
			t.Errorf("of a relay: %s: %q", what, list)
		}
	}
	p.shot("relay-360-dark")
	if list := p.takeFaults(); len(list) > 0 {
		t.Errorf("faults: %q", list)
	}
}

// `cepa dashboard --open` gives the desktop's opener a file that leads a browser to the page: the token is in no command
// line, the file is for its owner alone, and goes when the command does.
func TestDashboardOpensWithoutTellingOthers(t *testing.T) {
	notShort(t)
	o := shared(t)
	dir, tools := o.node(t, "client").Dir, t.TempDir()
	// The opener that a desktop has, as far as the command sees it.
	if err := os.WriteFile(filepath.Join(tools, "xdg-open"), []byte("#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$0.seen.new\" && mv \"$0.seen.new\" \"$0.seen\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "dashboard", "--open", dir)
	cmd.Env = append(cmd.Env, "PATH="+tools+":"+os.Getenv("PATH"))
	p, err := launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	var seen []byte
	within(t, 20*time.Second, "the opener is called", func() bool {
		seen, err = os.ReadFile(filepath.Join(tools, "xdg-open.seen"))
		return err == nil
	})
	door := strings.TrimSpace(string(seen))
	if door != filepath.Join(dir, "dashboard.html") {
		t.Fatalf("the opener got %q; the command said:\n%s", door, p.output())
	}
	if info, err := os.Stat(door); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	tab := openPage(t)
	tab.do(chromedp.Navigate("file://" + door))
	tab.until(15*time.Second, "the file leads to the page", `location.protocol === "http:" && document.getElementById("state")?.textContent.startsWith("ready")`)
	if list := tab.takeFaults(); len(list) > 0 {
		t.Errorf("faults: %q", list)
	}
	p.end()
	if _, err := os.Stat(door); err == nil {
		t.Error("the file outlives the command")
	}
}
