//go:build linux

package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"time"

	"cepa/cell"
	"cepa/cert"
	"cepa/daemon"
	"cepa/env"
	"cepa/flow"
	"cepa/link"
	"cepa/loop"
	"cepa/onion/ntor"
)

// throng is a process that is many clients of one relay: it opens links, and circuits of one hop on them, and keeps
// them, saying no more than clients do whose users are away. What follows is owned by its loop.
type throng struct {
	loop      *loop.Loop
	links     *link.Transport
	network   cert.NetworkID
	to        env.Target
	keepalive time.Duration
	want      int // circuits on each link
	request   []byte

	up     []*idler
	opened int
	failed int
	last   error
}

// idler is one link of a throng.
type idler struct {
	x       *throng
	link    env.Link
	next    cell.CircuitID // to be opened
	missing int            // circuits still to be opened
	created int
}

// playThrong is the process: its arguments are the network file, an identity, an address, and how many links with how many
// circuits each. It says how many it has, once there are all or no more can be had, and goes when its input ends.
func playThrong(ctx context.Context, args []string) error {
	network, err := daemon.LoadNetwork(args[0])
	if err != nil {
		return err
	}
	id, err := cert.ParseIdentity(args[1])
	if err != nil {
		return err
	}
	address, err := netip.ParseAddrPort(args[2])
	if err != nil {
		return err
	}
	links, _ := strconv.Atoi(args[3])
	circuits, _ := strconv.Atoi(args[4])
	x := &throng{network: network.ID, to: env.Target{Identity: id, Addresses: []netip.AddrPort{address}}, keepalive: network.Keepalive(), want: circuits}
	x.request, err = ntor.AppendExtensions(nil, []ntor.Extension{{Type: flow.ExtensionWindows, Data: flow.EncodeWindows(flow.ClientWindows)}})
	if err != nil {
		return err
	}
	if x.loop, err = loop.New(loop.Options{}); err != nil {
		return err
	}
	x.links, err = link.New(link.Config{Loop: x.loop, AfterBatch: x.loop.AfterBatch, Network: network.ID, Handler: x, FreeLoopback: true})
	if err != nil {
		return err
	}
	go x.loop.Run()
	const atOnce = 16
	for range atOnce {
		x.loop.Post(func() { x.dial(links) })
	}
	x.loop.Post(x.keepAlive)
	gone := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(gone) }()
	said := -1
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-gone:
			return nil
		case <-time.After(200 * time.Millisecond):
		}
		_ = x.loop.Do(ctx, func() {
			made := 0
			for _, i := range x.up {
				made += i.created
			}
			if n := len(x.up) + made; n != said {
				said = n
				fmt.Printf("links %d circuits %d failed %d last %v\n", len(x.up), made, x.failed, x.last)
			}
		})
	}
}

// dial opens a link after the other, until there are so many.
func (x *throng) dial(want int) {
	if x.opened >= want {
		return
	}
	x.opened++
	x.links.DialLink(x.to, func(_ env.Link, err error) {
		if err != nil {
			x.failed++
			x.last = err
			if x.failed > 1000 {
				return
			}
			x.opened--
		}
		x.dial(want)
	})
}

// LinkUp implements env.LinkHandler.
func (x *throng) LinkUp(l env.Link) env.LinkEvents {
	i := &idler{x: x, link: l, next: cell.InitiatorBit | 1, missing: x.want}
	x.up = append(x.up, i)
	i.open()
	return i
}

// open asks for one more circuit.
func (i *idler) open() {
	if i.missing == 0 {
		return
	}
	i.missing--
	id := i.next
	i.next++
	var b [cell.Size]byte
	var fault error
	i.x.loop.Env().Pool.Offload(func() {
		var message []byte
		_, message, fault = ntor.NewClient(rand.Reader, i.link.Peer().Identity, i.link.Peer().OnionKey, i.x.network, i.x.request)
		if fault != nil {
			return
		}
		cell.Header{Circuit: id, Command: cell.CommandCreate}.Put(b[:])
		fault = cell.Create{Credit: 32, Type: 1, Total: uint16(len(message)), Handshake: message}.Put(b[cell.HeaderSize:])
	}, func() {
		if fault != nil {
			i.x.last = fault
			return
		}
		i.link.Send(b[:])
	})
}

// OnCells counts circuits that the relay has made.
func (i *idler) OnCells(cells []byte) {
	for ; len(cells) >= cell.Size; cells = cells[cell.Size:] {
		h, err := cell.DecodeHeader(cells)
		switch {
		case err != nil:
			i.x.last = err
		case h.Command == cell.CommandCreated:
			i.created++
			i.open()
		case h.Command == cell.CommandDestroy: // busy: answer, and try again
			i.x.failed++
			i.x.last = errors.New("a circuit was destroyed")
			i.link.Send(append([]byte(nil), cells[:cell.Size]...))
			i.missing++
			i.x.loop.Env().Clock.AfterFunc(500*time.Millisecond, i.open)
		}
	}
}

// OnDrained is nothing to an idler.
func (i *idler) OnDrained() {}

// OnDown takes the link off the list.
func (i *idler) OnDown(reason error) {
	i.x.failed++
	i.x.last = reason
	for k, other := range i.x.up {
		if other == i {
			i.x.up = append(i.x.up[:k], i.x.up[k+1:]...)
			return
		}
	}
}

// keepAlive pads each link once in a keepalive, spread over it.
func (x *throng) keepAlive() {
	const parts = 20
	pad := make([]byte, cell.Size)
	cell.Header{Command: cell.CommandPadding}.Put(pad)
	turn := 0
	var tick func()
	tick = func() {
		for k := turn; k < len(x.up); k += parts {
			x.up[k].link.Send(pad)
		}
		turn = (turn + 1) % parts
		x.loop.Env().Clock.AfterFunc(x.keepalive/parts, tick)
	}
	tick()
}
