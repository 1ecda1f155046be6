//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/daemon"
	"cepa/directory"
	"cepa/env"
	"cepa/link"
	"cepa/loop"
	nodes "cepa/node"
	"cepa/relay"
)

// intruder is a relay of the attacker: a whole relay, made of the packages that the program is
// made of, whose gossip and directory do what the attacker wants. What follows is owned by its loop.
type intruder struct {
	loop     *loop.Loop
	links    *link.Transport
	node     *nodes.Relay
	keys     *nodes.Keys
	network  *directory.Network // as its node sees it
	whole    *directory.Network // as it is
	address  netip.AddrPort
	listener net.Listener

	up      map[env.Link]cert.Identity // open links with relays
	serve   func(q directory.Request, honest []byte) []byte
	heard   map[cert.Identity][]byte    // the last rumour of each relay
	bodies  map[cert.Digest][]byte      // descriptors that it hands out, by digest
	own     []byte                      // its own rumour
	archive map[cert.Identity]*archived // what it has recorded
	repeat  func()                      // what it does again and again
	honest  relay.Directory             // what it would answer if it were honest
	kept    struct{ head, body []byte } // a consensus that it remembers
	gang    []*intruder                 // other identities of the same attacker, in this process
	config  daemon.RelayConfig
}

// archived is what a relay said of itself once.
type archived struct {
	rumour, descriptor []byte
	digest             cert.Digest
}

// newIntruder starts a relay of the attacker. A silent one says nothing of itself, so no consensus lists it.
func newIntruder(config daemon.RelayConfig, silent bool) (*intruder, error) {
	network, err := daemon.LoadNetwork(config.Network)
	if err != nil {
		return nil, err
	}
	x := &intruder{
		network: network, config: config,
		up: map[env.Link]cert.Identity{}, heard: map[cert.Identity][]byte{}, bodies: map[cert.Digest][]byte{}, archive: map[cert.Identity]*archived{},
	}
	if x.loop, err = loop.New(loop.Options{StateDir: config.Dir}); err != nil {
		return nil, err
	}
	if x.listener, err = net.Listen("tcp", config.Listen); err != nil {
		return nil, err
	}
	x.listener = &picky{Listener: x.listener}
	x.address = x.listener.Addr().(*net.TCPAddr).AddrPort()
	e := x.loop.Env()
	if x.keys, err = nodes.LoadKeys(e, network); err != nil {
		return nil, err
	}
	x.whole = network
	if id := x.keys.Identity(); network.IsAuthority(id) { // its node is none: this one votes by itself
		others := *network
		others.Authorities = slices.DeleteFunc(slices.Clone(network.Authorities), func(c directory.Contact) bool { return c.Identity == id })
		network, silent = &others, true
		x.network = network
	}
	statement, err := x.keys.Statement()
	if err != nil {
		return nil, err
	}
	var seed [32]byte
	_, _ = e.Rand.Read(seed[:]) // never fails
	credentials, err := link.NewCredentials(network.ID, x.keys.Signer(), seed, time.Now(), func() []byte { return statement })
	if err != nil {
		return nil, err
	}
	x.links, err = link.New(link.Config{
		Loop: x.loop, AfterBatch: x.loop.AfterBatch, Network: network.ID, Handler: x, Credentials: credentials,
		LocalAddr: x.address.Addr(), FreeLoopback: true,
	})
	if err != nil {
		return nil, err
	}
	e.Dialer = x.links
	policy, err := directory.ParsePolicy("none")
	if err != nil {
		return nil, err
	}
	x.node, err = nodes.NewRelay(nodes.RelayConfig{
		Env: e, Network: network, Keys: x.keys, Addresses: []netip.AddrPort{x.address}, Policy: policy, MemoryBytes: 64 << 20,
		Nickname: config.Nickname, Bandwidth: uint64(config.BandwidthMiB) << 20, Software: "hostile", Gossip: ears{x}, DirectoryOnly: silent,
		Directory: func(honest relay.Directory) relay.Directory {
			x.honest = honest
			return hostile{honest, x}
		},
	})
	if err != nil {
		return nil, err
	}
	go x.loop.Run()
	go func() { _ = x.links.Serve(x.listener) }() // ends with links.Close
	x.loop.Post(x.node.Start)
	x.loop.Post(x.again)
	return x, nil
}

// hostile is the directory of an intruder.
type hostile struct {
	relay.Directory
	x *intruder
}

