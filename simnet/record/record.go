// Package record writes down what happens in a world of package simnet: tables of streams, circuits, relays,
// links and consensuses, as CSV and Parquet, and a manifest that says what the run was.
//
// It looks from outside and is no part of the world: the trace of a run is the same with a Recorder and without.
// The same run gives the same bytes of CSV. Rows go to disk as they come; what is kept in memory are the circuits
// that exist and one sample of each relay and link.
//
// It knows no scenario; cmd/cepa joins the two, and so may any program. It has the concurrency rule of simnet: one goroutine.
package record

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/circuit"
	"cepa/directory"
	"cepa/env"
	"cepa/flow"
	"cepa/simnet"
)

// Format says which files are written.
type Format uint8

const (
	Both Format = iota // CSV and Parquet
	CSV                // CSV alone
)

// Options say what is written, and where.
type Options struct {
	Dir string // which exists
	// Sample is the time between two rows of a relay; 0 is a second, and less than 0 is none.
	Sample time.Duration
	// Links is the time between two rows of a link; 0 is ten times that of relays, in a world of more than 1,000
	// hosts sixty times, and less than 0 is none.
	Links  time.Duration
	Format Format
}

// Recorder writes down one run. The first error stays, and Close returns it.
type Recorder struct {
	simnet.Silent // it is a checker that finds nothing

	w    *simnet.World
	n    *simnet.Network
	opts Options

	streams   *table[Stream]
	circuits  *table[Circuit]
	relays    *table[Relay]
	links     *table[Link]
	consensus *table[Consensus]
	closed    bool

	count  StreamCount
	live   map[*simnet.Client]*lives
	order  []*simnet.Client
	newest *directory.Consensus
	last   map[*simnet.Relay]*sample
	sent   []int64 // of each link, until the last sample

	lookedRelays, lookedLinks env.Mono // when they were sampled last
}

// lives are the circuits of one process of a client.
type lives struct {
	life     uint32
	circuits []*Circuit // in the order in which they began
}

// sample is what was read of a relay last.
type sample struct {
	life     uint32
	counters map[string]int64
	meter    simnet.Meter
}

// manyHosts have so many links between them that their table would be larger than all others together.
const manyHosts = 1000

// New begins to record what happens from now on in a world. The Recorder is to be closed.
func New(w *simnet.World, n *simnet.Network, opts Options) (*Recorder, error) {
	if opts.Sample == 0 {
		opts.Sample = time.Second
	}
	if opts.Links == 0 {
		opts.Links = 10 * opts.Sample
		if len(w.Hosts()) > manyHosts {
			opts.Links = 60 * opts.Sample
		}
	}
	r := &Recorder{
		w: w, n: n, opts: opts,
		live: make(map[*simnet.Client]*lives), last: make(map[*simnet.Relay]*sample),
	}
	if err := r.create(); err != nil {
		return nil, errors.Join(err, r.closeTables())
	}
	w.OnFlow(r.onFlow)
	w.OnCircuit(r.onCircuit)
	w.Watch(r)
	if opts.Sample > 0 {
		w.Sample(opts.Sample, r.sampleRelays)
	}
	if opts.Links > 0 {
		w.MeterLinks()
		w.Sample(opts.Links, r.sampleLinks)
	}
	return r, nil
}

// create makes the tables, those for which there is nothing too.
func (r *Recorder) create() (err error) {
	dir, format := r.opts.Dir, r.opts.Format
	if r.streams, err = newTable[Stream](dir, Streams, format); err != nil {
		return err
	}
	if r.circuits, err = newTable[Circuit](dir, Circuits, format); err != nil {
		return err
	}
	if r.relays, err = newTable[Relay](dir, Relays, format); err != nil {
		return err
	}
	if r.links, err = newTable[Link](dir, Links, format); err != nil {
		return err
	}
	r.consensus, err = newTable[Consensus](dir, Consensa, format)
	return err
}

// Name implements simnet.Checker.
func (r *Recorder) Name() string { return "recorder" }

// OnConsensus implements simnet.Checker.
func (r *Recorder) OnConsensus(_ *simnet.World, h *simnet.Host, c *directory.Consensus) {
	if r.closed {
		return
	}
	if r.newest == nil || c.Head.ValidAfter.After(r.newest.Head.ValidAfter) {
		r.newest = c
	}
	row := Consensus{
		Time: int64(r.w.Now()), Node: h.Name, ValidAfter: c.Head.ValidAfter.UnixMilli(), Digest: hex.EncodeToString(c.Head.Digest[:]),
		Relays: len(c.Relays), Bytes: int64(c.Head.BodyLength), Signers: len(c.Head.Signers),
	}
	if p := c.Head.Previous; !p.IsZero() {
		row.Previous = hex.EncodeToString(p[:])
	}
	r.consensus.add(&row)
}

