package gossip

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"cepa/cert"
	"cepa/directory"
)

// unlimited lets a test send as fast as it likes, to a table of so many.
func unlimited(members int) func(*Config) {
	return func(c *Config) {
		most := rate(1e6, 1e6)
		c.Limits.Members = members
		c.Limits.Packets, c.Limits.Messages, c.Limits.Verify, c.Limits.VerifyAll = most, most, most, most
	}
}

// holds says whether the table has a rumour of a relay.
func (n *node) holds(id cert.Identity) bool {
	n.g.mu.Lock()
	defer n.g.mu.Unlock()
	return n.g.table[id] != nil
}

// checkTable checks that the lottery and the table agree.
func (n *node) checkTable(t *testing.T, listed func(cert.Identity) bool) {
	t.Helper()
	n.g.mu.Lock()
	defer n.g.mu.Unlock()
	tickets := 0
	for id, e := range n.g.table {
		if (e.ticket == nil) != listed(id) {
			t.Errorf("a relay that is listed: %v, has a ticket: %v", listed(id), e.ticket != nil)
		}
		if e.ticket != nil {
			tickets++
		}
	}
	if tickets != n.g.unlisted.Len() || len(n.g.table) > n.g.limits.Members || len(n.g.driver.names) > 2*n.g.limits.Members {
		t.Errorf("%d tickets, %d in the lottery; %d entries, %d names", tickets, n.g.unlisted.Len(), len(n.g.table), len(n.g.driver.names))
	}
}

// TestFloodOfNamesDoesNotLockNewcomersOut protects honest newcomers and the relays of the consensus from many identities
// that all sign a rumour: the flood pushes out itself, and memberlist, which never forgets a name, is replaced in time.
func TestFloodOfNamesDoesNotLockNewcomersOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, unlimited(32))
		defer w.close()
		n, attacker, old := w.nodes[0], newAuthor(t, w.network, 900), newAuthor(t, w.network, 901)
		listed := func(id cert.Identity) bool { return id == old.id }
		n.announce(n.rumour(t, 0, time.Now(), directory.DescriptorLifetime))
		n.befriend(attacker.id)
		n.befriend(old.id)
		n.receive(old.id, old.alive(old.rumour(t, 0, time.Now(), directory.DescriptorLifetime)))
		synctest.Wait()
		n.loop.do(func() { n.g.OnConsensus(listed) }) // of one that is held already
		next := 1000
		flood := func(many int) {
			for range many {
				a := newAuthor(t, w.network, next)
				next++
				n.receive(attacker.id, a.alive(a.rumour(t, 1, time.Now(), directory.DescriptorLifetime)))
				synctest.Wait()
			}
			n.checkTable(t, listed)
		}
		for i, many := range []int{40, 100} { // the second is more than memberlist may be told of
			flood(many)
			newcomer := newAuthor(t, w.network, 910+i)
			n.receive(old.id, newcomer.alive(newcomer.rumour(t, 1, time.Now(), directory.DescriptorLifetime)))
			synctest.Wait()
			if !n.holds(newcomer.id) || !n.holds(old.id) {
				t.Fatalf("after %d names: the newcomer is held: %v, a relay of the consensus: %v", next-1000, n.holds(newcomer.id), n.holds(old.id))
			}
			within(t, renewSoon+5*time.Second, "memberlist knows the newcomer and the old one", func() bool {
				members := n.g.Members()
				return slices.Contains(members, newcomer.id) && slices.Contains(members, old.id)
			})
		}
		if s := n.g.Stats(); s.Members != 32 || s.Evicted < 100 || s.Renewals == 0 {
			t.Errorf("%d members, %d evicted, %d renewals", s.Members, s.Evicted, s.Renewals)
		}
		// A table of listed relays only has no room for others.
		all := func(cert.Identity) bool { return true }
		n.loop.do(func() { n.g.OnConsensus(all) })
		n.checkTable(t, all)
		before := n.g.Stats()
		n.loop.do(func() { n.g.OnConsensus(func(id cert.Identity) bool { return n.g.table[id] != nil }) })
		stranger := newAuthor(t, w.network, 920)
		n.receive(old.id, stranger.alive(stranger.rumour(t, 1, time.Now(), directory.DescriptorLifetime)))
		synctest.Wait()
		if after := n.g.Stats(); n.holds(stranger.id) || after.Dropped[DropTableFull] != before.Dropped[DropTableFull]+1 || after.Evicted != before.Evicted {
			t.Error("a listed relay had to go for one that is not")
		}
	})
}