func (h hostile) Serve(request []byte, from *env.Peer, done func([]byte)) {
	var reader directory.RequestReader
	q, whole, err := reader.Read(request)
	if err != nil || !whole {
		h.Directory.Serve(request, from, done)
		return
	}
	if body := h.x.bodies[q.Digest]; (q.Kind == directory.AskDescriptor || q.Kind == directory.AskVoteBody) && body != nil {
		done(directory.AppendAnswer(nil, directory.StatusOK, body))
		return
	}
	h.Directory.Serve(request, from, func(honest []byte) {
		if h.x.serve != nil {
			honest = h.x.serve(q, honest)
		}
		if honest != nil { // else it never answers
			done(honest)
		}
	})
}

// ask is a request of its own to its own directory, as an honest relay would answer it.
func (x *intruder) ask(q directory.Request) (body []byte, ok bool) {
	request, err := q.AppendTo(nil)
	if err != nil {
		return nil, false
	}
	x.honest.Serve(request, &env.Peer{Identity: x.keys.Identity(), Address: x.address}, func(answer []byte) {
		if len(answer) >= 5 && directory.Status(answer[0]) == directory.StatusOK {
			body, ok = bytes.Clone(answer[5:]), true
		}
	})
	return body, ok
}

// LinkUp implements env.LinkHandler: the intruder keeps the links, to write to them what it likes.
func (x *intruder) LinkUp(l env.Link) env.LinkEvents {
	events := x.node.LinkUp(l)
	if events == nil || l.Peer().Client() {
		return events
	}
	x.up[l] = l.Peer().Identity
	return downs{events, func() { delete(x.up, l) }}
}

type downs struct {
	env.LinkEvents
	down func()
}

func (d downs) OnDown(reason error) {
	d.down()
	d.LinkEvents.OnDown(reason)
}

// picky is a listener that hangs up on some.
type picky struct {
	net.Listener
	hated atomic.Pointer[netip.Addr]
}

func (p *picky) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if hated := p.hated.Load(); hated == nil || c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap() != *hated {
			return c, nil
		}
		c.Close()
	}
}

// ears are the gossip of an intruder: it says nothing by itself, and listens.
type ears struct{ x *intruder }

func (e ears) Announce(rumour []byte)                         { e.x.own = bytes.Clone(rumour) }
func (e ears) Spread(directory.Rumour, []byte, cert.Identity) {}
func (e ears) OnConsensus(func(cert.Identity) bool)           {}
func (e ears) Forget(cert.Identity)                           {}
func (e ears) LinkUp(cert.Identity, netip.Addr)               {}
func (e ears) LinkDown(cert.Identity)                         {}

// OnPacket keeps the rumours of a packet.
func (e ears) OnPacket(_ cert.Identity, packet []byte) {
	for {
		i := bytes.Index(packet, []byte("\xa4Meta\xda"))
		if i < 0 || len(packet) < i+8 {
			return
		}
		n := int(binary.BigEndian.Uint16(packet[i+6:]))
		if len(packet) < i+8+n {
			return
		}
		sealed := bytes.Clone(packet[i+8 : i+8+n])
		packet = packet[i+8+n:]
		if r, err := directory.OpenRumour(sealed, e.x.network, time.Now()); err == nil {
			e.x.heard[r.Identity] = sealed
		}
	}
}

// Messages as hashicorp/memberlist writes them (docs/protocol.md, "Gossip"), with any incarnation.

const highest = 1<<32 - 1

func msgpackUint(b []byte, n uint32) []byte {
	if n < 128 {
		return append(b, byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xce), n)
}

func msgpackName(b []byte, key string, id cert.Identity) []byte {
	b = append(b, 0xa0|byte(len(key)))
	b = append(b, key...)
	return append(append(b, 0xda, 0, 64), id.String()...)
}

func forgedAlive(id cert.Identity, rumour []byte, incarnation uint32) []byte {
	b := []byte("\x04\x86\xa4Addr\xa4\xc0\x00\x00\x08\xabIncarnation")
	b = msgpackUint(b, incarnation)
	b = append(b, "\xa4Meta\xda"...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(rumour)))
	b = append(b, rumour...)
	b = msgpackName(b, "Node", id)
	return append(b, "\xa4Port\x01\xa3Vsn\xa6\x01\x05\x02\x00\x00\x00"...)
}

// forgedEnd is a suspect (3) or dead (5) message.
func forgedEnd(kind byte, about, from cert.Identity, incarnation uint32) []byte {
	b := msgpackName([]byte{kind, 0x83}, "From", from)
	b = msgpackUint(append(b, "\xabIncarnation"...), incarnation)
	return msgpackName(b, "Node", about)
}

// cry writes a packet of gossip to every relay with which there is a link, past the node's own bounds.
func (x *intruder) cry(packet []byte) (told int) {
	b := make([]byte, cell.Size)
	cell.Header{Circuit: 0, Command: cell.CommandGossip}.Put(b)
	if err := cell.PutGossip(b[cell.HeaderSize:], packet); err != nil {
		panic(err) // a mistake of the test
	}
	for l := range x.up {
		l.Send(b)
		told++
	}
	return told
}

