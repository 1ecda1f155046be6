package baseline

import (
	"time"

	"cepa/env"
)

// trips measures round trips: from when this end allowed more, to when the first of that has come.
type trips struct {
	waiting []allowance   // in order
	least   time.Duration // so far; 0 before the first
}

// allowance is more that was allowed, and how much comes before it.
type allowance struct {
	at     env.Mono
	before int
}

// maxWaiting bounds what is measured at a time.
const maxWaiting = 4096

func (t *trips) begin(now env.Mono, before int) {
	if len(t.waiting) < maxWaiting {
		t.waiting = append(t.waiting, allowance{now, before})
	}
}

// arrived is told how much has come in all, and returns the round trip that ends with it; 0 if none does.
func (t *trips) arrived(now env.Mono, n int) time.Duration {
	trip := time.Duration(0)
	for len(t.waiting) > 0 && n > t.waiting[0].before {
		trip = max(now.Sub(t.waiting[0].at), 1)
		t.waiting = t.waiting[1:]
		if t.least == 0 || trip < t.least {
			t.least = trip
		}
	}
	return trip
}
