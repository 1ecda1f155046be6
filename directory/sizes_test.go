package directory

import (
	"fmt"
	"strings"
	"testing"

	"cepa/cert"
)

// TestDirectoryTraffic computes what a client fetches in a day in a network of 1,000 and of 8,000 relays that changes as
// the churn model says, and keeps it below a tenth of Tor's (docs/performance.md, "Directory traffic").
func TestDirectoryTraffic(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a day of a large network")
	}
	const hours = 8 // of which diffs are made
	plain := func(w uint32) uint32 { return w }
	coarse := func(w uint32) uint32 { return uint32(roundWeight(uint64(w))) }
	var lines strings.Builder
	fmt.Fprintf(&lines, "\n%6s  %-28s %9s %9s %9s %9s %10s\n", "relays", "rules", "body", "1 h", "2 h", "24 h", "a day")
	for _, tt := range []struct {
		relays  int
		rules   string
		quality func(uint32) uint32
		keep    int
		limit   int // bytes a day
	}{
		{1000, "as measured", plain, 0, 0},
		{1000, "rounded, absent relays kept", coarse, 24, 50_000},
		{8000, "as measured", plain, 0, 0},
		{8000, "rounded", coarse, 0, 0},
		{8000, "rounded, absent relays kept", coarse, 24, 187_000},
	} {
		c := newChurn(t, tt.relays, 1)
		c.quality, c.keep = tt.quality, tt.keep
		for range 36 { // until as many come back as leave
			c.next()
		}
		bodies := [25][]byte{c.consensus()}
		for i := 1; i <= 24; i++ {
			c.next()
			if i <= hours || i == 24 {
				bodies[i] = c.consensus()
			}
		}
		size := func(from, to int) int { return len(must[[]byte](t)(makeDiff(bodies[from], bodies[to]))) }
		// A client refreshes half an interval to two intervals after the end of freshness: it takes the next consensus
		// in one case of three, else the one after it.
		day, hourly, two := 0, 0, 0
		for i := range hours {
			hourly += size(i, i+1)
		}
		for i := 0; i < hours; i += 2 {
			two += size(i, i+2)
		}
		refreshes := 24 * 3 / 5.0
		day = int((float64(hourly)/hours/3+float64(two)/(hours/2)*2/3)*refreshes) + int(refreshes*float64(headSize(t, 9, 6)))
		fmt.Fprintf(&lines, "%6d  %-28s %9d %9d %9d %9d %10d\n", len(c.up), tt.rules, len(bodies[24]), hourly/hours, two/(hours/2), size(0, 24), day)
		if tt.limit > 0 && day > tt.limit {
			t.Errorf("%d relays, %s: %d bytes a day, more than %d", tt.relays, tt.rules, day, tt.limit)
		}
	}
	fmt.Fprintf(&lines, "a head with 6 signatures of 9 authorities: %d bytes; with 9: %d\n", headSize(t, 9, 6), headSize(t, 9, 9))
	t.Log(lines.String())
}

// headSize is the size of a sealed head.
func headSize(t testing.TB, authorities, signers int) int {
	n := testNetwork(t, authorities)
	head, _ := build(t, n, testInput(t, 3))
	return len(must[[]byte](t)(cert.Seal(cert.ConsensusDocument, testID, head, testSigners(t, signers)...)))
}
