package circuit

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env/envtest"
)

func (x *testClient) guardNames() (names []string) {
	for _, g := range x.c.guards.primary {
		names = append(names, x.w.find(g.id).name)
	}
	return names
}

// restart ends the client as a crash does and starts it again with the same disk.
func (x *testClient) restart() *testClient {
	x.node.Stop()
	return x.w.newClient(nil)
}

func TestGuardsSurviveARestart(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		w := newWorld(t, seed, 12, 4)
		w.echo(server)
		x := w.newClient(nil)
		w.f.Run(time.Second)
		before := x.guardNames()
		if len(before) != primaries {
			t.Fatalf("guards %v", before)
		}
		y := x.restart()
		w.f.Run(time.Second)
		if after := y.guardNames(); !slices.Equal(before, after) {
			t.Errorf("seed %d: guards %v, after a restart %v", seed, before, after)
		}
		for _, info := range y.c.Circuits() {
			if w.find(info.Path[0]).name != before[0] {
				t.Errorf("seed %d: a circuit does not use the first guard", seed)
			}
		}
	}
}

// TestAnUnreadableSampleIsReplaced: a damaged file, one of a newer version and one of another
// network stop nobody.
func TestAnUnreadableSampleIsReplaced(t *testing.T) {
	t.Parallel()
	other, err := encodeGuards(guardFile{sample: []*guard{{id: cert.Identity{1}, sampled: envtest.Epoch}}}, cert.NetworkID{9})
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{nil, []byte("?"), other, bytes.Repeat([]byte{0xff}, 1000)} {
		w := newWorld(t, 1, 7, 3)
		w.echo(server)
		node := w.f.Client("client")
		node.Env.Store.Save(guardsBlob, data, nil)
		w.f.Run(time.Millisecond)
		x := w.newClient(nil)
		if err := x.carry(5*time.Second, []byte("hello")); err != nil {
			t.Error(err)
		}
		if got := x.guardNames(); len(got) != primaries {
			t.Errorf("guards %v", got)
		}
	}
}

// TestAGuardReturnsWhenListedAgain: while the consensus does not list the first guard the next
// is used, and afterwards the first again.
func TestAGuardReturnsWhenListedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 10, 3)
	w.echo(server)
	x := w.newClient(nil)
	w.f.Run(time.Second)
	before := x.guardNames()
	first := w.find(x.c.guards.primary[0].id)
	w.agree([]*testRelay{first})
	w.f.Run(time.Second)
	if got := x.guardNames(); got[0] != before[1] || got[1] != before[2] || len(got) != primaries {
		t.Errorf("guards %v, then %v without the first", before, got)
	}
	for _, info := range x.c.Circuits() {
		if slices.Contains(info.Path, first.node.Identity) && !info.Retired {
			t.Error("a circuit through a relay that is not listed takes streams")
		}
	}
	w.agree(nil)
	w.f.Run(time.Second)
	if got := x.guardNames(); !slices.Equal(got, before) {
		t.Errorf("guards %v, listed again %v", before, got)
	}
}

// TestTheFirstGuardIsUsedAgain: a guard that failed is tried again by itself, with growing
// pauses, and used again once it works, without any request having to wait for it.
func TestTheFirstGuardIsUsedAgain(t *testing.T) {
	t.Parallel()
	for _, vanish := range []bool{false, true} {
		w := newWorld(t, 5, 10, 3)
		w.echo(server)
		x := w.newClient(nil)
		w.f.Run(time.Second)
		g := x.c.guards.primary[0]
		first := w.find(g.id)
		if vanish {
			first.node.Vanish(true)
		} else {
			first.node.Stop()
		}
		w.f.Run(5 * time.Minute)
		if g.state != guardDown || g.failures < 3 || g.failures > 8 {
			t.Errorf("vanish %v: state %d after %d failures in 5 minutes", vanish, g.state, g.failures)
		}
		for _, other := range x.c.guards.primary[1:] {
			if other.failures != 0 {
				t.Error("another guard was blamed")
			}
		}
		if err := x.carry(time.Second, []byte("by another guard")); err != nil {
			t.Errorf("vanish %v: %v", vanish, err)
		}
		if vanish {
			first.node.Vanish(false)
		} else {
			first.start()
		}
		w.f.Run(6 * time.Minute)
		if g.state != guardUp || g.failures != 0 {
			t.Errorf("vanish %v: state %d, %d failures after it works again", vanish, g.state, g.failures)
		}
		w.f.Do(x.c.NewIdentity)
		w.f.Run(time.Second)
		for _, info := range x.c.Circuits() {
			if info.Path[0] != g.id {
				t.Errorf("vanish %v: a new circuit does not use the first guard", vanish)
			}
		}
	}
}

// TestOfflineBlamesNobody: without any network all guards fail, and all are back within
// seconds of the network.
func TestOfflineBlamesNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 6, 10, 3)
	w.echo(server)
	x := w.newClient(nil)
	w.f.Run(time.Second)
	x.node.Vanish(true)
	a := x.open(web(server, ""), []byte("early"))
	w.f.Run(20 * time.Minute)
	if reasonOf(a.err) == 0 {
		t.Error("a request without a network did not fail")
	}
	for _, g := range x.c.guards.primary {
		if g.failures > 1 {
			t.Errorf("a guard counts %d failures", g.failures)
		}
	}
	x.node.Vanish(false)
	// A dial that began before takes its time out; the next comes at most 5 seconds later.
	if err := x.carry(16*time.Second, []byte("back")); err != nil {
		t.Error(err)
	}
	w.f.Run(10 * time.Minute)
	w.f.Do(x.c.NewIdentity)
	w.f.Run(time.Second)
	for _, info := range x.c.Circuits() {
		if info.Path[0] != x.c.guards.primary[0].id {
			t.Error("the first guard is not used again")
		}
	}
	x.quiet(t)
}

// TestNothingBeyondTheFirstHopBlamesAGuard: all other relays fail, the guard stays.
func TestNothingBeyondTheFirstHopBlamesAGuard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7, 8, 3)
	x := w.newClient(nil)
	w.f.Run(time.Second)
	g := x.c.guards.primary[0]
	for _, r := range w.relays {
		if r.node.Identity != g.id {
			r.node.Stop()
		}
	}
	w.f.Run(2 * time.Minute)
	if g.state != guardUp || g.failures != 0 {
		t.Errorf("the guard is in state %d with %d failures", g.state, g.failures)
	}
	if n := x.c.Stats().Failed; n == 0 || n > 200 {
		t.Errorf("%d circuits were tried in 2 minutes", n)
	}
}

// TestAGuardThatChoosesTheOthers: when most circuits fail beyond a guard, few are built through it.
func TestAGuardThatChoosesTheOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 9, 8, 3)
	x := w.newClient(func(c *Config) { c.Limits.CleanAge = time.Second }) // so that circuits are built all the time
	w.f.Run(time.Second)
	g := x.c.guards.primary[0]
	count := func() uint64 { n := x.c.nextID; w.f.Run(time.Minute); return x.c.nextID - n }
	if n := count(); n < 60 {
		t.Fatalf("%d circuits in a minute: the test shows little", n)
	}
	for range captureSample {
		x.c.guards.onExtended(g, false)
	}
	if n := count(); n > 31 {
		t.Errorf("%d circuits in a minute", n)
	}
	if !w.f.RunUntil(10*time.Minute, func() bool { return !g.captured }) { // all of these become whole
		t.Error("the guard is not trusted again")
	}
}
