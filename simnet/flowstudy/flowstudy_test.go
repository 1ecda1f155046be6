package flowstudy

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestTry(t *testing.T) {
	for _, s := range Scenarios() {
		if !strings.HasPrefix(s.Name, os.Getenv("SC")) {
			continue
		}
		for _, rule := range strings.Split(os.Getenv("RULES"), ",") {
			began := time.Now()
			if os.Getenv("DBG") != "" {
				p, err := s.run(rule, 1, false, 0)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range p.flows("bulk", 0, time.Hour) {
					t.Log(time.Duration(f.Opened)-loads, time.Duration(f.First)-loads, time.Duration(f.Last)-loads, time.Duration(f.Ended)-loads, f.Down, f.Err)
				}
				for _, x := range p.r.Network.Relays {
					c := x.Node.Counters()
					t.Log(x.Host.Name, c["budget_victims"], c["stuck"], c["dead_links"], c["refused"], c["hoarders"], c["relay_circuits"], c["legs"])
				}
				for i := 0; i < len(p.looks); i += 200 {
					l := p.looks[i]
					t.Log(i/100, l.got>>10, l.held, l.memory>>10)
				}
				continue
			}
			r, err := Measure(s, rule, 1, 0)
			if err != nil {
				t.Error(err)
				continue
			}
			t.Logf("%s %s %.1f %v", s.Name, rule, time.Since(began).Seconds(), r.Values)
		}
	}
}
