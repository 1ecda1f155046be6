//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"sync"
	"time"
)

const mebi = 1 << 20

// test is one thing to be measured. A bulk test gives one sample a round, MiB/s; the others give one for each of n
// requests, in milliseconds.
type test struct {
	name, what string
	bulk       bool
	up, own    bool // uploads; a circuit for each stream
	streams    int
	requests   int
	sample     func(s *session, p *peer, i int) (time.Duration, error)
	beside     int // bulk transfers that run meanwhile, on circuits of their own: uploads if up, else downloads
	pause      time.Duration
}

var tests = []test{
	{name: "down1", what: "1 stream down", bulk: true, streams: 1},
	{name: "up1", what: "1 stream up", bulk: true, streams: 1, up: true},
	{name: "down8", what: "8 streams down, one circuit", bulk: true, streams: 8},
	{name: "up8", what: "8 streams up, one circuit", bulk: true, streams: 8, up: true},
	{name: "down32", what: "32 streams down, one circuit", bulk: true, streams: 32},
	{name: "up32", what: "32 streams up, one circuit", bulk: true, streams: 32, up: true},
	{name: "own8", what: "8 streams down, 8 circuits", bulk: true, streams: 8, own: true},
	{name: "own32", what: "32 streams down, 32 circuits", bulk: true, streams: 32, own: true},
	{name: "ownup8", what: "8 streams up, 8 circuits", bulk: true, streams: 8, own: true, up: true},
	{name: "first", what: "small request, new stream on a warm circuit", requests: 100, sample: (*session).smallRequest, pause: 5 * time.Millisecond},
	{name: "rtt", what: "round trip on an open stream", requests: 100, sample: (*session).echo},
	{name: "circuit", what: "small request on a new circuit", requests: 30, sample: (*session).ownRequest, pause: 5 * time.Millisecond},
	{name: "loaded", what: "small request beside 4 bulk downloads", requests: 50, sample: (*session).smallRequest, beside: 4},
	{name: "loadedup", what: "small request beside 4 bulk uploads", requests: 50, sample: (*session).smallRequest, beside: 4, up: true},
}

var allTests = func() (names []string) {
	for _, t := range tests {
		names = append(names, t.name)
	}
	return names
}()

func testByName(name string) *test {
	for i := range tests {
		if tests[i].name == name {
			return &tests[i]
		}
	}
	return nil
}

// measure runs one test on all peers in turns.
func (s *session) measure(t *test) {
	rounds := s.rounds
	if !t.bulk {
		rounds = min(rounds, 3)
	}
	got := make(map[*peer]*result)
	for _, p := range s.peers {
		r := &result{Test: t.name, What: t.what, Peer: p.name, Bulk: t.bulk, CPU: map[string]float64{}}
		got[p] = r
		s.results = append(s.results, r)
	}
	for round := range rounds {
		for i := range s.peers {
			p := s.peers[(i+round)%len(s.peers)]
			s.account(p, got[p], func(r *result) {
				if t.bulk {
					s.bulk(t, p, r, round)
				} else {
					s.requests(t, p, r, round)
				}
			})
		}
	}
	for _, p := range s.peers {
		r := got[p]
		fmt.Fprintf(os.Stderr, "%-8s %-6s median %8.2f  p95 %8.2f  errors %d\n", t.name, p.name, r.quantile(0.5), r.quantile(0.95), r.Errors)
	}
}

// account adds the processor time that f takes.
func (s *session) account(p *peer, r *result, f func(*result)) {
	before := make([]float64, len(p.procs))
	for i, q := range p.procs {
		before[i] = cpu(q.pid)
	}
	began := time.Now()
	f(r)
	r.Seconds += time.Since(began).Seconds()
	for i, q := range p.procs {
		r.CPU[q.name] += cpu(q.pid) - before[i]
	}
}

func (s *session) fail(r *result, err error) {
	if r.Errors++; r.Errors < 4 {
		log.Printf("%s, %s: %v", r.Peer, r.Test, err)
	}
}

