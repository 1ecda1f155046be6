//go:build linux

package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env"
)

// Orders of floods.
func init() {
	// sybils N: that many more relays of this attacker, all at one address.
	orders["sybils"] = func(x *intruder, words []string) error { return x.enlist(words[0], false) }
	// gang N: that many more identities that speak to relays and say nothing of themselves.
	orders["gang"] = func(x *intruder, words []string) error { return x.enlist(words[0], true) }
	// invent N: the descriptors of that many relays that do not exist; tell of them without end.
	orders["invent"] = func(x *intruder, words []string) error {
		n, err := strconv.Atoi(words[0])
		if err != nil {
			return err
		}
		var packets [][]byte
		for i := range n {
			rumour, err := x.invent(uint64(i))
			if err != nil {
				return err
			}
			packets = append(packets, rumour)
		}
		at := 0
		x.repeat = func() {
			for range 6 { // 30 a second for each neighbour: less than it may say
				x.cry(packets[at%len(packets)])
				at++
			}
		}
		return nil
	}
	// babble: rumours that must be verified to be found false, by all identities, as fast as links take them.
	orders["babble"] = func(x *intruder, _ []string) error {
		for _, y := range append(x.gang, x) {
			n := uint64(0)
			y.loop.Post(func() { y.pour(&n) })
		}
		return nil
	}
	// beg: directory requests by all identities, as fast as they are answered.
	orders["beg"] = func(x *intruder, _ []string) error {
		for _, y := range append(x.gang, x) {
			y.loop.Post(func() {
				for _, to := range y.targets()[:1] {
					for range 8 {
						y.beg(to)
					}
				}
			})
		}
		return nil
	}
}

// enlist starts more identities in this process.
func (x *intruder) enlist(count string, silent bool) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	for i := range n {
		c := x.config
		c.Dir = filepath.Join(x.config.Dir, fmt.Sprint("gang-", i))
		c.Nickname = fmt.Sprint("sybil", i)
		c.Listen = net.JoinHostPort(x.address.Addr().String(), "0")
		y, err := newIntruder(c, silent)
		if err != nil {
			return err
		}
		x.gang = append(x.gang, y)
	}
	return nil
}

// invent makes the descriptor of a relay that does not exist, and returns the packet that tells of it.
func (x *intruder) invent(n uint64) ([]byte, error) {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], n)
	copy(seed[8:], x.config.Dir) // not the same in two runs
	key := cert.NewIdentityKey(seed)
	seed[31] ^= 1
	signing := cert.NewSigningKey(seed)
	certificate, err := key.Certify(x.network.ID, signing.Public(), time.Now(), 0)
	if err != nil {
		return nil, err
	}
	signer := cert.Signer{Certificate: certificate, Key: signing}
	now := time.Now().UTC().Truncate(time.Millisecond)
	sealed, err := directory.SealDescriptor(x.network, directory.Descriptor{
		Identity: signer.Identity(), Addresses: x.own4(uint16(1 + n%60000)), OnionKey: seed, Nickname: "invented", Software: "none",
		Published: now, OnionKeyUntil: now.Add(24 * time.Hour), Protocols: directory.OurProtocols(),
	}, signer)
	if err != nil {
		return nil, err
	}
	d, err := directory.OpenDescriptor(sealed, x.network, now)
	if err != nil {
		return nil, err
	}
	rumour, err := directory.SealRumour(x.network, directory.RumourOf(d), signer)
	if err != nil {
		return nil, err
	}
	x.bodies[d.Digest] = sealed
	return forgedAlive(signer.Identity(), rumour, 1), nil
}

// pour sends packets of false rumours to every neighbour, 4 in each, until the process ends.
func (x *intruder) pour(n *uint64) {
	rumour := x.any()
	for range 10 {
		var parts [][]byte
		for range 4 {
			*n++
			false1 := slices.Clone(rumour)
			binary.BigEndian.PutUint64(false1[len(false1)-8:], *n) // of the body, so that the signature is wrong
			parts = append(parts, forgedAlive(x.keys.Identity(), false1, 1))
		}
		x.cry(compound(parts))
	}
	x.loop.Env().Clock.AfterFunc(100*time.Millisecond, func() { x.pour(n) })
}

// beg asks for a body of the consensus, and again when the answer is there.
func (x *intruder) beg(to env.Target) {
	request, err := directory.Request{Kind: directory.AskHead}.AppendTo(nil)
	if err != nil {
		return
	}
	x.node.Fetch(to, request, directory.MaxConsensusHead+5, func([]byte, error) { x.beg(to) })
}

// Limits of one address, as in a network that is no test. The other parameters of a test network stay.
var admission = directory.Parameters{
	directory.RelaysPerAddress: 2, directory.RelaysPerSite: 16, directory.CandidatesPerSite: 16, directory.Candidates: 64, directory.SiteLimits: 1, directory.NewRelays: 50,
}

