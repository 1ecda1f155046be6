package measure

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cert"
	"cepa/circuit"
	"cepa/directory"
	"cepa/env/envtest"
)

// world is a Measurer whose transfers are computed from what the relays can do.
type world struct {
	t         *testing.T
	f         *envtest.Fake
	node      *envtest.Node
	network   *directory.Network
	signer    cert.Signer
	consensus *directory.Consensus
	able      map[cert.Identity]int // bytes a second
	friendly  map[cert.Identity]int // the same when the relay sees the authority
	failing   map[cert.Identity]bool
	carried   []circuit.Transfer
	at        []time.Duration
	m         *Measurer
}

func newWorld(t *testing.T, seed uint64, relays int, change func(*directory.Network)) *world {
	t.Helper()
	w := &world{t: t, f: envtest.NewFake(seed), able: map[cert.Identity]int{}, friendly: map[cert.Identity]int{}, failing: map[cert.Identity]bool{}}
	w.node = w.f.Node("authority")
	id := cert.NetworkID(sha256.Sum256([]byte("network")))
	identity := cert.NewIdentityKey(sha256.Sum256([]byte("identity")))
	key := cert.NewSigningKey(sha256.Sum256([]byte("signing")))
	certificate, err := identity.Certify(id, key.Public(), envtest.Epoch, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.signer = cert.Signer{Certificate: certificate, Key: key}
	contents := directory.Network{
		Name: "a test", ID: id, Created: envtest.Epoch,
		Authorities: []directory.Contact{{Identity: identity.Identity(), Addresses: []netip.AddrPort{netip.MustParseAddrPort("5.5.5.5:9001")}}},
	}
	if change != nil {
		change(&contents)
	}
	if w.network, err = directory.NewNetwork(contents, w.signer); err != nil {
		t.Fatal(err)
	}
	w.consensus = &directory.Consensus{Head: &directory.Head{}}
	for i := range relays {
		r := directory.Relay{
			Identity: cert.Identity(sha256.Sum256(fmt.Append(nil, "relay ", i))), Weight: 100,
			Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(i), 0, 1}), 9001)},
			Flags:     directory.FlagRunning | directory.FlagValid, Protocols: directory.OurProtocols(),
		}
		w.consensus.Relays = append(w.consensus.Relays, r)
	}
	slices.SortFunc(w.consensus.Relays, func(a, b directory.Relay) int { return a.Identity.Compare(b.Identity) })
	for _, r := range w.consensus.Relays {
		w.able[r.Identity] = 10 << 20
	}
	w.start()
	return w
}

func (w *world) start() {
	w.m = New(Config{
		Env: w.node.Env, Network: w.network, Self: w.signer.Identity(), Signer: func() cert.Signer { return w.signer },
		View: func() *directory.Consensus { return w.consensus }, Carry: w.carry,
	})
	w.f.Do(w.m.Start)
}

// carry is as fast as the slowest relay.
func (w *world) carry(t circuit.Transfer, done func(circuit.Transferred, error)) {
	w.carried, w.at = append(w.carried, t), append(w.at, time.Duration(w.f.Now()))
	rate := 1 << 40
	for i, r := range t.Path {
		able := w.able[r.Identity]
		if x := w.friendly[r.Identity]; i == 0 && x > 0 {
			able = x
		}
		rate = min(rate, able)
		if w.failing[r.Identity] {
			w.node.Env.Clock.AfterFunc(time.Second, func() { done(circuit.Transferred{}, errors.New("the circuit broke")) })
			return
		}
	}
	bytes := t.Bytes * len(t.Requests)
	rate = min(rate, bytes*int(time.Second/time.Millisecond)/int(t.Least/time.Millisecond))
	took := min(time.Duration(float64(bytes)/float64(rate)*float64(time.Second)), t.Most)
	w.node.Env.Clock.AfterFunc(took, func() {
		done(circuit.Transferred{Bytes: int(float64(rate) * took.Seconds()), Took: took, Rate: rate}, nil)
	})
}

// agree gives every relay the weight that was measured, as a consensus does.
func (w *world) agree() {
	next := *w.consensus
	next.Relays = slices.Clone(next.Relays)
	for i := range next.Relays {
		if kib, ok := w.m.Measured(next.Relays[i].Identity); ok {
			next.Relays[i].Weight = kib
		}
	}
	w.consensus = &next
}

