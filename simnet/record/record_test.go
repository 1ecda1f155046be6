package record_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"cepa/cert"
	"cepa/circuit"
	"cepa/directory"
	"cepa/simnet"
	"cepa/simnet/record"
)

// run is a short run of a small network, in which a relay and a client crash and come back.
type run struct {
	*simnet.World
	net      *simnet.Network
	flows    map[uint64]*simnet.Flow // that ended
	built    int
	attached map[uint64][]cert.Identity
	uses     []string // of consensuses
	manifest record.Manifest
}

// newRun makes one, and records it into dir unless that is empty.
func newRun(t *testing.T, seed uint64, dir string, format record.Format) *run {
	t.Helper()
	w := simnet.New(simnet.Config{Seed: seed})
	x := &run{World: w, flows: make(map[uint64]*simnet.Flow), attached: make(map[uint64][]cert.Identity)}
	cpu := simnet.CPU{Cores: 2, Event: 2 * time.Microsecond, Cell: time.Microsecond, Send: time.Microsecond / 2, Offload: 300 * time.Microsecond, Link: time.Millisecond}
	authority := w.Host(simnet.HostSpec{Name: "authority-1", CPU: cpu})
	n, err := w.Found(simnet.NetworkSpec{
		Name: "small", Test: true, Authorities: []*simnet.Host{authority}, Parameters: directory.Parameters{
			directory.IntervalMillis: 5000, directory.KeepaliveMillis: 1000, directory.MinRelays: 3,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	x.net = n
	var recorder *record.Recorder
	if dir != "" {
		if recorder, err = record.New(w, n, record.Options{Dir: dir, Format: format, Links: 2 * time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	w.OnFlow(func(f *simnet.Flow) { x.flows[f.ID] = f })
	w.OnCircuit(func(_ *simnet.Client, e circuit.Event) {
		if e.Stage == circuit.StageOpen {
			x.built++
		}
	})
	w.Watch(&witness{x: x})
	relay := func(h *simnet.Host, spec simnet.RelaySpec) {
		if _, err := n.Relay(h, spec); err != nil {
			t.Fatal(err)
		}
	}
	relay(authority, simnet.RelaySpec{DirectoryOnly: true})
	for i := range 6 {
		relay(w.Host(simnet.HostSpec{Name: fmt.Sprint("relay-", i+1), Up: 12 << 20, Down: 12 << 20, CPU: cpu}), simnet.RelaySpec{Policy: []string{"none", "all"}[i%2]})
	}
	web := w.Host(simnet.HostSpec{Name: "server-1", Up: 100 << 20, Down: 100 << 20})
	w.Server(web, 80, "web.example")
	w.Server(web, 443, "web.example")
	for i := range 2 {
		c, err := n.Client(w.Host(simnet.HostSpec{Name: fmt.Sprint("client-", i+1), Up: 1 << 20, Down: 6 << 20, CPU: cpu}), simnet.ClientSpec{})
		if err != nil {
			t.Fatal(err)
		}
		page := simnet.Web("web.example", 50_000)
		page.Think = time.Second
		c.Use(page)
		c.Use(simnet.Chat("web.example"))
		lost := simnet.Bulk("nowhere.example", 1000)
		lost.Name, lost.Think = "lost", 5*time.Second
		c.Use(lost)
	}
	w.At(14e9, n.Clients[1].Host.Crash)
	w.At(9e9, n.Relays[2].Host.Crash)
	w.At(12e9, func() {
		if err := n.Relays[2].Start(); err != nil {
			t.Error(err)
		}
	})
	w.At(18e9, n.Clients[0].Stop)
	w.Run(20*time.Second + 300*time.Millisecond)
	if recorder != nil {
		if err := recorder.Close(); err != nil {
			t.Fatal(err)
		}
		recorder.Describe(&x.manifest)
	}
	return x
}

// witness sees what a recorder sees, by another way.
type witness struct {
	simnet.Silent
	x *run
}

func (*witness) Name() string { return "witness" }

func (c *witness) OnConsensus(w *simnet.World, h *simnet.Host, s *directory.Consensus) {
	c.x.uses = append(c.x.uses, fmt.Sprint(int64(w.Now()), " ", h.Name, " ", s.Head.ValidAfter.UnixMilli()))
}

// TestRecordingChangesNothing: the trace is the same with a recorder and without, and the same run gives the
// same bytes.
func TestRecordingChangesNothing(t *testing.T) {
	t.Parallel()
	a, b := t.TempDir(), t.TempDir()
	bare, first, second := newRun(t, 1, "", record.Both), newRun(t, 1, a, record.Both), newRun(t, 1, b, record.CSV)
	if bare.TraceHash() != first.TraceHash() || bare.Events() != first.Events() {
		t.Errorf("recording changes a run: %d events, %s; without %d, %s", first.Events(), first.TraceHash(), bare.Events(), bare.TraceHash())
	}
	if first.manifest.TraceHash != bare.TraceHash() || second.manifest.TraceHash != bare.TraceHash() {
		t.Error("a manifest has another trace hash than the world")
	}
	for _, s := range record.Schemas() {
		x, y := read(t, filepath.Join(a, s.Name+".csv")), read(t, filepath.Join(b, s.Name+".csv"))
		if !bytes.Equal(x, y) {
			t.Errorf("%s differs between two recordings of one run", s.Name)
		}
	}
	if other := newRun(t, 2, t.TempDir(), record.CSV); reflect.DeepEqual(other.manifest.Tables, second.manifest.Tables) {
		t.Error("two seeds give the same tables")
	}
}

// TestTablesAgreeWithTheWorld: what the tables say is what others saw of the run.
func TestTablesAgreeWithTheWorld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	x := newRun(t, 3, dir, record.Both)
	x.checkStreams(t, rows(t, dir, record.Streams))
	x.checkCircuits(t, rows(t, dir, record.Circuits))
	x.checkRelays(t, rows(t, dir, record.Relays))
	x.checkLinks(t, rows(t, dir, record.Links))
	var uses []string
	for _, r := range rows(t, dir, record.Consensa) {
		uses = append(uses, r["time_ns"]+" "+r["node"]+" "+r["valid_after_ms"])
	}
	if !reflect.DeepEqual(uses, x.uses) || len(uses) < 8 {
		t.Errorf("consensuses in the table:\n%q\nin the run:\n%q", uses, x.uses)
	}
	for _, s := range x.manifest.Tables {
		if n := int64(len(rows(t, dir, s.Name))); n != s.Rows {
			t.Errorf("%s has %d rows, and the manifest says %d", s.Name, n, s.Rows)
		}
	}
}

func (x *run) checkStreams(t *testing.T, rows []row) {
	counts := make(map[string]int64)
	paths := 0
	for _, r := range rows {
		counts[r["result"]]++
		f := x.flows[uint64(r.int(t, "id"))]
		if ended := r["result"] == "ok" || r["result"] == "error"; ended != (f != nil && !f.Cut) {
			t.Errorf("stream %s: result %s, and the world said that it ended: %v", r["id"], r["result"], f != nil)
			continue
		}
		if f == nil || f.Cut {
			continue
		}
		if r.int(t, "opened_ns") != int64(f.Opened) || r.int(t, "first_ns") != int64(f.First) || r.int(t, "ended_ns") != int64(f.Ended) ||
			r.int(t, "down_bytes") != f.Down || r.int(t, "up_bytes") != f.Up || r["client"] != f.Client.Name || r["workload"] != f.Spec.Workload ||
			(f.Err == nil) != (r["result"] == "ok") || (f.Err == nil) != (r["reason"] == "") {
			t.Errorf("stream %d: %v, the world has %+v", f.ID, r, f)
		}
		if f.Err == nil && r.int(t, "down_bytes") != r.int(t, "wanted_bytes") {
			t.Errorf("stream %d ended well with %s of %s bytes", f.ID, r["down_bytes"], r["wanted_bytes"])
		}
		if f.Connected > 0 {
			paths++
			if len(f.Path) != 3 || x.net.Find(f.Path[0]).Host.Name != r["guard"] || x.net.Find(f.Path[2]).Host.Name != r["exit"] || r["circuit"] == "" {
				t.Errorf("stream %d: path %v, circuit %s", f.ID, f.Path, r["circuit"])
			}
		}
		if f.Spec.Workload == "lost" && r["reason"] != "destination: no such host" {
			t.Errorf("a name that does not exist: %v", r)
		}
	}
	m := x.manifest.Streams
	if (record.StreamCount{OK: counts["ok"], Error: counts["error"], Open: counts["open"], Lost: counts["lost"]}) != m {
		t.Errorf("%v in the table, %+v in the manifest", counts, m)
	}
	if m.OK < 20 || m.Error < 2 || m.Open < 1 || m.Lost < 1 || paths < 20 {
		t.Errorf("the run shows too little: %+v, %d streams with paths", m, paths)
	}
}

func (x *run) checkCircuits(t *testing.T, rows []row) {
	built, causes, asked := 0, make(map[string]int), int64(0)
	for _, r := range rows {
		causes[r["cause"]]++
		asked += r.int(t, "streams")
		if r["open_ns"] != "" {
			built++
			if r.int(t, "open_ns") <= r.int(t, "began_ns") || r["hops"] != "3" {
				t.Errorf("circuit %v", r)
			}
		}
		if r["ended_ns"] == "" != (r["cause"] == "open" || r["cause"] == "gone") {
			t.Errorf("circuit %v", r)
		}
		for _, at := range []string{"guard", "middle", "exit"} {
			if !strings.HasPrefix(r[at], "relay-") {
				t.Errorf("%s is %q", at, r[at])
			}
		}
	}
	if built != x.built || causes["gone"] == 0 || causes["closed"] == 0 {
		t.Errorf("%d circuits were built, %d in the table; they ended by %v", x.built, built, causes)
	}
	if int(asked) < len(x.flows) {
		t.Errorf("%d streams on circuits, and %d that ended", asked, len(x.flows))
	}
}

func (x *run) checkRelays(t *testing.T, rows []row) {
	sums := make(map[string]map[string]int64)
	weighted, down := 0, 0
	var last int64
	for _, r := range rows {
		s := sums[r["relay"]]
		if s == nil {
			s = make(map[string]int64)
			sums[r["relay"]] = s
		}
		for _, name := range []string{"cells_in", "cells_out", "up_bytes", "down_bytes", "loop_ns", "pool_ns", "handshakes"} {
			s[name] += r.int(t, name)
		}
		if r.int(t, "weight") > 0 {
			weighted++
		}
		if r["up"] == "false" {
			down++
			if r["relay"] != "relay-2" || r["links"] != "0" {
				t.Errorf("a relay that is down: %v", r)
			}
		}
		last = r.int(t, "time_ns")
	}
	if len(rows) != 21*7 || last != int64(x.Now()) || weighted < 60 || down < 2 || down > 4 {
		t.Errorf("%d rows, the last at %d, %d with a weight, %d of relays that are down", len(rows), last, weighted, down)
	}
	for _, r := range x.net.Relays {
		s, m := sums[r.Host.Name], r.Host.Meter()
		if s["up_bytes"] != m.Up || s["down_bytes"] != m.Down || s["loop_ns"] != int64(m.Loop) || s["pool_ns"] != int64(m.Pool) || m.Up == 0 || m.Loop == 0 {
			t.Errorf("%s: rows add up to %v, its meter says %+v", r.Host.Name, s, m)
		}
		c := r.Node.Counters()
		if r.Host.Life() == 1 && (s["cells_in"] != c["cells_in"] || s["cells_out"] != c["cells_out"] || s["handshakes"] != c["relay_handshakes"] || s["cells_in"] == 0) {
			t.Errorf("%s: rows add up to %v, its counters say %d cells in, %d out, %d handshakes", r.Host.Name, s, c["cells_in"], c["cells_out"], c["relay_handshakes"])
		}
	}
}

func (x *run) checkLinks(t *testing.T, rows []row) {
	sent := make(map[string]int64)
	for _, r := range rows {
		sent[r["from"]+" "+r["to"]] += r.int(t, "sent_bytes")
	}
	total := int64(0)
	for _, m := range x.LinkMeters() {
		if got := sent[m.From.Name+" "+m.To.Name]; got != m.Bytes {
			t.Errorf("%s to %s: %d bytes in the table, %d on the meter", m.From.Name, m.To.Name, got, m.Bytes)
		}
		total += m.Bytes
	}
	if total < 1<<20 {
		t.Errorf("only %d bytes went", total)
	}
}

// TestParquetSaysTheSame: every row and column is the same in both formats.
func TestParquetSaysTheSame(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	newRun(t, 4, dir, record.Both)
	same[record.Stream](t, dir, record.Streams)
	same[record.Circuit](t, dir, record.Circuits)
	same[record.Relay](t, dir, record.Relays)
	same[record.Link](t, dir, record.Links)
	same[record.Consensus](t, dir, record.Consensa)
}

func same[T any](t *testing.T, dir, name string) {
	t.Helper()
	list, err := parquet.ReadFile[T](filepath.Join(dir, name+".parquet"))
	if err != nil {
		t.Fatal(err)
	}
	want := rows(t, dir, name)
	if len(list) != len(want) || len(list) == 0 {
		t.Fatalf("%s: %d rows in Parquet, %d in CSV", name, len(list), len(want))
	}
	for i, x := range list {
		v := reflect.ValueOf(x)
		for k := range v.NumField() {
			column, _, _ := strings.Cut(v.Type().Field(k).Tag.Get("parquet"), ",")
			got, csv := fmt.Sprint(v.Field(k).Interface()), want[i][column]
			if got != csv && !(csv == "" && v.Field(k).IsZero()) {
				t.Fatalf("%s, row %d: %s is %q in Parquet and %q in CSV", name, i, column, got, csv)
			}
		}
	}
}

// row is one of a CSV file, by the names of its columns.
type row map[string]string

func (r row) int(t *testing.T, column string) int64 {
	t.Helper()
	text, ok := r[column]
	if !ok {
		t.Fatalf("there is no column %s", column)
	}
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func rows(t *testing.T, dir, name string) []row {
	t.Helper()
	records, err := csv.NewReader(bytes.NewReader(read(t, filepath.Join(dir, name+".csv")))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	list := make([]row, len(records)-1)
	for i := range list {
		list[i] = make(row)
		for k, column := range records[0] {
			list[i][column] = records[i+1][k]
		}
	}
	return list
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
