package scenario

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Duration is a time in a scenario: "250ms", "10s", "1h30m", "2d".
type Duration time.Duration

const day = Duration(24 * time.Hour)

// maxDuration bounds every duration that a scenario may name: ten years.
const maxDuration = 3660 * day

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	days, rest, some := strings.Cut(s, "d")
	var whole uint64
	if some {
		var err error
		if whole, err = strconv.ParseUint(days, 10, 16); err != nil || whole > uint64(maxDuration/day) {
			return fmt.Errorf("%q is no duration such as 250ms, 10s, 1h30m or 2d, up to %dd", s, maxDuration/day)
		}
		s = rest
	}
	var x time.Duration
	if s != "" || !some {
		var err error
		if x, err = time.ParseDuration(s); err != nil || x > time.Duration(maxDuration) {
			return fmt.Errorf("%q is no duration such as 250ms, 10s, 1h30m or 2d, up to %dd", text, maxDuration/day)
		}
	}
	*d = Duration(whole)*day + Duration(x)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Size is a number of bytes: "500 B", "50 KiB", "1.5 MB".
type Size int64

// Rate is a speed in bytes a second, written in bits or bytes: "10 Mbit/s", "1 MiB/s". Zero is "unlimited".
type Rate int64

// unit is a unit and what it is, in thousandths of a byte.
type unit struct {
	name  string
	milli uint64
}

var sizeUnits = []unit{
	{"B", 1000}, {"kB", 1e6}, {"KB", 1e6}, {"KiB", 1024e3}, {"MB", 1e9}, {"MiB", 1 << 20 * 1000}, {"GB", 1e12}, {"GiB", 1 << 30 * 1000},
}

var rateUnits = []unit{
	{"bit/s", 125}, {"kbit/s", 125e3}, {"Kbit/s", 125e3}, {"Mbit/s", 125e6}, {"Gbit/s", 125e9},
	{"B/s", 1000}, {"kB/s", 1e6}, {"KB/s", 1e6}, {"KiB/s", 1024e3}, {"MB/s", 1e9}, {"MiB/s", 1 << 20 * 1000}, {"GB/s", 1e12}, {"GiB/s", 1 << 30 * 1000},
}

// maxQuantity bounds sizes and rates: 1 TiB (a second).
const maxQuantity = 1 << 40

// quantity reads a number with at most three decimals and a unit.
func quantity(text string, units []unit) (int64, bool) {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/")
	name := text[len(number):]
	whole, fraction, point := strings.Cut(strings.TrimRight(number, " "), ".")
	if point && (fraction == "" || len(fraction) > 3) {
		return 0, false
	}
	milli, err := strconv.ParseUint(whole+(fraction + "000")[:3], 10, 62)
	if err != nil || whole == "" || whole[0] == '+' {
		return 0, false
	}
	for _, u := range units {
		if u.name != name {
			continue
		}
		high, low := bits.Mul64(milli, u.milli)
		if high > 0 || low/1e6 > maxQuantity {
			return 0, false
		}
		return int64(low / 1e6), true
	}
	return 0, false
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	n, ok := quantity(string(text), sizeUnits)
	if !ok {
		return fmt.Errorf("%q is no size such as 500 B, 50 KiB or 1.5 MB, up to 1 TiB", text)
	}
	*s = Size(n)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string {
	for i := len(sizeUnits) - 1; i > 0; i-- {
		u := sizeUnits[i]
		if n := int64(u.milli / 1000); u.name != "KB" && s != 0 && int64(s)%n == 0 {
			return fmt.Sprintf("%d %s", int64(s)/n, u.name)
		}
	}
	return fmt.Sprintf("%d B", int64(s))
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(text []byte) error {
	if string(text) == unlimited {
		*r = 0
		return nil
	}
	n, ok := quantity(string(text), rateUnits)
	if !ok || n == 0 {
		return fmt.Errorf("%q is no rate such as 10 Mbit/s, 1 MiB/s or unlimited, up to 1 TiB/s", text)
	}
	*r = Rate(n)
	return nil
}

const unlimited = "unlimited"

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r Rate) String() string {
	switch bit := int64(r) * 8; {
	case r == 0:
		return unlimited
	case bit%1_000_000 == 0:
		return fmt.Sprintf("%d Mbit/s", bit/1_000_000)
	case bit%1000 == 0:
		return fmt.Sprintf("%d kbit/s", bit/1000)
	}
	return fmt.Sprintf("%d B/s", int64(r))
}
