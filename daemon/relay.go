package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/directory/gossip"
	"cepa/env"
	"cepa/ipaddr"
	"cepa/link"
	"cepa/node"
)

// Relay is a running relay.
type Relay struct {
	*shell
	config   RelayConfig
	only     bool // the directory: an authority that is no relay
	node     *node.Relay
	gossip   *gossip.Gossip
	listener net.Listener
	address  netip.AddrPort
	notice   *http.Server // nil for none,
	noticeAt net.Addr     // at this address

	accounting accounting
	learned    bool // the address is what others see

	// What the loop knows of the keys: how they were when the links got their credentials, and when that was.
	keys       *node.Keys
	generation int
	certified  time.Time

	listed atomic.Pointer[map[netip.Addr]bool] // where the relays of the consensus listen
}

// StartRelay starts a relay and returns when its port is open; what follows is told to
// o.Progress.
func StartRelay(config RelayConfig, o Options) (*Relay, error) {
	if o.Name == "" {
		o.Name = config.Nickname
	}
	if o.Name == "" {
		o.Name = "relay"
	}
	return startRelay(config, o, false)
}

// StartAuthority starts a directory authority that is no relay, as StartRelay does a relay. Its keys must be in its
// folder: one that is none of the network's authorities would serve nobody.
func StartAuthority(config AuthorityConfig, o Options) (*Relay, error) {
	if o.Name == "" {
		o.Name = "authority"
	}
	return startRelay(config.asRelay(), o, true)
}

// asRelay are the settings of an authority as those of a relay.
func (c *AuthorityConfig) asRelay() RelayConfig {
	return RelayConfig{
		Network: c.Network, Dir: c.Dir, Listen: c.Listen, Address: c.Address,
		MemoryMiB: c.MemoryMiB, LogLevel: c.LogLevel, TLSKeyLog: c.TLSKeyLog,
		Metrics: c.Metrics, MetricsPublic: c.MetricsPublic, LogFormat: c.LogFormat, LogAddresses: c.LogAddresses, Control: c.Control,
	}
}

var errServe = errors.New("serve is for test networks only")

