package directory

import "time"

// testLimits are the defaults of parameters in test networks, where all relays may sit on one address, and nobody
// waits for an hour.
var testLimits = Parameters{
	CandidatesPerSite:  65_536,
	GuardMinAge:        0,
	MeasureIntervals:   120,
	MeasureKiB:         128,
	MeasureMillis:      500,
	NewRelays:          65_535,
	ReconcileMillis:    1_000,
	RelaysPerAddress:   65_535,
	RelaysPerSite:      65_535,
	SiteLimits:         0,
	UnreachableSeconds: 0,
	UpdateMillis:       1_000,
}

// Limit returns the value of a parameter as Param does, but with the defaults of a test network where the network is
// one and its file does not set the parameter. It panics for an unknown name.
func (n *Network) Limit(name Parameter) int64 {
	if _, set := n.Parameters[name]; !set && n.Test {
		if v, ok := testLimits[name]; ok {
			return v
		}
	}
	return n.Param(name)
}

// millis returns a parameter that counts milliseconds.
func (n *Network) millis(name Parameter) time.Duration {
	return time.Duration(n.Limit(name)) * time.Millisecond
}

// Bounds of the actors, in one place (docs/protocol.md, "Bounds"). The rest are parameters of the network.
const (
	maxPulls        = 16   // descriptors that are being fetched
	maxPullsQueued  = 1024 // rumours whose descriptors are still to be fetched
	maxSeenRumours  = 8192 // verdicts on rumours that are remembered
	maxRelayBuckets = 16   // buckets that one reconciliation looks into, when something is known already
	maxPersisted    = 4 << 20

	rumourRate, rumourBurst   = 50, 500        // verified rumours a second from one neighbour
	clientRate, clientBurst   = 1, 30          // requests a second of one client link
	siteRate, siteBurst       = 10, 300        // requests a second of the clients of one /24 or /48
	relayRate, relayBurst     = 50, 2000       // requests a second of one relay, or of the unlisted ones of one site
	sketchRate, sketchBurst   = 2, 60          // sketches a second for one relay, or for the unlisted ones of one site
	clientBytes, clientVolume = 64 << 10, 4    // bytes a second for one client, and a burst of so many consensuses
	siteBytes, siteVolume     = 512 << 10, 32  // the same for a site
	relayBytes, relayVolume   = 1 << 20, 16    // the same for a relay, or for the unlisted ones of a site
	minVolume                 = 1 << 20        // bytes: the smallest unit of such a burst
	announceFloor             = time.Second    // shortest time between two announcements to one authority
	descriptorRenewal         = 18 * time.Hour // after which a relay publishes anew, in intervals of an hour
)
