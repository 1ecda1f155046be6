package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env"
)

func TestRingLearnsOfAllAndOfUpdates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10, nil)
		defer w.close()
		for i, n := range w.nodes {
			n.announce(n.rumour(t, byte(i), time.Now(), directory.DescriptorLifetime))
		}
		w.ring()
		t.Logf("all know all after %v", w.everybodyKnows(10*time.Second, w.ids()))

		time.Sleep(time.Minute)
		author := w.nodes[3]
		update := author.rumour(t, 200, time.Now(), directory.DescriptorLifetime)
		author.announce(update)
		t.Logf("the update reached all after %v", within(t, 10*time.Second, "the update reaches all", func() bool {
			return !slices.ContainsFunc(w.nodes, func(n *node) bool { return n != author && !bytes.Equal(n.last(author.id), update) })
		}))
		for _, n := range w.nodes {
			if blamed := n.blames(); len(blamed) > 0 {
				t.Errorf("honest relays were blamed: %v", blamed)
			}
			for reason := range n.g.Stats().Dropped {
				if reason <= DropIncarnation || reason == DropInvalid || reason == DropOwnName {
					t.Errorf("honest relays sent what is dropped as %q", reason)
				}
			}
		}
	})
}

// TestAnnouncingAfterTheLinks protects the case in which neither side had anything to say when the link came up.
func TestAnnouncingAfterTheLinks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, nil)
		defer w.close()
		w.ring()
		for i, n := range w.nodes {
			n.announce(n.rumour(t, byte(i), time.Now(), directory.DescriptorLifetime))
		}
		w.everybodyKnows(10*time.Second, w.ids())
	})
}

func TestLatecomerLearnsFromItsOnlyNeighbour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6, nil)
		defer w.close()
		for i, n := range w.nodes {
			n.announce(n.rumour(t, byte(i), time.Now(), directory.DescriptorLifetime))
		}
		w.ring()
		w.everybodyKnows(10*time.Second, w.ids())
		time.Sleep(time.Hour / 2)
		late := w.add(6, nil)
		late.announce(late.rumour(t, 6, time.Now(), directory.DescriptorLifetime))
		w.link(late, w.nodes[0])
		w.everybodyKnows(10*time.Second, w.ids())
	})
}

// TestRelayWithOneAddressGetsNeighbours is the hub of a new network: everybody knows one relay only.
func TestRelayWithOneAddressGetsNeighbours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const relays, wanted = 20, 6
		w := newWorld(t, 0, nil)
		dial := func(c *Config) {
			self := c.Identity
			c.Dial = func(to env.Target) {
				w.mu.Lock()
				a, b := w.byIDLocked(self), w.byIDLocked(to.Identity)
				linked := w.links[[2]cert.Identity{self, to.Identity}]
				w.links[[2]cert.Identity{self, to.Identity}], w.links[[2]cert.Identity{to.Identity, self}] = true, true
				w.mu.Unlock()
				if len(to.Addresses) != 1 || b == nil {
					t.Errorf("asked to dial %v", to)
				} else if !linked { // this is a's loop
					b.loop.post(func() { b.g.LinkUp(a.id, netip.Addr{}) })
					a.loop.post(func() { a.g.LinkUp(b.id, netip.Addr{}) })
				}
			}
		}
		for i := range relays {
			w.add(i, dial)
		}
		defer w.close()
		for i, n := range w.nodes {
			n.announce(n.rumour(t, byte(i), time.Now(), directory.DescriptorLifetime))
		}
		for _, n := range w.nodes[1:] {
			w.link(n, w.nodes[0])
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		var known int
		for i, n := range w.nodes {
			s := n.g.Stats()
			if s.Neighbours < wanted || s.Dials > wanted+10 {
				t.Errorf("relay %d: %d neighbours after %d dials", i, s.Neighbours, s.Dials)
			}
			known += len(n.g.Members())
		}
		// An epidemic is a matter of chance; the agent's reconciliation finds what it missed.
		if known < relays*(relays-1)*9/10 {
			t.Errorf("relays know %d others in all, of %d", known, relays*(relays-1))
		}
	})
}

func TestWhatIsDeclinedIsNotPassedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil) // a line: 0 - 1 - 2
		defer w.close()
		w.nodes[1].loop.do(func() { w.nodes[1].decline[w.nodes[0].id] = true })
		for i, n := range w.nodes {
			n.announce(n.rumour(t, byte(i), time.Now(), directory.DescriptorLifetime))
		}
		w.link(w.nodes[0], w.nodes[1])
		w.link(w.nodes[1], w.nodes[2])
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.nodes[2].last(w.nodes[0].id) != nil {
			t.Error("a declined rumour was passed on")
		}
		if !w.nodes[0].knows([]cert.Identity{w.nodes[1].id, w.nodes[2].id}) {
			t.Error("declining one relay's rumour kept the others' from it")
		}
		if w.nodes[1].g.Stats().Dropped[DropDeclined] == 0 {
			t.Error("not counted")
		}
	})
}

func TestExpiredAndForgottenRelaysLeaveAndMayReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, nil)
		defer w.close()
		w.ring()
		short, long := w.nodes[0], w.nodes[1]
		short.announce(short.rumour(t, 0, time.Now(), time.Minute))
		long.announce(long.rumour(t, 1, time.Now(), directory.DescriptorLifetime))
		w.nodes[2].announce(w.nodes[2].rumour(t, 2, time.Now(), directory.DescriptorLifetime))
		w.everybodyKnows(10*time.Second, w.ids())

		time.Sleep(time.Minute + 20*time.Second)
		synctest.Wait()
		if !w.nodes[2].knows([]cert.Identity{long.id}) {
			t.Errorf("an expired relay is still a member: %v", w.nodes[2].g.Members())
		}
		for _, n := range w.nodes {
			n.loop.do(func() { n.g.Forget(long.id) })
		}
		synctest.Wait()
		if !w.nodes[2].knows(nil) {
			t.Error("a forgotten relay is still a member")
		}
		time.Sleep(time.Minute)
		if n := w.nodes[0].g.Stats().Dropped; n[DropDead] > 0 {
			t.Error("a death left the relay that injected it")
		}
		short.announce(short.rumour(t, 3, time.Now(), directory.DescriptorLifetime))
		long.announce(long.rumour(t, 4, time.Now(), directory.DescriptorLifetime))
		w.everybodyKnows(10*time.Second, w.ids())
	})
}

func TestFarewellIsBelievedAndNotUndone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, nil)
		defer w.close()
		w.ring()
		published := time.Now()
		leaver, watcher := w.nodes[0], w.nodes[2]
		staying := leaver.rumour(t, 0, published, directory.DescriptorLifetime)
		leaver.announce(staying)
		for i, n := range w.nodes[1:] {
			n.announce(n.rumour(t, byte(i+1), time.Now(), directory.DescriptorLifetime))
		}
		w.everybodyKnows(10*time.Second, w.ids())
		time.Sleep(time.Hour)
		leaving := leaver.rumour(t, 0, published, time.Since(published)+10*time.Minute)
		leaver.announce(leaving)
		within(t, 10*time.Second, "all have heard the farewell", func() bool {
			return !slices.ContainsFunc(w.nodes[1:], func(n *node) bool { return !bytes.Equal(n.last(leaver.id), leaving) })
		})
		leaver.g.Close()
		rest := w.ids()[1:]
		again := func(when string) {
			watcher.receive(w.nodes[1].id, leaver.alive(staying))
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if !bytes.Equal(watcher.last(leaver.id), leaving) {
				t.Errorf("%s: the rumour before the farewell was believed again", when)
			}
		}
		again("before its end")
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if !watcher.knows(rest) {
			t.Error("a relay that has left is a member")
		}
		again("after its end")
		if !watcher.knows(rest) {
			t.Error("a relay that has left is a member again")
		}
		back := leaver.rumour(t, 9, time.Now(), directory.DescriptorLifetime)
		watcher.receive(w.nodes[1].id, leaver.alive(back))
		within(t, 10*time.Second, "the relay is back", func() bool {
			return watcher.knows(w.ids()) && bytes.Equal(watcher.last(leaver.id), back)
		})
		watcher.g.mu.Lock()
		defer watcher.g.mu.Unlock()
		if len(watcher.g.departed) > 0 {
			t.Error("a relay that is back counts as departed")
		}
		watcher.g.forgetLocked(leaver.id, &entry{rumour: directory.Rumour{Published: published, Expires: time.Now()}})
		end := published.Add(directory.DescriptorLifetime)
		for _, after := range []struct {
			at   time.Time
			left int
		}{{end.Add(-time.Millisecond), 1}, {end, 0}} {
			if watcher.g.expireLocked(after.at); len(watcher.g.departed) != after.left {
				t.Errorf("%v: %d farewells remembered, want %d", after.at, len(watcher.g.departed), after.left)
			}
		}
	})
}

