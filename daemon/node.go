package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"cepa/control"
	"cepa/directory"
	"cepa/internal/procs"
	"cepa/link"
	"cepa/loop"
	"cepa/metrics"
)

// errStopped says that the node is stopping or has stopped.
var errStopped = errors.New("the node has stopped")

// Options are what the caller of StartRelay and StartClient adds to the settings.
type Options struct {
	Name    string // for logs and the control socket; the settings' nickname otherwise
	Version string
	Log     *slog.Logger
	Level   *slog.LevelVar // of Log, for Reload; it may be nil
	// Progress hears how far the node has come; it may be nil. It is called from the node's
	// loop and must not wait.
	Progress func(percent int, doing, waiting string)
	// Starting, if not nil, ends an attempt to start that takes long.
	Starting context.Context
	// Undefended switches defences off, for the attack suite only: nothing of the program sets it.
	Undefended directory.Undefended
	// Go, if not nil, is closed when users may come: a client opens its port after it.
	Go <-chan struct{}
}

// starting is until when a start may take.
func (o *Options) starting() context.Context {
	if o.Starting == nil {
		return context.Background()
	}
	return o.Starting
}

// shell is what relay and client have in common: a loop with its state on disk, links, and a
// control socket.
type shell struct {
	options  Options
	network  *directory.Network
	loop     *loop.Loop
	links    *link.Transport
	control  *control.Server
	observer *observer
	metrics  *metrics.Server // nil unless the settings ask for it
	keyLog   io.Closer
	started  time.Time

	mu     sync.Mutex
	status control.Status

	// warnings are asked for on the loop; it may be nil.
	warnings func() []directory.Warning
	notices  []control.Notice // the warnings that were heard last, under mu
	// outside is where others see this node; it is asked on the loop, and may be nil.
	outside func() []netip.Addr

	stopOnce sync.Once
}

// newShell opens the state directory and starts nothing yet.
func newShell(o Options, networkPath, dir string) (*shell, error) {
	return newShellWith(o, networkPath, loop.Options{StateDir: dir})
}

// newShellWith is newShell with settings of the loop.
func newShellWith(o Options, networkPath string, settings loop.Options) (*shell, error) {
	network, err := LoadNetwork(networkPath)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	seen := newObserver()
	if o.Log.Enabled(context.Background(), slog.LevelError) {
		o.Log = watchLog(o.Log, &seen.hub)
	}
	settings.Log = o.Log
	l, err := loop.New(settings)
	if err != nil {
		return nil, err
	}
	s := &shell{options: o, network: network, loop: l, observer: seen, started: time.Now()}
	s.status = control.Status{Name: o.Name, Version: o.Version, Network: network.Name, Echo: network.Echo, Pid: os.Getpid(), Doing: "starting"}
	return s, nil
}

// openKeyLog is for packet captures of test networks: with it, whoever reads the file reads
// the links.
func (s *shell) openKeyLog(path string) (io.Writer, error) {
	if path == "" {
		return nil, nil
	}
	if !s.network.Test {
		return nil, errors.New("tls_keylog would lay open the traffic of others: it is for test networks only")
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the TLS key log: %w", err)
	}
	s.options.Log.Warn("the secrets of all links go to a file", "path", path)
	s.keyLog = f
	return f, nil
}

// onProgress hears from the node's loop how far it is.
func (s *shell) onProgress(percent int, doing, waiting string) {
	s.mu.Lock()
	changed := s.status.Percent != percent || s.status.Doing != doing || s.status.Waiting != waiting
	s.status.Percent, s.status.Doing, s.status.Waiting = percent, doing, waiting
	s.mu.Unlock()
	if changed {
		s.statusChanged()
	}
	if changed && s.options.Progress != nil {
		s.options.Progress(percent, doing, waiting)
	}
}

// warningTime is how long a status waits for a busy loop to say its warnings.
const warningTime = time.Second

