package daemon

import (
	"net"
	"net/netip"
	"time"
)

// lookAtAddresses is how often a node looks whether this machine has lost an address, as when it joins another network.
const lookAtAddresses = 2 * time.Second

// watchAddresses ends links that come from an address that this machine has lost, so that new ones are made at once: it
// would take until they count as dead. It returns when the node has stopped.
func (s *shell) watchAddresses() {
	had := ownAddresses()
	tick := time.NewTicker(lookAtAddresses)
	defer tick.Stop()
	for {
		select {
		case <-s.loop.Done():
			return
		case <-tick.C:
		}
		have := ownAddresses()
		if have == nil {
			continue // it could not be asked
		}
		lost := map[netip.Addr]bool{}
		for a := range had {
			if !have[a] {
				lost[a] = true
			}
		}
		had = have
		if len(lost) == 0 {
			continue
		}
		if n := s.links.Moved(func(a netip.Addr) bool { return lost[a] }); n > 0 {
			s.options.Log.Info("an address of this machine is gone: links that came from it are made anew", "links", n)
		}
	}
}

// ownAddresses are those of this machine's network devices; nil if they cannot be had.
func ownAddresses() map[netip.Addr]bool {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	m := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				m[ip.Unmap()] = true
			}
		}
	}
	return m
}