func (w *world) relay(i int) cert.Identity { return w.consensus.Relays[i].Identity }

// TestEstimatesAreWhatRelaysCan: whatever they claim, relays are found to be as fast as they are, slow ones and fast
// ones, if others are as fast as that.
func TestEstimatesAreWhatRelaysCan(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 20, nil)
	for i := range 20 {
		w.able[w.relay(i)] = (1 + i) << 20
	}
	w.able[w.relay(0)] = 50 << 10
	for range 120 {
		w.f.Run(time.Hour)
		w.agree()
	}
	for i := range 20 {
		kib, ok := w.m.Measured(w.relay(i))
		able := uint32(w.able[w.relay(i)] >> 10)
		// Nobody can be found to be faster than the relays that it is measured through.
		if most := uint32(15 << 10); !ok || kib > able || kib < min(able, most)*3/4 {
			t.Errorf("relay %d: %d KiB/s (%v) instead of %d", i, kib, ok, able)
		}
	}
	if s := w.m.Stats(); s.Known != 20 || s.Suspects != 0 || s.Failed != 0 || s.Done < 100 {
		t.Errorf("%+v", s)
	}
}

// TestClaimsDoNotCount: neither a weight a hundred times too high nor one far too low lasts.
func TestClaimsDoNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 10, nil)
	liar, modest := w.relay(3), w.relay(4)
	w.able[liar] = 1 << 20
	w.consensus.Relays[3].Weight = 100 << 10
	w.consensus.Relays[4].Weight = 1
	for range 48 {
		w.f.Run(time.Hour)
		w.agree()
	}
	for id, want := range map[cert.Identity]uint32{liar: 1 << 10, modest: 10 << 10} {
		if kib, ok := w.m.Measured(id); !ok || kib != want {
			t.Errorf("%d KiB/s (%v), want %d", kib, ok, want)
		}
	}
}

// TestTwoFacedRelayIsFound: one that is fast only for those whom it knows has the weight of what it does for clients,
// and is reported; its honest neighbours are not.
func TestTwoFacedRelayIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 10, nil)
	liar := w.relay(7)
	w.able[liar], w.friendly[liar] = 1<<20, 100<<20
	w.able[w.relay(1)] = 2 << 20 // honest and slow
	for range 12 * 24 {
		w.f.Run(time.Hour)
		w.agree()
	}
	s := w.m.Stats()
	if kib, _ := w.m.Measured(liar); kib != 1<<10 || s.Suspects != 1 || s.Reports != 1 || !w.m.relays[liar].suspect {
		t.Errorf("%d KiB/s, %+v", kib, s)
	}
	// It mends its ways.
	delete(w.friendly, liar)
	for range 12 * 24 {
		w.f.Run(time.Hour)
	}
	if s := w.m.Stats(); s.Suspects != 0 || s.Reports != 1 {
		t.Errorf("afterwards: %+v", s)
	}
}

// TestPathsHideTheAuthority: most measurements, and the first ones, have another relay in front; all paths obey the rule of
// clients, and never lead through the authority.
func TestPathsHideTheAuthority(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, 12, nil)
	family := cert.FamilyID{1}
	for i := range w.consensus.Relays {
		if r := &w.consensus.Relays[i]; i%3 == 0 {
			r.Families = []cert.FamilyID{family}
		}
	}
	self := w.consensus.Relays[5]
	w.m.cfg.Self = self.Identity
	w.consensus.Relays[6].Flags = directory.FlagValid // not running
	w.f.Run(48 * time.Hour)
	hops := map[int]int{}
	for _, x := range w.carried {
		hops[len(x.Path)]++
		for i := range x.Path {
			if id := x.Path[i].Identity; id == self.Identity || id == w.relay(6) {
				t.Fatalf("a path through a relay that must not be measured: hop %d", i)
			}
			for j := range i {
				if !circuit.Together(&x.Path[i], &x.Path[j], true) {
					t.Fatal("two relays that no circuit of a client has together")
				}
			}
		}
	}
	if hops[3] < hops[2]*3/2 || hops[3] > hops[2]*5 || len(hops) != 2 {
		t.Errorf("lengths of paths: %v", hops)
	}
}

