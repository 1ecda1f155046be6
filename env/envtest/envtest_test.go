package envtest

import (
	"net/netip"
	"testing"
	"time"

	"cepa/env"
)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// The double keeps the laws that it is to test actors against.
func TestFakeConforms(t *testing.T) {
	t.Parallel()
	for name, tune := range map[string]func(*Fake){
		"unlimited": func(*Fake) {},
		"no delay":  func(f *Fake) { f.Delay = 0 },
		"limited":   func(f *Fake) { f.Rate = 20 << 20; f.Delay = 20 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			Conformance(t, func(t *testing.T) *World { return fakeWorld(tune) })
		})
	}
}

func fakeWorld(tune func(*Fake)) *World {
	f := NewFake(1)
	tune(f)
	host := netip.MustParseAddr("192.0.2.7")
	f.Hosts["host.example"] = []netip.Addr{host}
	silent := addrPort("192.0.2.1:80")
	f.Silence(silent)
	a, b := f.Node("a"), f.Node("b")
	return &World{
		Env:  a.Env,
		Do:   f.Do,
		Wait: f.RunUntil,
		Listen: func(accept func(env.Conn) env.ConnEvents) netip.AddrPort {
			addr := netip.AddrPortFrom(host, uint16(1000+len(f.servers)))
			f.Listen(addr, accept)
			return addr
		},
		DoFar:    f.Do,
		Buffers:  1 << 20,
		Refusing: addrPort("192.0.2.9:80"),
		Silent:   silent,
		Host:     "host.example",
		Addr:     host,
		NoHost:   "no.example",
		Reopen: func() env.Store {
			a.Stop()
			return f.Node("a").Env.Store
		},
		Links: func(ha, hb env.LinkHandler) LinkWorld {
			a.Serve(ha)
			b.Serve(hb)
			refusing := env.Target{Identity: b.Identity, Addresses: []netip.AddrPort{addrPort("192.0.2.9:9001")}}
			return LinkWorld{
				Dialer: a.Env.Dialer, A: a.Target(), B: b.Target(), Refusing: refusing, DoB: f.Do,
				Impostor: env.Target{Identity: a.Identity, Addresses: b.Target().Addresses},
			}
		},
	}
}
