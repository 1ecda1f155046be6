package demo

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"cepa/daemon"
)

// embedded runs all nodes in this process.
type embedded struct {
	options Options
	layout  *layout
	log     io.Writer
	relays  []*daemon.Relay // and authorities
	client  *daemon.Client
}

func newEmbedded(o Options, l *layout) *embedded {
	return &embedded{options: o, layout: l, log: lines{o.Message}}
}

func (e *embedded) node(name string) daemon.Options {
	return daemon.Options{
		Name: name, Version: e.options.Version,
		Log: slog.New(daemon.NewLogHandler(e.log, e.options.LogLevel)).With("node", name),
	}
}

func (e *embedded) start(context.Context) error {
	for _, n := range e.layout.authorities {
		a, err := daemon.StartAuthority(n.config, e.node(n.name))
		if err != nil {
			return fmt.Errorf("starting %s: %w", n.name, err)
		}
		e.relays = append(e.relays, a)
	}
	for _, n := range e.layout.relays {
		r, err := daemon.StartRelay(n.config, e.node(n.name))
		if err != nil {
			return fmt.Errorf("starting %s: %w", n.name, err)
		}
		e.relays = append(e.relays, r)
	}
	c, err := daemon.StartClient(e.layout.client, e.node("client"))
	if err != nil {
		return fmt.Errorf("starting the client: %w", err)
	}
	e.client = c
	return nil
}

func (e *embedded) wait(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (e *embedded) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if e.client != nil {
		e.client.Stop(ctx)
	}
	var wg sync.WaitGroup
	for _, r := range e.relays {
		wg.Go(func() { r.Stop(ctx) })
	}
	wg.Wait()
}

// lines passes whole lines on to Message.
type lines struct {
	message func(format string, args ...any)
}

func (l lines) Write(p []byte) (int, error) {
	n := len(p)
	for n > 0 && p[n-1] == '\n' {
		n--
	}
	l.message("%s", p[:n])
	return len(p), nil
}
