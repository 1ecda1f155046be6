package measure

import (
	"slices"
	"time"

	"cepa/cert"
)

// How much is kept of one relay, and how much of it is wanted.
const (
	keptHidden = 5 // results of measurements that the relay could not tell from a client's
	keptOpen   = 3 // results of those that it could
	enough     = 3 // hidden results from which an estimate is made; until then a relay is measured before others
	some       = 2 // from which it is guessed for the choice of those that others are measured through, and wide ones that count alone
	patience   = 5 // failures in a row after which a relay waits for its turn
	distrust   = 3 // failures in a row of circuits with a relay after which no other is measured through it
	openEvery  = 3 // one measurement in so many is open

	// deceit is how much faster a relay must be for whom it knows to be reported.
	deceit = 2
	// headroom is how much faster than a relay those should be through whom it is measured.
	headroom = 2
)

// result is what one measurement found.
type result struct {
	at     time.Time // whole seconds
	kib    uint32    // a second, at least 1
	open   bool      // the relay could see who measures
	narrow bool      // the other relays may have been what was slow: they are not known to be much faster
}

// record is what is known of one relay.
type record struct {
	id       cert.Identity
	results  []result // in order of time
	attempts uint64
	failures int       // of hidden measurements, in a row
	trouble  int       // circuits that failed in a row with this relay, wherever it was
	tried    time.Time // begin of the last attempt; zero when there was none
	suspect  bool      // reported, and still so
}

// add keeps a result and lets the oldest of its kind go.
func (r *record) add(x result) {
	r.results = append(r.results, x)
	most := keptHidden
	if x.open {
		most = keptOpen
	}
	count := 0
	for i := len(r.results) - 1; i >= 0; i-- {
		if r.results[i].open == x.open {
			if count++; count > most {
				r.results = slices.Delete(r.results, i, i+1)
				return
			}
		}
	}
}

// forget drops results from before a time.
func (r *record) forget(before time.Time) {
	r.results = slices.DeleteFunc(r.results, func(x result) bool { return x.at.Before(before) })
}

// rates are those of the results for which ok holds, ascending.
func (r *record) rates(ok func(result) bool) []uint32 {
	var list []uint32
	for _, x := range r.results {
		if ok(x) {
			list = append(list, x.kib)
		}
	}
	slices.Sort(list)
	return list
}

func hidden(x result) bool { return !x.open }
func wide(x result) bool   { return !x.open && !x.narrow }

// middle is the median of ascending rates, the upper one of two.
func middle(rates []uint32) uint32 { return rates[len(rates)/2] }

// guess is what the hidden results say. Those through relays that are much faster say how fast this one is, and their
// median is taken: they are too low when a relay of the circuit was busy, and too high for nobody but relays that know
// of the measurement. A narrow one says only that the relay is not slower: it counts when it is higher than that median.
// While nearly all are narrow, at the beginning and for the fastest relays, the highest counts, or the one below it when
// there are four.
func (r *record) guess() (kib uint32, ok bool) {
	all, free := r.rates(hidden), r.rates(wide)
	switch {
	case len(all) < some:
		return 0, false
	case len(free) < some:
		return all[len(all)-1-len(all)/4], true
	}
	least := middle(free)
	return middle(r.rates(func(x result) bool { return wide(x) || hidden(x) && x.kib > least })), true
}

// estimate is a guess from enough results to vote on it.
func (r *record) estimate() (kib uint32, ok bool) {
	if len(r.rates(hidden)) < enough {
		return 0, false
	}
	return r.guess()
}

// lacks says whether the relay is to be measured before others: of one whose results are nearly all narrow, all that
// are kept are wanted.
func (r *record) lacks() bool {
	n := len(r.rates(hidden))
	return r.failures < patience && (n < enough || n < keptHidden && len(r.rates(wide)) < some)
}

// openNext says whether the next measurement is an open one.
func (r *record) openNext() bool {
	return r.attempts%openEvery == openEvery-1 && len(r.rates(hidden)) >= enough
}

// deceives says whether the relay is much faster for those whom it knows than for clients: by the medians of several
// measurements, and only where the other relays of the hidden ones are known to be faster than what was found. When too
// little is known, the verdict stays as it was.
func (r *record) deceives() (shown, seen uint32, yes bool) {
	open := r.rates(func(x result) bool { return x.open })
	free := r.rates(wide)
	all := r.rates(hidden)
	if len(open) < keptOpen || len(free) < enough {
		return 0, 0, r.suspect
	}
	shown, seen = middle(open), middle(all)
	return shown, seen, shown/deceit > max(seen, middle(free))
}
