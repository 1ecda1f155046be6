package circuit

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env/envtest"
)

// transferred is the outcome of one transfer.
type transferred struct {
	dones int
	got   Transferred
	err   error
}

func (x *testClient) transfers() *Transfers {
	return NewTransfers(DirectoryConfig{Env: x.node.Env, Links: x.links, NetworkID: x.w.id, Budget: x.budget, FlowStats: &x.stats})
}

func (w *world) transfer(ts *Transfers, what Transfer) *transferred {
	o := &transferred{}
	w.f.Do(func() {
		inside := true
		ts.Run(what, func(got Transferred, err error) {
			if inside {
				w.t.Error("done was called inside Run")
			}
			o.dones++
			o.got, o.err = got, err
		})
		inside = false
	})
	w.f.RunUntil(time.Minute, func() bool { return o.dones > 0 })
	return o
}

// path are relays of the consensus, by their place in the world.
func (w *world) path(places ...int) (path []directory.Relay) {
	for _, i := range places {
		path = append(path, *w.consensus.Lookup(w.relays[i].node.Identity))
	}
	return path
}

func (w *world) offer(at, bytes int) {
	w.relays[at].answer = func([]byte) []byte { return directory.AppendAnswer(nil, directory.StatusOK, make([]byte, bytes)) }
}

// TestTransferSeesTheSlowestRelay: the rate is that of the narrowest part of the path, with one stream and with
// several, and whether the bytes or the time ran out first.
func TestTransferSeesTheSlowestRelay(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		bytes, streams int
		most           time.Duration
		ended          bool // all bytes came
	}{
		{"all of it", 2 << 20, 1, time.Minute, true},
		{"several streams", 512 << 10, 4, time.Minute, true},
		{"what comes in time", 4 << 20, 8, 2 * time.Second, false},
	} {
		w := newWorld(t, 1, 4, 1)
		x := w.newClient(func(c *Config) { c.Limits.Spares = 0 })
		w.offer(2, tt.bytes)
		w.relays[1].node.Uplink = func(*envtest.Node) int { return 1 << 20 }
		what := Transfer{Path: w.path(0, 1, 2), Bytes: tt.bytes, Most: tt.most, Least: 100 * time.Millisecond}
		for i := range tt.streams {
			what.Requests = append(what.Requests, []byte{byte(i)})
		}
		ts := x.transfers()
		o := w.transfer(ts, what)
		if o.err != nil || o.dones != 1 {
			t.Fatalf("%s: %v", tt.name, o.err)
		}
		// A cell carries 2022 of 2048 bytes at most.
		if o.got.Rate < 1<<20*90/100 || o.got.Rate > 1<<20 {
			t.Errorf("%s: %d bytes a second, want nearly a MiB", tt.name, o.got.Rate)
		}
		if whole := o.got.Bytes == tt.bytes*tt.streams; whole != tt.ended || o.got.Took > tt.most {
			t.Errorf("%s: %d bytes in %v", tt.name, o.got.Bytes, o.got.Took)
		}
		w.f.Run(time.Minute)
		if len(ts.live) != 0 || w.relays[2].relay.Stats().Circuits != 0 {
			t.Errorf("%s: something is left", tt.name)
		}
		if err := x.links.Check(); err != nil {
			t.Error(err)
		}
	}
}

// TestTransferSaturates: what is faster than a measurement can tell has the rate that it can.
func TestTransferSaturates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 4, 1)
	x := w.newClient(func(c *Config) { c.Limits.Spares = 0 })
	w.offer(2, 128<<10)
	what := Transfer{Path: w.path(0, 1, 2), Bytes: 128 << 10, Requests: [][]byte{{1}}, Most: time.Second, Least: 100 * time.Millisecond}
	if o := w.transfer(x.transfers(), what); o.err != nil || o.got.Rate != 1280<<10 || o.got.Bytes != 128<<10 {
		t.Errorf("%+v, %v", o.got, o.err)
	}
}

