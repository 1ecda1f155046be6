package limit

import (
	"math"
	"testing"
	"time"

	"cepa/env"
)

// pipe is a connection that always has more to send, over a path with a queue of its own.
type pipe struct {
	f      Flight
	now    env.Mono
	rate   int64 // bytes a second
	least  time.Duration
	others time.Duration // that the queue holds of other traffic
	window int64         // that TCP allows
}

// round lets a round trip pass and returns how long the queue was, without that of others.
func (p *pipe) round() (queue time.Duration, most int) {
	flight := p.window
	if p.f.most > 0 {
		flight = min(flight, p.f.most)
	}
	queue = max(time.Duration(flight*1e6/p.rate)*time.Microsecond-p.least-p.others, 0)
	trip := p.least + p.others + queue
	p.now = p.now.Add(trip)
	return queue, p.f.Judge(p.now, Sample{Flight: int(flight), Trip: trip, Least: p.least})
}

// A connection alone keeps about 15 ms in the queue of its bottleneck and uses all of the rate, on paths of any kind.
func TestFlightKeepsTheQueueShort(t *testing.T) {
	t.Parallel()
	for _, rate := range []int64{125_000, 1_250_000, 12_500_000, 1_250_000_000} {
		for _, least := range []time.Duration{time.Millisecond, 30 * time.Millisecond, 300 * time.Millisecond} {
			p := &pipe{rate: rate, least: least, window: rate * (least + 300*time.Millisecond).Microseconds() / 1e6}
			for range 40 {
				p.round()
			}
			for range 100 {
				queue, most := p.round()
				longest := 16 * time.Millisecond
				if most == leastFlight { // which takes longer than 15 ms
					longest = 80 * time.Millisecond
				}
				if queue > longest || queue < 10*time.Millisecond {
					t.Fatalf("%d bytes a second over %v: a queue of %v", rate, least, queue)
				}
			}
			// Ten times slower, and as fast again.
			p.rate = rate / 10
			for range 60 {
				p.round()
			}
			if queue, most := p.round(); queue > 16*time.Millisecond && most > leastFlight {
				t.Errorf("%d bytes a second over %v: a queue of %v at a tenth", rate, least, queue)
			}
			p.rate = rate
			for range 100 {
				p.round()
			}
			if queue, _ := p.round(); queue == 0 {
				t.Errorf("%d bytes a second over %v: the path is not full", rate, least)
			}
		}
	}
}

// A connection whose window fits the path has no limit.
func TestFlightIsFreeWithoutAQueue(t *testing.T) {
	t.Parallel()
	p := &pipe{rate: 1_250_000, least: 60 * time.Millisecond, window: 1_250_000 * 70 / 1000}
	for range 100 {
		if _, most := p.round(); most != 0 {
			t.Fatalf("limited to %d bytes", most)
		}
	}
	p.window *= 2
	for range 20 {
		p.round()
	}
	if p.f.most == 0 {
		t.Fatal("not limited with a queue of 80 ms")
	}
	p.window = 10_000
	for range 20 {
		p.round()
	}
	if p.f.most != 0 {
		t.Error("still limited when there is little to send")
	}
}

// Where others keep the queue long a connection gives way, by halves at most, and after a while no more.
func TestFlightGivesWayOnlyForAWhile(t *testing.T) {
	t.Parallel()
	p := &pipe{rate: 1_250_000, least: 20 * time.Millisecond, others: 60 * time.Millisecond, window: 100_000}
	p.round()
	limited := 0
	for ; p.f.most > 0; limited++ {
		p.round()
	}
	if limited != mostFutile {
		t.Errorf("limited for %d round trips", limited)
	}
	end := p.now.Add(flightPause)
	for p.now.Add(time.Second) < end {
		if _, most := p.round(); most != 0 {
			t.Fatal("limited again too soon")
		}
	}
	for p.now < end.Add(time.Second) {
		p.round()
	}
	if p.f.most == 0 {
		t.Error("never tried again")
	}
}

// Samples that make no sense change nothing, and none asks for less than four cells.
func TestFlightIgnoresNonsense(t *testing.T) {
	t.Parallel()
	var f Flight
	for i, s := range []Sample{
		{}, {Flight: 1 << 20}, {Trip: time.Second}, {Flight: -1, Trip: time.Second}, {Flight: 1 << 20, Trip: -1},
		{Flight: math.MaxInt, Trip: time.Second}, {Flight: 1 << 20, Trip: math.MaxInt64}, {Flight: 1 << 20, Trip: time.Millisecond, Least: time.Hour},
	} {
		if most := f.Judge(env.Mono(i)*1e12, s); most != 0 {
			t.Errorf("%+v: a limit of %d", s, most)
		}
	}
	f.Judge(1e14, Sample{Flight: 1 << 30, Trip: time.Minute, Least: 1})
	for i := range 10 {
		if most := f.Judge(env.Mono(2e14+1e12*float64(i)), Sample{Flight: leastFlight, Trip: time.Minute}); most < leastFlight {
			t.Errorf("a limit of %d", most)
		}
	}
}