// onFlow writes a stream that is over.
func (r *Recorder) onFlow(f *simnet.Flow) {
	if r.closed {
		return
	}
	row := Stream{
		ID: f.ID, Client: f.Client.Name, Region: f.Client.Region(), Workload: f.Spec.Workload, Server: f.Spec.Host, Port: f.Spec.Port,
		Isolation: f.Isolation, Circuit: f.Circuit, Opened: int64(f.Opened), Connected: int64(f.Connected), First: int64(f.First),
		Last: int64(f.Last), Ended: int64(f.Ended), Up: f.Up, Down: f.Down, Wanted: f.Spec.Down * int64(max(1, f.Spec.Exchanges)), Exchanges: max(1, f.Spec.Exchanges),
	}
	row.Guard, row.Middle, row.Exit = r.path(f.Path)
	switch {
	case f.Lost():
		row.Result = "lost"
		r.count.Lost++
	case f.Ended == 0 || f.Cut:
		row.Result = "open"
		r.count.Open++
	case f.Err != nil:
		row.Result, row.Reason, row.Error = "error", reason(f.Err), f.Err.Error()
		r.count.Error++
	default:
		row.Result = "ok"
		r.count.OK++
	}
	r.streams.add(&row)
}

// reason is why a stream failed, in a word or two, for counting.
func reason(err error) string {
	var c *circuit.Error
	var s *flow.StreamError
	switch {
	case errors.As(err, &c):
		return string(c.Where) + ": " + c.Reason.String()
	case errors.As(err, &s):
		return "stream: " + s.Reason.String()
	case errors.Is(err, simnet.ErrPatience):
		return "application: gave up"
	default:
		return "other: " + cell.ReasonOther.String()
	}
}

// path names the relays of one.
func (r *Recorder) path(ids []cert.Identity) (guard, middle, exit string) {
	for i, id := range ids {
		name := id.Short()
		if x := r.n.Find(id); x != nil {
			name = x.Host.Name
		}
		switch i {
		case 0:
			guard = name
		case len(ids) - 1:
			exit = name
		default:
			middle = name
		}
	}
	return guard, middle, exit
}

func (r *Recorder) onCircuit(c *simnet.Client, e circuit.Event) {
	if r.closed {
		return
	}
	l, now := r.live[c], int64(r.w.Now())
	if l == nil {
		l = &lives{life: c.Host.Life()}
		r.live[c] = l
		r.order = append(r.order, c)
	}
	r.bury(c, l)
	if e.Stage == circuit.StageBegun {
		x := &Circuit{Client: c.Host.Name, ID: e.ID, Began: now}
		x.Guard, x.Middle, x.Exit = r.path(e.Path)
		l.circuits = append(l.circuits, x)
		return
	}
	at := slices.IndexFunc(l.circuits, func(x *Circuit) bool { return x.ID == e.ID })
	if at < 0 { // it began before the recorder did
		return
	}
	x := l.circuits[at]
	x.Hops, x.Streams, x.Isolation = e.Hops, e.Streams, e.Key
	switch e.Stage {
	case circuit.StageOpen:
		x.Open = now
	case circuit.StageUsed:
		if e.Keyed && x.Used == 0 {
			x.Used = now
		}
	case circuit.StageOver:
		x.Ended, x.Cause = now, e.Cause
		if e.Cause != circuit.Causes()[0] {
			x.Error = e.Err.Error()
		}
		r.circuits.add(x)
		l.circuits = slices.Delete(l.circuits, at, at+1)
	}
}

// bury writes the circuits of a process that is no more.
func (r *Recorder) bury(c *simnet.Client, l *lives) {
	if l.life == c.Host.Life() {
		return
	}
	r.leave(l, "gone")
	l.life = c.Host.Life()
}

// leave writes the circuits of a client that have not ended.
func (r *Recorder) leave(l *lives, cause string) {
	for _, x := range l.circuits {
		x.Cause = cause
		r.circuits.add(x)
	}
	l.circuits = nil
}

// counters of a relay's node that rows have.
const (
	cellsIn      = "cells_in"
	cellsOut     = "cells_out"
	handshakes   = "relay_handshakes"
	exitBytesIn  = "relay_exit_bytes_in"
	exitBytesOut = "relay_exit_bytes_out"
)