func startRelay(config RelayConfig, o Options, directoryOnly bool) (*Relay, error) {
	what := "relay"
	if directoryOnly {
		what = "authority"
	}
	listen, err := config.check()
	if err != nil {
		return nil, err
	}
	if directoryOnly && !HasKeys(config.Dir) {
		return nil, fmt.Errorf("starting the authority: %s holds no keys: give the folder that 'cepa network new' made", config.Dir)
	}
	s, err := newShellWith(o, config.Network, config.outside())
	if err != nil {
		return nil, err
	}
	r := &Relay{shell: s, config: config, only: directoryOnly}
	if err := r.start(listen); err != nil {
		if r.listener != nil {
			r.listener.Close()
		}
		if r.gossip != nil {
			r.gossip.Close()
		}
		if r.notice != nil {
			r.notice.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		go s.loop.Run()
		s.stop(ctx, func() {})
		return nil, fmt.Errorf("starting the %s: %w", what, err)
	}
	return r, nil
}

func (r *Relay) start(listen netip.AddrPort) error {
	if len(r.config.Serve) > 0 && !r.network.Test {
		return errServe
	}
	if err := r.accounting.load(r.loop.Env().Store, &r.config); err != nil {
		return err
	}
	if until := r.accounting.note(0, 0, time.Now()); !until.IsZero() {
		return &Hibernating{until}
	}
	if err := r.learn(listen); err != nil {
		return err
	}
	var err error
	r.listener, err = net.Listen("tcp", listen.String())
	if err != nil {
		return PortFault("the relay port", listen.String(), "--listen", err)
	}
	if r.address, err = r.announced(r.listener.Addr().(*net.TCPAddr).AddrPort()); err != nil {
		return err
	}
	keyLog, err := r.openKeyLog(r.config.TLSKeyLog)
	if err != nil {
		return err
	}
	e := r.loop.Env()
	if e.Network, err = newServices(e, r.config.Serve); err != nil {
		return err
	}
	keys, err := node.LoadKeys(e, r.network)
	if err != nil {
		return err
	}
	if r.only && !r.network.IsAuthority(keys.Identity()) {
		return fmt.Errorf("%s of %s is none of the authorities that the network file names; for a relay there is 'cepa relay'", keys.Identity().Short(), r.config.Dir)
	}
	credentials, err := r.credentials(keys)
	if err != nil {
		return err
	}
	r.keys, r.generation, r.certified = keys, keys.Generation(), time.Now()
	r.warnings = func() []directory.Warning { return append(keys.Warnings(), r.node.Warnings()...) }
	handler := &lateHandler{}
	r.links, err = link.New(link.Config{
		Loop: r.loop, AfterBatch: r.loop.AfterBatch, Network: r.network.ID, Handler: handler, Credentials: credentials,
		Log: r.options.Log, LocalAddr: dialFrom(listen, r.network.Test), KeyLog: keyLog, FreeLoopback: r.network.Limit(directory.SiteLimits) == 0, Exempt: r.isListed,
	})
	if err != nil {
		return err
	}
	e.Dialer = r.links
	carrier := &lateGossip{}
	live, err := r.live(&r.config)
	if err != nil {
		return err
	}
	r.node, err = node.NewRelay(node.RelayConfig{
		Env: e, Network: r.network, Keys: keys, Addresses: []netip.AddrPort{r.address}, Policy: live.Policy,
		IPv6: hasIPv6(r.network.Test), MemoryBytes: r.config.MemoryMiB << 20, MaxLinks: r.capacity(), Bandwidth: live.Bandwidth,
		Uplink: live.Uplink, UplinkBurst: live.UplinkBurst, Exit: live.Exit,
		Nickname: r.config.Nickname, Contact: r.config.Contact, Software: "cepa " + r.options.Version, DirectoryOnly: r.only,
		Families: live.Families, AssumeReachable: r.config.AssumeReachable,
		Undefended: r.options.Undefended, Gossip: carrier, OnConsensus: r.onConsensus, OnProgress: r.onProgress,
	})
	if err != nil {
		return err
	}
	handler.LinkHandler = r.node
	if err := r.startGossip(carrier, keys.Identity()); err != nil {
		return err
	}
	r.describe(keys.Identity(), !live.Policy.IsEmpty())
	if err := r.serveNotice(); err != nil {
		return err
	}
	if err := r.startControl(r.config.Dir, r.config.Control, r); err != nil {
		return err
	}
	if err := r.serveMetrics(r.config.Metrics, r.config.MetricsPublic, r.Counters); err != nil {
		return err
	}
	go r.loop.Run()
	go r.watchAddresses()
	go func() { _ = r.links.Serve(r.listener) }() // ends with links.Close
	r.loop.Post(r.node.Start)
	r.loop.Post(func() { r.account(0) })
	r.renewLater()
	return nil
}

// onConsensus keeps the addresses of listed relays, and of the authorities, for the port, which asks from other
// goroutines.
func (r *Relay) onConsensus(c *directory.Consensus) {
	listed := make(map[netip.Addr]bool, len(c.Relays))
	for _, x := range r.network.Authorities {
		for _, a := range x.Addresses {
			listed[a.Addr()] = true
		}
	}
	for _, x := range c.Relays {
		for _, a := range x.Addresses {
			listed[a.Addr()] = true
		}
	}
	r.listed.Store(&listed)
	r.keepConsensus(c)
}

// isListed says whether a relay of the consensus or an authority listens at an address: its handshakes do not
// count against the rate of its network.
func (r *Relay) isListed(a netip.Addr) bool {
	listed := r.listed.Load()
	return listed != nil && (*listed)[a.Unmap()]
}

func (r *Relay) describe(id cert.Identity, exit bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Role, r.status.ID, r.status.Address, r.status.Exit = "relay", id.String(), r.address.String(), exit
	if r.network.IsAuthority(id) {
		r.status.Role = "authority"
	}
}

// announced is the address that others use: the settings', or where the relay listens.
func (r *Relay) announced(bound netip.AddrPort) (netip.AddrPort, error) {
	a, from := netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port()), "--listen"
	if r.config.Address != "" {
		var err error
		if a, err = netip.ParseAddrPort(r.config.Address); err != nil {
			return a, fmt.Errorf("--address %q is not an IP address and port such as 203.0.113.7:%d", r.config.Address, DefaultRelayPort)
		}
		a, from = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), "--address"
	}
	switch ip := a.Addr(); {
	case ip.IsUnspecified() && from == "--listen":
		return a, fmt.Errorf("listening on %s does not say how others reach the relay: set --address IP:PORT", a)
	case ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "" || a.Port() == 0:
		return a, fmt.Errorf("%s %s is no address at which others can reach the relay", from, a)
	case !r.network.Test && !ipaddr.IsPublic(ip):
		return a, fmt.Errorf("%s %s is not a public address: others cannot reach the relay there; set --address IP:PORT to the one that they can", from, a)
	}
	return a, nil
}

