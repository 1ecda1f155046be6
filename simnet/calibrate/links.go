package calibrate

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/link"
	"cepa/loop"
)

// keys are what a relay shows on its links.
type keys struct {
	identity cert.Identity
	signer   cert.Signer
}

func newKeys(name string, now time.Time) (keys, error) {
	identity, signing := cert.NewIdentityKey(seeded("identity "+name)), cert.NewSigningKey(seeded("signing "+name))
	certificate, err := identity.Certify(network, signing.Public(), now, 0)
	return keys{identity.Identity(), cert.Signer{Certificate: certificate, Key: signing}}, err
}

// machine is one end of links: a loop with a transport on it.
type machine struct {
	loop     *loop.Loop
	links    *link.Transport
	target   env.Target
	onUp     func(env.Link)
	onCells  func(int)
	onDrains func()
}

// LinkUp implements env.LinkHandler, and the rest env.LinkEvents.
func (m *machine) LinkUp(l env.Link) env.LinkEvents {
	if m.onUp != nil {
		m.onUp(l)
	}
	return m
}

func (m *machine) OnCells(cells []byte) {
	if m.onCells != nil {
		m.onCells(len(cells) / cell.Size)
	}
}

func (m *machine) OnDrained() {
	if m.onDrains != nil {
		m.onDrains()
	}
}

func (m *machine) OnDown(error) {}

func newMachine(name string) (*machine, error) {
	now := time.Now()
	k, err := newKeys(name, now)
	if err != nil {
		return nil, err
	}
	statement, err := directory.SealOnionKey(network, directory.OnionKey{Key: seeded("onion " + name), Until: now.Add(7 * 24 * time.Hour).Truncate(time.Millisecond)}, k.signer)
	if err != nil {
		return nil, err
	}
	credentials, err := link.NewCredentials(network, k.signer, seeded("link "+name), now, func() []byte { return statement })
	if err != nil {
		return nil, err
	}
	m := &machine{}
	if m.loop, err = loop.New(loop.Options{}); err != nil {
		return nil, err
	}
	m.links, err = link.New(link.Config{Loop: m.loop, AfterBatch: m.loop.AfterBatch, Network: network, Handler: m, Credentials: credentials, FreeLoopback: true})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	at, err := netip.ParseAddrPort(listener.Addr().String())
	if err != nil {
		return nil, err
	}
	m.target = env.Target{Identity: k.identity, Addresses: []netip.AddrPort{at}}
	go m.loop.Run()
	go func() { _ = m.links.Serve(listener) }() // ends with Close
	return m, nil
}

func (m *machine) end() {
	m.links.Close()
	m.loop.Stop()
	<-m.loop.Done()
}

// patience is how long a link may take.
const patience = 10 * time.Second

// dial opens a link from one to the other.
func (m *machine) dial(ctx context.Context, to *machine) (env.Link, error) {
	type answer struct {
		l   env.Link
		err error
	}
	answers := make(chan answer, 1)
	if err := m.loop.Do(ctx, func() {
		m.links.DialLink(to.target, func(l env.Link, err error) { answers <- answer{l, err} })
	}); err != nil {
		return nil, err
	}
	select {
	case a := <-answers:
		return a.l, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(patience):
		return nil, errors.New("no link came up")
	}
}

func newPair() (near, far *machine, err error) {
	if near, err = newMachine("near"); err != nil {
		return nil, nil, err
	}
	if far, err = newMachine("far"); err != nil {
		near.end()
		return nil, nil, err
	}
	return near, far, nil
}

// cellsAtOnce is how many cells a batch of events sends: what a busy relay does.
const cellsAtOnce = 16

// links is a link on which cells are sent as fast as they go: a write and a receive each.
func links(ctx context.Context) (sample, error) {
	near, far, err := newPair()
	if err != nil {
		return sample{}, err
	}
	end := func() { near.end(); far.end() }
	l, err := near.dial(ctx, far)
	if err != nil {
		return sample{end: end}, err
	}
	cells := make([]byte, cellsAtOnce*cell.Size)
	_, _ = entropy.Read(cells)
	var sent, toSend int // the near loop's
	var got, want int    // the far one's
	var done chan struct{}
	more := func() {
		for sent < toSend && l.Queued() < 256<<10 {
			l.Send(cells)
			sent += cellsAtOnce
		}
	}
	near.onDrains = more
	far.onCells = func(n int) {
		if got += n; got == want {
			close(done)
		}
	}
	run := func(n int) error {
		finished := make(chan struct{})
		if err := far.loop.Do(ctx, func() { got, want, done = 0, n*cellsAtOnce, finished }); err != nil {
			return err
		}
		if err := near.loop.Do(ctx, func() { sent, toSend = 0, n*cellsAtOnce; more() }); err != nil {
			return err
		}
		select {
		case <-finished:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return sample{run: run, per: 2 * cellsAtOnce, end: end}, nil
}

// settingUp is one link after the other.
func settingUp(ctx context.Context) (sample, error) {
	near, far, err := newPair()
	if err != nil {
		return sample{}, err
	}
	return sample{run: func(n int) error {
		for range n {
			l, err := near.dial(ctx, far)
			if err != nil {
				return err
			}
			if err := near.loop.Do(ctx, func() { l.Close(nil) }); err != nil {
				return err
			}
		}
		return nil
	}, per: 2, end: func() { near.end(); far.end() }}, nil
}
