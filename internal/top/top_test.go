package top

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"cepa/control"
)

// fake is a node with much to show.
type fake struct {
	role    string
	err     error
	renewed int
	lines   uint64
	events  int
}

func (f *fake) Status(context.Context) (control.Status, error) {
	s := control.Status{Role: f.role, Name: f.role, Network: "demo", Percent: 100, Uptime: 100, Pid: 7, Address: "127.0.0.1:9850", ID: strings.Repeat("ab", 32)}
	s.Problems = []control.Problem{{Text: "something is wrong with \x1b[31mthis node", Do: "mend it, " + strings.Repeat("and look at what it says ", 6)}}
	return s, f.err
}
func (f *fake) Counters(context.Context) (map[string]int64, error) {
	return map[string]int64{"circuit_streams": 2, "relay_circuits": 55}, f.err
}
func (f *fake) Bandwidth(context.Context) (control.Bandwidth, error) {
	b := control.Bandwidth{Received: 5 << 30, Sent: 1 << 20, ReceivedRate: 123456, SentRate: 12}
	for i := range 300 {
		b.History = append(b.History, control.Sample{Received: uint64(i * i * 100), Sent: uint64(i % 7)})
	}
	return b, f.err
}
func (f *fake) Circuits(context.Context) (list []control.Circuit, err error) {
	for i := range uint64(60) {
		list = append(list, control.Circuit{ID: i + 1, State: "open", Purpose: "ready", Built: 3, Age: int64(i) * 1000, Suspect: i == 3, Retired: i == 4,
			Hops: []control.Hop{{Nickname: "a-relay-of-19-chars", Identity: strings.Repeat("0", 64)}, {Identity: strings.Repeat("c", 64)}, {Nickname: "exit"}}})
	}
	return list, f.err
}
func (f *fake) Streams(context.Context) ([]control.Stream, error) {
	return []control.Stream{{ID: 9, State: "open", Destination: "evil\x1b]0;x\a.example:443", Circuit: 3}, {ID: 10, State: "waiting", Destination: "[scrubbed]:80"}}, f.err
}
func (f *fake) Guards(context.Context) ([]control.Guard, error) {
	return []control.Guard{{Nickname: "first", State: "down"}, {Nickname: "second", Address: "192.0.2.1:9001", State: "up", InUse: true}}, f.err
}
func (f *fake) Links(context.Context) ([]control.Link, error) {
	return []control.Link{{Direction: "in"}, {Direction: "out", Nickname: "second", Identity: "00", Sent: 1 << 40}}, f.err
}
func (f *fake) Log(_ context.Context, after uint64, _ int) (control.Log, error) {
	l := control.Log{Last: f.lines}
	for n := after + 1; n <= f.lines; n++ {
		l.Lines = append(l.Lines, control.Line{Number: n, Level: "INFO", Text: fmt.Sprintf("msg=%d %s", n, strings.Repeat("word ", 30)), Time: time.Unix(0, 0)})
	}
	return l, f.err
}
func (f *fake) Events(ctx context.Context, tell func(control.Event) error, _ ...string) error {
	for range f.events {
		if err := tell(control.Event{Kind: control.EventStatus}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}
func (f *fake) NewIdentity(context.Context) (control.NewIdentity, error) {
	f.renewed++
	return control.NewIdentity{Retired: 4, Running: 1}, f.err
}

// view is a model with a node, and what a user does with it.
type view struct {
	t    *testing.T
	node *fake
	m    *model
}

func newView(t *testing.T, role string, width, height int) *view {
	v := &view{t, &fake{role: role, lines: 50}, nil}
	v.m = newModel(t.Context(), v.node, true)
	v.m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	v.ask()
	return v
}

func (v *view) ask() { v.m.Update(v.m.ask()()) }

func (v *view) press(name string) tea.Cmd {
	k := tea.KeyPressMsg{Text: name, Code: []rune(name)[0]}
	switch name {
	case "tab":
		k = tea.KeyPressMsg{Code: tea.KeyTab}
	case "left":
		k = tea.KeyPressMsg{Code: tea.KeyLeft}
	case "down":
		k = tea.KeyPressMsg{Code: tea.KeyDown}
	case "end":
		k = tea.KeyPressMsg{Code: tea.KeyEnd}
	case "home":
		k = tea.KeyPressMsg{Code: tea.KeyHome}
	}
	_, cmd := v.m.Update(k)
	return cmd
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*m")

// screen is what the user sees, checked: as many lines as there are, none too long, and nothing that steers the terminal.
func (v *view) screen() string {
	v.t.Helper()
	text := v.m.View().Content
	lines := strings.Split(text, "\n")
	if len(lines) > v.m.height {
		v.t.Errorf("%d lines on a screen of %d:\n%s", len(lines), v.m.height, text)
	}
	for _, l := range lines {
		if w := lipgloss.Width(l); w > v.m.width {
			v.t.Errorf("a line of %d columns on a screen of %d: %q", w, v.m.width, l)
		}
	}
	plain := escapes.ReplaceAllString(text, "")
	if strings.ContainsAny(plain, "\x1b\a\r\t") {
		v.t.Errorf("the screen has control characters: %q", plain)
	}
	return plain
}

func (v *view) shows(want ...string) {
	v.t.Helper()
	s := v.screen()
	for _, w := range want {
		if !strings.Contains(s, w) {
			v.t.Errorf("no %q in\n%s", w, s)
		}
	}
}

// TestEveryTabFits draws each tab in several sizes: nothing overflows, and what matters is there.
func TestEveryTabFits(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"client", "relay"} {
		for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 60}, {43, 11}, {20, 5}, {1, 1}} {
			v := newView(t, role, size[0], size[1])
			for range 6 {
				v.screen()
				v.press("?")
				v.screen()
				v.press("?")
				v.press("tab")
			}
		}
	}
}

