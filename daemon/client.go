package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"cepa/cell"
	"cepa/circuit"
	"cepa/directory"
	"cepa/dnsport"
	"cepa/link"
	"cepa/node"
	"cepa/socks"
)

// Client is a running client.
type Client struct {
	*shell
	config ClientConfig
	node   *node.Client
	ports  localPorts
	socks  []*socks.Server // one for each of ports
	dns    *dnsport.Server // nil without one
	local  net.Addr
	pipes  pipeBatch
}

// StartClient starts a client and returns at once; its local ports open when a circuit has
// carried data. What happens until then is told to o.Progress.
func StartClient(config ClientConfig, o Options) (*Client, error) {
	ports, err := config.check()
	if err != nil {
		return nil, err
	}
	restrict, err := config.Paths.restrictions()
	if err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = "client"
	}
	s, err := newShell(o, config.Network, config.Dir)
	if err != nil {
		return nil, err
	}
	c := &Client{shell: s, config: config, ports: ports}
	if err := c.start(restrict); err != nil {
		c.closePorts()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		go s.loop.Run()
		s.stop(ctx, func() {})
		return nil, fmt.Errorf("starting the client: %w", err)
	}
	return c, nil
}

func (c *Client) start(restrict *circuit.Restrictions) error {
	keyLog, err := c.openKeyLog(c.config.TLSKeyLog)
	if err != nil {
		return err
	}
	handler := &lateHandler{}
	c.links, err = link.New(link.Config{
		Loop: c.loop, AfterBatch: c.loop.AfterBatch, Network: c.network.ID, Handler: handler,
		Log: c.options.Log, KeyLog: keyLog, FreeLoopback: c.network.Limit(directory.SiteLimits) == 0,
	})
	if err != nil {
		return err
	}
	e := c.loop.Env()
	e.Dialer, e.Network = c.links, nil // a client has no way to the clear net
	c.local = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	if err := c.makePorts(); err != nil {
		return err
	}
	// Find out now that a port is taken, and not when all else is done.
	if err := c.ports.free(); err != nil {
		return err
	}
	c.node, err = node.NewClient(node.ClientConfig{
		Env: e, Network: c.network, MemoryBytes: c.config.MemoryMiB << 20, Restrict: restrict, NoSpares: c.config.NoSpares,
		OnProgress: c.onClientProgress, OnReady: func() { go c.open() }, OnConsensus: c.keepConsensus, OnCircuit: c.onCircuit, OnStream: c.onStream, Undefended: c.options.Undefended,
	})
	if err != nil {
		return err
	}
	handler.LinkHandler = c.node
	c.loop.AfterBatch(c.pipes.wake)
	c.warnings = func() []directory.Warning { return append(c.portWarnings(), c.node.Warnings()...) }
	c.outside = c.node.Outside
	c.mu.Lock()
	c.status.Role, c.status.Address = "client", c.ports.ports[0].String()
	c.mu.Unlock()
	if err := c.startControl(c.config.Dir, c.config.Control, c); err != nil {
		return err
	}
	if err := c.serveMetrics(c.config.Metrics, c.config.MetricsPublic, c.Counters); err != nil {
		return err
	}
	go c.loop.Run()
	go c.watchAddresses()
	c.loop.Post(c.node.Start)
	return nil
}

// onClientProgress keeps the last percent for the port.
func (c *Client) onClientProgress(percent int, doing, waiting string) {
	c.onProgress(min(percent, 99), doing, waiting)
}

// Dial implements socks.Dialer: one stream through the overlay.
func (c *Client) Dial(ctx context.Context, r socks.Request) (net.Conn, error) {
	request := circuit.Request{
		Address: cell.Address{IP: r.IP, Host: r.Host}, Port: r.Port,
		Flags: cell.AllowIPv4 | cell.AllowIPv6, Isolation: r.Isolation,
	}
	type outcome struct{ err error }
	p := newPipe(c.loop.Post, &c.pipes)
	answered := make(chan outcome, 1)
	var handle *circuit.Handle // owned by the loop
	posted := c.loop.Post(func() {
		handle = c.node.Open(request, p, func(_ circuit.Result, err error) { answered <- outcome{err} })
		p.up(handle)
	})
	if !posted {
		return nil, &socks.Error{Reason: cell.ReasonShutdown, Text: "the client is stopping"}
	}
	select {
	case o := <-answered:
		if o.err != nil {
			return nil, dialError(o.err)
		}
		return appConn{pipe: p, local: c.local, remote: c.local}, nil
	case <-ctx.Done():
		c.loop.Post(func() {
			handle.Cancel()
		})
		// The answer may have crossed the cancellation.
		_ = appConn{pipe: p}.Close()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, &socks.Error{Reason: cell.ReasonTimeout, Text: "timed out"}
		}
		return nil, ctx.Err()
	case <-c.loop.Done():
		return nil, &socks.Error{Reason: cell.ReasonShutdown, Text: "the client is stopping"}
	}
}

func dialError(err error) error {
	var e *circuit.Error
	if errors.As(err, &e) {
		return &socks.Error{
			Reason: e.Reason, Text: e.Error(), Scrubbed: e.Plain(), Here: e.Where == circuit.AtClient || e.Where == circuit.AtCircuit,
		}
	}
	return &socks.Error{Reason: cell.ReasonInternal, Text: err.Error()}
}

// Counters implements control.Source.
func (c *Client) Counters(ctx context.Context) (map[string]int64, error) {
	var m map[string]int64
	if err := c.loop.Do(ctx, func() { m = c.node.Counters() }); err != nil {
		return nil, err
	}
	c.processCounters(m)
	c.portCounters(m)
	return m, nil
}

// Stop closes the ports and all streams, and returns when that is done or ctx ends.
func (c *Client) Stop(ctx context.Context) {
	c.closePorts()
	c.stop(ctx, c.node.Stop)
}
