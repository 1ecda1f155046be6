package fuzz

import (
	"slices"
	"time"

	"cepa/simnet"
	"cepa/simnet/scenario"
)

// shrink makes a scenario smaller, one change after the other, as long as the same checker fires: at first with
// the same seed, and when nothing helps any more with some others, since a change changes all that is drawn by lot. What
// takes most away is tried with all of them before the rest.
// It ends early when the search's context does.
func (x *search) shrink(s *scenario.Scenario, seed uint64, v simnet.Violation) (*scenario.Scenario, uint64, simnet.Violation, error) {
	most := x.o.Shrinks
	if most == 0 {
		most = 300
	}
	others := []uint64{1, 2, 3}
	for _, round := range []struct {
		changes func(*scenario.Scenario, simnet.Violation) []change
		others  []uint64
	}{{large, nil}, {large, others}, {changes, nil}, {changes, others}} {
		failed := 0
		for i := 0; ; i++ {
			list := round.changes(s, v)
			if failed >= len(list) {
				break // none of them helps
			}
			smaller, err := clone(s)
			if err != nil {
				return nil, 0, v, err
			}
			failed++
			if !list[i%len(list)](smaller) || smaller.Check() != nil {
				continue
			}
			for _, other := range append([]uint64{seed}, round.others...) {
				if x.shrinks >= most {
					return s, seed, v, nil
				}
				x.shrinks++
				w, err := x.run(smaller, other, Step{Run: x.runs + x.shrinks, Shrinking: true, Seed: other, Violation: &v})
				if x.ctx.Err() != nil {
					return s, seed, v, nil // so small it is
				}
				if err != nil {
					return nil, 0, v, err
				}
				if w != nil && w.Checker == v.Checker {
					s, seed, v, failed = smaller, other, *w, 0
					break
				}
			}
		}
	}
	return s, seed, v, nil
}

func clone(s *scenario.Scenario) (*scenario.Scenario, error) {
	text, err := s.Encode()
	if err != nil {
		return nil, err
	}
	return scenario.Parse(text, "fuzz")
}

// change makes a scenario smaller, and reports whether there was anything to do.
type change func(*scenario.Scenario) bool

// large are changes that take much away.
func large(s *scenario.Scenario, v simnet.Violation) []change {
	list := []change{
		func(s *scenario.Scenario) bool { return hasten(s, v) },
		func(s *scenario.Scenario) bool { return shorten(s, time.Duration(v.Time)) },
		func(s *scenario.Scenario) bool { return cut(&s.Churn, 0, len(s.Churn)) },
		func(s *scenario.Scenario) bool { return cut(&s.Faults, 0, len(s.Faults)) },
		func(s *scenario.Scenario) bool { return cut(&s.Faults, len(s.Faults)/2, len(s.Faults)) },
		func(s *scenario.Scenario) bool { return cut(&s.Faults, 0, len(s.Faults)/2) },
	}
	for i := range s.Faults {
		list = append(list, func(s *scenario.Scenario) bool { return cut(&s.Faults, i, i+1) })
	}
	return append(list, func(s *scenario.Scenario) bool {
		quiet, _ := s.QuietFrom()
		return shorten(s, time.Duration(quiet)+10*time.Second)
	})
}

// changes are all that are tried, those that take most away first.
func changes(s *scenario.Scenario, v simnet.Violation) []change {
	list := append(large(s, v),
		func(s *scenario.Scenario) bool { return less(&s.Clients[0].Count, 1) },
		func(s *scenario.Scenario) bool { return less(&s.Network.Authorities, 1) },
		func(s *scenario.Scenario) bool { return less(&s.Network.Authorities, s.Network.Authorities/2+1) },
		func(s *scenario.Scenario) bool { return fewer(s, max(4, s.Relays[0].Count/2)) },
		func(s *scenario.Scenario) bool { return fewer(s, s.Relays[0].Count-1) },
		func(s *scenario.Scenario) bool { return less(&s.Clients[0].Count, s.Clients[0].Count-1) },
	)
	for i := range s.Clients[0].Loads {
		list = append(list,
			func(s *scenario.Scenario) bool { return cut(&s.Clients[0].Loads, i, i+1) },
			func(s *scenario.Scenario) bool {
				l := &s.Clients[0].Loads[i]
				some := l.Users > 1 || l.Flows > 1 || l.Isolated
				l.Users, l.Flows, l.Isolated = 1, min(l.Flows, 1), false
				return some
			})
	}
	for i := range s.Faults {
		list = append(list,
			func(s *scenario.Scenario) bool { return less(&s.Faults[i].Pick, 1) },
			func(s *scenario.Scenario) bool { return less(&s.Faults[i].For, s.Faults[i].For/2) })
	}
	return append(list,
		func(s *scenario.Scenario) bool { return unlimited(&s.Relays[0].Access) },
		func(s *scenario.Scenario) bool { return unlimited(&s.Clients[0].Access) },
		func(s *scenario.Scenario) bool { return plain(&s.CPU, scenario.CPU{}) },
		func(s *scenario.Scenario) bool {
			n := &s.Network
			return plain(&n.Latency, "60ms") || plain(&n.Jitter, 0)
		},
		func(s *scenario.Scenario) bool {
			_, there := s.Network.Parameters["full_view"]
			delete(s.Network.Parameters, "full_view")
			return there
		},
		func(s *scenario.Scenario) bool { return plain(&s.Relays[0].MemoryMiB, 0) },
	)
}

// cut takes some of a list away.
func cut[T any](list *[]T, from, to int) bool {
	if to > len(*list) || from >= to {
		return false
	}
	*list = slices.Delete(*list, from, to)
	return true
}

// less sets a number to a smaller one above zero.
func less[N int | scenario.Duration](n *N, to N) bool {
	if to < 1 || *n <= to {
		return false
	}
	*n = to
	return true
}

func plain[T comparable](v *T, to T) bool {
	if *v == to {
		return false
	}
	*v = to
	return true
}

// unlimited takes the limits of machines' connections away.
func unlimited(a *scenario.Access) bool {
	some := a.Up != 0 || a.Down != 0 || a.Mile != 0 || a.Buffer != 0 || a.Queue != ""
	*a = scenario.Access{}
	return some
}

// fewer leaves so many relays.
func fewer(s *scenario.Scenario, count int) bool {
	r := &s.Relays[0]
	if !less(&r.Count, max(count, 3)) {
		return false
	}
	r.Exits = min(r.Exits, r.Count-2)
	return true
}

// hasten leaves out what comes after the end, when the violation comes before it, and what is judged then.
func hasten(s *scenario.Scenario, v simnet.Violation) bool {
	if s.Settle != nil || time.Duration(v.Time) >= time.Duration(s.Duration) {
		return false
	}
	s.Settle = new(scenario.Duration)
	for _, name := range []string{"leftovers", "results"} {
		if !slices.Contains(s.Unchecked, name) {
			s.Unchecked = append(s.Unchecked, name)
		}
	}
	return true
}

// shorten ends a scenario a little after the violation. What happens in the end only (Finish) needs no more than the
// faults do.
func shorten(s *scenario.Scenario, at time.Duration) bool {
	end := scenario.Duration(at.Truncate(time.Second) + time.Second)
	for _, f := range s.Faults {
		end = max(end, f.At+1)
	}
	for i := range s.Churn {
		c := &s.Churn[i]
		if c.Until > end {
			end = c.Until
		}
	}
	if s.Liveness > end || end >= s.Duration {
		return false
	}
	s.Duration = end
	s.Warmup = min(s.Warmup, end)
	s.Clients[0].Start = min(s.Clients[0].Start, end)
	return true
}
