package top

import (
	"fmt"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"cepa/control"
)

// overview is the first tab: what the node does, its traffic, and what needs attention.
func (m *model) overview() []string {
	f := m.facts
	s := f.status
	var lines []string
	line := func(what, format string, args ...any) {
		for i, part := range strings.Split(lipgloss.Wrap(fmt.Sprintf(format, args...), max(m.width-10, 1), " "), "\n") {
			if i > 0 {
				what = ""
			}
			lines = append(lines, faint.Render(fmt.Sprintf("%-10s", what))+part)
		}
	}
	if s.Percent < 100 {
		line("doing", "%s", clean(s.Doing))
		if s.Waiting != "" {
			line("waiting", "for %s", clean(s.Waiting))
		}
	}
	switch {
	case s.Asleep():
	case s.Role == "client":
		line("port", "%s", s.Address)
		line("guard", "%s", Guard(f.guards))
		line("circuits", "%s", Circuits(f.circuits))
		line("streams", "%d open, %d wait for a circuit", f.counters["circuit_streams"], f.counters["circuit_waiting"])
	default:
		kind := ""
		if s.Exit {
			kind = ", an exit"
		}
		line("serves at", "%s%s, identity %s", s.Address, kind, s.ID[:min(16, len(s.ID))])
		line("carries", "%d circuits of others, %d exit streams, on %d links", f.counters["relay_circuits"], f.counters["relay_exit_streams"], f.counters["links"])
		line("memory", "%s of %s for queues", Size(uint64(f.counters["budget_used_bytes"])), Size(uint64(f.counters["budget_limit_bytes"])))
	}
	if !s.Asleep() {
		line("consensus", "%s", Consensus(s.Consensus, f.at))
	}
	problems := m.problems()
	h := m.bodyHeight()
	gap := []string{""}
	if len(lines)+len(problems)+6 > h { // two graphs of a title and a row each, and two lines between
		gap = nil
	}
	lines = append(lines, gap...)
	if len(s.Problems) > 0 { // they matter most, and are never cut off
		lines, problems = append(append(lines, problems...), gap...), nil
	}
	free := h - len(lines) - len(problems) - len(gap) - 2
	rows := min(max(free/2, 1), 8)
	b := f.bandwidth
	in, out := make([]uint64, len(b.History)), make([]uint64, len(b.History))
	for i, x := range b.History {
		in[i], out[i] = x.Received, x.Sent
	}
	lines = append(lines, m.graph("in ", b.ReceivedRate, b.Received, in, rows, inColor)...)
	lines = append(lines, m.graph("out", b.SentRate, b.Sent, out, rows, outColor)...)
	if problems == nil {
		return lines
	}
	return append(append(lines, gap...), problems...)
}

// problems are what needs attention, with what to do.
func (m *model) problems() (lines []string) {
	for _, p := range m.facts.status.Problems {
		for i, part := range wrap(m.glyphs.mark+" "+clean(p.Text), m.width, 2) {
			if i > 0 {
				part = "  " + part
			}
			lines = append(lines, warn.Render(part))
		}
		for _, part := range strings.Split(lipgloss.Wrap(clean(p.Do), m.width-4, " "), "\n") {
			lines = append(lines, "    "+part)
		}
	}
	if len(lines) == 0 {
		lines = []string{good.Render("Nothing needs your attention.")}
	}
	return lines
}

// graph draws bytes a second as bars, the newest at the right, below a line with figures.
func (m *model) graph(what string, rate, total uint64, values []uint64, rows int, style lipgloss.Style) []string {
	const margin = 10
	width := min(m.width-margin, 300)
	values = values[max(0, len(values)-width):]
	top := uint64(1)
	for _, v := range values {
		top = max(top, v)
	}
	lines := []string{fmt.Sprintf("%s  %s/s now, %s in all; the last %s:", bold.Render(what), Size(rate), Size(total), Age(int64(len(values))))}
	steps := len(m.glyphs.bars) - 1
	for row := rows - 1; row >= 0; row-- {
		label := ""
		switch row {
		case rows - 1:
			label = Size(top) + "/s"
		case 0:
			label = "0"
		}
		var b strings.Builder
		for _, v := range values {
			// The bar's height in steps, of rows*steps; what is more than nothing shows.
			h := int(v * uint64(rows*steps) / top)
			if v > 0 {
				h = max(h, 1)
			}
			b.WriteRune(m.glyphs.bars[min(max(h-row*steps, 0), steps)])
		}
		lines = append(lines, faint.Render(fmt.Sprintf("%*s ", margin-1, label))+strings.Repeat(" ", width-len(values))+style.Render(b.String()))
	}
	return lines
}

// Guard says in a line which guard is in use.
func Guard(guards []control.Guard) string {
	up := 0
	var used *control.Guard
	for i := range guards {
		if guards[i].State == "up" {
			up++
		}
		if guards[i].InUse {
			used = &guards[i]
		}
	}
	switch {
	case used == nil && len(guards) == 0:
		return "none chosen yet"
	case used == nil:
		return fmt.Sprintf("none answers, of %d that may be used", len(guards))
	}
	text := Name(used.Nickname, used.Identity) + " at " + used.Address
	switch {
	case up == 2:
		text += "; 1 other works too"
	case up > 2:
		text += fmt.Sprintf("; %d others work too", up-1)
	}
	return text
}

// Circuits counts circuits in a line.
func Circuits(list []control.Circuit) string {
	var used, ready, retired, building int
	for _, c := range list {
		switch {
		case c.Purpose == "directory":
		case c.State == "building":
			building++
		case c.Retired:
			retired++
		case c.Purpose == "ready":
			ready++
		default:
			used++
		}
	}
	text := fmt.Sprintf("%d for streams, %d ready for more, %d being built", used, ready, building)
	if retired > 0 {
		text += fmt.Sprintf(", %d end with their streams", retired)
	}
	return text
}

// Consensus says in a line which consensus is in use.
func Consensus(c *control.Consensus, now time.Time) string {
	if c == nil {
		return "none yet"
	}
	layout := "15:04:05 MST"
	if c.ValidUntil.Sub(now).Abs() > 12*time.Hour {
		layout = "Jan 2, 15:04 MST"
	}
	state := "fresh until " + c.FreshUntil.UTC().Format("15:04:05 MST")
	switch {
	case now.After(c.ValidUntil):
		state = "ENDED at " + c.ValidUntil.UTC().Format(layout)
	case now.After(c.FreshUntil):
		state = "next due, usable until " + c.ValidUntil.UTC().Format(layout)
	}
	return fmt.Sprintf("%d relays, signed by %d authorities, %s", c.Relays, c.Signatures, state)
}
