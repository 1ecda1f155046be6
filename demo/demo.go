package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"cepa/control"
	"cepa/daemon"
)

// Demo is a running network.
type Demo struct {
	options Options
	layout  *layout
	page    *page
	nodes   nodes
	socks   netip.AddrPort
}

// nodes are the network's nodes, in this process or in their own.
type nodes interface {
	// start starts all of them.
	start(ctx context.Context) error
	// wait returns when ctx ends, or with an error when the network cannot become ready.
	wait(ctx context.Context) error
	// stop ends all of them.
	stop()
}

// stopTimeout is how long the nodes may take to end by themselves.
const stopTimeout = 1500 * time.Millisecond

// readyTimeout is how long the network may take until a circuit has carried data. It takes a
// second or two; a machine with other work may need longer.
const readyTimeout = 60 * time.Second

// Start makes the network and returns when a circuit has carried data and the SOCKS port is
// open. The caller calls Stop, also to interrupt a Start whose ctx it cancelled.
func Start(ctx context.Context, o Options) (*Demo, error) {
	if o.Relays < MinRelays || o.Relays > MaxRelays {
		return nil, fmt.Errorf("a demo has %d to %d relays, not %d", MinRelays, MaxRelays, o.Relays)
	}
	if o.Authorities < 1 || o.Authorities > MaxAuthorities {
		return nil, fmt.Errorf("a demo has 1 to %d authorities, not %d", MaxAuthorities, o.Authorities)
	}
	if err := choosePort(&o); err != nil {
		return nil, err
	}
	p, err := servePage()
	if err != nil {
		return nil, err
	}
	l, err := prepare(o, p.address)
	if err != nil {
		p.close()
		return nil, err
	}
	d := &Demo{options: o, layout: l, page: p, socks: o.Socks}
	if o.Processes {
		d.nodes = newProcesses(o, l)
	} else {
		d.nodes = newEmbedded(o, l)
	}
	if err := d.nodes.start(ctx); err == nil {
		err = d.awaitReady(ctx)
		if err == nil {
			return d, nil
		}
		d.Stop()
		return nil, err
	} else {
		d.Stop()
		return nil, err
	}
}

// choosePort finds out early that the SOCKS port is taken.
func choosePort(o *Options) error {
	free, err := daemon.FreePort(o.Socks)
	if err != nil && o.AnySocks {
		o.Message("%s is in use; taking another port", o.Socks)
		free, err = daemon.FreePort(netip.AddrPortFrom(o.Socks.Addr(), 0))
	}
	if err != nil {
		return daemon.PortFault("the SOCKS port", o.Socks.String(), "--socks 127.0.0.1:PORT", err)
	}
	o.Socks = free
	return nil
}

// awaitReady watches the client until its SOCKS port is open.
func (d *Demo) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, errors.New("the network was not ready in time"))
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- d.nodes.wait(ctx) }()
	var last control.Status
	said := make(map[string]bool)
	for {
		s, err := control.GetStatus(ctx, d.layout.client.Dir)
		if err == nil {
			if !said[s.Doing] {
				said[s.Doing] = true // a young network goes back and forth
				d.options.Message("%3d %%  %s", s.Percent, s.Doing)
			}
			last = s
			if s.Percent == 100 {
				return nil
			}
		}
		select {
		case err := <-failed:
			if err != nil {
				return err
			}
			if last.Waiting != "" {
				return fmt.Errorf("%w: the client was waiting for %s", context.Cause(ctx), last.Waiting)
			}
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Socks is the address of the SOCKS5 port.
func (d *Demo) Socks() netip.AddrPort { return d.socks }

// Dir is the folder of the network's state.
func (d *Demo) Dir() string { return d.layout.dir }

// ClientDir is the state folder of the client, by which its control socket is found.
func (d *Demo) ClientDir() string { return filepath.Clean(d.layout.client.Dir) }

// Stop ends every node, closes the ports and removes a temporary folder.
func (d *Demo) Stop() {
	d.nodes.stop()
	d.page.close()
	d.layout.remove()
}