// Status implements control.Source.
func (s *shell) Status(ctx context.Context) (control.Status, error) {
	var warnings []directory.Warning
	var outside []netip.Addr
	heardAll := false
	if s.warnings != nil {
		ctx, cancel := context.WithTimeout(ctx, warningTime)
		defer cancel()
		heard := make(chan func(), 1)
		if s.loop.Do(ctx, func() {
			w, o := s.warnings(), []netip.Addr(nil)
			if s.outside != nil {
				o = s.outside()
			}
			heard <- func() { warnings, outside = w, o }
		}) == nil {
			(<-heard)()
			heardAll = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.status
	status.Uptime = int64(time.Since(s.started).Seconds())
	if heardAll {
		s.notices = nil
		for _, w := range warnings {
			s.notices = append(s.notices, control.Notice(w))
		}
	}
	status.Notices = append(slices.Clone(status.Notices), s.notices...)
	for _, n := range status.Notices {
		status.Warnings = append(status.Warnings, n.Text)
	}
	for _, a := range outside {
		status.Outside = append(status.Outside, a.String())
	}
	status.Problems = control.Advise(status, time.Now())
	return status, nil
}

// keepConsensus notes what the status says of the consensus in use.
func (s *shell) keepConsensus(c *directory.Consensus) {
	h := c.Head
	s.observer.observeConsensus(c)
	defer s.statusChanged()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Consensus = &control.Consensus{
		ValidAfter: h.ValidAfter.UTC(), FreshUntil: h.FreshUntil.UTC(), ValidUntil: h.ValidUntil.UTC(),
		Digest: h.Digest.String(), Relays: len(c.Relays), Signatures: len(h.Signers),
	}
}

// processCounters are those of the shell itself.
func (s *shell) processCounters(into map[string]int64) {
	l := s.loop.Stats()
	into["goroutines"] = int64(l.Goroutines)
	into["loop_events"] = int64(l.Events)
	into["loop_queued"] = int64(l.Queued)
	into["loop_timers"] = int64(l.Timers)
	into["loop_longest_event_us"] = l.LongestEvent.Microseconds()
	into["conns"] = int64(l.Conns)
	into["dials"] = int64(l.Dials)
	into["lookups"] = int64(l.Lookups)
	t := s.links.Stats()
	into["transport_links"] = int64(t.Links)
	into["transport_half_open"] = int64(t.HalfOpen)
	into["transport_accepted"] = int64(t.Accepted)
	into["transport_evicted"] = int64(t.Evicted)
	into["transport_refused"] = int64(t.Refused)
	into["transport_too_fast"] = int64(t.TooFast)
	into["transport_inbound_failed"] = int64(t.InboundFailed)
	into["transport_dialled"] = int64(t.Dialled)
	into["transport_dial_failed"] = int64(t.DialFailed)
	into["transport_bytes_read"] = int64(t.BytesRead)
	into["transport_bytes_written"] = int64(t.BytesWritten)
	if n, ok := openFiles(); ok {
		into["open_files"] = int64(n)
	}
	if n, ok := fileLimit(); ok {
		into["open_files_limit"] = int64(n)
	}
	if used, ok := procs.Used(); ok {
		into["cpu_ms"] = used.Milliseconds()
	}
	into["processors"] = int64(procs.All())
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	into["heap_bytes"] = int64(m.HeapAlloc)
}

// stop ends everything in order: no new work, last words on the links, then the loop. bye
// runs on the loop.
func (s *shell) stop(ctx context.Context, bye func()) {
	s.stopOnce.Do(func() {
		if s.control != nil {
			_ = s.control.Close()
		}
		if s.metrics != nil {
			_ = s.metrics.Close()
		}
		_ = s.loop.Do(ctx, bye)
		if s.links != nil {
			s.links.Close()
		}
		s.loop.Stop()
		select {
		case <-s.loop.Done():
		case <-ctx.Done():
		}
		if s.keyLog != nil {
			_ = s.keyLog.Close()
		}
	})
}

// Done is closed when the node has stopped.
func (s *shell) Done() <-chan struct{} { return s.loop.Done() }

// CheckPolicy says what is wrong with the text of an exit policy.
func CheckPolicy(text string) error {
	_, err := parsePolicy(text)
	return err
}

// firstUsable is the address to dial from: where a relay listens, if that is one address, so
// that a relay of a demo comes from its own /16.
func dialFrom(listen netip.AddrPort, test bool) netip.Addr {
	if test && listen.Addr().IsLoopback() {
		return listen.Addr()
	}
	return netip.Addr{}
}
