package gossip

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
)

// siege is a relay that knows a friend, and has an attacker for a neighbour.
func siege(t *testing.T, configure func(*Config)) (w *world, n *node, friend, attacker *author) {
	w = newWorld(t, 1, configure)
	n, friend, attacker = w.nodes[0], newAuthor(t, w.network, 1001), newAuthor(t, w.network, 1002)
	n.announce(n.rumour(t, 0, time.Now(), directory.DescriptorLifetime))
	n.befriend(attacker.id)
	n.befriend(friend.id)
	n.receive(friend.id, friend.alive(friend.rumour(t, 0, time.Now(), directory.DescriptorLifetime)))
	within(t, 5*time.Second, "the friend is a member", func() bool { return n.knows([]cert.Identity{friend.id}) })
	return w, n, friend, attacker
}

// TestForgedMessagesHaveNoEffect sends what takes a stock memberlist apart: one "dead" or "suspect" with the highest
// incarnation, and alive messages that would make it refute or believe.
func TestForgedMessagesHaveNoEffect(t *testing.T) {
	t.Parallel()
	const most = 1<<32 - 1
	synctest.Test(t, func(t *testing.T) {
		w, n, friend, attacker := siege(t, nil)
		defer w.close()
		held, own := n.last(friend.id), n.rumour(t, 0, time.Now(), directory.DescriptorLifetime)
		newest := friend.rumour(t, 1, time.Now(), directory.DescriptorLifetime)
		suspect := func(id cert.Identity) []byte {
			return msgpack(t, 3, memberlistDead{most, id.String(), attacker.id.String()})
		}
		altered := bytes.Clone(newest)
		altered[len(altered)-1] ^= 1
		for _, forged := range []struct {
			name   string
			packet []byte
			reason Reason
			blamed bool
		}{
			{"dead friend", appendDead(nil, friend.id, attacker.id, most), DropDead, true},
			{"leaving friend", appendDead(nil, friend.id, friend.id, most), DropDead, true},
			{"dead self", appendDead(nil, n.id, attacker.id, most), DropDead, true},
			{"suspect friend", suspect(friend.id), DropSuspect, true},
			{"suspect self", suspect(n.id), DropSuspect, true},
			{"higher incarnation of a friend", appendAlive(nil, alive{friend.id, held, most}), DropIncarnation, true},
			{"higher incarnation of this relay", appendAlive(nil, alive{n.id, own, most}), DropIncarnation, true},
			{"this relay's own rumour", appendAlive(nil, alive{n.id, own, 1}), DropOwnName, false},
			{"another rumour in this relay's name", appendAlive(nil, alive{n.id, newest, 1}), DropOwnName, false},
			{"squatted name", appendAlive(nil, alive{friend.id, attacker.rumour(t, 0, time.Now(), directory.DescriptorLifetime), 1}), DropSquatted, true},
			{"altered signature", appendAlive(nil, alive{friend.id, altered, 1}), DropInvalid, false},
			{"no rumour", appendAlive(nil, alive{attacker.id, make([]byte, 300), 1}), DropInvalid, false},
			{"rumour of another network", appendAlive(nil, alive{attacker.id, otherNetwork(t, attacker), 1}), DropInvalid, false},
			{"replayed rumour", friend.alive(friend.rumour(t, 2, time.Now().Add(-time.Hour), directory.DescriptorLifetime)), DropStale, false},
			{"expired rumour", friend.alive(friend.rumour(t, 2, time.Now().Add(-time.Hour), time.Minute)), DropInvalid, false},
			{"rumour from the future", friend.alive(friend.rumour(t, 2, time.Now().Add(time.Hour), directory.DescriptorLifetime)), DropInvalid, false},
			{"known rumour", friend.alive(held), DropDuplicate, false},
			{"ping", msgpack(t, 0, map[string]any{"SeqNo": 1}), DropPing, true},
			{"push/pull", []byte{6, 0x80}, DropPushPull, true},
			{"compressed", []byte{9, 0x80}, DropCompressed, true},
		} {
			before, blamed := n.g.Stats(), len(n.blames())
			n.receive(attacker.id, forged.packet)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			after := n.g.Stats()
			if after.Dropped[forged.reason] != before.Dropped[forged.reason]+1 {
				t.Errorf("%s: not counted as %q: %v", forged.name, forged.reason, after.Dropped)
			}
			if got := len(n.blames()) > blamed; got != forged.blamed {
				t.Errorf("%s: the neighbour was blamed: %v", forged.name, got)
			}
			if !n.knows([]cert.Identity{friend.id}) || !bytes.Equal(n.last(friend.id), held) || after.Accepted != before.Accepted {
				t.Fatalf("%s had an effect", forged.name)
			}
			for _, m := range n.g.driver.list.Members() {
				if m.State != memberlist.StateAlive || m.Name != n.id.String() && m.Name != friend.id.String() {
					t.Fatalf("%s: memberlist holds %s for %v", forged.name, m.Name, m.State)
				}
			}
		}
		// After all of it the friend is heard as ever.
		n.receive(attacker.id, friend.alive(newest))
		synctest.Wait()
		if !bytes.Equal(n.last(friend.id), newest) {
			t.Error("an honest update was not accepted afterwards")
		}
	})
}

