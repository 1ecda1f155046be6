package directory

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cert"
)

// churn is a model of a network from hour to hour, after what is published of Tor's: about 1 % of the relays of one
// hour are not there in the next and as many come, of whom all but a tenth were there before; each onion key lives for
// a week; measured rates of all relays wander.
type churn struct {
	t       testing.TB
	rng     *rand.Rand
	network *Network
	hour    int
	up      []*churned
	down    []*churned
	born    int
	ports   []PortSummary
	quality func(uint32) uint32 // how weights are rounded
	keep    int                 // hours for which a relay that does not answer stays listed

	leave, fresh, flags, weights, wander float64
}

type churned struct {
	Relay
	keyHour int     // of the week, in which the onion key is replaced
	rate    float64 // measured
	left    int     // hour in which it went
	back    int     // hour in which it comes back
}

func newChurn(t testing.TB, relays int, seed uint64) *churn {
	c := &churn{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), network: testNetwork(t, 1),
		leave: 0.01, fresh: 0.1, flags: 0.015, weights: 0.3, wander: 0.08,
		quality: func(w uint32) uint32 { return w },
	}
	for i := range 24 {
		p := must[Policy](t)(ParsePolicy(fmt.Sprintf("accept *:80, accept *:443, accept *:%d", 1000+i)))
		c.ports = append(c.ports, p.Summary(i%4 == 0))
	}
	for range relays {
		c.up = append(c.up, c.newcomer())
	}
	return c
}

func (c *churn) random32() (b [32]byte) {
	for i := range b {
		b[i] = byte(c.rng.Uint32())
	}
	return b
}

// newcomer is a relay never seen before.
func (c *churn) newcomer() *churned {
	c.born++
	n := uint32(c.born)
	addr4 := netip.AddrFrom4([4]byte{byte(20 + n>>16), byte(n >> 8), byte(n), byte(1 + c.rng.IntN(250))})
	x := &churned{keyHour: c.rng.IntN(168), rate: math.Exp(c.rng.NormFloat64()*1.6 + 8)}
	x.Relay = Relay{
		Identity: cert.Identity(c.random32()), OnionKey: c.random32(),
		Addresses: []netip.AddrPort{netip.AddrPortFrom(addr4, 9001)},
		Flags:     FlagRunning | FlagValid | FlagFast, Protocols: OurProtocols(), Nickname: fmt.Sprintf("relay%05d", n),
	}
	if c.rng.IntN(10) < 4 {
		a := netip.MustParseAddr("2a00::").As16()
		a[4], a[5], a[6], a[15] = byte(n), byte(n>>8), byte(n>>16), byte(c.rng.IntN(250))
		x.Addresses = append(x.Addresses, netip.AddrPortFrom(netip.AddrFrom16(a), 9001))
	}
	if c.rng.IntN(5) == 0 {
		x.Flags |= FlagExit
		x.Ports = c.ports[int(math.Abs(c.rng.NormFloat64())*6)%len(c.ports)]
	}
	if c.rng.IntN(3) == 0 {
		x.Families = []cert.FamilyID{cert.FamilyID(testSeed('f', c.rng.IntN(400)))}
	}
	if c.rng.IntN(4) == 0 {
		x.Protocols = append(x.Protocols, MakeProtocol(5, uint16(1+c.rng.IntN(2))))
	}
	return x
}

// next passes an hour.
func (c *churn) next() {
	c.hour++
	kept := c.up[:0]
	for _, x := range c.up {
		if c.rng.Float64() < c.leave {
			x.left, x.back = c.hour, c.hour+1+int(c.rng.ExpFloat64()*8)
			if c.rng.Float64() < c.fresh {
				x.back = math.MaxInt // it has gone for good
			}
			c.down = append(c.down, x)
			continue
		}
		kept = append(kept, x)
	}
	left := len(c.up) - len(kept)
	c.up = kept
	for range int(float64(left)*c.fresh + c.rng.Float64()) {
		c.up = append(c.up, c.newcomer())
	}
	c.down = slices.DeleteFunc(c.down, func(x *churned) bool {
		if x.back <= c.hour {
			c.up = append(c.up, x)
		}
		return x.back <= c.hour
	})
	for _, x := range c.up {
		if c.hour%168 == x.keyHour {
			x.OnionKey = c.random32()
		}
		if c.rng.Float64() < c.flags {
			x.Flags ^= []Flags{FlagStable, FlagGuard, FlagFast}[c.rng.IntN(3)]
		}
		if c.rng.Float64() < c.weights {
			x.rate *= math.Exp(c.rng.NormFloat64() * c.wander)
		}
	}
	if c.hour%5 == 0 { // a new exit policy, and with it another order of the table
		p := must[Policy](c.t)(ParsePolicy(fmt.Sprintf("accept *:%d", 100+c.hour)))
		c.ports[c.rng.IntN(len(c.ports))] = p.Summary(false)
		if x := c.up[c.rng.IntN(len(c.up))]; x.Flags.Has(FlagExit) {
			x.Ports = p.Summary(false)
		}
	}
}

// consensus is that of the hour.
func (c *churn) consensus() []byte {
	in := ConsensusInput{
		ValidAfter: testNow.Add(time.Duration(c.hour) * time.Hour), Parameters: Parameters{IntervalMillis: 3_600_000},
		Recommended: OurProtocols(), Required: OurProtocols(), NetworkSerial: 1,
	}
	for _, x := range c.up {
		r := x.Relay
		r.Weight = c.quality(uint32(max(x.rate, 1)))
		in.Relays = append(in.Relays, r)
	}
	for _, x := range c.down {
		if c.hour-x.left < c.keep {
			r := x.Relay
			r.Weight = c.quality(uint32(max(x.rate, 1)))
			r.Flags &^= FlagRunning
			in.Relays = append(in.Relays, r)
		}
	}
	_, body := build(c.t, c.network, in)
	return body
}
