package limit

import (
	"time"

	"cepa/env"
)

// Flight says how much of a connection may be under way before it waits in queues on the path, where nobody takes turns:
// so much that they hold 15 ms. While they hold less there is no limit. Its zero value is ready.
//
// It gives way to others who fill the same queues, at once to half of its rate and from there slowly. That is of no use
// when the queue stays, and it cannot tell before whose queue it is: after 24 round trips there is no limit for half a
// minute. All of it is in integers, so that a simulation is the same on every machine.
type Flight struct {
	most   int64    // bytes; 0: no limit
	next   env.Mono // when it is judged again
	free   int64    // bytes a second that came through before there was a limit,
	best   int64    // and lately
	futile int      // judgements in a row that found a long queue
}

const (
	standing    = 15 * time.Millisecond // may stand in queues on the path
	leastFlight = 4 * 2048              // bytes that may always be under way
	mostFutile  = 24
	flightPause = 30 * time.Second
)

// Sample is what TCP knows of a connection.
type Sample struct {
	Flight      int           // bytes that were sent and not acknowledged
	Trip, Least time.Duration // the round trip, smoothed, and the shortest
}

// Judge takes a sample and returns how many bytes TCP may have, sent or not, from now on; 0 is without limit. It goes by
// one sample a round trip and ignores others.
func (f *Flight) Judge(now env.Mono, s Sample) (most int) {
	trip, flight := s.Trip.Microseconds(), int64(s.Flight)
	if now < f.next || trip <= 0 || trip > time.Minute.Microseconds() || flight <= 0 || flight > 1<<30 {
		return int(f.most)
	}
	f.next = now.Add(max(s.Trip, time.Millisecond))
	queue, full := s.Trip-s.Least, (s.Least + standing).Microseconds()
	rate := flight * 1_000_000 / trip
	if f.most == 0 {
		if queue <= standing || flight <= leastFlight {
			return 0
		}
		f.free, f.best, f.futile, f.most = rate, rate, 0, flight
	}
	if queue <= 2*standing || f.most == leastFlight && rate > f.free/2 { // a slow path is full with four cells
		f.futile = 0
	} else if f.futile++; f.futile > mostFutile {
		f.most, f.next = 0, now.Add(flightPause)
		return 0
	}
	if flight < f.most/2 { // something else holds it back
		if queue <= standing {
			f.most = 0
		}
		return int(f.most)
	}
	f.best = max(rate, f.best-f.best/8)
	f.most = max((f.most+flight*full/trip)/2, f.best/2*full/1_000_000, leastFlight)
	return int(f.most)
}