// bulk moves s.mib over all streams, and takes one sample.
func (s *session) bulk(t *test, p *peer, r *result, round int) {
	size := int64(s.mib) * mebi / int64(t.streams)
	var conns []*stream
	for i := range t.streams {
		user := ""
		if t.own {
			user = fmt.Sprintf("%s-%d", t.name, i)
		}
		c, err := s.dial(p, user)
		if err != nil {
			s.fail(r, err)
			continue
		}
		defer c.Close()
		conns = append(conns, c)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var moved int64
	began := time.Now()
	for _, c := range conns {
		wg.Go(func() {
			var err error
			if t.up {
				_, err = c.roundTrip("POST", "/upload", size, io.LimitReader(zeros{}, size))
			} else {
				err = c.get(size)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.fail(r, err)
				return
			}
			moved += size
		})
	}
	wg.Wait()
	r.Samples = append(r.Samples, float64(moved)/mebi/time.Since(began).Seconds())
	r.Bytes += moved
}

// requests takes t.requests samples, spread over the rounds.
func (s *session) requests(t *test, p *peer, r *result, round int) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var beside []*stream
	for i := range t.beside {
		wg.Go(func() {
			c, err := s.dial(p, fmt.Sprintf("beside-%d", i))
			if err != nil {
				s.fail(r, err)
				return
			}
			defer c.Close()
			mu.Lock()
			beside = append(beside, c)
			mu.Unlock()
			go func() { <-stop; c.Close() }()
			const endless = 1 << 40
			if t.up {
				_, err = c.roundTrip("POST", "/upload", endless, counted{io.LimitReader(zeros{}, endless), &c.moved})
			} else {
				err = c.get(endless)
			}
			if err == nil {
				s.fail(r, errors.New("a transfer without end has ended"))
			}
		})
	}
	if t.beside > 0 {
		time.Sleep(1500 * time.Millisecond)
	}
	moved := func() (n int64) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range beside {
			n += c.moved.Load()
		}
		return n
	}
	before, began := moved(), time.Now()
	for i := range t.requests {
		took, err := t.sample(s, p, round*t.requests+i)
		if err != nil {
			s.fail(r, err)
			continue
		}
		r.Samples = append(r.Samples, took.Seconds()*1e3)
		time.Sleep(t.pause) // the chain refills its pool of connections
	}
	if t.beside > 0 {
		r.Beside = append(r.Beside, float64(moved()-before)/mebi/time.Since(began).Seconds())
	}
	close(stop)
	wg.Wait()
}

func (s *session) smallRequest(p *peer, _ int) (time.Duration, error) { return s.request(p, "") }

func (s *session) ownRequest(p *peer, i int) (time.Duration, error) {
	return s.request(p, fmt.Sprintf("own-%d-%d", os.Getpid(), i))
}

func (s *session) request(p *peer, user string) (time.Duration, error) {
	began := time.Now()
	c, err := s.dial(p, user)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	err = c.get(16)
	return time.Since(began), err
}

// echo measures round trips on a stream that stays open for all of them.
func (s *session) echo(p *peer, i int) (time.Duration, error) {
	if s.open == nil {
		s.open = map[*peer]*stream{}
	}
	if s.open[p] == nil {
		c, err := s.dial(p, "")
		if err != nil {
			return 0, err
		}
		s.open[p] = c
	}
	c := s.open[p]
	began := time.Now()
	n, err := c.roundTrip("POST", "/echo", 16, strings.NewReader("0123456789abcdef"))
	if err == nil {
		err = c.drain(n)
	}
	return time.Since(began), err
}

// warmUp has the peer build its circuit and grow its buffers.
func (p *peer) warmUp(s *session) error {
	var err error
	for range 50 {
		var c *stream
		if c, err = s.dial(p, ""); err == nil {
			err = c.get(16 * mebi)
			c.Close()
		}
		if err == nil {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	s.memory("before")
	return err
}