func otherNetwork(t *testing.T, a *author) []byte {
	t.Helper()
	other := *a.network
	other.ID = cert.NetworkID{9}
	foreign := *newAuthor(t, &other, 1002)
	return foreign.rumour(t, 0, time.Now(), directory.DescriptorLifetime)
}

// TestOnlyWhatWasAcceptedEntersMemberlist shows that the delegate is a second door: it does not trust the first.
func TestOnlyWhatWasAcceptedEntersMemberlist(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n, friend, attacker := siege(t, nil)
		defer w.close()
		n.g.driver.feed(attacker.alive(attacker.rumour(t, 0, time.Now(), directory.DescriptorLifetime)))
		n.g.driver.feed(appendAlive(nil, alive{friend.id, friend.rumour(t, 1, time.Now(), directory.DescriptorLifetime), 1 << 20}))
		synctest.Wait()
		for _, m := range n.g.driver.list.Members() {
			if m.Name == attacker.id.String() || m.Name == friend.id.String() && !bytes.Equal(m.Meta, n.last(friend.id)) {
				t.Errorf("memberlist took a rumour of %s that was never accepted", m.Name)
			}
		}
	})
}

func TestStrangersAreNotHeard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n, _, attacker := siege(t, nil)
		defer w.close()
		packet := attacker.alive(attacker.rumour(t, 0, time.Now(), directory.DescriptorLifetime))
		n.receive(cert.Identity{}, packet)
		n.receive(cert.Identity{9}, packet)
		n.loop.do(func() {
			n.g.LinkUp(attacker.id, netip.Addr{}) // a second link
			n.g.LinkDown(attacker.id)
			n.g.LinkDown(attacker.id)
			n.g.LinkUp(cert.Identity{}, netip.Addr{}) // a client
		})
		n.receive(attacker.id, packet)
		synctest.Wait()
		if s := n.g.Stats(); s.Dropped[DropStranger] != 3 || s.Neighbours != 1 || n.last(attacker.id) != nil {
			t.Errorf("%d dropped, %d neighbours", s.Dropped[DropStranger], s.Neighbours)
		}
	})
}

// TestFloodStaysInBudget: whatever a neighbour sends, it costs so many packets and signatures a second, and others are heard.
func TestFloodStaysInBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n, friend, attacker := siege(t, nil)
		defer w.close()
		limits := n.g.limits
		var flood [][]byte
		for i := range 500 { // new identities cost nothing
			a := newAuthor(t, w.network, i+1)
			sealed := a.rumour(t, 0, time.Now(), directory.DescriptorLifetime)
			sealed[len(sealed)-1] ^= byte(i % 2) // half of them are forged
			flood = append(flood, a.alive(sealed))
		}
		const seconds = 10
		before := n.g.Stats()
		for s := range seconds {
			for i := range 1000 {
				n.receive(attacker.id, flood[(s*1000+i)%len(flood)])
			}
			time.Sleep(time.Second)
		}
		synctest.Wait()
		after := n.g.Stats()
		if in := after.PacketsIn - before.PacketsIn - (after.Dropped[DropPacketBudget] - before.Dropped[DropPacketBudget]); float64(in) > limits.Packets.Burst+limits.Packets.PerSecond*seconds {
			t.Errorf("%d packets were read", in)
		}
		if v := after.Verified - before.Verified; float64(v) > limits.Verify.Burst+limits.Verify.PerSecond*seconds || v < 20 {
			t.Errorf("%d signatures were checked", v)
		}
		update := friend.rumour(t, 1, time.Now(), directory.DescriptorLifetime)
		n.receive(friend.id, friend.alive(update))
		synctest.Wait()
		if !bytes.Equal(n.last(friend.id), update) {
			t.Error("another neighbour is not heard")
		}
		// A new link does not fill the budget again.
		n.loop.do(func() {
			for range 100 {
				n.g.OnPacket(attacker.id, flood[0])
			}
			dropped := n.g.Stats().Dropped[DropPacketBudget]
			n.g.LinkDown(attacker.id)
			n.g.LinkUp(attacker.id, netip.Addr{})
			n.g.OnPacket(attacker.id, flood[0])
			if n.g.Stats().Dropped[DropPacketBudget] != dropped+1 {
				t.Error("a new link has a new budget")
			}
		})
	})
}

