package top

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"charm.land/bubbles/v2/help"
	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"cepa/control"
)

// model is the state of the view.
type model struct {
	ctx      context.Context
	node     Node
	glyphs   glyphs
	width    int
	height   int
	facts    *facts // nil before the first answer
	failure  error  // of the last question
	asking   bool   // an answer is awaited
	asked    time.Time
	lines    []control.Line
	lastLine uint64
	tab      int
	offset   map[string]int // first line shown, by tab
	follow   bool           // the log shows its end
	paused   bool
	helping  bool
	renewing bool // the user was asked whether to
	note     string
	help     help.Model
}

// The tabs; a relay has not all.
const (
	tabOverview = "Overview"
	tabCircuits = "Circuits"
	tabStreams  = "Streams"
	tabLinks    = "Links"
	tabLog      = "Log"
)

func newModel(ctx context.Context, node Node, utf8 bool) *model {
	m := &model{ctx: ctx, node: node, glyphs: plainGlyphs, width: 80, height: 24, offset: make(map[string]int), follow: true, help: help.New()}
	if utf8 {
		m.glyphs = utf8Glyphs
	}
	return m
}

func (m *model) tabs() []string {
	if m.facts != nil && m.facts.status.Role != "client" {
		return []string{tabOverview, tabLinks, tabLog}
	}
	return []string{tabOverview, tabCircuits, tabStreams, tabLinks, tabLog}
}

func (m *model) current() string { return m.tabs()[min(m.tab, len(m.tabs())-1)] }

// keys are all that the view understands.
var keys = struct {
	Next, Previous, Number, Up, Down, PageUp, PageDown, Home, End, Renew, Pause, Help, Quit key.Binding
}{
	Next:     key.NewBinding(key.WithKeys("tab", "right", "l"), key.WithHelp("tab, right", "next tab")),
	Previous: key.NewBinding(key.WithKeys("shift+tab", "left", "h"), key.WithHelp("left", "tab before")),
	Number:   key.NewBinding(key.WithKeys("1", "2", "3", "4", "5"), key.WithHelp("1 to 5", "that tab")),
	Up:       key.NewBinding(key.WithKeys("up", "k"), key.WithHelp("up, k", "a line up")),
	Down:     key.NewBinding(key.WithKeys("down", "j"), key.WithHelp("down, j", "a line down")),
	PageUp:   key.NewBinding(key.WithKeys("pgup", "b"), key.WithHelp("page up, b", "a page up")),
	PageDown: key.NewBinding(key.WithKeys("pgdown", "space"), key.WithHelp("page down, space", "a page down")),
	Home:     key.NewBinding(key.WithKeys("home", "g"), key.WithHelp("home, g", "to the top")),
	End:      key.NewBinding(key.WithKeys("end", "G"), key.WithHelp("end, G", "to the end; the log then goes along")),
	Renew:    key.NewBinding(key.WithKeys("n"), key.WithHelp("n", "new identity: nothing new uses the circuits until now")),
	Pause:    key.NewBinding(key.WithKeys("p"), key.WithHelp("p", "pause and go on")),
	Help:     key.NewBinding(key.WithKeys("?"), key.WithHelp("?", "this help")),
	Quit:     key.NewBinding(key.WithKeys("q", "ctrl+c"), key.WithHelp("q", "leave; the node goes on")),
}

func (m *model) bindings() []key.Binding {
	list := []key.Binding{keys.Next, keys.Previous, keys.Number, keys.Up, keys.Down, keys.PageUp, keys.PageDown, keys.Home, keys.End}
	if m.facts == nil || m.facts.status.Role == "client" {
		list = append(list, keys.Renew)
	}
	return append(list, keys.Pause, keys.Help, keys.Quit)
}

// Init implements tea.Model.
func (m *model) Init() tea.Cmd { return tea.Batch(m.ask(), again()) }

