//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"cepa/control"
)

// hostileNode says what no honest node does: no network makes a node say this, since documents are checked, but the page
// does not rely on that.
type hostileNode struct{ hub control.Hub }

const nasty = `<img src=x onerror=alert(1)><script>alert(2)</script>"'\u202Egnp.exe` + "\u202e\x00\x1b[31m\u200b"

func (*hostileNode) Status(context.Context) (control.Status, error) {
	end := time.Now().Add(time.Hour)
	return control.Status{
		Name: nasty, Role: "client", Version: nasty, Network: nasty, Address: nasty, Percent: 45, Doing: nasty, Waiting: strings.Repeat("w", 300),
		Consensus: &control.Consensus{ValidUntil: end, FreshUntil: end, Digest: "00", Relays: 3000}, Outside: []string{nasty},
		Problems: []control.Problem{{Text: nasty, Do: nasty}, {Text: strings.Repeat("long", 100), Do: "x"}},
	}, nil
}
func (*hostileNode) Counters(context.Context) (map[string]int64, error) {
	return map[string]int64{}, nil
}
func (*hostileNode) Circuits(context.Context) (list []control.Circuit, err error) {
	hop := func(i int) control.Hop {
		return control.Hop{Nickname: fmt.Sprintf("%d%s", i, nasty), Identity: fmt.Sprintf("%064x", i), Address: nasty}
	}
	for i := range 60 {
		list = append(list, control.Circuit{
			ID: uint64(i + 1), State: []string{"open", "building"}[i%2], Purpose: []string{"ready", "streams", nasty}[i%3], Suspect: i%7 == 0, Retired: i%5 == 0,
			Hops: []control.Hop{hop(i % 4), hop(10 + i), hop(100 + i)}, Built: i % 4, Streams: i % 3, Reason: nasty,
		})
	}
	return list, nil
}
func (*hostileNode) Links(context.Context) ([]control.Link, error) { return []control.Link{}, nil }
func (*hostileNode) Relays(context.Context) (list []control.Relay, err error) {
	for i := range 3000 {
		list = append(list, control.Relay{
			Nickname: fmt.Sprintf("%s%d", nasty, i), Identity: fmt.Sprintf("%064x", i), Addresses: []string{nasty, "[2001:db8:1111:2222:3333:4444:5555:6666]:65535"},
			Flags: []string{"Guard", nasty}, Weight: uint32(i),
		})
	}
	return list, nil
}
func (*hostileNode) Traffic() (received, sent uint64) {
	return uint64(time.Now().UnixNano()), 1 << 40
}
func (n *hostileNode) Hub() *control.Hub { return &n.hub }
func (*hostileNode) Streams(context.Context) (list []control.Stream, err error) {
	for i := range 200 {
		list = append(list, control.Stream{ID: uint64(i), State: []string{"open", "asked", "waiting", nasty}[i%4], Kind: "connect", Destination: nasty + ":443", Circuit: uint64(i % 20), Received: 1 << 50})
	}
	return list, nil
}
func (*hostileNode) Guards(context.Context) ([]control.Guard, error) {
	return []control.Guard{{Nickname: nasty, Identity: fmt.Sprintf("%064x", 1), Address: nasty, State: nasty, InUse: true, Fault: nasty}}, nil
}
func (*hostileNode) NewIdentity(context.Context) (control.NewIdentity, error) {
	return control.NewIdentity{}, fmt.Errorf("no: %s", nasty)
}

// Whatever a node says stays text, has a bound, and does not break the page apart.
func TestDashboardShowsHostileTextAsText(t *testing.T) {
	notShort(t)
	node := new(hostileNode)
	for i := range 3000 {
		node.hub.Log(time.Now(), []string{"INFO", "WARN", nasty}[i%3], fmt.Sprintf("msg=%q destination=%s number=%d", nasty, nasty, i))
	}
	dir := t.TempDir()
	server, err := control.Start(control.Options{Dir: dir, Source: node, Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	address, err := control.PortDashboard(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	p := openPage(t)
	p.look(1280, true)
	p.do(chromedp.Navigate(address))
	p.until(20*time.Second, "relays are listed", `document.querySelectorAll("#relay-table tbody tr").length === 200 && /of 2800/.test(document.getElementById("relay-more").textContent)`)
	node.hub.Log(time.Now(), "ERROR", nasty+" the last")
	p.until(5*time.Second, "a log line comes", `/the last$/.test(document.getElementById("log-lines").lastElementChild.textContent)`)
	p.run(`document.querySelectorAll("details").forEach(d => d.open = true); document.getElementById("new-identity").click()`)
	p.until(5*time.Second, "a refusal is shown", `/No new identity/.test(toast.textContent)`)
	if n := value[int](p, `document.querySelectorAll("main img, main script, main style, iframe, [onerror], [style]").length`); n != 0 {
		t.Errorf("%d elements were made of text", n)
	}
	if text := value[string](p, `document.body.innerText`); !strings.Contains(text, "<img src=x") || strings.ContainsAny(text, "\u202e\u200b\x00\x1b") {
		t.Error("the text is not there as text, or characters that hide or turn it are")
	}
	if n := value[int](p, `document.getElementById("log-lines").childElementCount`); n > 1000 {
		t.Errorf("%d lines of the log are kept", n)
	}
	for _, width := range []int64{1280, 360} {
		p.look(width, true)
		if list := value[[]string](p, overflow); len(list) > 0 {
			t.Errorf("%d: too wide: %q", width, list)
		}
		p.shot(fmt.Sprintf("hostile-%d", width))
	}
	for _, f := range p.takeFaults() {
		if !strings.Contains(f, "503") { // the refusal
			t.Errorf("fault: %s", f)
		}
	}
}
