//go:build linux

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cepa/directory"
)

// scaleVariable has the sizes of the networks that TestDirectoryTrafficOfRelays measures.
const scaleVariable = "CEPA_E2E_SCALE"

// hourScaled is the interval of these networks. All else that is due from time to time is so in
// the same proportion as in a network with an interval of an hour, so what an interval costs here
// an hour costs there.
const hourScaled = 20 * time.Second

// crowd makes a network of one authority and so many relays, of which its file names the authority only.
func crowd(t *testing.T, relays int, fullView bool) *field {
	p := directory.Parameters{
		directory.IntervalMillis: hourScaled.Milliseconds(), directory.KeepaliveMillis: 60_000, directory.MinRelays: 3, directory.MeasureIntervals: 0,
		directory.ReconcileMillis: hourScaled.Milliseconds() / 6, directory.UpdateMillis: hourScaled.Milliseconds(),
	}
	if !fullView {
		p[directory.FullView] = 1
	}
	return newField(t, plan{authorities: 1, relays: relays, onlyNamed: true, parameters: p})
}

// A hundred relays that know one address are all in a consensus within two intervals.
func TestManyRelaysJoinThroughOneAddress(t *testing.T) {
	proof(t)
	const relays = 100
	f := crowd(t, relays, true)
	f.startAll(t)
	begun := time.Now()
	listed := within(t, 2*hourScaled, "all relays are in a consensus", func() bool {
		c := f.consensus(f.node("a1"))
		return c != nil && len(c.Relays) == relays
	})
	t.Logf("%d relays were in a consensus %v after the last was started", relays, listed.Round(time.Millisecond))
	within(t, 2*hourScaled, "all relays have that consensus", func() bool {
		return !slices.ContainsFunc(f.parts("relay"), func(a *actor) bool {
			c := f.consensus(a)
			return c == nil || len(c.Relays) != relays
		})
	})
	t.Logf("all relays had that consensus %v after the last was started", time.Since(begun).Round(time.Millisecond))
	f.agree(t, 3*hourScaled, f.listsAll())
	f.flows(t, f.client(t, 20*time.Second))
	sum, peak := 0, 0
	for _, a := range f.parts("relay") {
		now, _ := memory(t, a.pid())
		sum += now
		peak = max(peak, now)
	}
	t.Logf("resident memory of a relay: %d MiB on average, %d at most", sum/relays>>10, peak>>10)
}

// What relays spend on directory and gossip, for the table in docs/performance.md. A run takes
// about eight minutes a size and way: in 18 intervals every relay publishes a new descriptor once.
func TestDirectoryTrafficOfRelays(t *testing.T) {
	proof(t)
	sizes := os.Getenv(scaleVariable)
	if sizes == "" {
		t.Skipf("for the table of docs/performance.md: set %s=10,30,100", scaleVariable)
	}
	const settling, watched = 2, 18 // intervals
	t.Log("relays | view | in | out | gossip | padding | descriptors pulled | comparisons | links | memory | authority in, out")
	for _, text := range strings.Split(sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, fullView := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d relays, full view %v", n, fullView), func(t *testing.T) {
				f := crowd(t, n, fullView)
				f.startAll(t)
				within(t, 4*hourScaled, "all relays are in a consensus", func() bool {
					c := f.consensus(f.node("a1"))
					return c != nil && len(c.Relays) == n
				})
				time.Sleep(settling * hourScaled)
				before := f.spent(t, f.parts("relay"))
				authority := f.spent(t, f.parts("authority"))
				time.Sleep(watched * hourScaled)
				after := f.spent(t, f.parts("relay"))
				of := func(name string) float64 { return float64(after[name]-before[name]) / float64(n) / watched }
				aIn := f.spent(t, f.parts("authority"))
				kib := func(bytes float64) string { return fmt.Sprintf("%.1f KiB", bytes/1024) }
				const cell = 2070 // with its share of TLS
				t.Logf("a relay and interval: %d | %v | %s | %s | %s | %s | %.2f | %.2f | %.0f | %d MiB | %s, %s",
					n, fullView, kib(of("transport_bytes_read")), kib(of("transport_bytes_written")), kib(of("gossip_packets_out")*cell),
					kib(of("padding_out")*cell), of("directory_pulls"), of("directory_reconciled"), float64(after["links"])/float64(n), after["rss"]/int64(n)>>10,
					kib(float64(aIn["transport_bytes_read"]-authority["transport_bytes_read"])/watched), kib(float64(aIn["transport_bytes_written"]-authority["transport_bytes_written"])/watched))
			})
		}
	}
}

// spent are the sums of the counters of nodes, with their memory in KiB.
func (f *field) spent(t testing.TB, nodes []*actor) map[string]int64 {
	t.Helper()
	sum := make(map[string]int64)
	for _, a := range nodes {
		for name, n := range counters(t, a.dir) {
			sum[name] += n
		}
		now, _ := memory(t, a.pid())
		sum["rss"] += int64(now)
	}
	return sum
}
