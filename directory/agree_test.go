package directory

import (
	"fmt"
	"testing"
	"time"
)

// TestCouncilAgrees: authorities that are up make one consensus for each interval, the first one soon after the start,
// and each names the one before it.
func TestCouncilAgrees(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3, 4, 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			c := newCouncil(t, uint64(n), n, 0, nil)
			c.startAll()
			if !c.f.RunUntil(3*time.Second, func() bool { return c.all(c.seats, testNow) }) {
				t.Fatalf("no consensus; %+v", c.seats[0].authority.Stats())
			}
			first := c.seats[0].newest()
			if at := c.wall(); first.After(at) {
				t.Errorf("in use at %v, before its time", at)
			}
			c.f.Run(21 * time.Second)
			heads := c.seats[0].heads
			if len(heads) < 5 || len(heads) > 6 {
				t.Fatalf("%d consensuses in 20 s", len(heads))
			}
			for i, h := range heads {
				if len(h.Signers) != n {
					t.Errorf("consensus %d has %d signatures", i, len(h.Signers))
				}
				if i > 0 && (h.Previous != heads[i-1].Digest || !h.PreviousAt.Equal(heads[i-1].ValidAfter)) {
					t.Errorf("consensus %d does not name the one before it", i)
				}
				if i > 0 && !c.agenda().isRegular(h.ValidAfter) {
					t.Errorf("a consensus of %v although there was a fresh one", h.ValidAfter)
				}
			}
			for _, s := range c.seats {
				st := s.authority.Stats()
				if st.FewVotes+st.NotMade+st.FewSignatures+st.VotesLate+st.VotesEarly+st.VotesRefused+st.Equivocations+st.SignaturesRefused > 0 || st.LastVotes != n {
					t.Errorf("authority %d: %+v", s.number, st)
				}
			}
			c.check(n)
		})
	}
}
