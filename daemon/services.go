package daemon

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"cepa/env"
)

// services gives an exit of a test network names of its own: a look-up of such a name
// answers with an address that stands for it, and a connection to that address goes to where
// the service is.
type services struct {
	env.Network
	clock env.Clock
	names map[string]netip.Addr
	to    map[netip.AddrPort]netip.AddrPort
}

// serviceBase is the first of the addresses that stand for services: they are of a /16 that
// no relay of a demo uses, and lead nowhere outside this machine.
var serviceBase = netip.MustParseAddr("127.255.0.1")

func newServices(e env.Env, list []Service) (env.Network, error) {
	if len(list) == 0 {
		return e.Network, nil
	}
	s := &services{Network: e.Network, clock: e.Clock, names: map[string]netip.Addr{}, to: map[netip.AddrPort]netip.AddrPort{}}
	next := serviceBase
	for _, v := range list {
		to, err := netip.ParseAddrPort(v.To)
		if err != nil || v.Name == "" || v.Port == 0 {
			return nil, fmt.Errorf("serve: %q port %d to %q: want a name, a port and an IP address with port", v.Name, v.Port, v.To)
		}
		name := strings.ToLower(v.Name)
		if _, ok := s.names[name]; !ok {
			s.names[name] = next
			next = next.Next()
		}
		at := netip.AddrPortFrom(s.names[name], v.Port)
		if _, ok := s.to[at]; ok {
			return nil, fmt.Errorf("serve: %q port %d is there twice", v.Name, v.Port)
		}
		s.to[at] = to
	}
	return s, nil
}

func (s *services) LookupHost(name string, timeout time.Duration, done func([]netip.Addr, error)) {
	if a, ok := s.names[strings.ToLower(strings.TrimSuffix(name, "."))]; ok {
		s.clock.AfterFunc(0, func() { done([]netip.Addr{a}, nil) }) // never back into the caller
		return
	}
	s.Network.LookupHost(name, timeout, done)
}

func (s *services) DialConn(to netip.AddrPort, timeout time.Duration, up func(env.Conn, error) env.ConnEvents) (cancel func()) {
	if service, ok := s.to[to]; ok {
		to = service
	}
	return s.Network.DialConn(to, timeout, up)
}
