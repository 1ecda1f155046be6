// Package calibrate measures what the daemon's own code costs on this machine, for simnet's model of
// processors: `cepa sim calibrate` writes what Measure finds into a file that a scenario names.
//
// It is a shell: it reads clocks, opens sockets on the loopback interface and starts goroutines. Measure
// is called by one goroutine, on a machine that does nothing else; what else runs makes figures larger.
package calibrate

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/loop"
	"cepa/onion/cgo"
	"cepa/onion/ntor"
	"cepa/simnet/calibration"
)

// rounds of each measurement are made, of which the median counts.
const rounds = 7

// Measure takes about the time given, at least a second and at most a minute. progress, which may be nil,
// is told what is measured next.
func Measure(ctx context.Context, within time.Duration, progress func(what string)) (calibration.Calibration, error) {
	within = min(max(within, time.Second), time.Minute)
	c := calibration.Calibration{
		Machine: fmt.Sprintf("%s/%s, %d cores, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
	}
	parts := []struct {
		what string
		into []*int64
		make func(context.Context) (sample, error)
	}{
		{"events", []*int64{&c.Event}, events},
		{"passing cells on", []*int64{&c.Pass}, passing},
		{"a layer of the cell cipher", []*int64{&c.Layer}, layer},
		{"links", []*int64{&c.Receive, &c.Write}, links},
		{"the relay's handshake", []*int64{&c.Answer}, answer},
		{"the client's handshake, first step", []*int64{&c.Begin}, begin},
		{"the client's handshake, second step", []*int64{&c.Finish}, finish},
		{"verifying documents", []*int64{&c.Verify}, verify},
		{"setting up links", []*int64{&c.Link}, settingUp},
	}
	for _, p := range parts {
		if progress != nil {
			progress(p.what)
		}
		s, err := p.make(ctx)
		if err == nil {
			var ns int64
			ns, err = s.median(ctx, within/time.Duration(len(parts)))
			for _, f := range p.into {
				*f = ns
			}
		}
		if s.end != nil {
			s.end()
		}
		if err != nil {
			return calibration.Calibration{}, fmt.Errorf("measuring %s: %w", p.what, err)
		}
	}
	c.Finish = max(c.Finish-c.Begin-c.Answer, 0)
	return c, nil
}

// sample is something to be measured.
type sample struct {
	run func(n int) error // does it n times
	per int64             // of what one of them is counted as: a step with two ends counts twice
	end func()
}

// median is the nanoseconds of a processor for one, the middle of several rounds.
func (s sample) median(ctx context.Context, within time.Duration) (int64, error) {
	n := 1
	for { // as many as a round is long
		begun := time.Now()
		if err := s.run(n); err != nil {
			return 0, err
		}
		took := time.Since(begun)
		if took >= within/(2*rounds) || n > 1<<24 {
			break
		}
		n = max(n+1, min(8*n, int(float64(n)*float64(within/rounds)/float64(took+1))))
	}
	var found []int64
	for range rounds {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		begun := processor()
		if err := s.run(n); err != nil {
			return 0, err
		}
		found = append(found, int64(processor()-begun)/int64(n)/max(s.per, 1))
	}
	slices.Sort(found)
	return found[len(found)/2], nil
}

func seeded(name string) [32]byte { return sha256.Sum256([]byte("calibration " + name)) }

var (
	network = cert.NetworkID(seeded("network"))
	entropy = rand.NewChaCha8(seeded("entropy"))
)

func events(ctx context.Context) (sample, error) {
	l, err := loop.New(loop.Options{})
	if err != nil {
		return sample{}, err
	}
	go l.Run()
	return sample{run: func(n int) error {
		for range n { // one at a time, as in a node that is mostly idle: waking the loop is part of it
			if err := l.Do(ctx, func() {}); err != nil {
				return err
			}
		}
		return nil
	}, per: 2, end: func() { l.Stop(); <-l.Done() }}, nil // there and back
}

// body is what a layer covers of a cell.
const body = cell.Size - cell.HeaderSize

func layer(context.Context) (sample, error) {
	key := make([]byte, ntor.KeyMaterialSize)
	_, _ = entropy.Read(key)
	r, err := cgo.NewRelay(body, key)
	if err != nil {
		return sample{}, err
	}
	b := make([]byte, body)
	return sample{run: func(n int) error {
		for range n {
			r.Backward(byte(cell.CommandRelay), b)
		}
		return nil
	}}, nil
}

// relayEnd is a relay as a handshake sees it.
type relayEnd struct {
	id, network [32]byte
	key         *ntor.OnionKey
}

func newRelayEnd() relayEnd {
	return relayEnd{id: seeded("identity"), network: network, key: ntor.NewOnionKey(seeded("onion key"))}
}

func (r relayEnd) begin() (*ntor.Client, []byte, error) {
	return ntor.NewClient(entropy, r.id, r.key.Public(), r.network, nil)
}

func (r relayEnd) answer(message []byte) ([]byte, error) {
	_, reply, err := ntor.Server(entropy, r.id, []*ntor.OnionKey{r.key}, r.network, message, func([]byte) ([]byte, error) { return nil, nil })
	return reply, err
}

func begin(context.Context) (sample, error) {
	r := newRelayEnd()
	return sample{run: func(n int) error {
		for range n {
			if _, _, err := r.begin(); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

func answer(context.Context) (sample, error) {
	r := newRelayEnd()
	_, message, err := r.begin()
	return sample{run: func(n int) error {
		for range n {
			if _, err := r.answer(message); err != nil {
				return err
			}
		}
		return nil
	}}, err
}

// finish measures all three steps, because a client is good for one answer: Measure takes off the others.
func finish(context.Context) (sample, error) {
	r := newRelayEnd()
	return sample{run: func(n int) error {
		for range n {
			c, message, err := r.begin()
			if err != nil {
				return err
			}
			reply, err := r.answer(message)
			if err != nil {
				return err
			}
			if _, _, err := c.Finish(reply); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// verify opens a document of a kilobyte that one relay has signed.
func verify(context.Context) (sample, error) {
	now := time.Now()
	k, err := newKeys("signer", now)
	if err != nil {
		return sample{}, err
	}
	text := make([]byte, 1000)
	sealed, err := cert.Seal(cert.DescriptorDocument, network, text, k.signer)
	return sample{run: func(n int) error {
		for range n {
			if _, err := cert.Open(sealed, network, now, cert.DescriptorDocument, len(text)); err != nil {
				return err
			}
		}
		return nil
	}}, err
}