// sampleRelays writes a row of each relay.
func (r *Recorder) sampleRelays() {
	if r.closed {
		return
	}
	for _, c := range r.order {
		r.bury(c, r.live[c])
	}
	r.lookedRelays = r.w.Now()
	for _, x := range r.n.Relays {
		before := r.last[x]
		if before == nil {
			before = &sample{}
			r.last[x] = before
		}
		h := x.Host
		meter, life, up := h.Meter(), h.Life(), h.Alive()
		row := Relay{
			Time: int64(r.w.Now()), Name: h.Name, Role: "relay", Up: up,
			BytesUp: meter.Up - before.meter.Up, BytesDown: meter.Down - before.meter.Down,
			LoopTime: int64(meter.Loop - before.meter.Loop), PoolTime: int64(meter.Pool - before.meter.Pool),
		}
		if x.Spec().DirectoryOnly {
			row.Role = "authority"
		}
		if r.newest != nil {
			if listed := r.newest.Lookup(x.Keys.Identity()); listed != nil {
				row.Weight = listed.Weight
			}
		}
		if before.life != life {
			before.counters = nil
		}
		if up {
			now := x.Node.Counters()
			since := func(name string) int64 { return now[name] - before.counters[name] }
			row.Circuits, row.Streams, row.Links = now["relay_circuits"], now["relay_exit_streams"], now["links"]
			row.Queued, row.Memory, row.Budget = now["queued_bytes"], now["budget_used_bytes"], now["budget_limit_bytes"]
			row.CellsIn, row.CellsOut, row.Handshakes = since(cellsIn), since(cellsOut), since(handshakes)
			row.ExitBytesIn, row.ExitBytesOut = since(exitBytesIn), since(exitBytesOut)
			before.counters = now
		}
		before.life, before.meter = life, meter
		r.relays.add(&row)
	}
}

// sampleLinks writes a row of each link on which something went or waits.
func (r *Recorder) sampleLinks() {
	if r.closed {
		return
	}
	r.lookedLinks = r.w.Now()
	for i, m := range r.w.LinkMeters() {
		if i == len(r.sent) {
			r.sent = append(r.sent, 0)
		}
		if bytes := m.Bytes - r.sent[i]; bytes > 0 || m.Queued > 0 {
			r.links.add(&Link{Time: int64(r.w.Now()), From: m.From.Name, To: m.To.Name, Links: m.Links, Bytes: bytes, Queued: m.Queued, Flight: m.Flight})
		}
		r.sent[i] = m.Bytes
	}
}

// Close writes what is left: a last sample, and the streams and circuits that are not over. Nothing is
// recorded afterwards.
func (r *Recorder) Close() error {
	if r.closed {
		return nil
	}
	if r.opts.Sample > 0 && r.lookedRelays < r.w.Now() {
		r.sampleRelays()
	}
	if r.opts.Links > 0 && r.lookedLinks < r.w.Now() {
		r.sampleLinks()
	}
	for _, f := range r.w.Flows() {
		if f.Ended == 0 {
			r.onFlow(f)
		}
	}
	for _, c := range r.order {
		r.bury(c, r.live[c])
		r.leave(r.live[c], "open")
	}
	r.closed = true
	return r.closeTables()
}

func (r *Recorder) closeTables() error {
	var errs []error
	if r.streams != nil {
		errs = append(errs, r.streams.close())
	}
	if r.circuits != nil {
		errs = append(errs, r.circuits.close())
	}
	if r.relays != nil {
		errs = append(errs, r.relays.close())
	}
	if r.links != nil {
		errs = append(errs, r.links.close())
	}
	if r.consensus != nil {
		errs = append(errs, r.consensus.close())
	}
	return errors.Join(errs...)
}

// Describe fills in what a manifest says of the world and of the tables. It is called after Close.
func (r *Recorder) Describe(m *Manifest) {
	w := r.w
	m.Seed, m.StreamSeeds, m.TraceHash = w.Seed(), w.StreamSeeds(), w.TraceHash()
	m.SimulatedSeconds, m.Events = time.Duration(w.Now()).Seconds(), w.Events()
	m.Relays, m.Clients, m.Streams = len(r.n.Relays), len(r.n.Clients), r.count
	m.Violations = len(w.Violations())
	if m.Violations > 0 {
		v := w.Violations()[0]
		m.FirstViolation = fmt.Sprintf("%s: %v, %s: %s", v.Checker, time.Duration(v.Time), v.Host, v.What)
	}
	m.Tables = []Table{r.streams.info(), r.circuits.info(), r.relays.info(), r.links.info(), r.consensus.info()}
}
