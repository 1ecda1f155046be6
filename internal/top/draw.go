package top

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"cepa/control"
)

type tickTime = time.Time

// glyphs are what the view draws with.
type glyphs struct {
	bars             []rune // from nothing to full
	arrow, dot, mark string
	rule             string
}

var (
	utf8Glyphs  = glyphs{[]rune(" ▁▂▃▄▅▆▇█"), " → ", " · ", "▲", "─"}
	plainGlyphs = glyphs{[]rune(" .:#"), " > ", " - ", "!", "-"}
)

// Colours are the sixteen of the terminal's own theme, and nothing is said by colour alone.
var (
	bold     = lipgloss.NewStyle().Bold(true)
	faint    = lipgloss.NewStyle().Faint(true)
	selected = lipgloss.NewStyle().Bold(true).Reverse(true)
	good     = lipgloss.NewStyle().Foreground(lipgloss.Green)
	bad      = lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true)
	warn     = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	inColor  = lipgloss.NewStyle().Foreground(lipgloss.Cyan)
	outColor = lipgloss.NewStyle().Foreground(lipgloss.Magenta)
)

const (
	leastWidth, leastHeight = 40, 10
	frame                   = 4 // lines around the body: title, tabs, rule; the last
)

func (m *model) bodyHeight() int { return max(1, m.height-frame) }

// rowsHeight is how many rows of the tab's list are shown: its head takes one.
func (m *model) rowsHeight() int {
	if m.head() != "" {
		return max(1, m.bodyHeight()-1)
	}
	return m.bodyHeight()
}

// View implements tea.Model.
func (m *model) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	v.WindowTitle = "cepa top"
	return v
}

func (m *model) draw() string {
	if m.width < leastWidth || m.height < leastHeight {
		text := fmt.Sprintf("This window is %d x %d. %d x %d are needed. q leaves.", m.width, m.height, leastWidth, leastHeight)
		lines := strings.Split(lipgloss.Wrap(text, max(m.width, 1), " "), "\n")
		return strings.Join(lines[:min(len(lines), max(m.height, 1))], "\n")
	}
	body := m.body()
	h := m.bodyHeight()
	if len(body) > h {
		body = body[:h]
	}
	for len(body) < h {
		body = append(body, "")
	}
	lines := append([]string{m.title(), m.tabLine(), faint.Render(strings.Repeat(m.glyphs.rule, m.width))}, body...)
	lines = append(lines, m.footer())
	cut := lipgloss.NewStyle().MaxWidth(m.width)
	for i := range lines {
		lines[i] = cut.Render(lines[i])
	}
	return strings.Join(lines, "\n")
}

func (m *model) title() string {
	if m.facts == nil {
		return bold.Render("cepa top")
	}
	s := m.facts.status
	text := bold.Render(s.Role)
	if s.Name != s.Role {
		text += " " + bold.Render(clean(s.Name))
	}
	text += " of network " + clean(s.Network) + m.glyphs.dot
	switch {
	case m.failure != nil:
		return text + bad.Render("NO ANSWER")
	case s.Asleep():
		text += warn.Render("ASLEEP")
	case s.Percent == 100:
		text += good.Render("ready")
	default:
		text += bad.Render(fmt.Sprintf("NOT READY, %d %%", s.Percent))
	}
	text += m.glyphs.dot + "up " + Age(s.Uptime)
	if n := len(s.Problems); n > 0 {
		text += m.glyphs.dot + warn.Render(fmt.Sprintf("%s %d to look at", m.glyphs.mark, n))
	}
	if m.paused {
		text += m.glyphs.dot + selected.Render(" PAUSED: p goes on ")
	}
	return text
}

func (m *model) tabLine() string {
	var parts []string
	for i, name := range m.tabs() {
		label := fmt.Sprintf(" %d %s ", i+1, name)
		if name == m.current() {
			parts = append(parts, selected.Render("["+label[1:len(label)-1]+"]"))
		} else {
			parts = append(parts, label)
		}
	}
	return strings.Join(parts, " ")
}

