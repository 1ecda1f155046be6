package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"cepa/cert"
	"cepa/directory"
	"cepa/env"
	"cepa/link"
	"cepa/loop"
	"cepa/node"
)

// AutoAddress as the setting address has a relay ask others where they see it.
const AutoAddress = "auto"

// learnTimeout bounds the asking.
const learnTimeout = 20 * time.Second

// maxAsked is how many relays are asked.
const maxAsked = 64

// listener hears what a link's handshake says, and closes the link at once. It belongs to its loop.
type listener struct {
	seen  node.Observed
	heard map[cert.Identity]bool
}

// LinkUp implements env.LinkHandler.
func (h *listener) LinkUp(l env.Link) env.LinkEvents {
	h.seen.Note(l.Peer())
	h.heard[l.Peer().Identity] = true
	return nil
}

// LearnAddress asks the authorities and first relays of a network at which address they see this machine, and returns
// what at least three networks (/16) agree on. It makes one link to each, as a client does.
func LearnAddress(ctx context.Context, network *directory.Network, v4 bool) (netip.Addr, error) {
	l, err := loop.New(loop.Options{})
	if err != nil {
		return netip.Addr{}, err
	}
	go l.Run()
	defer func() { l.Stop(); <-l.Done() }()
	h := &listener{heard: map[cert.Identity]bool{}}
	links, err := link.New(link.Config{Loop: l, AfterBatch: l.AfterBatch, Network: network.ID, Handler: h, FreeLoopback: network.Limit(directory.SiteLimits) == 0})
	if err != nil {
		return netip.Addr{}, err
	}
	defer links.Close()
	var (
		agreed  netip.Addr
		failed  []string
		answers = make(chan struct{}, maxAsked)
		asked   int
	)
	ask := func(c directory.Contact) {
		links.DialLink(env.Target(c), func(_ env.Link, err error) { // always with an error, see LinkUp
			if !h.heard[c.Identity] {
				failed = append(failed, fmt.Sprintf("%s: %v", c.Identity.Short(), err))
			}
			agreed = h.seen.Agreed(v4)
			answers <- struct{}{}
		})
	}
	known := map[string]bool{}
	for _, c := range append(append([]directory.Contact(nil), network.Authorities...), network.Bootstrap...) {
		if !known[c.Identity.String()] && asked < cap(answers) {
			known[c.Identity.String()] = true
			asked++
			l.Post(func() { ask(c) })
		}
	}
	ctx, cancel := context.WithTimeout(ctx, learnTimeout)
	defer cancel()
	for range asked {
		select {
		case <-answers:
		case <-ctx.Done():
		}
	}
	var result netip.Addr
	var troubles string
	if err := l.Do(context.Background(), func() { result, troubles = agreed, strings.Join(failed, "; ") }); err != nil {
		return result, err
	}
	if result.IsValid() {
		return result, nil
	}
	text := "address = \"auto\": no three networks agree on the address at which they see this machine; set address to the one that others reach it at"
	if troubles != "" {
		text += " (" + troubles + ")"
	}
	return result, errors.New(text)
}