func TestTabsShowWhatThereIs(t *testing.T) {
	t.Parallel()
	v := newView(t, "client", 80, 24)
	v.shows("client of network demo", "ready", "[1 Overview]", "second at 192.0.2.1:9001", "5.0 GiB in all", "█", "▲ something is wrong", "mend it", "q: leave")
	v.press("tab")
	v.shows("[2 Circuits]", "a-relay-of~ → cccccccc → exit", "silent", "1-19 of 60")
	v.press("end")
	v.shows("42-60 of 60")
	v.press("down")
	v.shows("42-60 of 60")
	v.press("3")
	v.shows("[3 Streams]", "evil?]0;x?.example:443", "waiting", "[scrubbed]:80")
	v.press("4")
	v.shows("[4 Links]", "a client", "1.0 TiB")
	v.press("left")
	v.shows("[3 Streams]")
	v.press("5")
	v.shows("[5 Log]", "msg=50")
	v.press("home")
	v.shows("msg=1 ")
	v.press("?")
	v.shows("Keys", "new identity", "leave; the node goes on")
	if cmd := v.press("q"); cmd == nil || cmd() != tea.Quit() {
		t.Error("q does not leave")
	}
}

// TestRelayHasItsOwnTabs: what only clients have is not offered.
func TestRelayHasItsOwnTabs(t *testing.T) {
	t.Parallel()
	v := newView(t, "relay", 80, 24)
	v.shows("55 circuits of others", "2 Links", "3 Log")
	v.press("n")
	if s := v.screen(); strings.Contains(s, "identity?") || strings.Contains(s, "Streams") {
		t.Errorf("a relay is offered what it has not:\n%s", s)
	}
	v.press("5")
	v.shows("[1 Overview]")
}

// TestLogGoesAlong: the log shows its end as lines come, unless the user has gone up.
func TestLogGoesAlong(t *testing.T) {
	t.Parallel()
	v := newView(t, "client", 80, 24)
	v.press("5")
	v.node.lines = 70
	v.ask()
	v.shows("msg=70")
	v.press("home")
	v.node.lines = 2000
	v.ask()
	if s := v.screen(); strings.Contains(s, "msg=2000") {
		t.Error("the log moved although the user is at its top")
	}
	if len(v.m.lines) > keptLines {
		t.Errorf("%d lines are kept", len(v.m.lines))
	}
	v.press("end")
	v.shows("msg=2000")
}

