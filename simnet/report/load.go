package report

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"cepa/simnet/record"
)

// run is what is read of one folder.
type run struct {
	dir      string
	name     string // among those compared
	manifest record.Manifest
	warmup   int64 // ns

	streams  []stream
	builds   []float64 // seconds, of circuits
	unbuilt  int       // circuits that failed
	reasons  map[string]int
	relays   map[string]*relayLoad
	moments  []moment // of relays
	waiting  []moment // of links
	memories []moment
	loops    []moment
	carried  []point // Mbit/s over s
}

// stream is one that ended well.
type stream struct {
	workload    string
	wanted      int64
	first, last float64 // seconds after it was asked for; last is 0 when it had pauses
	rate        float64 // Mbit/s from the first byte to the last; 0 when too little came to tell
}

// moment is a distribution over nodes at one time.
type moment struct {
	at             float64 // seconds
	median, p95, m float64 // m is the most
}

// relayLoad adds up one relay.
type relayLoad struct {
	weight, sent, samples, spans float64
}

// rateLeast is how many bytes must have come for a rate to be told of them.
const rateLeast = 50_000

// load reads a folder that package record wrote.
func load(dir string) (*run, error) {
	m, err := record.ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	r := &run{dir: dir, manifest: m, warmup: int64(m.WarmupSeconds * 1e9), reasons: make(map[string]int), relays: make(map[string]*relayLoad)}
	for _, part := range []struct {
		name string
		read func(*rows) error
	}{{record.Streams, r.readStreams}, {record.Circuits, r.readCircuits}, {record.Relays, r.readRelays}, {record.Links, r.readLinks}} {
		if err := eachRow(filepath.Join(dir, part.name+".csv"), part.read); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *run) readStreams(rows *rows) error {
	id, err := rows.columns("opened_ns", "first_ns", "last_ns", "down_bytes", "wanted_bytes", "exchanges", "result", "reason", "workload")
	if err != nil {
		return err
	}
	for rows.next() {
		opened := rows.int(id[0])
		if opened < r.warmup {
			continue
		}
		switch rows.text(id[6]) {
		case "error":
			r.reasons[rows.text(id[7])]++
		case "lost":
			r.reasons["client: its process ended"]++
		case "ok":
			first, last, down := rows.int(id[1]), rows.int(id[2]), rows.int(id[3])
			if first == 0 {
				continue // nothing was to come back
			}
			s := stream{workload: rows.text(id[8]), wanted: rows.int(id[4]), first: float64(first-opened) / 1e9}
			if rows.int(id[5]) == 1 {
				s.last = float64(last-opened) / 1e9
				if down >= rateLeast && last > first {
					s.rate = float64(down) * 8e3 / float64(last-first)
				}
			}
			r.streams = append(r.streams, s)
		}
	}
	return nil
}

func (r *run) readCircuits(rows *rows) error {
	id, err := rows.columns("began_ns", "open_ns", "ended_ns", "cause")
	if err != nil {
		return err
	}
	for rows.next() {
		began, open := rows.int(id[0]), rows.int(id[1])
		switch {
		case began < r.warmup:
		case open > 0:
			r.builds = append(r.builds, float64(open-began)/1e9)
		case rows.int(id[2]) > 0 && rows.text(id[3]) != "closed":
			r.unbuilt++
		}
	}
	return nil
}

// readRelays reads what stands together for each time.
func (r *run) readRelays(rows *rows) error {
	id, err := rows.columns("time_ns", "relay", "role", "up", "weight", "queued_bytes", "memory_bytes", "budget_bytes", "cells_out", "loop_ns", "exit_in_bytes", "exit_out_bytes")
	if err != nil {
		return err
	}
	var queued, memory, loop []float64
	var carried float64
	at, before := int64(-1), int64(0)
	end := func() {
		if at <= before {
			return
		}
		span := float64(at-before) / 1e9
		t := float64(at) / 1e9
		for i := range loop {
			loop[i] *= 100 / span
		}
		r.moments = append(r.moments, momentOf(t, queued))
		r.memories = append(r.memories, momentOf(t, memory))
		r.loops = append(r.loops, momentOf(t, loop))
		r.carried = append(r.carried, point{t, carried * 8 / 1e6 / span})
		queued, memory, loop, carried = queued[:0], memory[:0], loop[:0], 0
		before = at
	}
	for rows.next() {
		if now := rows.int(id[0]); now != at {
			end()
			at = now
		}
		if rows.text(id[2]) != "relay" {
			continue
		}
		carried += float64(rows.int(id[10]) + rows.int(id[11]))
		if rows.text(id[3]) != "true" {
			continue
		}
		queued = append(queued, float64(rows.int(id[5]))/1024)
		memory = append(memory, 100*float64(rows.int(id[6]))/float64(max(1, rows.int(id[7]))))
		loop = append(loop, float64(rows.int(id[9]))/1e9)
		if at <= r.warmup {
			continue
		}
		name := rows.text(id[1])
		x := r.relays[name]
		if x == nil {
			x = &relayLoad{}
			r.relays[name] = x
		}
		x.weight += float64(rows.int(id[4]))
		x.sent += float64(rows.int(id[8])) * cellBytes
		x.samples++
		x.spans += float64(at-before) / 1e9
	}
	end()
	return nil
}

// cellBytes is the size of a cell.
const cellBytes = 2048

// readLinks adds up what waits below each node.
func (r *run) readLinks(rows *rows) error {
	id, err := rows.columns("time_ns", "from", "queued_bytes")
	if err != nil {
		return err
	}
	at := int64(-1)
	waits := make(map[string]float64)
	end := func() {
		if at < 0 {
			return
		}
		values := make([]float64, 0, len(waits))
		for _, v := range waits { // order: momentOf sorts
			values = append(values, v/1024)
		}
		r.waiting = append(r.waiting, momentOf(float64(at)/1e9, values))
		clear(waits)
	}
	for rows.next() {
		if now := rows.int(id[0]); now != at {
			end()
			at = now
		}
		waits[rows.text(id[1])] += float64(rows.int(id[2]))
	}
	end()
	return nil
}

func momentOf(at float64, values []float64) moment {
	if len(values) == 0 {
		return moment{at: at}
	}
	slices.Sort(values)
	return moment{at, quantile(values, 0.5), quantile(values, 0.95), values[len(values)-1]}
}

// rows reads a CSV file by the names of its columns. The first error stays.
type rows struct {
	path   string
	csv    *csv.Reader
	header []string
	record []string
	err    error
}

// eachRow opens a table for a function that reads it to its end.
func eachRow(path string, read func(*rows) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := &rows{path: path, csv: csv.NewReader(f)}
	if r.header, err = r.csv.Read(); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	r.csv.ReuseRecord = true
	if err := errors.Join(read(r), r.err); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}

// columns are where those of the names stand.
func (r *rows) columns(names ...string) ([]int, error) {
	at := make([]int, len(names))
	for i, name := range names {
		if at[i] = slices.Index(r.header, name); at[i] < 0 {
			return nil, fmt.Errorf("there is no column %s: was the table written by this version?", name)
		}
	}
	return at, nil
}

func (r *rows) next() bool {
	if r.err != nil {
		return false
	}
	if r.record, r.err = r.csv.Read(); errors.Is(r.err, io.EOF) {
		r.err = nil
		return false
	}
	return r.err == nil
}

func (r *rows) text(column int) string { return r.record[column] }

// int is a number; 0 where there is none.
func (r *rows) int(column int) int64 {
	text := r.record[column]
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil && r.err == nil {
		line, _ := r.csv.FieldPos(column)
		r.err = fmt.Errorf("line %d: %w", line, err)
	}
	return n
}