// TestMemberlistIsRenewedOnceItRemembersManyDead protects against growth without bound: memberlist never forgets.
func TestMemberlistIsRenewedOnceItRemembersManyDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(c *Config) { c.Limits.Members = 40 })
		defer w.close()
		n, gone, friend := w.nodes[0], []*author{}, newAuthor(t, w.network, 1000)
		n.announce(n.rumour(t, 0, time.Now(), directory.DescriptorLifetime))
		n.befriend(friend.id)
		n.loop.do(func() { n.g.OnConsensus(func(id cert.Identity) bool { return id == friend.id }) })
		n.receive(friend.id, friend.alive(friend.rumour(t, 0, time.Now(), 24*time.Hour)))
		end := time.Now().Add(30 * time.Minute)
		for i := range 60 {
			a := newAuthor(t, w.network, i+1)
			gone = append(gone, a)
			n.receive(friend.id, a.alive(a.rumour(t, 0, time.Now(), time.Until(end))))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if s := n.g.Stats(); s.Members != 40 || s.DriverNames != 61 || s.Evicted != 21 {
			t.Fatalf("%d members, %d names, %d evicted; want 40, 61, 21", s.Members, s.DriverNames, s.Evicted)
		}
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		if s := n.g.Stats(); s.Renewals != 2 || s.DriverNames != 1 || !n.knows([]cert.Identity{friend.id}) {
			t.Fatalf("%d renewals, %d names, members %v", s.Renewals, s.DriverNames, n.g.Members())
		}
		n.receive(friend.id, gone[0].alive(gone[0].rumour(t, 1, time.Now(), directory.DescriptorLifetime)))
		within(t, 5*time.Second, "a relay that was dead is a member again", func() bool {
			return n.knows([]cert.Identity{friend.id, gone[0].id})
		})
	})
}

func TestIncarnationsNeverRunOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, nil)
		defer w.close()
		n, friend := w.nodes[0], newAuthor(t, w.network, 1)
		n.befriend(friend.id)
		n.g.mu.Lock()
		n.g.incarnation = maxIncarnation - 1
		n.g.mu.Unlock()
		n.receive(friend.id, friend.alive(friend.rumour(t, 0, time.Now(), directory.DescriptorLifetime)))
		time.Sleep(renewPause + 5*time.Second)
		n.receive(friend.id, friend.alive(friend.rumour(t, 1, time.Now(), directory.DescriptorLifetime)))
		synctest.Wait()
		n.g.mu.Lock()
		incarnation := n.g.table[friend.id].incarnation
		n.g.mu.Unlock()
		if n.g.Stats().Renewals != 1 || incarnation != 2 || !n.knows([]cert.Identity{friend.id}) {
			t.Errorf("%d renewals, incarnation %d, members %v", n.g.Stats().Renewals, incarnation, n.g.Members())
		}
	})
}

// TestFullMemberlistIsFedLater protects the loop from a memberlist that does not read.
func TestFullMemberlistIsFedLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(c *Config) {
			most := rate(1e6, 1e6)
			c.Limits.Packets, c.Limits.Messages, c.Limits.Verify, c.Limits.VerifyAll = most, most, most, most
		})
		defer w.close()
		n, friend := w.nodes[0], newAuthor(t, w.network, 1000)
		n.befriend(friend.id)
		n.g.mu.Lock()
		reading, stuck := n.g.driver, n.g.newDriver()
		stuck.list = reading.list
		n.g.driver = stuck
		n.g.mu.Unlock()
		var ids []cert.Identity
		const relays = driverInbox + 20
		for i := range relays {
			a := newAuthor(t, w.network, i+1)
			ids = append(ids, a.id)
			n.receive(friend.id, a.alive(a.rumour(t, 0, time.Now(), directory.DescriptorLifetime)))
			synctest.Wait() // everything is quiet: nobody waits for memberlist
		}
		if s := n.g.Stats(); s.Waiting != relays || s.Dropped[DropDriverFull] < 20 || s.Members != relays {
			t.Errorf("%d waiting of %d members, %d found no room", s.Waiting, s.Members, s.Dropped[DropDriverFull])
		}
		n.g.mu.Lock()
		n.g.driver = reading
		n.g.mu.Unlock()
		within(t, 10*time.Second, "memberlist has taken all", func() bool { return n.g.Stats().Waiting == 0 && n.knows(ids) })
	})
}