func (m *model) footer() string {
	switch {
	case m.renewing:
		return warn.Render("New identity? Nothing new will use the circuits until now. y: yes, other keys: no")
	case m.note != "":
		return bold.Render(m.note)
	case m.helping:
		return faint.Render("any key: back")
	}
	renew := ""
	if m.facts != nil && m.facts.status.Role == "client" {
		renew = "n: new identity   "
	}
	for _, text := range []string{"tab: next   arrows: move   " + renew + "p: pause   ?: help   q: leave", "tab: next   " + renew + "?: help   q: leave"} {
		if len(text) <= m.width {
			return faint.Render(text)
		}
	}
	return faint.Render("?: help   q: leave")
}

// body is what stands between the tabs and the footer.
func (m *model) body() []string {
	switch {
	case m.helping:
		return m.helpLines()
	case m.failure != nil:
		var lines []string
		for _, part := range strings.Split(lipgloss.Wrap(failureText(m.failure), m.width, " "), "\n") {
			lines = append(lines, bad.Render(part))
		}
		return append(append(lines, ""), m.tabBody()...)
	case m.facts == nil:
		return []string{"Asking the node…"}
	}
	return m.tabBody()
}

func (m *model) helpLines() []string {
	lines := []string{bold.Render("Keys"), ""}
	for _, b := range m.bindings() {
		lines = append(lines, fmt.Sprintf("  %-18s %s", b.Help().Key, b.Help().Desc))
	}
	return lines
}

func (m *model) tabBody() []string {
	if m.facts == nil {
		return nil
	}
	tab := m.current()
	if tab == tabOverview {
		return m.overview()
	}
	rows, h := m.rows(), m.rowsHeight()
	most := max(0, len(rows)-h)
	at := min(m.offset[tab], most)
	if tab == tabLog && m.follow {
		at = most
	}
	var lines []string
	if head := m.head(); head != "" {
		if most > 0 {
			place := fmt.Sprintf("  %d-%d of %d", at+1, at+h, len(rows))
			if room := m.width - len(place); room >= len(head) { // the names of the columns come first
				head = fmt.Sprintf("%-*s", room, head) + place
			}
		}
		lines = append(lines, faint.Render(head))
	}
	return append(lines, rows[at:min(len(rows), at+h)]...)
}

// head is the line above the rows of the tab.
func (m *model) head() string {
	switch m.current() {
	case tabCircuits:
		if m.width < narrow {
			return "   id  age      use           relays"
		}
		return "   id  age      use           streams  relays"
	case tabStreams:
		if m.width < narrow {
			return "   id  state    age       received       sent  destination"
		}
		return "   id  state    age       received       sent  circuit  destination"
	case tabLinks:
		head := "dir  neighbour            age       received       sent"
		if m.width >= wideLinks {
			head += "     queued  circuits"
		}
		return head
	}
	return ""
}

// rows are the lines of the tab's list.
func (m *model) rows() []string {
	if m.facts == nil {
		return nil
	}
	switch m.current() {
	case tabCircuits:
		return m.circuitRows()
	case tabStreams:
		return m.streamRows()
	case tabLinks:
		return m.linkRows()
	case tabLog:
		return m.logRows()
	}
	return nil
}

// wideLinks is the width from which all columns of links are shown.
const wideLinks = 77

// narrow is the width below which lists leave out a column for what comes last in them.
const narrow = 70

// short cuts a name to at most n columns, but not to less than 4.
func short(name string, n int) string {
	if n = max(n, 4); len(name) > n {
		return name[:n-1] + "~"
	}
	return name
}

