package circuit

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/env"
)

// network is a consensus as path selection reads it. All but byPort does not change.
type network struct {
	consensus *directory.Consensus
	restrict  *Restrictions // nil is none
	relays    []*relayInfo  // in the order of the consensus
	total     uint64        // of their weights
	shares    shares
	tables    [positions]table
	byPort    map[destination]*table // see exits
	left      [positions]int         // percent of the bandwidth that restrict leaves
	empty     error                  // names a position for which it leaves no relay
}

// relayInfo is one usable relay of a consensus.
type relayInfo struct {
	hop
	flags    directory.Flags
	weight   uint64
	ports    directory.PortSummary
	families []cert.FamilyID
	subnets  []netip.Prefix // /16 and /32 of its addresses
}

// needed are the protocols that a relay must speak to be part of a circuit.
var needed = directory.Protocols{
	directory.MakeProtocol(directory.HandshakeProtocol, 1),
	directory.MakeProtocol(directory.RelayProtocol, 1),
}

// networkOf is newNetwork. Without restrictions the result depends on the consensus alone, so that a simulation makes it
// once for all its clients; byPort, which then is theirs together, depends on nothing else either.
func networkOf(c *directory.Consensus, restrict *Restrictions) *network {
	if restrict != nil {
		return newNetwork(c, restrict)
	}
	n := *c.Once("circuit network", func() (any, int) {
		n := newNetwork(c, nil)
		return n, 600 * len(n.relays)
	}).(*network)
	n.consensus = c
	return &n
}

func newNetwork(c *directory.Consensus, restrict *Restrictions) *network {
	n := &network{consensus: c, restrict: restrict, byPort: make(map[destination]*table)}
	for i := range c.Relays {
		r := &c.Relays[i]
		if !r.Flags.Has(directory.FlagRunning|directory.FlagValid) || len(r.Protocols.Missing(needed)) > 0 {
			continue
		}
		info := &relayInfo{
			hop:      hop{identity: r.Identity, onionKey: r.OnionKey, addresses: r.Addresses},
			flags:    r.Flags,
			weight:   uint64(r.Weight),
			ports:    r.Ports,
			families: r.Families,
		}
		for _, a := range r.Addresses {
			if s := subnetOf(a.Addr()); !slices.Contains(info.subnets, s) {
				info.subnets = append(info.subnets, s)
			}
		}
		n.relays = append(n.relays, info)
		n.total += info.weight
	}
	n.weigh()
	n.left, n.empty = n.leave()
	return n
}

// subnetOf returns the IPv4 /16 or the IPv6 /32 of an address.
func subnetOf(a netip.Addr) netip.Prefix {
	size := 32
	if a = a.Unmap(); a.Is4() {
		size = 16
	}
	p, _ := a.WithZone("").Prefix(size) // never fails for a valid address
	return p
}

// find returns the relay with an identity, or nil.
func (n *network) find(id cert.Identity) *relayInfo {
	i, ok := slices.BinarySearchFunc(n.relays, id, func(r *relayInfo, id cert.Identity) int { return r.identity.Compare(id) })
	if !ok {
		return nil
	}
	return n.relays[i]
}

// destination is what an exit must serve. The zero value is any exit.
type destination struct {
	port   uint16
	v4, v6 bool
}

// destinationOf says what an exit must serve to reach address at port; port 0 is for look-ups.
func destinationOf(address cell.Address, port uint16, flags cell.Flags) destination {
	switch {
	case port == 0:
		return destination{}
	case address.IP.Is4():
		return destination{port: port, v4: true}
	case address.IsIP():
		return destination{port: port, v6: true}
	}
	return destination{port: port, v4: flags&cell.AllowIPv4 != 0, v6: flags&cell.AllowIPv6 != 0}
}

// mayExit says whether r is an exit at all.
func (r *relayInfo) mayExit() bool {
	return r.flags.Has(directory.FlagExit) && r.flags&(directory.FlagBadExit|directory.FlagMiddleOnly) == 0
}

// serves says whether r is an exit for d, as far as the consensus tells.
func (r *relayInfo) serves(d destination) bool {
	return r.mayExit() && (d.port == 0 ||
		d.v4 && r.ports.Allows(false, d.port) ||
		d.v6 && r.ports.Allows(true, d.port))
}

func (r *relayInfo) mayGuard() bool {
	return r.flags.Has(directory.FlagGuard) && r.flags&directory.FlagMiddleOnly == 0
}

