package directory

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cepa/nearest"
)

// Parameter is the name of a parameter of the network: a number that all nodes must agree on. The network file sets
// it, and the consensus repeats it for clients.
type Parameter string

// The parameters. See ParameterTable for their bounds.
const (
	IntervalMillis  Parameter = "interval_ms"
	KeepaliveMillis Parameter = "keepalive_ms"
	MinRelays       Parameter = "min_relays"
	DistinctSubnets Parameter = "distinct_subnets"
	OnionKeyDays    Parameter = "onion_key_days"

	// What follows limits who may join and how news spreads: see Network.Limit for test networks.
	Candidates         Parameter = "candidates"
	CandidatesPerSite  Parameter = "candidates_per_site"
	FullView           Parameter = "full_view"
	GuardMinAge        Parameter = "guard_min_age_s"
	MeasureIntervals   Parameter = "measure_intervals"
	MeasureKiB         Parameter = "measure_kib"
	MeasureMillis      Parameter = "measure_ms"
	NewRelays          Parameter = "new_relays"
	ReconcileMillis    Parameter = "reconcile_ms"
	RelaysPerAddress   Parameter = "relays_per_address"
	RelaysPerSite      Parameter = "relays_per_site"
	SiteLimits         Parameter = "site_limits"
	UnmeasuredCap      Parameter = "unmeasured_cap"
	UnreachableSeconds Parameter = "unreachable_s"
	UpdateMillis       Parameter = "update_ms"
	WeightCap          Parameter = "weight_cap"
)

// ParameterInfo describes a parameter.
type ParameterInfo struct {
	Name              Parameter
	Default, Min, Max int64
	Doc               string // one line, for people
}

var parameterTable = [...]ParameterInfo{
	{Candidates, 4096, 16, 65_536, "relays outside the consensus whose descriptors a relay keeps"},
	{CandidatesPerSite, 16, 1, 65_536, "of these at most so many in one IPv4 /24 or IPv6 /48, and four times as many in one IPv6 /32"},
	{DistinctSubnets, 1, 0, 1, "1: no two relays of a circuit in one IPv4 /16 or IPv6 /32; 0: anywhere"},
	{FullView, 100, 1, 65_535, "relays in the consensus up to which every relay keeps the descriptors of all; beyond, only authorities do"},
	{GuardMinAge, 691_200, 0, 31_536_000, "seconds for which a relay must be known before it can be a guard; at most half the age of the network"},
	{IntervalMillis, 3_600_000, 500, 86_400_000, "milliseconds from one consensus to the next"},
	{KeepaliveMillis, 5_000, 50, 60_000, "milliseconds after which an idle link sends padding; a link silent for 2.8 times as long is dead"},
	{MeasureIntervals, 12, 0, 10_000, "intervals in which an authority measures each relay about once; 0: never"},
	{MeasureKiB, 65_536, 16, 1_048_576, "KiB that are carried in one measurement at most"},
	{MeasureMillis, 5_000, 100, 60_000, "milliseconds that one measurement carries data for at most; an authority begins one in twice that time"},
	{MinRelays, 3, 1, 10_000, "relays that the authorities wait for before the first consensus"},
	{NewRelays, 50, 1, 65_535, "relays that a consensus may list for the first time, or an eighth of those listed if that is more"},
	{OnionKeyDays, 7, 1, 30, "days for which a relay announces one onion key"},
	{ReconcileMillis, 600_000, 100, 3_600_000, "milliseconds after which a relay compares what it knows with another"},
	{RelaysPerAddress, 2, 1, 65_535, "relays that a consensus lists on one IP address"},
	{RelaysPerSite, 16, 1, 65_535, "relays that a consensus lists in one IPv4 /24 or IPv6 /48"},
	{SiteLimits, 1, 0, 1, "1: what clients, and relays outside the consensus, may do is counted together for each IPv4 /24 or IPv6 /48; 0: one by one"},
	{UnmeasuredCap, 2_048, 1, 4_294_967_295, "largest weight in KiB a second of a relay that the authorities could have measured and have not"},
	{UnreachableSeconds, 86_400, 0, 2_592_000, "seconds for which a relay that no longer answers stays listed, but not as running"},
	{UpdateMillis, 3_600_000, 100, 86_400_000, "milliseconds after which news of a relay are passed on again, with a burst of three; at most an interval"},
	{WeightCap, 131_072, 1, 4_294_967_295, "largest weight that a relay gets for what it claims, in KiB a second"},
}

// ParameterTable returns the parameters that this version knows, by name.
func ParameterTable() []ParameterInfo { return slices.Clone(parameterTable[:]) }

// Info returns the description of a parameter; ok is false for a name that this version does not know.
func (p Parameter) Info() (info ParameterInfo, ok bool) {
	for _, info := range parameterTable {
		if info.Name == p {
			return info, true
		}
	}
	return ParameterInfo{}, false
}

// Parameters are values of parameters. What is not set has its default.
type Parameters map[Parameter]int64

// Value returns the value of a parameter: what is set, moved into the bounds of the table, or else the default. It
// panics for a name that is not in the table, which is a mistake in the program.
func (p Parameters) Value(name Parameter) int64 {
	info, ok := name.Info()
	if !ok {
		panic("directory: no parameter named " + string(name))
	}
	if v, ok := p[name]; ok {
		return min(max(v, info.Min), info.Max)
	}
	return info.Default
}

// check is for parameters that a person wrote: unknown names and values out of bounds are errors.
func (p Parameters) check() error {
	for _, name := range slices.Sorted(maps.Keys(p)) {
		info, ok := name.Info()
		if !ok {
			return fmt.Errorf("%w: unknown parameter %q%s", ErrInvalid, name, suggestion(string(name), parameterNames()))
		}
		if v := p[name]; v < info.Min || v > info.Max {
			return fmt.Errorf("%w: parameter %s = %d, want %d to %d", ErrInvalid, name, v, info.Min, info.Max)
		}
	}
	return nil
}

// Bounds of the parameters in a consensus, which may hold names that this version does not know.
const (
	maxParameters     = 200
	maxParameterBytes = 40
)

// checkForm is for parameters in a consensus: only the form of the names counts.
func (p Parameters) checkForm() error {
	if len(p) > maxParameters {
		return fmt.Errorf("%w: %d parameters, at most %d", ErrTooLarge, len(p), maxParameters)
	}
	for _, name := range slices.Sorted(maps.Keys(p)) {
		wrong := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' }
		if name == "" || len(name) > maxParameterBytes || strings.ContainsFunc(string(name), wrong) {
			return fmt.Errorf("%w parameter name %q", ErrInvalid, name)
		}
	}
	return nil
}

func parameterNames() []string {
	names := make([]string, len(parameterTable))
	for i, info := range parameterTable {
		names[i] = string(info.Name)
	}
	return names
}

// suggestion returns `; did you mean "x"?` with the name nearest to a wrong one, or nothing when none is near.
func suggestion(wrong string, names []string) string {
	best := nearest.Name(wrong, names)
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
