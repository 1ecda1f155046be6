package circuit

import (
	"slices"
	"testing"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/env/envtest"
)

// TestAHostileGuardDoesNotChooseTheOthers: a guard that extends to its friends only makes a client
// try these hardly more often than their weight says, and is not taken for a good one again.
func TestAHostileGuardDoesNotChooseTheOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 21, 60, 20)
	x := w.newClient(func(c *Config) { c.Limits.CleanAge = time.Second }) // so that circuits are built all the time
	w.f.Run(time.Second)
	g := x.c.guards.primary[0]
	var friends []cert.Identity // 6 of 59: 10 %
	for _, r := range w.relays {
		if r.node.Identity != g.id && len(friends) < 6 {
			friends = append(friends, r.node.Identity)
		}
	}
	hostile := w.find(g.id)
	hostile.node.Stop()
	hostile.refuse = func(id cert.Identity) bool { return !slices.Contains(friends, id) }
	hostile.start()
	w.f.Run(5 * time.Minute)
	last, tried, friendly, released := x.c.nextID, 0, 0, false
	w.f.RunUntil(10*time.Minute, func() bool {
		for _, p := range x.c.circuits {
			if p.guard == g && p.id > last {
				last = p.id
				tried++
				if slices.Contains(friends, p.path[1].identity) {
					friendly++
				}
			}
		}
		released = released || !g.captured
		return false
	})
	if tried < 100 {
		t.Fatalf("%d circuits through the guard: the test shows little", tried)
	}
	t.Logf("%d of %d circuits by a friend of the guard", friendly, tried)
	if friendly*4 > tried {
		t.Errorf("%d of %d circuits go by a friend of the guard", friendly, tried)
	}
	if released {
		t.Error("the guard counts as good again")
	}
}

// loneClient is a client of a consensus of relays of the given weights, all of them guards and
// exits. Nobody is there.
func loneClient(weights ...uint32) *Client {
	var relays []directory.Relay
	for i, weight := range weights {
		relays = append(relays, entry(i, weight, directory.FlagGuard|directory.FlagExit))
	}
	f := envtest.NewFake(1)
	c := New(Config{Env: f.Client("client").Env, Limits: DefaultLimits()})
	c.network = newNetwork(consensusOf(relays...), nil)
	return c
}

func named(i int) cert.Identity { return entry(i, 0, 0).Identity }

// through makes a path of relays by number, guard first.
func (c *Client) through(path ...int) *pooled {
	p := &pooled{client: c, circuit: &circuit{heard: -1}}
	for _, i := range path {
		p.path = append(p.path, c.network.find(named(i)))
	}
	return p
}

// TestWhomAFailureIsHeldAgainst: behind which hops relay 9 is avoided after circuits failed at it.
// A relay that is part of all of these circuits, as a guard or a middle, cannot make the client
// avoid it behind others.
func TestWhomAFailureIsHeldAgainst(t *testing.T) {
	t.Parallel()
	const anywhere = -1
	for _, test := range []struct {
		name   string
		failed [][]int // paths up to relay 9
		work   [][]int // paths that became whole up to relay 9 afterwards
		behind []int   // of the relays 1 to 4
	}{
		{"a guard", [][]int{{1, 9}}, nil, []int{1}},
		{"a middle", [][]int{{1, 2, 9}}, nil, []int{2}},
		{"one guard and its middles", [][]int{{1, 9}, {1, 2, 9}, {1, 3, 9}}, nil, []int{1, 2, 3}},
		{"one middle behind two guards", [][]int{{1, 3, 9}, {2, 3, 9}}, nil, []int{3}},
		{"one relay as a guard and as a middle", [][]int{{1, 9}, {2, 1, 9}, {1, 3, 9}}, nil, []int{1, 3}},
		{"two guards", [][]int{{1, 9}, {2, 9}}, nil, []int{anywhere}},
		{"two middles behind two guards", [][]int{{1, 3, 9}, {2, 4, 9}}, nil, []int{anywhere}},
		{"it answered behind another", [][]int{{1, 3, 9}, {2, 4, 9}}, [][]int{{1, 2, 9}}, []int{3, 4}},
		{"it answered behind one of them", [][]int{{1, 3, 9}, {2, 4, 9}}, [][]int{{1, 3, 9}}, []int{4}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := loneClient(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
			for _, previous := range []int{1, 2, 3, 4} { // all have something of their own held behind them
				c.avoid(c.through(5, previous, 8), 2)
			}
			for _, path := range test.failed {
				c.avoid(c.through(path...), len(path)-1)
			}
			for _, path := range test.work {
				c.forgive(named(path[len(path)-2]), named(9))
			}
			everywhere := slices.Contains(test.behind, anywhere)
			for _, guard := range []int{1, 2, 5} { // whichever the guard is
				avoids := c.avoids(named(guard))
				if avoids(cert.Identity{}, named(9)) != everywhere {
					t.Errorf("guard %d: avoided behind any hop: %v", guard, !everywhere)
				}
				for previous := 1; previous <= 4; previous++ {
					if want := everywhere || slices.Contains(test.behind, previous); avoids(named(previous), named(9)) != want {
						t.Errorf("guard %d: avoided behind relay %d: %v", guard, previous, !want)
					}
				}
			}
		})
	}
}