// A crowd of relays at one address fills the consensus; the number for each address keeps it out.
func TestAttackSybils(t *testing.T) {
	proof(t)
	const sybils = 10
	for _, limits := range []directory.Parameters{nil, admission} {
		t.Run(map[bool]string{true: "defence off", false: "defence on"}[limits == nil], func(t *testing.T) {
			f := newField(t, plan{authorities: 1, relays: 4, intruders: 1, parameters: limits})
			f.startAll(t)
			f.agree(t, foundLimit, f.listsAll())
			f.node("i1").order(t, 20*time.Second, "sybils %d", sybils)
			hostile := func(c *directory.Consensus) (n int) {
				host, _, _ := strings.Cut(f.node("i1").addr, ":")
				for _, r := range c.Relays {
					if r.Addresses[0].Addr().String() == host {
						n++
					}
				}
				return n
			}
			if limits == nil {
				took := f.agree(t, foundLimit, func(c *directory.Consensus) error {
					if n := hostile(c); n < sybils+1 {
						return fmt.Errorf("%d of the attacker", n)
					}
					return nil
				})
				t.Logf("after %v more than two thirds of the relays were the attacker's", took.Round(time.Millisecond))
				return
			}
			right := func(c *directory.Consensus) error {
				for _, a := range f.parts("relay") {
					if c.Lookup(a.id) == nil {
						return fmt.Errorf("without %s", a.name)
					}
				}
				if n := hostile(c); n > 2 {
					return fmt.Errorf("%d of the attacker", n)
				}
				return nil
			}
			holdsFor(t, 4*fieldInterval, "few relays of the attacker are in the consensus", func() bool {
				c := f.consensus(f.node("r1"))
				return c != nil && right(c) == nil
			})
			// A newcomer gets in all the same.
			f.late(t, "r5", 79)
			took := f.agree(t, foundLimit, right)
			t.Logf("a newcomer was in the consensus after %v", took.Round(time.Millisecond))
			f.flows(t, f.client(t, 20*time.Second))
		})
	}
}

// late starts one more relay.
func (f *field) late(t testing.TB, name string, net int) *actor {
	t.Helper()
	network := *f.network
	a := f.add(t, "relay", name, address(t, net), &network)
	a.config.Nickname, a.config.ExitPolicy = name, "all"
	f.start(t, a)
	return a
}

// Descriptors of relays that do not exist fill what relays keep of newcomers; the number for each
// network of addresses bounds it.
func TestAttackInventedRelays(t *testing.T) {
	proof(t)
	const invented = 300
	for _, limits := range []directory.Parameters{nil, admission} {
		t.Run(map[bool]string{true: "defence off", false: "defence on"}[limits == nil], func(t *testing.T) {
			f := newField(t, plan{authorities: 1, relays: 4, intruders: 1, parameters: limits})
			f.startAll(t)
			f.agree(t, foundLimit, f.listsAll())
			x := f.node("i1")
			x.order(t, 20*time.Second, "links 5")
			x.order(t, 20*time.Second, "invent %d", invented)
			most := func() (n int64) {
				for _, a := range f.parts("relay", "authority") {
					n = max(n, a.count("directory_candidates"))
				}
				return n
			}
			if limits == nil {
				took := within(t, 40*time.Second, "a relay keeps most of what was invented", func() bool { return most() > invented*2/3 })
				t.Logf("after %v a relay kept %d invented descriptors", took.Round(time.Millisecond), most())
				return
			}
			holdsFor(t, 5*time.Second, "relays keep few of them", func() bool { return most() <= 17 })
			f.late(t, "r5", 79)
			took := f.agree(t, foundLimit, f.listsAll())
			t.Logf("a newcomer was in the consensus after %v, and relays kept at most %d candidates", took.Round(time.Millisecond), most())
			if most() == 0 {
				t.Error("nothing that was invented came to any relay: the attack did not take place")
			}
			f.flows(t, f.client(t, 20*time.Second))
		})
	}
}

// Several identities of one network send rumours that must be verified to be found false, and
// requests; the budgets of their network bound what that costs.
func TestAttackFlood(t *testing.T) {
	proof(t)
	const seconds = 8
	for _, flood := range []struct {
		order, counter string
		most           int64 // with the defence, for one network of addresses
	}{
		{"babble", "gossip_verified", 200 + 20*(seconds+4) + 100},
		{"beg", "directory_served", 2000 + 50*(seconds+4) + 200},
	} {
		t.Run(flood.order, func(t *testing.T) {
			bothWays(t, directory.Undefended{Budgets: true}, func(t *testing.T, off directory.Undefended) {
				f := newField(t, plan{authorities: 1, relays: 4, intruders: 1, parameters: admission, off: off})
				for _, a := range f.nodes {
					if a.part == "intruder" {
						f.start(t, a, "silent")
					} else {
						f.start(t, a)
					}
				}
				f.agree(t, foundLimit, lists(f.parts("relay")))
				c := f.client(t, 20*time.Second)
				x := f.node("i1")
				x.order(t, 20*time.Second, "gang 3")
				x.order(t, 20*time.Second, "links 5")
				victim := f.parts("authority")[0]
				before := victim.count(flood.counter)
				x.order(t, 10*time.Second, "%s", flood.order)
				time.Sleep(seconds * time.Second)
				n := victim.count(flood.counter) - before
				t.Logf("%s by 4 identities of one network cost %d in %d s, the bound is %d", flood.counter, n, seconds, flood.most)
				if off.Budgets {
					if n < 2*flood.most {
						t.Errorf("without budgets the flood cost %d, which is not even twice the bound of %d", n, flood.most)
					}
					return
				}
				if n > flood.most || n == 0 {
					t.Errorf("the flood cost %d, the bound is %d", n, flood.most)
				}
				f.flows(t, c)
				took := f.agree(t, 2*fieldInterval+5*time.Second, lists(f.parts("relay")))
				t.Logf("all had the right consensus after %v", took.Round(time.Millisecond))
			})
		})
	}
}
