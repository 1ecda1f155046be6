package node

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/circuit"
	"cepa/directory"
	"cepa/env"
	"cepa/env/envtest"
)

// world is a whole network on a virtual clock: relays, of which the first carries the
// authority, and a client, each as the daemon would make it.
type world struct {
	t       testing.TB
	f       *envtest.Fake
	record  *envtest.Recorder // nil: nothing is recorded
	network *directory.Network
	hosts   []*envtest.Node
	envs    []env.Env
	records []*envtest.RecordedNode // of the relays
	keys    []*Keys
	relays  []*Relay
	client  *Client
	ready   int
	steps   []string

	isolation string // of downloads
	noSpares  bool   // of the client
}

// testNetwork founds a network with one authority.
func testNetwork(t testing.TB, authority cert.Signer, id cert.NetworkID, relays int, at ...netip.AddrPort) *directory.Network {
	t.Helper()
	contact := directory.Contact{Identity: authority.Identity(), Addresses: at}
	n, err := directory.NewNetwork(directory.Network{
		Name: "test", ID: id, Created: envtest.Epoch, Test: true,
		Authorities: []directory.Contact{contact}, Bootstrap: []directory.Contact{contact},
		Parameters: directory.Parameters{
			directory.IntervalMillis: 5000, directory.KeepaliveMillis: 1000, directory.MinRelays: int64(min(relays, 3)),
		},
	}, authority)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// withParameters is a network with other parameters, as all its nodes see it.
func withParameters(_ testing.TB, network *directory.Network, p directory.Parameters) *directory.Network {
	n := *network
	n.Parameters = p
	return &n
}

func newWorld(t testing.TB, seed uint64, relays int, record *envtest.Recorder) *world {
	t.Helper()
	return newWorldWith(t, seed, relays, record, nil)
}

// newWorldWith is a world with other parameters than those of testNetwork, unless they are nil.
func newWorldWith(t testing.TB, seed uint64, relays int, record *envtest.Recorder, p directory.Parameters) *world {
	t.Helper()
	w := &world{t: t, f: envtest.NewFake(seed), record: record}
	id := cert.NetworkID(sha256.Sum256([]byte("network")))
	for i := range relays {
		host := w.f.Node(fmt.Sprintf("relay-%d", i+1))
		e := host.Env
		if record != nil {
			w.records = append(w.records, record.Node(host.Name, host.Env))
			e = w.records[i].Env
		}
		identity, err := NewIdentity(e)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := NewSigner(e, id, identity)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if w.network = testNetwork(t, signer, id, relays, host.Address); p != nil {
				w.network = withParameters(t, w.network, p)
			}
		}
		w.hosts, w.envs = append(w.hosts, host), append(w.envs, e)
	}
	w.f.Run(time.Second) // the keys are saved
	for i := range w.hosts {
		w.start(i)
	}
	return w
}

// start makes and starts relay i.
func (w *world) start(i int) {
	w.t.Helper()
	host, e := w.hosts[i], w.envs[i]
	keys, err := LoadKeys(e, w.network)
	if err != nil {
		w.t.Fatal(err)
	}
	host.Identity = keys.Identity()
	host.OnionKey, _ = keys.OnionKey()
	policy, err := directory.ParsePolicy([]string{"none", "all"}[i%2])
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := NewRelay(RelayConfig{
		Env: e, Network: w.network, Keys: keys, Addresses: []netip.AddrPort{host.Address}, Policy: policy,
		MemoryBytes: 64 << 20, Nickname: host.Name, Software: "test",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if i < len(w.relays) {
		w.keys[i], w.relays[i] = keys, r
	} else {
		w.keys, w.relays = append(w.keys, keys), append(w.relays, r)
	}
	if w.record != nil {
		host.Serve(w.records[i].Handler(r))
	} else {
		host.Serve(r)
	}
	w.f.Do(r.Start)
}

func (w *world) join() {
	w.t.Helper()
	host := w.f.Client("client")
	e := host.Env
	var recorded *envtest.RecordedNode
	if w.record != nil {
		recorded = w.record.Node(host.Name, host.Env)
		e = recorded.Env
	}
	var err error
	w.client, err = NewClient(ClientConfig{
		Env: e, Network: w.network, MemoryBytes: 64 << 20, NoSpares: w.noSpares,
		OnProgress: func(percent int, doing, waiting string) {
			w.steps = append(w.steps, fmt.Sprintf("%d %s (%s)", percent, doing, waiting))
		},
		OnReady: func() { w.ready++ },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if recorded != nil {
		host.Serve(recorded.Handler(w.client))
	} else {
		host.Serve(w.client)
	}
	w.f.Do(w.client.Start)
}

// download opens a stream, sends a line and returns what came back until EOF.
func (w *world) download(host string, port uint16, limit time.Duration) (string, error) {
	w.t.Helper()
	app := &envtest.ConnProbe{}
	failed := w.open(host, port, app)
	w.f.RunUntil(limit, func() bool { s := app.State(); return s.EOFs+s.Downs > 0 })
	s, failure := app.State(), *failed
	if failure == nil && s.EOFs == 0 {
		failure = fmt.Errorf("no end: %d bytes, down %v", len(s.Received), s.Reason)
	}
	return string(s.Received), failure
}

// open opens a stream for an application and returns where its failure will be.
func (w *world) open(host string, port uint16, app *envtest.ConnProbe) *error {
	w.t.Helper()
	address, err := cell.ParseAddress(host)
	if err != nil {
		w.t.Fatal(err)
	}
	failure := new(error)
	isolation := w.isolation
	w.f.Pipe(w.f.Client("client"), func(c env.Conn) env.ConnEvents {
		return w.client.Open(circuit.Request{Address: address, Port: port, Isolation: isolation}, c, func(_ circuit.Result, err error) {
			if *failure = err; err != nil {
				c.Close(err)
			}
		})
	}, func(c env.Conn) env.ConnEvents {
		c.Write([]byte("question\n"))
		c.CloseWrite()
		c.Pause(false)
		return app
	})
	return failure
}

// serve puts a server into the clear net that answers a question with its own text.
func (w *world) serve(at, text string) {
	w.f.Listen(netip.MustParseAddrPort(at), func(c env.Conn) env.ConnEvents {
		p := &envtest.ConnProbe{EOF: func() { c.Write([]byte(text)); c.CloseWrite() }}
		c.Pause(false)
		return p
	})
}