// TestADoubtIsTheGuards: what stalls behind one guard says nothing about circuits through another,
// and the doubt ends by itself.
func TestADoubtIsTheGuards(t *testing.T) {
	t.Parallel()
	c := loneClient(1, 1, 1, 1, 1, 1)
	c.doubt(named(0), named(3))
	for guard := range 2 {
		avoids := c.avoids(named(guard))
		if got := avoids(cert.Identity{}, named(3)); got != (guard == 0) || got != avoids(named(2), named(3)) {
			t.Errorf("guard %d: avoided %v", guard, got)
		}
	}
	if !c.doubtful(c.through(0, 2, 3)) || c.doubtful(c.through(1, 2, 3)) || c.doubtful(c.through(0, 2, 4)) {
		t.Error("the wrong circuits are doubtful")
	}
	c.trust(named(3))
	if c.avoids(named(0))(named(2), named(3)) {
		t.Error("a relay that was heard of is doubted")
	}
}

// TestHowManyAreAvoided: however many circuits fail or stall, at most a fifth of the network's
// weight is avoided, or 4 relays in a small one, those that failed last.
func TestHowManyAreAvoided(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		weights func(i int) uint32
		relays  int
		most    int // relays avoided
	}{
		{"equal", func(int) uint32 { return 7 }, 100, 20},
		{"no weights", func(int) uint32 { return 0 }, 100, 20},
		{"few", func(int) uint32 { return 7 }, 8, 4},
		{"heavy ones", func(i int) uint32 { return []uint32{1, 9}[i%2] }, 100, 28}, // 28: 4 and 24 light ones, or less
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var weights []uint32
			var total uint64
			for i := range test.relays {
				weights = append(weights, test.weights(i))
				total += uint64(test.weights(i))
			}
			for _, how := range []string{"refused", "stalled", "both"} {
				c := loneClient(weights...)
				clock := env.Mono(0)
				c.env.Clock = &settableClock{c.env.Clock, &clock}
				for i := 1; i < test.relays; i++ {
					clock = clock.Add(time.Millisecond)
					if how != "stalled" {
						c.avoid(c.through(0, i), 1)
					}
					if how != "refused" {
						c.doubt(named(0), named(i))
					}
				}
				avoids, n, weight := c.avoids(named(0)), 0, uint64(0)
				for i := range test.relays {
					if avoids(named(0), named(i)) {
						n++
						weight += uint64(weights[i])
					}
				}
				if n == 0 || n > test.most || n > 4 && weight*5 > total {
					t.Errorf("%s: %d relays of weight %d of %d are avoided", how, n, weight, total)
				}
				if !avoids(named(0), named(test.relays-1)) {
					t.Errorf("%s: the last one is not avoided", how)
				}
				if avoids(named(0), named(1)) {
					t.Errorf("%s: the first one is still avoided", how)
				}
				clock = clock.Add(c.limits.AvoidTime)
				if avoids := c.avoids(named(0)); slices.ContainsFunc(c.network.relays, func(r *relayInfo) bool { return avoids(named(0), r.identity) }) {
					t.Errorf("%s: still avoided when the time is over", how)
				}
			}
		})
	}
}

type settableClock struct {
	env.Clock
	now *env.Mono
}

func (c *settableClock) Now() env.Mono { return *c.now }

// TestAnExitThatFailsBehindEveryMiddleIsLeft: such an exit is as good as one that failed.
func TestAnExitThatFailsBehindEveryMiddleIsLeft(t *testing.T) {
	t.Parallel()
	c := loneClient(1, 1, 1, 1, 1)
	for _, middle := range []int{1, 2, 3} {
		c.avoid(c.through(0, middle, 4), 2)
	}
	for range 200 {
		path, err := c.network.choosePath(c.env.Rand, c.network.find(named(0)), wish{avoid: c.avoids(named(0))}, true)
		if err != nil {
			t.Fatal(err)
		}
		if path[2].identity == named(4) {
			t.Fatal("the exit was chosen")
		}
	}
}
