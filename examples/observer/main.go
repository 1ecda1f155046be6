// Observer asks: how much does somebody see who runs some of the relays?
//
// An adversary owns so many relays of the network, drawn by lot from a stream of randomness of its own, and
// watches. Whoever has the guard of a circuit knows the user, whoever has its exit knows the destination; who has
// both can tell by the timing that they belong together. The program counts the circuits and streams of
// which the adversary has both ends, and the users to whom that happened at least once, beside what one would
// see if there were no guards:
//
//	go run ./observer -owned 4
package main

import (
	"flag"
	"fmt"
	"log"
	"math"
	"time"

	"cepa/cert"
	"cepa/circuit"
	"cepa/simnet"
	"cepa/simnet/scenario"
)

// network is the scenario; its length is filled in.
const network = `
duration = "%v"

[network]
authorities = 1
parameters = { interval_ms = 10000 }
latency = "40ms"

[[relays]]
count = 16
exits = 8
rate = "20 Mbit/s"

[[clients]]
count = 40
rate = "50 Mbit/s"
start = "5s"
spread = "5s"

[[clients.load]]
kind = "web"
think = "3s"
bytes = "30 kB"
isolated = true   # each page over a circuit of its own, so that there are many

[[servers]]
host = "web.example"
`

func main() {
	length := flag.Duration("length", 2*time.Minute, "simulated time")
	seed := flag.Uint64("seed", 1, "decides the run")
	lot := flag.Uint64("lot", 1, "decides which relays the adversary owns, and nothing else")
	owned := flag.Int("owned", 4, "relays that the adversary owns")
	flag.Parse()
	s, err := scenario.Parse([]byte(fmt.Sprintf(network, *length)), "observer")
	if err != nil {
		log.Fatal(err)
	}
	run, err := s.Build(*seed, scenario.Options{Streams: map[string]uint64{simnet.StreamAdversary: *lot}})
	if err != nil {
		log.Fatal(err)
	}
	a := newAdversary(run.World, *owned)
	run.World.OnCircuit(a.onCircuit)
	run.World.OnFlow(a.onFlow)
	run.Advance(time.Second) // the relays are there
	a.choose(run.Network)
	for !run.Advance(time.Minute) {
	}
	for _, v := range run.Finish() {
		log.Fatal("a checker fired: ", v)
	}
	if err := run.Err(); err != nil {
		log.Fatal(err)
	}
	a.tell(run.Network)
}

// user is one of whom it saw something, or not.
type user struct{ streams, known int }

// adversary owns some relays.
type adversary struct {
	world *simnet.World
	most  int
	mine  map[cert.Identity]bool

	circuits, seen int // that were built; of which both ends are the adversary's
	streams, known int // that were connected; likewise
	users          map[string]*user
}

func newAdversary(w *simnet.World, most int) *adversary {
	return &adversary{world: w, most: most, mine: make(map[cert.Identity]bool), users: make(map[string]*user)}
}

// choose draws the relays by lot.
func (a *adversary) choose(n *simnet.Network) {
	var all []cert.Identity
	for _, r := range n.Relays {
		if !r.Spec().DirectoryOnly {
			all = append(all, r.Keys.Identity())
		}
	}
	dice := a.world.Stream(simnet.StreamAdversary, "owned")
	for len(a.mine) < min(a.most, len(all)) {
		a.mine[all[dice.Below(uint64(len(all)))]] = true
	}
}

// both says whether both ends of a path are the adversary's.
func (a *adversary) both(path []cert.Identity) bool {
	return len(path) > 0 && a.mine[path[0]] && a.mine[path[len(path)-1]]
}

func (a *adversary) onCircuit(_ *simnet.Client, e circuit.Event) {
	if e.Stage != circuit.StageOpen {
		return
	}
	a.circuits++
	if a.both(e.Path) {
		a.seen++
	}
}

func (a *adversary) onFlow(f *simnet.Flow) {
	if f.Connected == 0 {
		return
	}
	u := a.users[f.Client.Name]
	if u == nil {
		u = &user{}
		a.users[f.Client.Name] = u
	}
	a.streams++
	u.streams++
	if a.both(f.Path) {
		a.known++
		u.known++
	}
}

func (a *adversary) tell(n *simnet.Network) {
	var all, mine, exits, mineExits float64
	for _, r := range n.Relays {
		if r.Spec().DirectoryOnly {
			continue
		}
		id := r.Keys.Identity()
		all++
		isExit := r.Spec().Policy != "none"
		if isExit {
			exits++
		}
		if a.mine[id] {
			mine++
			if isExit {
				mineExits++
			}
		}
	}
	fmt.Printf("the adversary owns %.0f of %.0f relays, %.0f of %.0f exits\n", mine, all, mineExits, exits)
	fmt.Printf("circuits: %d of %d have both ends there, %.2f %%\n", a.seen, a.circuits, percent(a.seen, a.circuits))
	fmt.Printf("streams:  %d of %d, %.2f %%\n", a.known, a.streams, percent(a.known, a.streams))
	hit, streams, known := 0, 0, 0
	for _, u := range a.users {
		if u.known > 0 {
			hit++
			streams += u.streams
			known += u.known
		}
	}
	fmt.Printf("users:    %d of %d at least once, %.1f %%; of their streams, %.1f %%\n", hit, len(a.users), percent(hit, len(a.users)), percent(known, streams))
	chance := float64(a.known) / float64(max(1, a.streams))
	each := float64(a.streams) / float64(max(1, len(a.users)))
	fmt.Printf("          if each stream drew its relays anew: %.1f %% of the users\n", 100*(1-math.Pow(1-chance, each)))
}

func percent(n, of int) float64 { return 100 * float64(n) / float64(max(1, of)) }