// askNow asks unless an answer is awaited, or was only just heard.
func (m *model) askNow() tea.Cmd {
	if m.paused || m.asking || time.Since(m.asked) < askLeast {
		return nil
	}
	return m.ask()
}

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case heard:
		m.asking = false
		m.hear(msg.facts)
	case unheard:
		m.asking = false
		m.failure = msg.err
	case happened:
		return m, m.askNow()
	case askAgain:
		return m, tea.Batch(m.askNow(), again())
	case renewed:
		if m.note = fmt.Sprintf("New identity: %d circuits take nothing new", msg.answer.Retired); msg.answer.Running > 0 {
			m.note += fmt.Sprintf("; %d go on with their streams", msg.answer.Running)
		}
		if msg.err != nil {
			m.note = "No new identity: " + msg.err.Error()
		}
	case tea.KeyPressMsg:
		return m, m.press(msg)
	}
	return m, nil
}

func again() tea.Cmd { return tea.Tick(askEvery, func(_ tickTime) tea.Msg { return askAgain{} }) }

// hear takes a round of answers.
func (m *model) hear(f facts) {
	if m.facts != nil && f.status.Pid != m.facts.status.Pid || f.log.Last < m.lastLine { // another run
		m.lines, m.lastLine = nil, 0
		if f.log.Last > uint64(len(f.log.Lines)) {
			f.log = control.Log{} // asked for with the number of the last run: the next round brings all
		}
	}
	m.facts, m.failure = &f, nil
	m.lines = append(m.lines, f.log.Lines...)
	m.lines = m.lines[max(0, len(m.lines)-keptLines):]
	m.lastLine = max(m.lastLine, f.log.Last)
}

// press acts on a key.
func (m *model) press(k tea.KeyPressMsg) tea.Cmd {
	m.note = ""
	if m.renewing {
		m.renewing = false
		if k.String() == "y" {
			return m.renew()
		}
		m.note = "Nothing was changed"
		return nil
	}
	if m.helping && !key.Matches(k, keys.Quit) {
		m.helping = false
		return nil
	}
	n, page := len(m.tabs()), max(1, m.bodyHeight()-1)
	switch {
	case key.Matches(k, keys.Quit):
		return tea.Quit
	case key.Matches(k, keys.Help):
		m.helping = true
	case key.Matches(k, keys.Next):
		m.tab = (m.tab + 1) % n
	case key.Matches(k, keys.Previous):
		m.tab = (m.tab + n - 1) % n
	case key.Matches(k, keys.Number):
		if to := int(k.String()[0] - '1'); to < n {
			m.tab = to
		}
	case key.Matches(k, keys.Up):
		m.scroll(-1)
	case key.Matches(k, keys.Down):
		m.scroll(1)
	case key.Matches(k, keys.PageUp):
		m.scroll(-page)
	case key.Matches(k, keys.PageDown):
		m.scroll(page)
	case key.Matches(k, keys.Home):
		m.scroll(-1 << 30)
	case key.Matches(k, keys.End):
		m.scroll(1 << 30)
	case key.Matches(k, keys.Pause):
		m.paused = !m.paused
	case key.Matches(k, keys.Renew):
		if m.facts != nil && m.facts.status.Role == "client" {
			m.renewing = true
		}
	}
	return nil
}

// scroll moves the lines of the tab; the log goes along with its end while that is shown.
func (m *model) scroll(by int) {
	tab := m.current()
	most := max(0, len(m.rows())-m.rowsHeight())
	at := m.offset[tab]
	if tab == tabLog && m.follow {
		at = most
	}
	at = min(max(at+by, 0), most)
	m.offset[tab] = at
	if tab == tabLog {
		m.follow = at == most
	}
}

// failureText says what is wrong with the connection to the node.
func failureText(err error) string {
	switch {
	case errors.Is(err, control.ErrNotRunning), errors.Is(err, io.EOF):
		return "The node does not run. Start it again, or leave with q; this view goes on by itself."
	case errors.Is(err, context.DeadlineExceeded):
		return "The node does not answer: it is very busy, or stopped. Asking on."
	}
	return "Asking the node failed: " + strings.TrimSpace(err.Error())
}
