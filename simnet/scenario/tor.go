package scenario

import (
	"slices"

	"cepa/simnet"
)

// torQuantiles are the bandwidths of relays of the Tor network in bytes a second, of the smallest, then in
// steps of 5 % of the relays, to the largest.
//
// They are the weights ("w Bandwidth=", in kilobytes a second, scaled by the bandwidth authorities) in the consensus
// of 3 April 2023, 17:00 UTC, of a sample of 103 relays of it: 58 from its beginning and 45 from its middle, which is
// ordered by identity and so by lot. 29 of the 103 are exits.
var torQuantiles = []Rate{
	4e3, 130e3, 364e3, 456e3, 628e3, 1550e3, 2880e3, 4580e3, 6300e3, 9970e3, 12e6,
	16e6, 19e6, 22.3e6, 25.8e6, 30e6, 32e6, 35.4e6, 44.6e6, 65e6, 110e6,
}

// leastBandwidth is what a relay has whose quantile is smaller.
const leastBandwidth = 64 << 10

// bandwidths gives each of n relays a rate, so that together they have the distribution, whatever n is; who has which
// is drawn by lot.
func bandwidths(quantiles []Rate, percent, n int, dice simnet.Stream) []Rate {
	list := make([]Rate, n)
	for i := range list {
		// At rank (i+½)/n.
		at := (2*i + 1) * (len(quantiles) - 1)
		k, rest := at/(2*n), at%(2*n)
		low := quantiles[k]
		high := quantiles[min(k+1, len(quantiles)-1)]
		v := low + Rate(mulDiv(int64(high-low), int64(rest), int64(2*n)))
		list[i] = max(leastBandwidth, Rate(mulDiv(int64(v), int64(percent), 100)))
	}
	for i := n - 1; i > 0; i-- {
		j := int(dice.Below(uint64(i + 1)))
		list[i], list[j] = list[j], list[i]
	}
	return list
}

func (r *Relays) quantiles() []Rate {
	switch {
	case r.Bandwidth != "":
		return slices.Clone(torQuantiles)
	case len(r.Quantiles) > 0:
		return r.Quantiles
	}
	return nil
}
