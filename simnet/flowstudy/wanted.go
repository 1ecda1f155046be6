package flowstudy

import (
	"fmt"
	"math"
	"strings"
)

// trip is the round trip of a circuit, in ms.
const trip = 180

// want is what one value should be: at least, or at most.
type want struct {
	scenario, value string
	least, most     float64 // one of them is 0
}

// wanted is what flow control was to reach, of a relay that does not know its rate and of one that does.
var wanted = []want{
	{"S1-egress", "cold: 90 % after", 0, 10 * trip}, {"S1-known", "cold: 90 % after", 0, 10 * trip},
	{"S1-egress", "warm: 90 % after", 0, 10 * trip}, {"S1-known", "warm: 90 % after", 0, 10 * trip},
	{"S1-egress", "cold: rate of 2nd half", 90, 0}, {"S1-known", "cold: rate of 2nd half", 90, 0},
	{"S1-egress", "cold: delay p50", 0, 15}, {"S1-known", "cold: delay p50", 0, 15},
	{"S2", "Jain", 0.95, 0}, {"S2-known", "Jain", 0.95, 0}, {"S2-guards", "Jain", 0.95, 0}, {"S2-guards-known", "Jain", 0.95, 0},
	{"S2", "delay p50", 0, 40}, {"S2-known", "delay p50", 0, 40}, {"S2-guards", "delay p50", 0, 40}, {"S2-guards-known", "delay p50", 0, 40},
	{"S3-10", "first byte", 0, 10}, {"S3-10-known", "first byte", 0, 10}, {"S3-40", "first byte", 0, 15}, {"S3-40-known", "first byte", 0, 15},
	{"S1-symm", "cold: rate of 2nd half", 85, 0}, {"S1-symm", "warm: rate of 2nd half", 85, 0}, {"S1-symm", "cold: delay p50", 0, 80},
	{"S2-symm", "rate", 85, 0}, {"S2-symm", "delay p50", 0, 80}, {"S3-10-symm", "first byte", 0, 20},
	{"S7", "a second below 100 ms begins after", 0, 2000}, {"S7", "90 % of 100 Mbit/s again after", 0, 1000},
	{"loss", "not crossing it", 90, 0}, {"loss", "Jain among those", 0.95, 0},
}

func (w want) holds(x float64) bool {
	if w.least > 0 {
		return x >= w.least
	}
	return x <= w.most && !math.IsNaN(x)
}

// Wanted says in Markdown what was to be reached, the median of what was, and with how many seeds it was.
func Wanted(results []*Result, rules []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | wanted | %s |\n|%s\n", strings.Join(rules, " | "), strings.Repeat(" --- |", len(rules)+2))
	for _, w := range wanted {
		cells, unit, there := "", "", false
		for _, rule := range rules {
			xs, of := valuesOf(results, w.scenario, rule, w.value)
			if len(xs) == 0 {
				cells += " – |"
				continue
			}
			held := 0
			for _, x := range xs {
				if w.holds(x) {
					held++
				}
			}
			there, unit = true, of
			cells += fmt.Sprintf(" %s (%d of %d) |", figure(quantile(xs, 0.5)), held, len(xs))
		}
		if !there {
			continue
		}
		bound := "at most " + figure(w.most)
		if w.least > 0 {
			bound = "at least " + figure(w.least)
		}
		if unit != "" {
			bound += " " + unit
		}
		fmt.Fprintf(&b, "| %s: %s | %s |%s\n", w.scenario, w.value, bound, cells)
	}
	return b.String()
}

// valuesOf are those of a name under a rule, of all seeds, and their unit.
func valuesOf(results []*Result, scenario, rule, name string) (xs []float64, unit string) {
	for _, r := range results {
		if r.Scenario != scenario || r.Rule != rule {
			continue
		}
		for _, v := range r.Values {
			if v.Name == name && !math.IsNaN(v.X) {
				xs, unit = append(xs, v.X), v.Unit
			}
		}
	}
	return xs, unit
}