// learn sets the address of a relay that is to find it out.
func (r *Relay) learn(listen netip.AddrPort) error {
	if r.config.Address != AutoAddress {
		return nil
	}
	r.onProgress(0, "finding out this relay's address", "the authorities to say at which they see it")
	a, err := LearnAddress(r.options.starting(), r.network, listen.Addr().Unmap().Is4())
	if err != nil {
		return err
	}
	r.config.Address, r.learned = netip.AddrPortFrom(a, listen.Port()).String(), true
	r.options.Log.Info("others see this relay at", "address", r.config.Address)
	return nil
}

// credentials are what this process shows on links: a link key of its own.
func (r *Relay) credentials(keys *node.Keys) (*link.Credentials, error) {
	statement, err := keys.Statement()
	if err != nil {
		return nil, err
	}
	var seed [32]byte
	_, _ = r.loop.Env().Rand.Read(seed[:]) // never fails
	return link.NewCredentials(r.network.ID, keys.Signer(), seed, time.Now(), func() []byte { return statement })
}

// lookAtKeys is how often a relay looks whether a key is to be renewed, and lookAtClock how often whether its clock has
// been set: one that is wrong when the machine starts is set right soon.
const (
	lookAtKeys  = 15 * time.Minute
	lookAtClock = 20 * time.Second
)

// renewLater looks at the keys again and again.
func (r *Relay) renewLater() {
	r.loop.Post(func() { r.awaitRenewal(r.loop.Env().Clock.Now().Add(lookAtKeys)) })
}

// awaitRenewal runs on the loop.
func (r *Relay) awaitRenewal(due env.Mono) {
	clock := r.loop.Env().Clock
	clock.AfterFunc(lookAtClock, func() {
		if clock.Now() < due && !node.LinkKeyDue(r.certified, clock.Wall()) {
			r.awaitRenewal(due)
			return
		}
		go func() { // it reads files
			if err := r.RefreshKeys(context.Background()); err != nil && !errors.Is(err, errStopped) {
				r.options.Log.Error("renewing keys failed", "err", err)
			}
			r.renewLater()
		}()
	})
}

// RefreshKeys takes note of what has been done to the key files in the folder and renews what ends soon. It happens by
// itself every quarter of an hour; `cepa keys` asks for it over the control socket.
func (r *Relay) RefreshKeys(ctx context.Context) error {
	files, err := readKeyFiles(r.config.Dir)
	if err != nil {
		return err
	}
	var failure error
	if err := r.loop.Do(ctx, func() { failure = r.refresh(files) }); err != nil {
		return fmt.Errorf("%w: %w", errStopped, err)
	}
	return failure
}

// refresh runs on the loop.
func (r *Relay) refresh(files node.KeyFiles) error {
	failure := r.keys.Refresh(files)
	if err := r.keys.Rotate(); err != nil { // whatever is wrong with the files
		failure = errors.Join(failure, err)
	}
	changed := r.keys.Generation() != r.generation
	if !changed && !node.LinkKeyDue(r.certified, time.Now()) {
		return failure
	}
	c, err := r.credentials(r.keys)
	if err == nil {
		err = r.links.SetCredentials(c)
	}
	if err != nil {
		return errors.Join(failure, err)
	}
	r.generation, r.certified = r.keys.Generation(), time.Now()
	if changed {
		r.node.KeysChanged()
	}
	return failure
}

// hasIPv6 says whether an exit can reach IPv6 destinations: the machine has a public address
// of that kind, or, in a test network, any.
func hasIPv6(test bool) bool {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addresses {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if ip = ip.Unmap(); ok && ip.Is6() && (test || ipaddr.IsPublic(ip)) {
			return true
		}
	}
	return false
}

// Counters implements control.Source.
func (r *Relay) Counters(ctx context.Context) (map[string]int64, error) {
	var m map[string]int64
	if err := r.loop.Do(ctx, func() { m = r.node.Counters() }); err != nil {
		return nil, err
	}
	r.processCounters(m)
	r.gossipCounters(m)
	return m, nil
}

// Address is where others reach the relay.
func (r *Relay) Address() netip.AddrPort { return r.address }

// Identity names the relay.
func (r *Relay) Identity() cert.Identity { return r.node.Identity() }

// Stop tells the authorities and the neighbours, closes everything, and returns when that is
// done or ctx ends.
func (r *Relay) Stop(ctx context.Context) {
	if r.listener != nil {
		_ = r.listener.Close()
	}
	if r.notice != nil {
		_ = r.notice.Close()
	}
	r.loop.Post(r.saveAccounting)
	left := make(chan struct{})
	if r.loop.Post(func() { r.node.Leave(func() { close(left) }) }) {
		select {
		case <-left:
		case <-ctx.Done():
		case <-r.loop.Done():
		}
	}
	if r.gossip != nil {
		r.gossip.Close()
	}
	r.stop(ctx, r.node.Stop)
}