// TestLoadIsBounded: measurements begin one after the other, with the pause that the documentation promises, and a
// relay about which much is known is not measured more than once in a round.
func TestLoadIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5, 8, nil)
	for _, r := range w.consensus.Relays {
		w.able[r.Identity] = 1 << 30
	}
	w.f.Run(72 * time.Hour)
	const pause = 10 * time.Second * 3 / 4
	for i := 1; i < len(w.at); i++ {
		if w.at[i]-w.at[i-1] < pause {
			t.Fatalf("measurement %d came %v after the one before it", i, w.at[i]-w.at[i-1])
		}
	}
	late := 0
	for _, at := range w.at {
		if at > 36*time.Hour {
			late++
		}
	}
	if late < 3*8*2/3 || late > 3*8*3/2 { // three rounds of 12 hours
		t.Errorf("%d measurements in 36 hours", late)
	}
	// What is faster than a measurement can tell has the highest rate that it can.
	if kib, ok := w.m.Measured(w.relay(0)); !ok || kib != 128<<10 {
		t.Errorf("%d KiB/s (%v) instead of 128 MiB/s", kib, ok)
	}
	for _, x := range w.carried {
		if n := x.Bytes * len(x.Requests); n != 64<<20 || x.Most != 5*time.Second {
			t.Fatalf("a transfer of %d bytes in %v", n, x.Most)
		}
	}
}

// TestFailingRelayWaitsItsTurn: one that never answers does not keep the others from being measured.
func TestFailingRelayWaitsItsTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 6, 6, nil)
	broken := w.relay(2)
	w.failing[broken] = true
	w.f.Run(6 * time.Hour)
	if _, ok := w.m.Measured(broken); ok {
		t.Error("there is an estimate of a relay that never worked")
	}
	for i := range 6 {
		if _, ok := w.m.Measured(w.relay(i)); !ok && i != 2 {
			t.Errorf("relay %d was not measured", i)
		}
	}
	before := len(w.carried)
	w.f.Run(12 * time.Hour)
	tries := 0
	for _, x := range w.carried[before:] {
		if x.Path[len(x.Path)-2].Identity == broken {
			tries++
		}
	}
	if tries == 0 || tries > 3 {
		t.Errorf("it was tried %d times in a round", tries)
	}
	// Results do not count for ever: when it had some and works no longer, they are forgotten.
	w.failing[broken] = false
	w.f.Run(48 * time.Hour)
	if _, ok := w.m.Measured(broken); !ok {
		t.Error("no estimate of a relay that works again")
	}
	w.failing[broken] = true
	w.f.Run(12*12*time.Hour + 13*time.Hour)
	if kib, ok := w.m.Measured(broken); ok {
		t.Errorf("after twelve rounds of failures it still counts %d KiB/s", kib)
	}
}

// TestSmallNetworks: with fewer relays than a path needs nothing is measured, and nothing breaks.
func TestSmallNetworks(t *testing.T) {
	t.Parallel()
	for relays := range 4 {
		w := newWorld(t, 7, relays, nil)
		w.f.Run(24 * time.Hour)
		known := w.m.Stats().Known
		if want := relays / 3 * relays; known != want {
			t.Errorf("%d relays: %d measured, want %d", relays, known, want)
		}
	}
	w := newWorld(t, 8, 10, func(n *directory.Network) { n.Parameters = directory.Parameters{directory.MeasureIntervals: 0} })
	w.f.Run(24 * time.Hour)
	if len(w.carried) > 0 {
		t.Error("it measures though it is switched off")
	}
	w = newWorld(t, 9, 10, nil)
	for i := range w.consensus.Relays { // all in one /16
		w.consensus.Relays[i].Addresses = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, 0, byte(i), 1}), 9001)}
	}
	w.f.Run(time.Hour)
	if s := w.m.Stats(); len(w.carried) > 0 || s.NoPath == 0 {
		t.Errorf("relays that no client has together are in one path: %+v", s)
	}
}