// approach opens links with all relays that it knows of.
func (x *intruder) approach() {
	known := map[cert.Identity]bool{x.keys.Identity(): true}
	for _, id := range x.up {
		known[id] = true
	}
	for _, t := range x.targets() {
		if !known[t.Identity] {
			known[t.Identity] = true
			x.node.DialFor(t)
		}
	}
}

// targets are the relays of the network file and of the consensus.
func (x *intruder) targets() (out []env.Target) {
	for _, list := range [][]directory.Contact{x.network.Authorities, x.network.Bootstrap} {
		for _, c := range list {
			out = append(out, env.Target{Identity: c.Identity, Addresses: c.Addresses})
		}
	}
	if c := x.consensus(); c != nil {
		for _, r := range c.Relays {
			out = append(out, env.Target{Identity: r.Identity, Addresses: r.Addresses})
		}
	}
	return slices.DeleteFunc(out, func(t env.Target) bool { return t.Identity == x.keys.Identity() })
}

// consensus is the one that its own node uses.
func (x *intruder) consensus() *directory.Consensus {
	sealed, ok := x.ask(directory.Request{Kind: directory.AskHead})
	if !ok {
		return nil
	}
	h, err := directory.OpenHead(sealed, x.network, time.Now())
	if err != nil {
		return nil
	}
	body, ok := x.ask(directory.Request{Kind: directory.AskBody, Digest: h.Digest})
	if !ok {
		return nil
	}
	c, err := directory.OpenBody(h, body, x.network)
	if err != nil {
		return nil
	}
	return c
}

// again does what it was ordered to repeat.
func (x *intruder) again() {
	x.approach()
	if x.repeat != nil {
		x.repeat()
	}
	x.loop.Env().Clock.AfterFunc(200*time.Millisecond, x.again)
}

// playIntruder runs an intruder that takes orders, a line each, from its standard input.
func playIntruder(ctx context.Context, args []string) error {
	config, err := daemon.LoadRelayConfig(args[0])
	if err != nil {
		return err
	}
	x, err := newIntruder(config, len(args) > 1 && args[1] == "silent")
	if err != nil {
		return err
	}
	fmt.Println("ready")
	lines := make(chan string)
	go func() {
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			if err := x.obey(ctx, line); err != nil {
				fmt.Printf("failed: %s: %v\n", line, err)
				continue
			}
			fmt.Printf("done: %s\n", line)
		}
	}
}

// errNotYet makes an order be tried again.
var errNotYet = errors.New("not yet")

