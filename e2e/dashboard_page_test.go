//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// shots names a folder for screenshots of the dashboard; none are made otherwise.
var shots = os.Getenv("CEPA_SHOTS")

// page is a tab of a real Chromium, and what went wrong in it.
type page struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	faults   []string // errors on the console, violations of the policy, exceptions
	requests []string
}

// openPage starts a Chromium with a profile of its own.
func openPage(t *testing.T) *page {
	t.Helper()
	chromium := need(t, "chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox)
	allocator, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {})) // of events that the library does not know
	t.Cleanup(func() {                                                                          // before the folder of its profile goes
		_ = chromedp.Cancel(ctx)
		cancel()
	})
	p := &page{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, p.hear); err != nil {
		t.Fatal(err)
	}
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	if err == nil {
		_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *page) hear(event any) {
	fault := ""
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.mu.Lock()
		p.requests = append(p.requests, e.Request.URL)
		p.mu.Unlock()
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			fault = fmt.Sprintf("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		fault = "exception: " + e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			fault += " " + x.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			for _, a := range e.Args {
				fault += fmt.Sprintf("console: %s %s ", a.Value, a.Description)
			}
		}
	}
	if fault != "" {
		p.mu.Lock()
		p.faults = append(p.faults, fault)
		p.mu.Unlock()
	}
}

// takeFaults gives what went wrong until now, and forgets it.
func (p *page) takeFaults() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.faults
	p.faults = nil
	return list
}

func (p *page) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.shot("failed")
		p.t.Fatalf("%v; so far: %q", err, p.takeFaults())
	}
}

// run has the page do something.
func (p *page) run(script string) { p.do(chromedp.Evaluate[chromedp.Void](script)) }

// value is what an expression is.
func value[T any](p *page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 30*time.Second)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%v: %s", err, expression)
	}
	return v
}

// until waits for an expression to be true.
func (p *page) until(limit time.Duration, what, expression string) {
	p.t.Helper()
	for end := time.Now().Add(limit); !value[bool](p, "!!("+expression+")"); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			p.shot("failed")
			p.t.Fatalf("after %v still not: %s; the page says %q; faults: %q", limit, what, value[string](p, "document.body.innerText.slice(0, 2000)"), p.takeFaults())
		}
	}
}

// look sets the size of the window and whether the system is dark.
func (p *page) look(width int64, dark bool) {
	p.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	size := []chromedp.EmulateViewportOption{}
	if width < 600 {
		size = append(size, chromedp.EmulateMobile, chromedp.EmulatePortrait)
	}
	p.do(chromedp.EmulateViewport(width, 800, size...), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}), chromedp.Sleep(300*time.Millisecond)) // sizes are drawn at the next frame
}

// shot writes a picture of the whole page.
func (p *page) shot(name string) {
	if shots == "" {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, 60*time.Second)
	defer cancel()
	_, _ = chromedp.Run(ctx, chromedp.Evaluate[chromedp.Void](`scrollTo({top: 0, behavior: "instant"})`))
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err := errors.Join(err, os.MkdirAll(shots, 0o755), os.WriteFile(filepath.Join(shots, name+".png"), png, 0o644)); err != nil {
		p.t.Log(err)
	}
}

// strangers are requests to anywhere but an origin.
func (p *page) strangers(origin string) (list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.requests {
		if r != "about:blank" && !strings.HasPrefix(r, origin+"/") {
			list = append(list, r)
		}
	}
	return list
}

// overflow lists what is wider than the window, but for what scrolls in a box of its own on purpose.
const overflow = `(() => {
  const out = [];
  if (document.documentElement.scrollWidth > innerWidth) out.push("the page: " + document.documentElement.scrollWidth);
  for (const e of document.querySelectorAll("body *")) {
    const r = e.getBoundingClientRect();
    if (e.checkVisibility() && r.width > 1 && r.right > innerWidth + 1 && !e.closest(".sections")) out.push(e.tagName + "." + e.getAttribute("class") + " ends at " + r.right);
  }
  for (const e of document.querySelectorAll(".scroll, details, section")) {
    if (e.clientWidth && e.scrollWidth > e.clientWidth + 1) out.push(e.tagName + "#" + e.id + " scrolls sideways");
  }
  return out;
})()`

// pale lists texts whose contrast with what is behind them is below that of WCAG 2.2 AA (1.4.3).
const pale = `(() => {
  const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
  const g = canvas.getContext("2d", {willReadFrequently: true});
  const rgba = (c) => { g.clearRect(0, 0, 1, 1); g.fillStyle = c; g.fillRect(0, 0, 1, 1); const d = g.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (e) => { const c = rgba(getComputedStyle(e).backgroundColor); return c[3] === 1 || !e.parentElement ? over(c, [255, 255, 255, 1]) : over(c, behind(e.parentElement)); };
  const out = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
    if (!text || !e.checkVisibility() || e.closest("noscript, title, .skip, .hidden-text, button:disabled")) continue;
    const s = getComputedStyle(e), ground = behind(e), ink = over(rgba(e instanceof SVGElement ? s.fill : s.color), ground);
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05), size = parseFloat(s.fontSize);
    const need = size >= 24 || size >= 18.66 && s.fontWeight >= 700 ? 3 : 4.5;
    if (ratio < need) out.add(e.tagName + "." + e.getAttribute("class") + " " + JSON.stringify(text.slice(0, 30)) + " " + ratio.toFixed(2));
  }
  return [...out];
})()`

// nameless lists what one can use and a screen reader has no name for, or what the keyboard does not reach.
const nameless = `[...document.querySelectorAll("button, a, input, select, [tabindex='0'], [role=img]")]
  .filter(e => e.checkVisibility() && !e.textContent.trim() && !e.getAttribute("aria-label") && !e.getAttribute("aria-labelledby") && !(e.labels && e.labels.length))
  .map(e => e.outerHTML.slice(0, 100))`
