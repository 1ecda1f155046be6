package directory

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/env/envtest"
)

// world is a network of followers, agents and an authority on a virtual clock. Its directory requests take a
// millisecond each way and are answered by the other node's Agent, or by what a test puts in its place.
type world struct {
	t       testing.TB
	f       *envtest.Fake
	network *Network
	members []*member // by number; 0 carries the authority
	clients []*member
	serve   map[cert.Identity]func(q Request, from *env.Peer) ([]byte, error) // instead of the Agent
	asked   map[RequestKind]int
	trace   func(from *member, to cert.Identity, q Request, outcome string)
}

// member is a node of a world.
type member struct {
	w          *world
	number     int
	identity   cert.Identity
	signer     cert.Signer
	node       *envtest.Node
	follower   *Follower
	agent      *Agent
	authority  *Authority
	store      env.Store // instead of the node's
	describe   func(*Descriptor)
	gossip     Gossip
	sources    func() []env.Target
	consensus  []*Consensus // that came into use
	progress   []string
	dead       bool // does not answer
	unlistened bool // is not reached by probes
	tested     bool // publishes only when it is reached
	helpless   bool // calls nobody back
}

const worldDelay = time.Millisecond

// newWorld makes the nodes of a network, of which 0 is the authority and the only one in the network file.
func newWorld(t testing.TB, seed uint64, relays int, change func(*Network)) *world {
	t.Helper()
	w := &world{t: t, f: envtest.NewFake(seed), asked: make(map[RequestKind]int),
		serve: make(map[cert.Identity]func(Request, *env.Peer) ([]byte, error))}
	for i := range relays {
		w.members = append(w.members, &member{w: w, number: i, identity: testIdentity(i), signer: testSigner(t, i),
			node: w.f.Node(fmt.Sprintf("relay %d", i))})
	}
	contents := Network{
		Name: "a world", ID: testID, Created: testNow.Add(-time.Hour), Parameters: Parameters{IntervalMillis: 5000},
		Authorities: []Contact{w.contact(0)}, Bootstrap: []Contact{w.contact(0)}, Test: true,
	}
	if change != nil {
		change(&contents)
	}
	network, err := NewNetwork(contents, testSigner(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	w.network = network
	return w
}

func (w *world) contact(i int) Contact {
	return Contact{testIdentity(i), []netip.AddrPort{w.members[i].node.Address}}
}

func (w *world) byIdentity(id cert.Identity) *member {
	i := slices.IndexFunc(w.members, func(m *member) bool { return m.id() == id })
	if i < 0 {
		return nil
	}
	return w.members[i]
}

// client adds a node that has no identity.
func (w *world) client() *member {
	m := &member{w: w, number: -1, node: w.f.Client(fmt.Sprintf("client %d", len(w.clients)))}
	w.clients = append(w.clients, m)
	return m
}

func (m *member) id() cert.Identity {
	return m.identity
}

func (m *member) env() env.Env {
	e := m.node.Env
	if m.store != nil {
		e.Store = m.store
	}
	return e
}

func (m *member) peer() *env.Peer { return &env.Peer{Identity: m.id(), Address: m.node.Address} }

// make constructs the actors of a node, as after a start of the program.
func (m *member) make() {
	w := m.w
	m.follower = NewFollower(FollowerConfig{
		Env: m.env(), Network: w.network, Fetcher: m, Self: m.id(), Sources: m.sources,
		OnConsensus: func(c *Consensus) {
			m.consensus = append(m.consensus, c)
			if m.agent != nil {
				m.agent.OnConsensus(c)
			}
		},
		OnProgress: func(percent int, doing, awaiting string) {
			m.progress = append(m.progress, fmt.Sprintf("%d %% %s [%s]", percent, doing, awaiting))
		},
	})
	if m.number < 0 {
		return
	}
	m.agent = NewAgent(AgentConfig{
		Env: m.env(), Network: w.network, Identity: m.id(), Follower: m.follower, Fetcher: m,
		Gossip: m.gossip, Signer: func() cert.Signer { return m.signer },
		CheckReach: m.tested, Prober: m.prober(),
		Describe: func() Descriptor {
			d := Descriptor{
				OnionKey: testSeed('b', m.number), OnionKeyUntil: testNow.Add(30 * 24 * time.Hour),
				Addresses: []netip.AddrPort{m.node.Address}, Bandwidth: 1 << 20, Protocols: OurProtocols(),
				Nickname: fmt.Sprintf("relay%d", m.number), Policy: parsePolicy(w.t, "web"),
			}
			if m.describe != nil {
				m.describe(&d)
			}
			return d
		},
	})
	if w.network.IsAuthority(m.id()) {
		var err error
		m.authority, err = NewAuthority(AuthorityConfig{
			Env: m.env(), Network: w.network, Identity: m.id(), Agent: m.agent, Follower: m.follower, Prober: m,
			Signer: func() cert.Signer { return m.signer },
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func (m *member) start() {
	m.make()
	m.w.f.Do(func() {
		m.follower.Start()
		if m.agent != nil {
			m.agent.Start()
		}
		if m.authority != nil {
			m.authority.Start()
		}
	})
	m.dead = false
}

// crash ends a node as SIGKILL does; start brings it back with its store.
func (m *member) crash() {
	m.node.Stop()
	m.dead = true
	if m.number < 0 {
		m.node = m.w.f.Client(m.node.Name)
	} else {
		m.node = m.w.f.Node(m.node.Name)
	}
}

var errUnreachable = errors.New("connection refused")

// Fetch implements Fetcher.
func (m *member) Fetch(to env.Target, request []byte, limit int, done func([]byte, error)) {
	w, clock := m.w, m.node.Env.Clock
	request = bytes.Clone(request)
	clock.AfterFunc(worldDelay, func() {
		var reader RequestReader
		q, _, _ := reader.Read(request)
		w.asked[q.Kind]++
		target := w.byIdentity(to.Identity)
		switch {
		case w.serve[to.Identity] != nil:
			answer, err := w.serve[to.Identity](q, m.peer())
			m.answered(to, q, limit, answer, err, done)
		case target != nil && !target.dead && target.agent != nil:
			target.agent.Serve(request, m.peer(), func(answer []byte) { m.answered(to, q, limit, answer, nil, done) })
		default:
			m.answered(to, q, limit, nil, errUnreachable, done)
		}
	})
}

// answered brings an answer back.
func (m *member) answered(to env.Target, q Request, limit int, answer []byte, err error, done func([]byte, error)) {
	w := m.w
	if len(answer) > limit {
		answer, err = nil, fmt.Errorf("%w: an answer of %d bytes", ErrTooLarge, len(answer))
	}
	if w.trace != nil {
		outcome := fmt.Sprint(err)
		if err == nil {
			outcome = fmt.Sprintf("%s, %d bytes", Status(answer[0]), len(answer)-answerHeader)
		}
		w.trace(m, to.Identity, q, outcome)
	}
	if err == errSilence {
		return
	}
	answer = bytes.Clone(answer)
	m.node.Env.Clock.AfterFunc(worldDelay, func() { done(answer, err) })
}

// errSilence makes a source say nothing at all.
var errSilence = errors.New("silence")

// Probe implements Prober.
func (m *member) Probe(to env.Target, done func(error)) {
	m.node.Env.Clock.AfterFunc(worldDelay, func() {
		target := m.w.byIdentity(to.Identity)
		if target == nil || target.dead || target.unlistened || to.Addresses[0] != target.node.Address {
			done(errUnreachable)
			return
		}
		done(nil)
	})
}

// prober connects back.
func (m *member) prober() Prober {
	if m.helpless {
		return nil
	}
	return m
}

// startAll starts all relays at once.
func (w *world) startAll() {
	for _, m := range w.members {
		m.start()
	}
}

// until runs the world until cond holds.
func (w *world) until(limit time.Duration, what string, cond func() bool) {
	w.t.Helper()
	if !w.f.RunUntil(limit, cond) {
		w.t.Fatalf("not within %v: %s", limit, what)
	}
}

// lists says whether the consensus in use at m has exactly these relays.
func (m *member) lists(relays ...*member) bool {
	c := m.follower.Current()
	if c == nil || len(c.Relays) != len(relays) {
		return false
	}
	return !slices.ContainsFunc(relays, func(r *member) bool { return c.Lookup(r.id()) == nil })
}

// signedConsensus makes a consensus of the world's relays, signed by its authority.
func (w *world) signedConsensus(validAfter time.Time, previous cert.Digest, change func(*ConsensusInput)) *held {
	w.t.Helper()
	in := ConsensusInput{ValidAfter: validAfter, Previous: previous, Parameters: w.network.Parameters,
		Recommended: OurProtocols(), Required: OurProtocols()}
	for _, m := range w.members {
		in.Relays = append(in.Relays, Relay{Identity: m.id(), OnionKey: testSeed('b', m.number), Weight: 1000,
			Addresses: []netip.AddrPort{m.node.Address}, Flags: FlagRunning | FlagValid | FlagGuard, Protocols: OurProtocols()})
	}
	if change != nil {
		change(&in)
	}
	head, body := build(w.t, w.network, in)
	sealed := sealHead(w.t, head, testSigner(w.t, 0))
	h := must[*Head](w.t)(OpenHead(sealed, w.network, testNow))
	return &held{must[*Consensus](w.t)(OpenBody(h, body, w.network)), sealed, body}
}

// mirror answers as a relay that has one consensus.
func mirror(h *held) func(Request, *env.Peer) ([]byte, error) {
	return func(q Request, _ *env.Peer) ([]byte, error) {
		switch {
		case q.Kind == AskHead:
			return AppendAnswer(nil, StatusOK, h.head), nil
		case q.Kind == AskBody && q.Digest == h.Head.Digest:
			return AppendAnswer(nil, StatusOK, h.body), nil
		}
		return AppendAnswer(nil, StatusNotFound, nil), nil
	}
}
