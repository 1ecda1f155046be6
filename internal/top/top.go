// Package top is the live view of one running node in a terminal: `cepa top`. It asks the control API when that tells of
// something that happened, and once a second, and draws what it hears; it decides nothing and keeps nothing. Its one caller is cmd/cepa.
//
// It is a shell. The model belongs to bubbletea's one goroutine; questions run beside it and come back as messages.
package top

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"cepa/control"
)

// Node is whom the view asks; *control.Client is one.
type Node interface {
	Status(ctx context.Context) (control.Status, error)
	Counters(ctx context.Context) (map[string]int64, error)
	Bandwidth(ctx context.Context) (control.Bandwidth, error)
	Circuits(ctx context.Context) ([]control.Circuit, error)
	Streams(ctx context.Context) ([]control.Stream, error)
	Guards(ctx context.Context) ([]control.Guard, error)
	Links(ctx context.Context) ([]control.Link, error)
	Log(ctx context.Context, after uint64, limit int) (control.Log, error)
	NewIdentity(ctx context.Context) (control.NewIdentity, error)
	Events(ctx context.Context, f func(control.Event) error, kinds ...string) error
}

// Run shows the view until the user leaves it or ctx ends. environ, as of os.Environ, says what the terminal can do.
func Run(ctx context.Context, node Node, in io.Reader, out io.Writer, environ []string) error {
	m := newModel(ctx, node, isUTF8(environ))
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithEnvironment(environ))
	listening, stop := context.WithCancel(ctx)
	defer stop()
	go listen(listening, node, p.Send)
	_, err := p.Run()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// isUTF8 says whether the locale lets the view draw with more than ASCII.
func isUTF8(environ []string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} { // the first that is set counts
		for _, e := range environ {
			if value, ok := strings.CutPrefix(e, name+"="); ok && value != "" {
				value = strings.ToUpper(value)
				return strings.Contains(value, "UTF-8") || strings.Contains(value, "UTF8")
			}
		}
	}
	return false
}

// listen tells the view when something happens, not more often than it may ask, until ctx ends.
func listen(ctx context.Context, node Node, send func(tea.Msg)) {
	last := time.Time{}
	for ctx.Err() == nil {
		_ = node.Events(ctx, func(control.Event) error {
			if now := time.Now(); now.Sub(last) >= askLeast {
				last = now
				send(happened{})
			}
			return nil
		}, control.EventStatus, control.EventCircuit, control.EventStream, control.EventLog)
		select { // the node is gone, or has too many readers: the questions of each second go on
		case <-ctx.Done():
		case <-time.After(askEvery):
		}
	}
}

const (
	askEvery   = time.Second
	askLeast   = 200 * time.Millisecond
	askTimeout = 3 * time.Second
	keptLines  = 1000 // of the log
)

// facts are one round of answers.
type facts struct {
	at        time.Time
	status    control.Status
	counters  map[string]int64
	bandwidth control.Bandwidth
	circuits  []control.Circuit
	streams   []control.Stream
	guards    []control.Guard
	links     []control.Link
	log       control.Log
}

// messages of the model.
type (
	heard    struct{ facts facts }
	unheard  struct{ err error }
	askAgain struct{}
	happened struct{}
	renewed  struct {
		answer control.NewIdentity
		err    error
	}
)

// ask makes one round of questions.
func (m *model) ask() tea.Cmd {
	m.asking, m.asked = true, time.Now()
	ctx, node, after := m.ctx, m.node, m.lastLine
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		f := facts{at: time.Now()}
		var err error
		next := func(f func() error) {
			if err == nil {
				err = f()
			}
		}
		next(func() (e error) { f.status, e = node.Status(ctx); return })
		next(func() (e error) { f.counters, e = node.Counters(ctx); return })
		next(func() (e error) { f.bandwidth, e = node.Bandwidth(ctx); return })
		next(func() (e error) { f.circuits, e = node.Circuits(ctx); return })
		next(func() (e error) { f.links, e = node.Links(ctx); return })
		next(func() (e error) { f.log, e = node.Log(ctx, after, keptLines); return })
		if f.status.Role == "client" {
			next(func() (e error) { f.streams, e = node.Streams(ctx); return })
			next(func() (e error) { f.guards, e = node.Guards(ctx); return })
		}
		if err != nil {
			return unheard{err}
		}
		return heard{f}
	}
}

func (m *model) renew() tea.Cmd {
	ctx, node := m.ctx, m.node
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		answer, err := node.NewIdentity(ctx)
		return renewed{answer, err}
	}
}

// Size is n bytes for people, with at most three digits.
func Size(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 1000 && unit < 5 {
		f, unit = f/1024, unit+1
	}
	digits := 0
	if f < 10 {
		digits = 1
	}
	return fmt.Sprintf("%.*f %ciB", digits, f, " KMGTP"[unit])
}

// Age is a time in seconds for people.
func Age(s int64) string {
	switch {
	case s < 120:
		return fmt.Sprintf("%d s", s)
	case s < 2*3600:
		return fmt.Sprintf("%d min", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%d h", s/3600)
	}
	return fmt.Sprintf("%d d", s/86400)
}