// together says whether a and b may be in one circuit: distinct, of no common family and, with
// subnets set, of no common IPv4 /16 or IPv6 /32.
func together(a, b *relayInfo, subnets bool) bool {
	if a.identity == b.identity {
		return false
	}
	for _, f := range a.families {
		if slices.Contains(b.families, f) {
			return false
		}
	}
	if subnets {
		for _, s := range a.subnets {
			if slices.Contains(b.subnets, s) {
				return false
			}
		}
	}
	return true
}

// below returns a uniform number below n, which is not 0.
func below(rand env.Rand, n uint64) uint64 {
	hi, lo := bits.Mul64(rand.Uint64(), n)
	if lo < n {
		for threshold := -n % n; lo < threshold; {
			hi, lo = bits.Mul64(rand.Uint64(), n)
		}
	}
	return hi
}

// Why a path could not be chosen.
var (
	errNoExit   = errors.New("no relay of the network is an exit for this port")
	errExits    = errors.New("no exit for this port goes with the guard")
	errNoMiddle = errors.New("no relay is left for the middle of a circuit")
)

// wish is what the exit and the middle of a path should be like.
type wish struct {
	to     destination
	banned []cert.Identity // never as exit
	shun   []cert.Identity // not as exit or middle if there is another way
	// avoid says whether a relay failed lately behind a hop, or, with the zero Identity, behind any.
	avoid func(previous, relay cert.Identity) bool
}

// care is what a path heeds of a wish.
type care struct{ shun, avoid bool }

// refuses says whether a relay behind another is to be kept away from.
func (w *wish) refuses(k care, previous, id cert.Identity) bool {
	return k.shun && slices.Contains(w.shun, id) || k.avoid && w.avoid(previous, id)
}

// levels are how a path is looked for: relays to avoid are used before the request fails, first as
// middles, then as exits.
var levels = [...]struct{ exit, middle care }{
	{care{true, true}, care{true, true}},
	{care{true, true}, care{avoid: true}},
	{care{avoid: true}, care{avoid: true}},
	{care{shun: true}, care{}},
	{care{}, care{}},
}

// choosePath chooses exit and middle for a guard, in this order.
func (n *network) choosePath(rand env.Rand, guard *relayInfo, w wish, subnets bool) ([]*relayInfo, error) {
	var err error
	for _, level := range levels {
		var alone []cert.Identity // exits that no middle goes with
		for {
			exit, why := n.chooseExit(rand, guard, w, subnets, func(id cert.Identity) bool {
				return w.refuses(level.exit, cert.Identity{}, id) || slices.Contains(alone, id)
			})
			if why != nil {
				if err = why; len(alone) > 0 {
					err = errNoMiddle
				}
				break
			}
			middle := n.draw(rand, atMiddle, func(r *relayInfo) bool {
				return together(r, guard, subnets) && together(r, exit, subnets) && !w.refuses(level.middle, guard.identity, r.identity) &&
					!(level.exit.avoid && w.avoid(r.identity, exit.identity))
			})
			if middle != nil {
				return []*relayInfo{guard, middle, exit}, nil
			}
			alone = append(alone, exit.identity)
		}
	}
	return nil, n.explain(err, w)
}

func (n *network) chooseExit(rand env.Rand, guard *relayInfo, w wish, subnets bool, avoid func(cert.Identity) bool) (*relayInfo, error) {
	exits := n.exits(w.to)
	exit := n.drawFrom(exits, rand, atExit, func(r *relayInfo) bool {
		return together(r, guard, subnets) && !avoid(r.identity) && !slices.Contains(w.banned, r.identity)
	})
	switch {
	case exit != nil:
		return exit, nil
	case len(exits.relays) > 0:
		return nil, errExits
	}
	return nil, errNoExit
}

// explain says whether it is the user's own settings that leave no path.
func (n *network) explain(err error, w wish) error {
	if n.restrict.Empty() {
		return err
	}
	at, why := atExit, "they allow none that goes with the guard"
	switch {
	case errors.Is(err, errNoMiddle):
		at, why = atMiddle, "they allow none that goes with guard and exit"
	case !errors.Is(err, errNoExit):
	case !slices.ContainsFunc(n.relays, func(r *relayInfo) bool { return r.serves(w.to) }):
		return err // there is none in the whole network
	case w.to.port == 0:
		why = "they allow none"
	default:
		why = fmt.Sprintf("they allow none for port %d", w.to.port)
	}
	return restrictedPath{restrictedError(at, why), err}
}

// carries says whether circuits with this guard are possible at all.
func (n *network) carries(guard *relayInfo, subnets bool) bool {
	return n.offers(atExit, func(exit *relayInfo) bool {
		return together(exit, guard, subnets) && n.offers(atMiddle, func(r *relayInfo) bool {
			return together(r, guard, subnets) && together(r, exit, subnets)
		})
	})
}