// TestTransferFails: every way in which a path or its last relay can fail ends the transfer, once, with its own error.
func TestTransferFails(t *testing.T) {
	t.Parallel()
	ok := directory.AppendAnswer(nil, directory.StatusOK, make([]byte, 1000))
	for _, tt := range []struct {
		name  string
		spoil func(w *world, what *Transfer)
		want  error
	}{
		{"refused", func(w *world, _ *Transfer) {
			w.relays[2].answer = func([]byte) []byte { return directory.AppendAnswer(nil, directory.StatusBusy, nil) }
		}, ErrTransferRefused},
		{"another length", func(w *world, _ *Transfer) { w.offer(2, 999) }, ErrTransferRefused},
		{"too little", func(w *world, _ *Transfer) { w.relays[2].answer = func([]byte) []byte { return ok[:900] } }, ErrTransferBroken},
		{"too much", func(w *world, _ *Transfer) {
			w.relays[2].answer = func([]byte) []byte { return append(bytes.Clone(ok), make([]byte, 5000)...) }
		}, ErrTransferBroken},
		{"half a head", func(w *world, _ *Transfer) { w.relays[2].answer = func([]byte) []byte { return ok[:3] } }, ErrTransferBroken},
		{"nothing", func(w *world, _ *Transfer) { w.relays[2].answer = func([]byte) []byte { return nil } }, ErrTransferBroken},
		{"no path", func(_ *world, what *Transfer) { what.Path = nil }, ErrTransferPath},
		{"no request", func(_ *world, what *Transfer) { what.Requests = nil }, ErrTransferPath},
		{"a relay that is gone", func(w *world, _ *Transfer) { w.relays[0].node.Stop() }, nil},
		{"a middle that is silent", func(w *world, _ *Transfer) { w.relays[1].node.Vanish(true) }, nil},
		{"another onion key", func(_ *world, what *Transfer) { what.Path[1].OnionKey[7] ^= 1 }, nil},
	} {
		w := newWorld(t, 3, 4, 1)
		x := w.newClient(func(c *Config) { c.Limits.Spares = 0 })
		w.offer(2, 1000)
		ts := x.transfers()
		what := Transfer{Path: w.path(0, 1, 2), Bytes: 1000, Requests: [][]byte{{1}}, Most: time.Second, Least: time.Millisecond}
		tt.spoil(w, &what)
		o := w.transfer(ts, what)
		if o.dones != 1 || o.err == nil || tt.want != nil && !errors.Is(o.err, tt.want) {
			t.Errorf("%s: called %d times, %v, want %v", tt.name, o.dones, o.err, tt.want)
		}
		w.f.Run(2 * time.Minute)
		if o.dones != 1 || len(ts.live) != 0 {
			t.Errorf("%s: afterwards called %d times, %d live", tt.name, o.dones, len(ts.live))
		}
		if err := x.links.Check(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestTransfersClose: the end of the node ends what is under way, and nothing begins afterwards.
func TestTransfersClose(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 4, 1)
	x := w.newClient(func(c *Config) { c.Limits.Spares = 0 })
	ts := x.transfers()
	what := Transfer{Path: w.path(0, 1, 2), Bytes: 1000, Requests: [][]byte{{1}}, Most: time.Second, Least: time.Millisecond}
	var errs []error
	note := func(_ Transferred, err error) { errs = append(errs, err) }
	w.f.Do(func() { ts.Run(what, note) })
	w.f.Do(ts.Close)
	w.f.Do(func() { ts.Run(what, note) })
	w.f.Run(time.Minute)
	if len(errs) != 2 || !errors.Is(errs[0], ErrTransferClosed) || !errors.Is(errs[1], ErrTransferClosed) {
		t.Errorf("%v", errs)
	}
}

func TestTogetherIsTheRuleOfClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5, 3, 1)
	p := w.path(0, 1, 2)
	if !Together(&p[0], &p[1], true) || Together(&p[0], &p[0], false) || !MayMeasure(&p[0]) {
		t.Error("relays of the world do not go together, or one with itself")
	}
	p[0].Families, p[1].Families = []cert.FamilyID{{1}}, []cert.FamilyID{{1}}
	if Together(&p[0], &p[1], false) {
		t.Error("two of one family")
	}
	p[2].Addresses = p[0].Addresses
	if Together(&p[0], &p[2], true) || !Together(&p[0], &p[2], false) {
		t.Error("two of one /16")
	}
	p[2].Flags &^= directory.FlagRunning
	if MayMeasure(&p[2]) {
		t.Error("one that does not run")
	}
}
