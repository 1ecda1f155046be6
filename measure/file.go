package measure

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/internal/plaincbor"

	"github.com/fxamacker/cbor/v2"
)

// blob is the name under which results are stored.
const blob = "measurements"

const fileVersion = 1

// wireFile is the blob: deterministic CBOR, a map
//
//	1  version  uint, 1
//	2  network  32 bytes, the network's id
//	3  relays   array of at most 65,535 maps, strictly ascending by identity:
//	   1  identity  32 bytes
//	   2  attempts  uint
//	   3  results   array of 1 to 8 arrays, in order of time, of 3 uints:
//	      seconds since 1970, KiB a second (u32, not 0), and flags: 1 open, 2 narrow
type wireFile struct {
	Version uint64       `cbor:"1,keyasint"`
	Network []byte       `cbor:"2,keyasint"`
	Relays  []wireRecord `cbor:"3,keyasint"`
}

type wireRecord struct {
	Identity []byte       `cbor:"1,keyasint"`
	Attempts uint64       `cbor:"2,keyasint"`
	Results  []wireResult `cbor:"3,keyasint"`
}

type wireResult struct {
	_     struct{} `cbor:",toarray"`
	At    uint64
	KiB   uint32
	Flags uint8
}

const (
	flagOpen   = 1
	flagNarrow = 2
)

var (
	encoding = must(cbor.CoreDetEncOptions().EncMode())
	decoding = must(cbor.DecOptions{
		SimpleValues:      plaincbor.SimpleValues(),
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   6,
		MaxArrayElements:  1 << 16,
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

var errFile = errors.New("not the results of measurements")

// encode makes the blob; relays without results are left out.
func encode(relays map[cert.Identity]*record, network cert.NetworkID) ([]byte, error) {
	w := wireFile{Version: fileVersion, Network: network[:], Relays: []wireRecord{}}
	for _, id := range slices.SortedFunc(maps.Keys(relays), cert.Identity.Compare) {
		r := relays[id]
		if len(r.results) == 0 || len(w.Relays) == directory.MaxRelays {
			continue
		}
		x := wireRecord{Identity: r.id[:], Attempts: r.attempts}
		for _, y := range r.results {
			flags := uint8(0)
			if y.open {
				flags |= flagOpen
			}
			if y.narrow {
				flags |= flagNarrow
			}
			x.Results = append(x.Results, wireResult{At: uint64(y.at.Unix()), KiB: y.kib, Flags: flags})
		}
		w.Relays = append(w.Relays, x)
	}
	return encoding.Marshal(w)
}

// decode reads exactly what encode writes, for the same network.
func decode(data []byte, network cert.NetworkID) ([]*record, error) {
	var w wireFile
	if err := decoding.Unmarshal(data, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", errFile, err)
	}
	switch {
	case w.Version != fileVersion:
		return nil, fmt.Errorf("%w: version %d, want %d", errFile, w.Version, fileVersion)
	case !bytes.Equal(w.Network, network[:]):
		return nil, fmt.Errorf("%w of this network", errFile)
	}
	list := make([]*record, 0, len(w.Relays))
	again := make(map[cert.Identity]*record, len(w.Relays))
	for i, x := range w.Relays {
		r, err := x.read()
		if err != nil {
			return nil, fmt.Errorf("%w: relay %d", err, i)
		}
		list, again[r.id] = append(list, r), r
	}
	written, err := encode(again, network)
	if err != nil || !bytes.Equal(written, data) {
		return nil, fmt.Errorf("%w: not in canonical form", errFile)
	}
	return list, nil
}

func (x wireRecord) read() (*record, error) {
	if len(x.Identity) != len(cert.Identity{}) || len(x.Results) == 0 || len(x.Results) > keptHidden+keptOpen {
		return nil, errFile
	}
	r := &record{id: cert.Identity(x.Identity), attempts: x.Attempts}
	for _, y := range x.Results {
		const latest = 253402300799 // the year 9999
		if y.At > latest || y.KiB == 0 || y.Flags > flagOpen|flagNarrow {
			return nil, errFile
		}
		r.results = append(r.results, result{
			at: time.Unix(int64(y.At), 0).UTC(), kib: y.KiB, open: y.Flags&flagOpen != 0, narrow: y.Flags&flagNarrow != 0,
		})
		r.tried = r.results[len(r.results)-1].at
	}
	return r, nil
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