func (m *model) circuitRows() []string {
	rows := []string{}
	before := len(m.head()) - len("relays")
	for _, c := range m.facts.circuits {
		if c.Purpose == "directory" {
			continue
		}
		var names []string
		for i, h := range c.Hops {
			name := short(Name(h.Nickname, h.Identity), (m.width-before-3*(len(c.Hops)-1))/max(len(c.Hops), 1))
			if i >= c.Built {
				name = "(" + name + ")"
			}
			names = append(names, name)
		}
		row := fmt.Sprintf("%5d  %-7s  %-12s  ", c.ID, Age(c.Age), Use(c))
		if m.width >= narrow {
			row += fmt.Sprintf("%7d  ", c.Streams)
		}
		row += strings.Join(names, m.glyphs.arrow)
		switch {
		case c.Suspect:
			row = warn.Render(row)
		case c.State == "building" || c.Retired:
			row = faint.Render(row)
		case c.Streams > 0:
			row = bold.Render(row)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		rows = append(rows, "No circuits: see the overview for why.")
	}
	return rows
}

func (m *model) streamRows() []string {
	rows := []string{}
	for _, s := range m.facts.streams {
		circuit := ""
		switch {
		case m.width < narrow:
		case s.Circuit == 0:
			circuit = "      -  "
		default:
			circuit = fmt.Sprintf("%7d  ", s.Circuit)
		}
		rows = append(rows, fmt.Sprintf("%5d  %-7s  %-7s  %9s  %9s  ", s.ID, s.State, Age(s.Age), Size(s.Received), Size(s.Sent))+circuit+clean(s.Destination))
	}
	if len(rows) == 0 {
		rows = append(rows, "No streams. Programs that use "+m.facts.status.Address+" make them.")
	}
	return rows
}

func (m *model) linkRows() []string {
	rows := []string{}
	for _, l := range m.facts.links {
		name := "a client"
		switch {
		case l.Authority && l.Nickname == "":
			name = "authority " + Name("", l.Identity)
		case l.Identity != "":
			name = Name(l.Nickname, l.Identity)
		}
		if l.Draining {
			name = short(name, 10) + " (ending)"
		}
		row := fmt.Sprintf("%-3s  %-19s  %-7s  %9s  %9s", l.Direction, name, Age(l.Age), Size(l.Received), Size(l.Sent))
		if m.width >= wideLinks {
			row += fmt.Sprintf("  %9s  %8d", Size(uint64(l.Queued)), l.Circuits)
		}
		if l.Draining {
			row = faint.Render(row)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		rows = append(rows, "No links.")
	}
	return rows
}

func (m *model) logRows() []string {
	rows := []string{}
	for _, l := range m.lines {
		text := fmt.Sprintf("%s %-5s %s", l.Time.UTC().Format("15:04:05"), l.Level, clean(l.Text))
		style := lipgloss.NewStyle()
		switch l.Level {
		case "ERROR":
			style = bad
		case "WARN":
			style = warn
		case "DEBUG":
			style = faint
		}
		for i, part := range wrap(text, m.width, 15) {
			if i > 0 {
				part = strings.Repeat(" ", 15) + part
			}
			rows = append(rows, style.Render(part))
		}
	}
	if len(rows) == 0 {
		rows = append(rows, "The node has logged nothing yet that its log level lets through.")
	}
	return rows
}

// wrap cuts text into lines of at most width columns, of which those after the first are indented.
func wrap(text string, width, indent int) []string {
	first := strings.Split(lipgloss.Wrap(text, width, " "), "\n")
	if len(first) == 1 || width <= 2*indent {
		return first
	}
	rest := strings.TrimLeft(strings.TrimPrefix(text, first[0]), " ")
	return append(first[:1], strings.Split(lipgloss.Wrap(rest, width-indent, " "), "\n")...)
}

// clean makes sure that what others chose to write does not steer the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, s)
}

// Name is what people call a relay.
func Name(nickname, identity string) string {
	if nickname != "" {
		return clean(nickname)
	}
	return identity[:min(8, len(identity))]
}

// Use says in a few words what a circuit is for now.
func Use(c control.Circuit) string {
	switch {
	case c.State == "building":
		return fmt.Sprintf("building %d/%d", c.Built, len(c.Hops))
	case c.Suspect:
		return "silent"
	case c.Retired && c.Streams > 0:
		return "last streams"
	case c.Retired:
		return "ending"
	case c.Purpose == "ready":
		return "ready"
	case c.Streams > 0:
		return "in use"
	}
	return "was used"
}