// TestMessageBudgetAndMemory: packets full of messages spend more, and the same message is verified once.
func TestMessageBudgetAndMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n, _, attacker := siege(t, func(c *Config) { c.Limits.Messages, c.Limits.Verify = rate(0.001, 9), rate(0.001, 3) })
		defer w.close()
		var messages [][]byte
		for i := range 4 {
			a := newAuthor(t, w.network, i+1)
			sealed := a.rumour(t, 0, time.Now(), directory.DescriptorLifetime)
			sealed[len(sealed)-1] ^= 1
			messages = append(messages, a.alive(sealed))
		}
		before := n.g.Stats()
		for range 3 {
			n.receive(attacker.id, appendPacket(nil, messages))
		}
		synctest.Wait()
		s := n.g.Stats()
		// Four messages: three verified, one too many. Again: three are remembered, one is too many. Then one of nine is left.
		if s.Verified-before.Verified != 3 || s.Dropped[DropVerifyBudget] != 2 || s.Dropped[DropDuplicate] != 4 || s.Dropped[DropMessageBudget] != 3 {
			t.Errorf("%d verified, dropped: %v", s.Verified-before.Verified, s.Dropped)
		}
	})
}

// TestStandingLoopBoundsEverything: while the loop does nothing, nothing piles up.
func TestStandingLoopBoundsEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n, _, attacker := siege(t, func(c *Config) { c.Limits.Packets = rate(1e6, 1e6) })
		defer w.close()
		held := make(chan struct{})
		n.loop.post(func() {
			for i := range 200 {
				a := newAuthor(t, w.network, i+1)
				n.g.OnPacket(attacker.id, a.alive(a.rumour(t, 0, time.Now(), directory.DescriptorLifetime)))
			}
			<-held
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		s := n.g.Stats()
		n.loop.mu.Lock()
		queued := len(n.loop.queue)
		n.loop.mu.Unlock()
		if s.Inbox > n.g.limits.InboxNeighbour || s.Dropped[DropInboxFull] < 160 || queued > n.g.limits.Outgoing+2 {
			t.Errorf("%d packets wait, %d were dropped, %d events are queued", s.Inbox, s.Dropped[DropInboxFull], queued)
		}
		close(held)
	})
}

func TestGarbageOfEveryKind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n, friend, attacker := siege(t, func(c *Config) { c.Limits.Packets = rate(1e6, 1e6) })
		defer w.close()
		random := rand.New(rand.NewPCG(1, 2))
		good := friend.alive(friend.rumour(t, 1, time.Now(), directory.DescriptorLifetime))
		for i := range 3000 {
			packet := make([]byte, random.IntN(cell.MaxGossip+1))
			for j := range packet {
				packet[j] = byte(random.Uint32())
			}
			switch i % 3 {
			case 1:
				packet = bytes.Clone(good)
				packet[random.IntN(len(packet))] ^= 1 << random.IntN(8)
			case 2:
				packet = good[:random.IntN(len(good))]
			}
			n.receive(attacker.id, packet)
			synctest.Wait()
		}
		if s := n.g.Stats(); s.Accepted != 1 || !n.knows([]cert.Identity{friend.id}) || slices.Contains(n.blames(), friend.id) {
			t.Errorf("%d accepted, members %v", s.Accepted, n.g.Members())
		}
	})
}

