package circuit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"cepa/cert"
	"cepa/internal/plaincbor"

	"github.com/fxamacker/cbor/v2"
)

// guardsVersion is the version of the file that this code writes. It reads version 1 too, which has
// neither key 4 nor keys 4 to 6 of a guard, and whose order is that of the sample.
const guardsVersion = 2

// guardFile is what is kept of the guards.
type guardFile struct {
	sample    []*guard
	confirmed []*guard // of the sample
	former    []time.Time
}

// wireGuards is the blob "guards": deterministic CBOR, a map
//
//	1  version  uint, 2
//	2  network  32 bytes, the network's id
//	3  sample   array of at most 180 maps, in the order in which they were drawn:
//	   1  identity   32 bytes
//	   2  sampled    uint, seconds since 1970
//	   3  unlisted   uint, seconds since 1970; absent while the consensus lists the relay
//	   4  confirmed  uint, seconds since 1970; absent if it was never used
//	   5  rank       uint from 1, in the order of first use; absent without 4
//	   6  contacted  uint, seconds since 1970, whole days; absent if it was never asked
//	4  former   array of at most 180 uint, key 6 of guards that have gone, ascending; or absent
type wireGuards struct {
	Version uint64      `cbor:"1,keyasint"`
	Network []byte      `cbor:"2,keyasint"`
	Sample  []wireGuard `cbor:"3,keyasint"`
	Former  []uint64    `cbor:"4,keyasint,omitempty"`
}

type wireGuard struct {
	Identity  []byte `cbor:"1,keyasint"`
	Sampled   uint64 `cbor:"2,keyasint"`
	Unlisted  uint64 `cbor:"3,keyasint,omitempty"`
	Confirmed uint64 `cbor:"4,keyasint,omitempty"`
	Rank      uint64 `cbor:"5,keyasint,omitempty"`
	Contacted uint64 `cbor:"6,keyasint,omitempty"`
}

var (
	guardEncoding = must(cbor.CoreDetEncOptions().EncMode())
	guardDecoding = must(cbor.DecOptions{
		SimpleValues:      plaincbor.SimpleValues(),
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   4,
		MaxArrayElements:  1024,
		MaxMapPairs:       16,
	}.DecMode())
)

// must serves the two modes above, whose options are constants.
func must[M any](mode M, err error) M {
	if err != nil {
		panic(err)
	}
	return mode
}

var errGuards = errors.New("not a list of guards")

func encodeGuards(f guardFile, network cert.NetworkID) ([]byte, error) {
	w := wireGuards{Version: guardsVersion, Network: network[:], Sample: []wireGuard{}}
	for _, x := range f.sample {
		w.Sample = append(w.Sample, wireGuard{
			Identity: x.id[:], Sampled: seconds(x.sampled), Unlisted: seconds(x.unlisted), Confirmed: seconds(x.confirmed),
			Rank: uint64(slices.Index(f.confirmed, x) + 1), Contacted: seconds(x.contacted),
		})
	}
	for _, at := range f.former {
		w.Former = append(w.Former, seconds(at))
	}
	slices.Sort(w.Former)
	w.Former = w.Former[max(len(w.Former)-maxSample, 0):]
	return guardEncoding.Marshal(w)
}

// seconds is the date of a file; 0 is absent.
func seconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(t.Unix(), 1))
}

const latestDate = 253402300799 // the year 9999

// date reads what seconds makes.
func date(s uint64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(int64(min(s, latestDate)), 0)
}

// decodeGuards reads exactly what encodeGuards writes, or wrote in version 1, for the same network.
func decodeGuards(data []byte, network cert.NetworkID) (f guardFile, err error) {
	var w wireGuards
	if err := guardDecoding.Unmarshal(data, &w); err != nil {
		return f, fmt.Errorf("%w: %w", errGuards, err)
	}
	switch {
	case w.Version != guardsVersion && w.Version != 1:
		return f, fmt.Errorf("%w: version %d, want %d", errGuards, w.Version, guardsVersion)
	case !bytes.Equal(w.Network, network[:]):
		return f, fmt.Errorf("%w of this network", errGuards)
	case len(w.Sample) > maxSample || len(w.Former) > maxSample:
		return f, fmt.Errorf("%w: %d guards and %d former ones, at most %d", errGuards, len(w.Sample), len(w.Former), maxSample)
	}
	ranked := make([]*guard, len(w.Sample))
	ranks := 0
	for i, g := range w.Sample {
		if !g.sound(w.Version) {
			return f, fmt.Errorf("%w: guard %d", errGuards, i)
		}
		x := &guard{
			id: cert.Identity(g.Identity), sampled: date(g.Sampled), unlisted: date(g.Unlisted),
			confirmed: date(g.Confirmed), contacted: date(g.Contacted),
		}
		if slices.ContainsFunc(f.sample, func(y *guard) bool { return y.id == x.id }) {
			return f, fmt.Errorf("%w: guard %d twice", errGuards, i)
		}
		f.sample = append(f.sample, x)
		if g.Rank > 0 {
			if g.Rank > uint64(len(ranked)) || ranked[g.Rank-1] != nil {
				return f, fmt.Errorf("%w: the rank of guard %d", errGuards, i)
			}
			ranked[g.Rank-1] = x
			ranks++
		}
	}
	f.confirmed = ranked[:ranks]
	if slices.Contains(f.confirmed, nil) {
		return f, fmt.Errorf("%w: a rank is missing", errGuards)
	}
	for _, at := range w.Former {
		f.former = append(f.former, date(at))
	}
	if w.Version == 1 {
		return f, nil
	}
	again, err := encodeGuards(f, network)
	if err != nil || !bytes.Equal(again, data) {
		return f, fmt.Errorf("%w: not in canonical form", errGuards)
	}
	return f, nil
}

// sound says whether a guard of a file is well-formed.
func (g *wireGuard) sound(version uint64) bool {
	if version == 1 && g.Confirmed|g.Rank|g.Contacted != 0 {
		return false
	}
	return len(g.Identity) == len(cert.Identity{}) && max(g.Sampled, g.Unlisted, g.Confirmed, g.Contacted) <= latestDate &&
		(g.Confirmed == 0) == (g.Rank == 0)
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