func TestNothingIsCalledOrLeftAfterClose(t *testing.T) {
	t.Parallel()
	// A bubble ends only when all its goroutines, memberlist's too, have returned.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, nil)
		for i, n := range w.nodes {
			n.announce(n.rumour(t, byte(i), time.Now(), directory.DescriptorLifetime))
		}
		w.ring()
		time.Sleep(300 * time.Millisecond) // in the middle of it
		for _, n := range w.nodes {
			n.loop.do(n.g.Close) // from the loop
			n.g.Close()
		}
		synctest.Wait()
		n := w.nodes[0]
		before := n.g.Stats()
		shown := n.timesShown()
		other := w.nodes[1]
		n.receive(other.id, other.alive(other.rumour(t, 99, time.Now(), directory.DescriptorLifetime)))
		n.announce(n.rumour(t, 98, time.Now(), directory.DescriptorLifetime))
		n.loop.do(func() {
			n.g.LinkUp(cert.Identity{9}, netip.Addr{})
			n.g.Forget(other.id)
			n.g.LinkDown(other.id)
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if after := n.g.Stats(); after.PacketsIn != before.PacketsIn || after.PacketsOut != before.PacketsOut || after.Members != before.Members || n.timesShown() != shown {
			t.Errorf("before %+v, after %+v", before, after)
		}
		for _, n := range w.nodes {
			n.loop.stop()
		}
		synctest.Wait()
	})
}

func TestCloseWhileTheLoopStands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, nil)
		n, friend := w.nodes[0], newAuthor(t, w.network, 1)
		n.befriend(friend.id)
		n.loop.do(func() {
			n.g.OnPacket(friend.id, friend.alive(friend.rumour(t, 0, time.Now(), directory.DescriptorLifetime)))
			n.loop.hold(true)
		})
		synctest.Wait() // the worker waits for the loop
		n.g.Close()
		n.loop.hold(false)
		synctest.Wait()
		if n.timesShown() > 0 {
			t.Error("the handler was called after Close")
		}
		n.loop.stop()
	})
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{Identity: cert.Identity{1}}); err == nil {
		t.Error("no error")
	}
}

func TestReasonsHaveNames(t *testing.T) {
	t.Parallel()
	seen := make(map[string]Reason)
	for r := Reason(1); r < reasons; r++ {
		if name := r.String(); name == "" || seen[name] != 0 {
			t.Errorf("reason %d is called %q, like %d", r, name, seen[name])
		} else {
			seen[name] = r
		}
	}
	if fmt.Sprint(reasons) != "unknown reason" {
		t.Error("a reason too many")
	}
}

// TestOnTheRealClock is the one test outside of a bubble. It is not parallel, so that it can count goroutines.
func TestOnTheRealClock(t *testing.T) {
	before := runtime.NumGoroutine()
	w := newWorld(t, 4, nil)
	for i, n := range w.nodes {
		n.announce(n.rumour(t, byte(i), time.Now(), directory.DescriptorLifetime))
	}
	w.ring()
	poll(t, "everybody knows everybody", func() bool {
		return !slices.ContainsFunc(w.nodes, func(n *node) bool { return !n.knows(w.ids()) })
	})
	if during := runtime.NumGoroutine(); during < before+4*2 {
		t.Errorf("%d goroutines, %d before: the count counts nothing", during, before)
	}
	w.close()
	poll(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestMemberlistsLogIsShortAndForDebugging(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := newLogWriter(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
		line := []byte("[ERR] memberlist: " + strings.Repeat("\xff", 5000))
		for range 1000 {
			if n, err := w.Write(line); n != len(line) || err != nil {
				t.Fatal(n, err)
			}
		}
		time.Sleep(2 * time.Second)
		w.Write(line)
		if lines := strings.Count(out.String(), "\n"); lines != 21 || out.Len() > 21*300 {
			t.Errorf("%d lines of %d bytes together", lines, out.Len())
		}
		if strings.Contains(out.String(), "level=ERROR") || !strings.Contains(out.String(), "left_out=980") {
			t.Errorf("logged %s", out.String())
		}
	})
}
