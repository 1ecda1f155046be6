package circuit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"cepa/cert"
	"cepa/env"
)

// How long circuits take is learned from those that were built (docs/protocol.md, "Build times").
const (
	timesKept  = 200 // the last so many
	timesLeast = 20  // from which on something is known
	timesUnit  = 10 * time.Millisecond
	timesSave  = 10 // new ones before they are written

	onTimePercent = 80 // of circuits are on time
	wholePercent  = 97 // become whole in half the time after which a circuit is given up

	recentBuilds = 20 // of which at most …
	recentLate   = 17 // … may be late, or the network has become another one
	slowInARow   = 3  // circuits that move on and are given up, or it has become slower
)

// buildTimes knows when a circuit is late and when it is given up.
type buildTimes struct {
	env     env.Env
	log     *slog.Logger
	network cert.NetworkID
	limits  Limits
	times   []time.Duration // of circuits of three hops, the newest last
	recent  []bool          // of the last circuits with more than a hop: late
	slow    int             // in a row, given up although they moved
	longer  time.Duration   // while nothing is known: as long as a circuit is waited for; doubles
	unsaved int

	late   time.Duration // after which another circuit is built beside
	giveUp time.Duration // after which it fails
}

const buildTimesBlob = "build-times"

// newBuildTimes loads what an earlier run has learned.
func newBuildTimes(e env.Env, network cert.NetworkID, limits Limits) *buildTimes {
	b := &buildTimes{env: e, log: e.Log, network: network, limits: limits, longer: limits.wholeTime()}
	data, err := e.Store.Load(buildTimesBlob)
	if err == nil {
		b.times, err = decodeTimes(data, network)
	}
	if err != nil && !isNotExist(err) {
		b.log.Info("how long circuits take is learned anew", "why", err)
	}
	b.learn()
	return b
}

// wholeTime is how long a circuit may take while nothing is known.
func (l *Limits) wholeTime() time.Duration { return l.BuildTime + 3*l.HopTime }

// known says whether enough circuits were built to judge others by them.
func (b *buildTimes) known() bool { return len(b.times) >= timesLeast }

func (b *buildTimes) learn() {
	b.late, b.giveUp = b.longer, b.longer
	if !b.known() {
		return
	}
	sorted := slices.Clone(b.times)
	slices.Sort(sorted)
	quantile := func(percent int) time.Duration { return sorted[(len(sorted)*percent-1)/100] }
	b.longer = b.limits.wholeTime()
	b.late = min(max(quantile(onTimePercent), b.limits.LateLeast), b.limits.GiveUpMost)
	b.giveUp = min(max(2*quantile(wholePercent), b.longer), b.limits.GiveUpMost)
}

// firstHop is how long the first hop may take. A guard is blamed for more.
func (b *buildTimes) firstHop() time.Duration {
	share := b.giveUp.Milliseconds() * b.limits.BuildTime.Milliseconds() / b.limits.wholeTime().Milliseconds()
	return max(b.limits.BuildTime, time.Duration(share)*time.Millisecond)
}

// stall is how long nothing may move before another way is tried beside.
func (b *buildTimes) stall() time.Duration {
	if !b.known() && b.longer == b.limits.wholeTime() {
		return b.limits.Stall
	}
	return min(max(b.limits.Stall, b.late/3), b.limits.StallMost)
}

// whole: a circuit of three hops was built in took, late or not.
func (b *buildTimes) whole(took time.Duration, late bool) {
	b.slow = 0
	b.times = append(b.times, took)
	b.times = b.times[max(len(b.times)-timesKept, 0):]
	b.note(late)
	b.learn()
	if b.unsaved++; b.unsaved >= timesSave {
		b.save()
	}
}

// abandoned: a circuit was given up at age, when nothing had moved for still. If it had moved
// until shortly before, the network is slow; else a relay was silent, which says nothing of others.
func (b *buildTimes) abandoned(age, still time.Duration) {
	if 2*still > age {
		return
	}
	if b.slow++; b.slow >= slowInARow {
		b.forget("circuits move on, but are not whole in time")
		return
	}
	b.note(true)
}

// note remembers whether a circuit was late. When nearly all are, what was known holds no more.
func (b *buildTimes) note(late bool) {
	b.recent = append(b.recent, late)
	b.recent = b.recent[max(len(b.recent)-recentBuilds, 0):]
	count := 0
	for _, x := range b.recent {
		if x {
			count++
		}
	}
	if count > recentLate {
		b.forget("nearly all circuits are late")
	}
}

// forget begins anew, with twice the patience.
func (b *buildTimes) forget(why string) {
	b.longer = min(max(2*b.late, b.longer), b.limits.GiveUpMost)
	if b.slow >= slowInARow {
		b.longer = min(2*b.giveUp, b.limits.GiveUpMost)
	}
	b.times, b.recent, b.slow = nil, nil, 0
	b.learn()
	b.save()
	b.log.Info("the network has changed: how long circuits take is learned anew", "why", why, "until_then", b.giveUp)
}

func (b *buildTimes) save() {
	b.unsaved = 0
	data, err := encodeTimes(b.times, b.network)
	if err != nil {
		b.log.Error("how long circuits take could not be encoded", "err", err)
		return
	}
	b.env.Store.Save(buildTimesBlob, data, func(err error) {
		if err != nil {
			b.log.Warn("how long circuits take could not be saved; it will be learned anew", "err", err)
		}
	})
}

// wireTimes is the blob "build-times": deterministic CBOR, a map
//
//	1  version  uint, 1
//	2  network  32 bytes, the network's id
//	3  times    array of at most 200 uint, 10 ms each, at most 60,000, the newest last
type wireTimes struct {
	Version uint64   `cbor:"1,keyasint"`
	Network []byte   `cbor:"2,keyasint"`
	Times   []uint64 `cbor:"3,keyasint"`
}

const (
	timesVersion = 1
	timesLongest = 60_000 // units
)

var errTimes = errors.New("not a list of build times")

func encodeTimes(times []time.Duration, network cert.NetworkID) ([]byte, error) {
	w := wireTimes{Version: timesVersion, Network: network[:], Times: []uint64{}}
	for _, d := range times {
		w.Times = append(w.Times, uint64(min(max(d, 0)/timesUnit, timesLongest)))
	}
	return guardEncoding.Marshal(w)
}

// decodeTimes reads exactly what encodeTimes writes, for the same network.
func decodeTimes(data []byte, network cert.NetworkID) ([]time.Duration, error) {
	var w wireTimes
	if err := guardDecoding.Unmarshal(data, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", errTimes, err)
	}
	if w.Version != timesVersion || !bytes.Equal(w.Network, network[:]) || len(w.Times) > timesKept {
		return nil, fmt.Errorf("%w of this network and version, or too long", errTimes)
	}
	var times []time.Duration
	for _, t := range w.Times {
		if t > timesLongest {
			return nil, fmt.Errorf("%w: %d", errTimes, t)
		}
		times = append(times, time.Duration(t)*timesUnit)
	}
	again, err := encodeTimes(times, network)
	if err != nil || !bytes.Equal(again, data) {
		return nil, fmt.Errorf("%w: not in canonical form", errTimes)
	}
	return times, nil
}
