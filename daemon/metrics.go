package daemon

import (
	"context"
	"errors"
	"syscall"

	"cepa/metrics"
)

// metricsSource is a node as package metrics sees it.
type metricsSource struct {
	counters func(context.Context) (map[string]int64, error)
	shell    *shell
}

func (m metricsSource) Counters(ctx context.Context) (map[string]int64, error) {
	return m.counters(ctx)
}

// State implements metrics.Source.
func (m metricsSource) State() metrics.State {
	m.shell.mu.Lock()
	defer m.shell.mu.Unlock()
	s := &m.shell.status
	state := metrics.State{
		Role: s.Role, Network: s.Network, Version: s.Version, Percent: s.Percent, Doing: s.Doing, Waiting: s.Waiting,
	}
	if c := s.Consensus; c != nil {
		state.ValidAfter, state.FreshUntil, state.ValidUntil = c.ValidAfter, c.FreshUntil, c.ValidUntil
	}
	return state
}

// serveMetrics opens the port for monitoring, if the settings name one.
func (s *shell) serveMetrics(address string, public bool, counters func(context.Context) (map[string]int64, error)) error {
	if address == "" {
		return nil
	}
	server, err := metrics.Listen(address, public, metricsSource{counters, s}, s.options.Log)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		return PortFault("the port for metrics", address, "metrics", err)
	}
	if err != nil {
		return err
	}
	s.metrics = server
	return nil
}
