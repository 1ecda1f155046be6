package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"cepa/cell"
	"cepa/circuit"
	"cepa/directory"
	"cepa/dnsport"
	"cepa/socks"
)

// makePorts makes the servers of the local ports, which listen to nothing yet. Each has one of its own: its streams then
// share no circuit with those of another.
func (c *Client) makePorts() error {
	for _, p := range c.ports.ports {
		rules := p.rules
		rules.Dialer, rules.Resolver, rules.Log = c, c, c.options.Log
		s, err := socks.New(rules)
		if err != nil {
			return err
		}
		c.socks = append(c.socks, s)
	}
	if c.ports.dns.IsValid() {
		var err error
		c.dns, err = dnsport.New(dnsport.Config{Resolver: c, Log: c.options.Log})
		return err
	}
	return nil
}

// portAgain is the pause between attempts to open a port that is taken.
const portAgain = time.Second

// open opens the local ports: a circuit has carried data. The first one comes last, since who finds it open takes the
// client for ready.
func (c *Client) open() {
	if c.options.Go != nil {
		select {
		case <-c.options.Go:
		case <-c.loop.Done():
			return
		}
	}
	var others []string
	if c.dns != nil {
		if !c.openAgain("the DNS port", c.ports.dns.String(), func() error { return c.dns.Listen(c.ports.dns) }) {
			return
		}
		others = append(others, "DNS on "+c.dns.Addr().String())
	}
	for i := len(c.socks) - 1; i >= 0; i-- {
		var ln net.Listener
		opened := c.openAgain("the local port", c.ports.ports[i].String(), func() (err error) {
			ln, err = c.ports.ports[i].listen()
			return err
		})
		if !opened {
			return
		}
		bound := ln.Addr().String() // the settings may have left the port open
		if c.ports.ports[i].unix != "" {
			bound = unixPrefix + bound
		}
		if i > 0 {
			others = append(others, "SOCKS5 on "+bound)
		} else {
			c.mu.Lock()
			c.status.Address = bound
			c.mu.Unlock()
		}
		go func() { _ = c.socks[i].Serve(ln) }() // ends with socks.Close
		if i == 0 {
			text := "ready: SOCKS5 on " + bound
			if len(others) > 0 {
				text += "; " + strings.Join(others, ", ")
			}
			c.onProgress(100, text, "")
		}
	}
}

// openAgain tries until a port is open, as long as the client runs.
func (c *Client) openAgain(what, address string, listen func() error) bool {
	for {
		err := listen()
		if err == nil {
			return true
		}
		// Somebody has taken it since the start.
		c.onProgress(99, fmt.Sprintf("cannot open %s: %v", what, err), what+" "+address)
		select {
		case <-time.After(portAgain):
		case <-c.loop.Done():
			return false
		}
	}
}

// closePorts closes all ports and what came through them, at once.
func (c *Client) closePorts() {
	var all sync.WaitGroup
	for _, s := range c.socks {
		all.Go(func() { _ = s.Close() })
	}
	if c.dns != nil {
		all.Go(func() { _ = c.dns.Close() })
	}
	all.Wait()
}

// portWarnings say that others can use the client.
func (c *Client) portWarnings() (list []directory.Warning) {
	for _, address := range c.ports.remote() {
		list = append(list, directory.Warning{Code: directory.WarnOpenPort, Text: "the port " + address + " is open beyond loopback: whoever reaches it can use the network through this client, " +
			"and what goes to it is not encrypted; unless that is meant, remove allow_remote"})
	}
	return list
}

// counterName makes a part of a counter's name of words.
var counterName = strings.NewReplacer(" ", "_", "-", "_", "/", "_")

// portCounters adds those of the ports, all together.
func (c *Client) portCounters(m map[string]int64) {
	var t socks.Stats
	for _, server := range c.socks {
		s := server.Stats()
		for cause, n := range s.Refused { // any order: the sum is the same
			m["socks_refused_"+counterName.Replace(strings.ToLower(cause))] += int64(n)
		}
		t.Open += s.Open
		t.Accepted += s.Accepted
		t.Connected += s.Connected
		t.Served += s.Served
		t.Aborted += s.Aborted
		t.Sent += s.Sent
		t.Received += s.Received
	}
	m["socks_open"] = int64(t.Open)
	m["socks_accepted"] = int64(t.Accepted)
	m["socks_connected"] = int64(t.Connected)
	m["socks_served"] = int64(t.Served)
	m["socks_aborted"] = int64(t.Aborted)
	m["socks_bytes_sent"] = int64(t.Sent)
	m["socks_bytes_received"] = int64(t.Received)
	if c.dns != nil {
		s := c.dns.Stats()
		m["dns_queries"] = int64(s.Queries)
		m["dns_answered"] = int64(s.Answered)
		m["dns_failed"] = int64(s.Failed)
		m["dns_dropped"] = int64(s.Dropped)
	}
}

// Resolve implements socks.Resolver and dnsport.Resolver: one look-up through the overlay.
func (c *Client) Resolve(ctx context.Context, r socks.Request) ([]cell.Address, time.Duration, error) {
	request := circuit.ResolveRequest{
		Address: cell.Address{IP: r.IP, Host: r.Host}, Flags: cell.AllowIPv4 | cell.AllowIPv6, Isolation: r.Isolation,
	}
	type outcome struct {
		answers []cell.Address
		ttl     time.Duration
		err     error
	}
	answered := make(chan outcome, 1)
	var handle *circuit.Handle // owned by the loop
	stopping := &socks.Error{Reason: cell.ReasonShutdown, Here: true, Scrubbed: "the client is stopping"}
	posted := c.loop.Post(func() {
		handle = c.node.Resolve(request, func(answers []cell.Address, ttl time.Duration, err error) {
			answered <- outcome{answers, ttl, err}
		})
	})
	if !posted {
		return nil, 0, stopping
	}
	select {
	case o := <-answered:
		if o.err != nil {
			return nil, 0, dialError(o.err)
		}
		return o.answers, o.ttl, nil
	case <-ctx.Done():
		c.loop.Post(func() { handle.Cancel() })
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, 0, &socks.Error{Reason: cell.ReasonTimeout, Scrubbed: "the look-up timed out"}
		}
		return nil, 0, ctx.Err()
	case <-c.loop.Done():
		return nil, 0, stopping
	}
}