// TestFloodFromOneSiteStaysInItsSite: names that all claim one network push out each other only.
func TestFloodFromOneSiteStaysInItsSite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(c *Config) {
			unlimited(1000)(c)
			network := *c.Network
			network.Parameters = directory.Parameters{directory.CandidatesPerSite: 4}
			c.Network = &network
		})
		defer w.close()
		n, attacker, old := w.nodes[0], newAuthor(t, w.network, 900), newAuthor(t, w.network, 901)
		n.befriend(attacker.id)
		n.loop.do(func() { n.g.OnConsensus(func(id cert.Identity) bool { return id == old.id }) })
		n.receive(attacker.id, old.alive(old.rumour(t, 1, time.Now(), directory.DescriptorLifetime)))
		for i := range 30 { // all rumours of tests name one address
			a := newAuthor(t, w.network, 1000+i)
			n.receive(attacker.id, a.alive(a.rumour(t, 1, time.Now(), directory.DescriptorLifetime)))
			n.receive(attacker.id, a.alive(a.rumour(t, 2, time.Now().Add(time.Second), directory.DescriptorLifetime)))
			synctest.Wait()
			if !n.holds(a.id) {
				t.Fatal("the last to come is not held")
			}
		}
		if s := n.g.Stats(); s.Members != 5 || s.Evicted != 26 || !n.holds(old.id) {
			t.Errorf("%d members, %d evicted, the listed one is held: %v", s.Members, s.Evicted, n.holds(old.id))
		}
	})
}

// TestFarewellsStayBounded: when more have left than are remembered, each is remembered by chance.
func TestFarewellsStayBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, unlimited(8))
	defer w.close()
	g := w.nodes[0].g
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range byte(30) {
		id := cert.Identity{1, i}
		g.forgetLocked(id, &entry{rumour: directory.Rumour{Identity: id, Published: time.Now(), Expires: time.Now().Add(time.Hour)}})
		if g.departed[id] == nil || len(g.departed) > 8 {
			t.Fatalf("the last farewell is remembered: %v, %d in all", g.departed[id] != nil, len(g.departed))
		}
	}
}

// TestSpreadLater: a Handler that accepts later hears all who tell, and what it spreads then is passed on.
func TestSpreadLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, nil)
		defer w.close()
		n, author, other := w.nodes[0], newAuthor(t, w.network, 900), newAuthor(t, w.network, 901)
		n.announce(n.rumour(t, 0, time.Now(), directory.DescriptorLifetime))
		w.link(n, w.nodes[1])
		n.befriend(author.id)
		n.befriend(other.id)
		n.mu.Lock()
		n.decline[author.id] = true
		n.mu.Unlock()
		sealed := author.rumour(t, 1, time.Now(), directory.DescriptorLifetime)
		for i, from := range []cert.Identity{author.id, other.id} {
			n.receive(from, author.alive(sealed))
			synctest.Wait()
			if got := n.timesShown(); got != i+1 {
				t.Errorf("after %d neighbours told, the handler has heard of %d", i+1, got)
			}
		}
		if s := n.g.Stats(); s.Verified != 1 || n.holds(author.id) {
			t.Errorf("%d verifications; held: %v", s.Verified, n.holds(author.id))
		}
		r, err := directory.OpenRumour(sealed, w.network, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		n.loop.do(func() { n.g.Spread(r, sealed, author.id) })
		within(t, 5*time.Second, "the other relay hears it", func() bool { return bytes.Equal(w.nodes[1].last(author.id), sealed) })
		shown := n.timesShown()
		n.receive(other.id, author.alive(sealed))
		n.loop.do(func() { n.g.Spread(r, sealed, author.id) }) // known by now
		synctest.Wait()
		if s := n.g.Stats(); n.timesShown() != shown || s.Accepted != 1 {
			t.Errorf("shown %d times more, accepted %d", n.timesShown()-shown, s.Accepted)
		}
	})
}