// TestResultsSurviveARestart: what was found is kept, and another network's, or garbage, is not taken for it.
func TestResultsSurviveARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, 6, nil)
	w.able[w.relay(0)] = 1 << 20
	w.f.Run(24 * time.Hour)
	before, _ := w.m.Measured(w.relay(0))
	w.f.Do(w.m.Stop)
	w.f.Run(time.Second)
	count := len(w.carried)
	w.f.Run(24 * time.Hour)
	if len(w.carried) != count {
		t.Error("it measures after its end")
	}
	w.node.Stop()
	w.node = w.f.Node("authority")
	w.start()
	if after, ok := w.m.Measured(w.relay(0)); !ok || after != before || before != 1<<10 {
		t.Errorf("%d KiB/s before, %d (%v) after", before, after, ok)
	}
	data, err := encode(w.m.relays, w.network.ID)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"cut": data[:len(data)-1], "longer": append(slices.Clone(data), 0), "empty": {}} {
		if _, err := decode(bad, w.network.ID); !errors.Is(err, errFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decode(data, cert.NetworkID{1}); !errors.Is(err, errFile) {
		t.Errorf("of another network: %v", err)
	}
}

// TestAuthoritiesDoNotMoveTogether: two that start at the same moment do not measure the same relays at the same time.
func TestAuthoritiesDoNotMoveTogether(t *testing.T) {
	t.Parallel()
	same := 0
	a, b := newWorld(t, 11, 30, nil), newWorld(t, 12, 30, nil)
	a.f.Run(time.Hour)
	b.f.Run(time.Hour)
	n := min(len(a.carried), len(b.carried), 30)
	target := func(x circuit.Transfer) cert.Identity { return x.Path[len(x.Path)-2].Identity }
	for i := range n {
		if target(a.carried[i]) == target(b.carried[i]) {
			same++
		}
	}
	if n < 30 || same > 8 {
		t.Errorf("%d of %d measurements are of the same relay", same, n)
	}
}

func FuzzDecode(f *testing.F) {
	network := cert.NetworkID{7}
	r := &record{id: cert.Identity{1}, attempts: 7}
	r.add(result{at: envtest.Epoch, kib: 1000})
	r.add(result{at: envtest.Epoch.Add(time.Hour), kib: 5000, open: true, narrow: true})
	data, err := encode(map[cert.Identity]*record{r.id: r}, network)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := decode(data, network)
		if err != nil {
			return
		}
		again := map[cert.Identity]*record{}
		for _, r := range list {
			again[r.id] = r
		}
		if written, err := encode(again, network); err != nil || !slices.Equal(written, data) {
			t.Errorf("decode then encode: %x (%v) instead of %x", written, err, data)
		}
	})
}

// TestFirstMeasuredIsNotAlone: an estimate counts when most relays have one; until then they weigh what they claim,
// and the first to be measured would weigh more than all others together.
func TestFirstMeasuredIsNotAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 13, 10, nil)
	told := func() (n int) {
		for i := range 10 {
			if _, ok := w.m.Measured(w.relay(i)); ok {
				n++
			}
		}
		return n
	}
	for known := 0; known < 9; known = w.m.Stats().Known {
		if n := told(); n > 0 && w.m.Stats().Known < 9 {
			t.Fatalf("it tells of %d relays when %d of 10 are known", n, known)
		}
		if w.f.Run(time.Second); w.f.Now().Sub(0) > time.Hour {
			t.Fatal("too few relays are measured in an hour")
		}
	}
	if n := told(); n < 9 {
		t.Errorf("it tells of %d relays when 9 of 10 are known", n)
	}
	// Newcomers do not make it silent.
	for i := range 8 {
		r := w.consensus.Relays[0]
		r.Identity = cert.Identity(sha256.Sum256(fmt.Append(nil, "newcomer ", i)))
		next := *w.consensus
		next.Relays = append(slices.Clone(next.Relays), r)
		slices.SortFunc(next.Relays, func(a, b directory.Relay) int { return a.Identity.Compare(b.Identity) })
		w.consensus = &next
	}
	if _, ok := w.m.Measured(w.relay(0)); !ok && told() < 5 {
		t.Errorf("with as many newcomers it tells of %d relays", told())
	}
}