// TestTransportHasNoWayOut: nothing that memberlist may ask of its transport reaches a socket or an address.
func TestTransportHasNoWayOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n, friend, _ := siege(t, nil)
		d := n.g.driver
		to := memberlist.Address{Addr: "127.0.0.1:1", Name: friend.id.String()}
		if c, err := d.DialTimeout(to.Addr, time.Second); c != nil || !errors.Is(err, errNoStreams) {
			t.Errorf("a stream: %v", err)
		}
		if c, err := d.DialAddressTimeout(to, time.Second); c != nil || !errors.Is(err, errNoStreams) {
			t.Errorf("a stream by name: %v", err)
		}
		if _, err := d.WriteTo([]byte{0}, to.Addr); !errors.Is(err, errNoName) {
			t.Errorf("a packet to an address: %v", err)
		}
		if _, err := d.WriteToAddress([]byte{0}, memberlist.Address{Addr: to.Addr}); !errors.Is(err, errNoName) {
			t.Errorf("a packet to nobody: %v", err)
		}
		if ip, p, err := d.FinalAdvertiseAddr("10.0.0.1", 9); ip.String() != address || p != port || err != nil {
			t.Errorf("advertises %v:%d, %v", ip, p, err)
		}
		before := n.g.Stats()
		for _, packet := range [][]byte{{}, {0, 0x80}, appendDead(nil, friend.id, n.id, 9), n.alive(n.rumour(t, 7, time.Now(), time.Hour))} {
			if _, err := d.WriteToAddress(packet, to); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if after := n.g.Stats(); after.Dropped[DropHeldBack] != before.Dropped[DropHeldBack]+4 || after.PacketsOut != before.PacketsOut {
			t.Errorf("packets that are not for the wire: %d held back, %d sent", after.Dropped[DropHeldBack]-before.Dropped[DropHeldBack], after.PacketsOut-before.PacketsOut)
		}
		w.close()
		if _, err := d.WriteToAddress(n.alive(n.g.own), to); !errors.Is(err, errClosed) {
			t.Errorf("a packet after Close: %v", err)
		}
	})
}

// TestUnlistedNeighboursShareTheBudgetOfTheirSite: identities are free, so that many of them at one place may say no more
// than one. The consensus makes an identity worth a budget of its own.
func TestUnlistedNeighboursShareTheBudgetOfTheirSite(t *testing.T) {
	t.Parallel()
	for limits, together := range map[int64]bool{0: false, 1: true} {
		synctest.Test(t, func(t *testing.T) {
			w, n, friend, attacker := siege(t, func(c *Config) {
				network := *c.Network
				network.Parameters = directory.Parameters{directory.SiteLimits: limits}
				c.Network = &network
			})
			defer w.close()
			packet := friend.alive(friend.rumour(t, 0, time.Now(), directory.DescriptorLifetime))
			// flood sends more than one neighbour may from a new neighbour at an address, and returns how much was let in.
			flood := func(id cert.Identity, at string) (taken uint64) {
				n.loop.do(func() { n.g.LinkUp(id, netip.MustParseAddr(at)) })
				before := n.g.Stats().Dropped[DropPacketBudget]
				const sent = 100
				for range sent {
					n.receive(id, packet)
				}
				return sent - (n.g.Stats().Dropped[DropPacketBudget] - before)
			}
			burst := uint64(DefaultLimits().Packets.Burst)
			for _, c := range []struct {
				id   cert.Identity
				at   string
				want uint64
			}{
				{cert.Identity{1}, "30.0.0.1", burst},
				{cert.Identity{2}, "30.0.0.2", map[bool]uint64{true: 0, false: burst}[together]},
				{cert.Identity{3}, "::ffff:30.0.0.3", map[bool]uint64{true: 0, false: burst}[together]},
				{cert.Identity{4}, "30.0.1.1", burst},
				{attacker.id, "30.0.0.4", map[bool]uint64{true: 0, false: burst}[together]},
			} {
				if c.id == attacker.id { // who is a neighbour already, at no address
					n.loop.do(func() { n.g.LinkDown(c.id) })
				}
				if got := flood(c.id, c.at); got != c.want {
					t.Errorf("site_limits %d: %d packets were taken of %s at %s, want %d", limits, got, c.id.Short(), c.at, c.want)
				}
			}
			n.loop.do(func() { n.g.OnConsensus(func(id cert.Identity) bool { return id == cert.Identity{2} }) })
			want := map[bool]uint64{true: burst, false: 0}[together]
			if got := flood(cert.Identity{2}, "30.0.0.2"); got != want {
				t.Errorf("site_limits %d: %d packets were taken of a relay that the consensus lists, want %d", limits, got, want)
			}
		})
	}
}