// obey carries out one order, trying for a while.
func (x *intruder) obey(ctx context.Context, line string) error {
	words := strings.Fields(line)
	order, ok := orders[words[0]]
	if !ok {
		return fmt.Errorf("no order %q", words[0])
	}
	for {
		var failure error
		if err := x.loop.Do(ctx, func() { failure = order(x, words[1:]) }); err != nil {
			return err
		}
		if !errors.Is(failure, errNotYet) {
			return failure
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// orders are what an intruder can be told, on its loop.
var orders = map[string]func(x *intruder, words []string) error{
	// links N: there are links with so many relays.
	"links": func(x *intruder, words []string) error {
		ids := map[cert.Identity]bool{}
		for _, id := range x.up {
			ids[id] = true
		}
		if fmt.Sprint(len(ids)) < words[0] && len(words[0]) == 1 {
			return fmt.Errorf("%w: %d links", errNotYet, len(ids))
		}
		return nil
	},
	// shun ADDRESS: hang up on whoever comes from there.
	"shun": func(x *intruder, words []string) error {
		a, err := netip.ParseAddr(words[0])
		if err != nil {
			return err
		}
		x.listener.(*picky).hated.Store(&a)
		for l := range x.up {
			if l.Peer().Address.Addr().Unmap() == a {
				l.Close(errors.New("not wanted"))
			}
		}
		return nil
	},
	// stop: do no more what was to be repeated, and serve honestly.
	"stop": func(x *intruder, _ []string) error {
		x.repeat, x.serve = nil, nil
		clear(x.bodies)
		return nil
	},
	// forge KIND ID: one forged message about a relay to every neighbour, and no second one.
	"forge": func(x *intruder, words []string) error {
		id, err := parseIdentity(words[1])
		if err != nil {
			return err
		}
		var packet []byte
		switch words[0] {
		case "dead":
			packet = forgedEnd(5, id, x.keys.Identity(), highest)
		case "leave": // as if the relay itself had said that it goes
			packet = forgedEnd(5, id, id, highest)
		case "suspect":
			packet = forgedEnd(3, id, x.keys.Identity(), highest)
		case "alive": // the relay's own words, with the highest incarnation: nothing that it says later is newer
			if x.heard[id] == nil {
				return errNotYet
			}
			packet = forgedAlive(id, x.heard[id], highest)
		case "squat": // the relay's name over the attacker's words
			packet = forgedAlive(id, x.own, highest)
		default:
			return fmt.Errorf("no message %q", words[0])
		}
		if x.cry(packet) == 0 {
			return errNotYet
		}
		return nil
	},
	// record ID: keep what a relay says of itself now.
	"record": func(x *intruder, words []string) error {
		id, err := parseIdentity(words[0])
		if err != nil {
			return err
		}
		sealed := x.heard[id]
		if sealed == nil {
			return errNotYet
		}
		r, err := directory.OpenRumour(sealed, x.network, time.Now())
		if err != nil {
			return err
		}
		body, ok := x.ask(directory.Request{Kind: directory.AskDescriptor, Digest: r.Descriptor})
		if !ok {
			return errNotYet
		}
		x.archive[id] = &archived{sealed, body, r.Descriptor}
		return nil
	},
	// replay ID: tell what was recorded as if it were new, again and again.
	"replay": func(x *intruder, words []string) error {
		id, err := parseIdentity(words[0])
		if err != nil {
			return err
		}
		a := x.archive[id]
		if a == nil {
			return errors.New("not recorded")
		}
		x.bodies[a.digest] = a.descriptor
		x.offer(a.digest)
		x.repeat = func() { x.cry(forgedAlive(id, a.rumour, 1)) }
		return nil
	},
	// expired FILE: offer a descriptor whose time is over to whoever compares notes.
	"expired": func(x *intruder, words []string) error {
		sealed, err := os.ReadFile(words[0])
		if err != nil {
			return err
		}
		d, err := directory.OpenDescriptor(sealed, x.network, time.Now().Add(-23*time.Hour))
		if err != nil {
			return err
		}
		x.bodies[d.Digest] = sealed
		x.offer(d.Digest)
		return nil
	},
}

func parseIdentity(text string) (id cert.Identity, err error) {
	b, err := hex.DecodeString(text)
	if err == nil && len(b) != len(id) {
		err = errors.New("not an identity")
	}
	copy(id[:], b)
	return id, err
}

// offer adds a digest to those that others see when they compare notes with this relay.
func (x *intruder) offer(digest cert.Digest) {
	before := x.serve
	x.serve = func(q directory.Request, honest []byte) []byte {
		if before != nil {
			honest = before(q, honest)
		}
		if q.Kind == directory.AskSketch { // so that buckets are compared
			return directory.AppendAnswer(nil, directory.StatusBadRequest, nil)
		}
		if len(honest) < 5 || directory.Status(honest[0]) != directory.StatusOK {
			return honest
		}
		switch {
		case q.Kind == directory.AskSummary:
			sum, err := directory.DecodeSummary(honest[5:])
			if err != nil {
				return honest
			}
			sum[directory.BucketOf(digest)][0] ^= 1
			return directory.AppendAnswer(nil, directory.StatusOK, sum.AppendTo(nil))
		case q.Kind == directory.AskBucket && q.Bucket == directory.BucketOf(digest):
			digests, err := directory.DecodeDigests(honest[5:], q.Bucket)
			if err != nil {
				return honest
			}
			digests = append(digests, digest)
			slices.SortFunc(digests, cert.Digest.Compare)
			digests = slices.Compact(digests)
			return directory.AppendAnswer(nil, directory.StatusOK, directory.AppendDigests(nil, digests, q.Bucket, len(digests)))
		}
		return honest
	}
}

// own4 is its address with another port.
func (x *intruder) own4(port uint16) []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(x.address.Addr(), port)}
}

// any is a rumour that verifies: its own, or one that it has made up.
func (x *intruder) any() []byte {
	if x.own == nil {
		packet, err := x.invent(1 << 40)
		if err != nil {
			panic(err) // a mistake of the test
		}
		i := bytes.Index(packet, []byte("\xa4Meta\xda")) + 6
		x.own = packet[i+2:][:binary.BigEndian.Uint16(packet[i:])]
	}
	return x.own
}

// compound puts several messages into one packet.
func compound(messages [][]byte) []byte {
	b := []byte{7, byte(len(messages))}
	for _, m := range messages {
		b = binary.BigEndian.AppendUint16(b, uint16(len(m)))
	}
	for _, m := range messages {
		b = append(b, m...)
	}
	return b
}
