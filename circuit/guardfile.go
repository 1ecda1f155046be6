package circuit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"cepa/cert"

	"github.com/fxamacker/cbor/v2"
)

// guardsVersion is the only version of the file that this code reads and writes.
const guardsVersion = 1

// wireGuards is the blob "guards": deterministic CBOR, a map
//
//	1  version  uint, 1
//	2  network  32 bytes, the network's id
//	3  sample   array of at most 20 maps, in order of preference:
//	   1  identity  32 bytes
//	   2  sampled   uint, seconds since 1970
//	   3  unlisted  uint, seconds since 1970; absent while the consensus lists the relay
type wireGuards struct {
	Version uint64      `cbor:"1,keyasint"`
	Network []byte      `cbor:"2,keyasint"`
	Sample  []wireGuard `cbor:"3,keyasint"`
}

type wireGuard struct {
	Identity []byte `cbor:"1,keyasint"`
	Sampled  uint64 `cbor:"2,keyasint"`
	Unlisted uint64 `cbor:"3,keyasint,omitempty"`
}

var (
	guardEncoding = must(cbor.CoreDetEncOptions().EncMode())
	guardDecoding = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   4,
		MaxArrayElements:  64,
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

func encodeGuards(sample []*guard, network cert.NetworkID) ([]byte, error) {
	w := wireGuards{Version: guardsVersion, Network: network[:], Sample: []wireGuard{}}
	for _, x := range sample {
		g := wireGuard{Identity: x.id[:], Sampled: uint64(x.sampled.Unix())}
		if !x.unlisted.IsZero() {
			g.Unlisted = uint64(x.unlisted.Unix())
		}
		w.Sample = append(w.Sample, g)
	}
	return guardEncoding.Marshal(w)
}

// decodeGuards reads exactly what encodeGuards writes, for the same network.
func decodeGuards(data []byte, network cert.NetworkID) ([]*guard, error) {
	var w wireGuards
	if err := guardDecoding.Unmarshal(data, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", errGuards, err)
	}
	switch {
	case w.Version != guardsVersion:
		return nil, fmt.Errorf("%w: version %d, want %d", errGuards, w.Version, guardsVersion)
	case !bytes.Equal(w.Network, network[:]):
		return nil, fmt.Errorf("%w of this network", errGuards)
	case len(w.Sample) > maxSample:
		return nil, fmt.Errorf("%w: %d guards, at most %d", errGuards, len(w.Sample), maxSample)
	}
	const latest = 253402300799 // the year 9999
	var sample []*guard
	for i, g := range w.Sample {
		if len(g.Identity) != len(cert.Identity{}) || g.Sampled > latest || g.Unlisted > latest {
			return nil, fmt.Errorf("%w: guard %d", errGuards, i)
		}
		x := &guard{id: cert.Identity(g.Identity), sampled: time.Unix(int64(g.Sampled), 0)}
		if g.Unlisted != 0 {
			x.unlisted = time.Unix(int64(g.Unlisted), 0)
		}
		for _, y := range sample {
			if y.id == x.id {
				return nil, fmt.Errorf("%w: guard %d twice", errGuards, i)
			}
		}
		sample = append(sample, x)
	}
	again, err := encodeGuards(sample, network)
	if err != nil || !bytes.Equal(again, data) {
		return nil, fmt.Errorf("%w: not in canonical form", errGuards)
	}
	return sample, nil
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
