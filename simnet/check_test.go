package simnet

import (
	"strings"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
)

// TestCheckersFire: each checker catches the bug that is seeded for it, and no other does. One that
// was never seen to fire says nothing by its silence.
func TestCheckersFire(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, checker string
		seed          func(s *small)
	}{
		{"no bug", "", func(s *small) {}},
		{"a byte is changed on its way", "bytes", func(s *small) {
			s.defects.reply = func(f *Flow, offset int64, p []byte) {
				if f != nil && f.ID%5 == 2 && offset > 10_000 {
					p[len(p)/2] ^= 1
				}
			}
		}},
		{"a piece comes twice", "bytes", func(s *small) {
			var before []byte
			s.defects.reply = func(f *Flow, offset int64, p []byte) {
				if f != nil && f.ID == 3 && len(before) == len(p) {
					copy(p, before)
				}
				before = append(before[:0], p...)
			}
		}},
		{"a stream never ends", "results", func(s *small) {
			s.defects.deaf = func(f *Flow) bool { return f.ID == 4 }
		}},
		{"a client shares circuits among keys", "isolation", func(s *small) {
			s.defects.isolation = func(string) string { return "everybody" }
		}},
		{"two consensuses of one time", "consensus", func(s *small) {
			s.defects.consensus = func(h *Host, d cert.Digest) cert.Digest {
				if h.Name == "relay-3" && s.Now() > 20e9 {
					d[0] ^= 1
				}
				return d
			}
		}},
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
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSmall(t, Config{Seed: 5}, 5, 2)
			test.seed(s)
			s.RunUntil(20*time.Second, s.net.Ready)
			s.Run(15 * time.Second)
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
		case *ResultChecker:
			if len(c.ended) < good {
				t.Errorf("%d results were seen, of %d", len(c.ended), good)
			}
		}
	}
}
