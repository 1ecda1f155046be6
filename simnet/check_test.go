package simnet

import (
	"strings"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/node"
)

// TestCheckersFire: each checker catches the bug that is seeded for it, and no other does. One that
// was never seen to fire says nothing by its silence.
func TestCheckersFire(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, checker string
		seed          func(s *small)
		runs          time.Duration
	}{
		{"no bug", "", func(s *small) {}, 0},
		{"a byte is changed on its way", "bytes", func(s *small) {
			s.defects.reply = func(f *Flow, offset int64, p []byte) {
				if f != nil && f.ID%5 == 2 && offset > 10_000 {
					p[len(p)/2] ^= 1
				}
			}
		}, 0},
		{"a piece comes twice", "bytes", func(s *small) {
			var before []byte
			s.defects.reply = func(f *Flow, offset int64, p []byte) {
				if f != nil && f.ID == 3 && len(before) == len(p) {
					copy(p, before)
				}
				before = append(before[:0], p...)
			}
		}, 0},
		{"a stream never ends", "results", func(s *small) {
			s.defects.deaf = func(f *Flow) bool { return f.ID == 4 }
		}, 0},
		{"a client shares circuits among keys", "isolation", func(s *small) {
			s.defects.isolation = func(string) string { return "everybody" }
		}, 0},
		{"two consensuses of one time", "consensus", func(s *small) {
			s.defects.consensus = func(h *Host, d cert.Digest) cert.Digest {
				if h.Name == "relay-3" && s.Now() > 20e9 {
					d[0] ^= 1
				}
				return d
			}
		}, 0},
		{"a relay returns the credit of each cell twice", "accounts", func(s *small) {
			s.restart(node.DefectCredit)
		}, 0},
		{"a relay takes DATA from a stream's window twice", "accounts", func(s *small) {
			s.restart(node.DefectWindow)
			s.net.Clients[0].Use(Bulk("web.example", 2_000_000))
		}, 0},
		{"a client forgets its guards", "guards", func(s *small) {
			for _, c := range s.checkers {
				if c, ok := c.(*GuardChecker); ok {
					c.Bound = 1 // in a network of two that may be guards
				}
			}
			c := s.net.Clients[0]
			for i := range 4 {
				s.After(time.Duration(6+2*i)*time.Second, func() {
					c.Host.Crash()
					delete(c.Host.disk.saved, "guards")
					if err := c.Start(); err != nil {
						s.t.Error(err)
					}
					c.Use(Bulk("web.example", 1000))
				})
			}
		}, 0},
		{"relays do not come back when the network does", "liveness", func(s *small) {
			s.After(21*time.Second, func() {
				for _, r := range s.net.Relays[1:] {
					r.Host.silent = true
				}
				s.faulty = true
			})
		}, 40 * time.Second},
		{"there is no consensus any more", "liveness", func(s *small) {
			s.After(21*time.Second, func() {
				s.net.Relays[0].Host.silent = true
				s.faulty = true
			})
		}, 50 * time.Second},
		{"a relay keeps a circuit that was destroyed", "leftovers", func(s *small) {
			s.defects.cells = func(h *Host, cells []byte) []byte {
				if !strings.HasPrefix(h.Name, "relay") {
					return cells
				}
				var kept []byte
				for ; len(cells) > 0; cells = cells[cell.Size:] {
					if cell.Command(cells[4]&0x7f) != cell.CommandDestroy {
						kept = append(kept, cells[:cell.Size]...)
					}
				}
				return kept
			}
		}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSmall(t, Config{Seed: 5}, 5, 2)
			test.seed(s)
			s.RunUntil(20*time.Second, s.net.Ready)
			for _, c := range s.checkers {
				if c, ok := c.(*LivenessChecker); ok {
					c.Within = 2 * time.Second
				}
			}
			s.Calm()
			s.Run(max(15*time.Second, test.runs))
			s.net.StopClients()
			s.Run(10 * time.Second) // soon: links on which circuits stay behind are given up in the end
			found := map[string]int{}
			for _, v := range s.Finish() {
				found[v.Checker]++
				if len(v.Last) == 0 || v.Seed != 5 || v.Time == 0 {
					t.Errorf("a violation without its circumstances: %+v", v)
				}
				if v.Checker != test.checker {
					t.Error(v)
				}
			}
			if test.checker != "" && found[test.checker] == 0 {
				t.Errorf("%s did not notice: %v", test.checker, found)
			}
		})
	}
}

// restart gives all relays a bug.
func (s *small) restart(d node.Defect) {
	s.defects.node = func(h *Host) node.Defect {
		if strings.HasPrefix(h.Name, "relay") {
			return d
		}
		return 0
	}
	for _, r := range s.net.Relays[1:] {
		r.Host.Crash()
		if err := r.Start(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestCheckersSee: what they are to judge does reach them.
func TestCheckersSee(t *testing.T) {
	t.Parallel()
	s := newSmall(t, Config{Seed: 6}, 5, 2)
	s.RunUntil(20*time.Second, s.net.Ready)
	s.Run(20 * time.Second)
	s.finish()
	good, _ := s.results()
	for _, c := range s.checkers {
		switch c := c.(type) {
		case *IsolationChecker:
			if c.Attached < good || len(c.keys) < 4 {
				t.Errorf("%d streams on %d circuits were seen, of %d", c.Attached, len(c.keys), good)
			}
		case *ConsensusChecker:
			if c.Seen < 5 {
				t.Errorf("%d consensuses were seen", c.Seen)
			}
		case *AccountsChecker:
			if c.Looks < 50 {
				t.Errorf("nodes were looked at %d times", c.Looks)
			}
		case *GuardChecker:
			if c.Most < 1 || c.stated != leastGuards {
				t.Errorf("%d guards were seen, of at most %d", c.Most, c.stated)
			}
		case *ResultChecker:
			if len(c.ended) < good {
				t.Errorf("%d results were seen, of %d", len(c.ended), good)
			}
		}
	}
}