// TestNewIdentityAsksFirst: one key alone changes nothing.
func TestNewIdentityAsksFirst(t *testing.T) {
	t.Parallel()
	v := newView(t, "client", 80, 24)
	v.press("n")
	v.shows("New identity? ")
	if v.press("x"); v.node.renewed != 0 {
		t.Error("not confirmed, and done")
	}
	v.shows("Nothing was changed")
	v.press("n")
	v.m.Update(v.press("y")())
	v.shows("4 circuits take nothing new; 1 go on")
	if v.node.renewed != 1 {
		t.Errorf("done %d times", v.node.renewed)
	}
}

// TestAsksWhenSomethingHappens: at once, but not more often than the limit, not twice at a time, and not while paused.
func TestAsksWhenSomethingHappens(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	told := make(chan tea.Msg, 100)
	ended := make(chan struct{})
	go func() { listen(ctx, &fake{events: 50}, func(m tea.Msg) { told <- m }); close(ended) }()
	if _, ok := (<-told).(happened); !ok {
		t.Error("something else was told")
	}
	stop()
	<-ended
	if n := len(told); n > 10 {
		t.Errorf("%d more of 50 events at once were told", n)
	}
	v := newView(t, "client", 80, 24)
	asks := func() bool {
		_, cmd := v.m.Update(happened{})
		return cmd != nil
	}
	if asks() {
		t.Error("it asks although it has only just asked")
	}
	v.m.asked = time.Time{}
	v.m.paused = true
	if asks() {
		t.Error("it asks although it is paused")
	}
	v.m.paused = false
	if !asks() {
		t.Error("it does not ask")
	}
	v.m.asked = time.Time{}
	if asks() {
		t.Error("it asks twice at a time")
	}
}

// TestSmallWindow: what matters is not cut off where there is little room.
func TestSmallWindow(t *testing.T) {
	t.Parallel()
	v := newView(t, "client", 60, 15)
	v.shows("▲ something is wrong", "mend it", "in ", "?: help   q: leave")
	v.m.facts.status.Problems = nil
	v.shows("Nothing needs your attention.", "in ", "out")
	v.press("4")
	v.m.facts.links[0].Authority, v.m.facts.links[0].Identity = true, strings.Repeat("ab", 32)
	v.shows("neighbour", "sent", "authority abababab")
}

// TestSaysThatTheNodeIsGone, and is back: with the log of the new run from its beginning.
func TestSaysThatTheNodeIsGone(t *testing.T) {
	t.Parallel()
	v := newView(t, "client", 80, 24)
	v.node.err = fmt.Errorf("asking: %w", control.ErrNotRunning)
	v.ask()
	v.shows("NO ANSWER", "does not run")
	v.node.err = errors.New("something else")
	v.ask()
	v.shows("something else")
	v.node.err, v.node.lines = nil, 3
	v.ask()
	v.ask()
	v.press("5")
	v.shows("ready", "msg=1", "msg=3")
	if s := v.screen(); strings.Contains(s, "NO ANSWER") || strings.Contains(s, "msg=50") {
		t.Errorf("the last run is still there:\n%s", s)
	}
}

// TestDrawsWithASCII: where the locale is not UTF-8 nothing else is drawn.
func TestDrawsWithASCII(t *testing.T) {
	t.Parallel()
	v := newView(t, "client", 80, 24)
	v.m.glyphs = plainGlyphs
	for range 5 {
		for _, r := range v.screen() {
			if r > 126 {
				t.Fatalf("%q in\n%s", r, v.screen())
			}
		}
		v.press("tab")
	}
	for _, c := range []struct {
		environ string
		want    bool
	}{{"LANG=C.UTF-8", true}, {"LANG=de_DE.utf8", true}, {"LC_ALL=C LANG=C.UTF-8", false}, {"LC_ALL= LANG=en_US.UTF-8", true}, {"", false}} {
		if got := isUTF8(strings.Fields(c.environ)); got != c.want {
			t.Errorf("%s: %v", c.environ, got)
		}
	}
}
