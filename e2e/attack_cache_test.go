//go:build linux

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cepa/directory"
)

// hostileBytes is what an answer has that is too long.
const hostileBytes = 400 << 20

// tooMuch is how much memory a client may not take for such an answer, in KiB.
const tooMuch = 150 << 10

func init() {
	// keep: remember the consensus of now.
	orders["keep"] = func(x *intruder, _ []string) error {
		head, ok := x.ask(directory.Request{Kind: directory.AskHead})
		if !ok {
			return errNotYet
		}
		h, err := directory.OpenHead(head, x.network, time.Now())
		if err != nil {
			return err
		}
		body, ok := x.ask(directory.Request{Kind: directory.AskBody, Digest: h.Digest})
		if !ok {
			return errNotYet
		}
		x.kept.head, x.kept.body = head, body
		return nil
	}
	// serve HOW: answer requests for the consensus in a hostile way.
	orders["serve"] = func(x *intruder, words []string) error {
		how, ok := caches[words[0]]
		if !ok {
			return fmt.Errorf("no way %q", words[0])
		}
		x.serve = func(q directory.Request, honest []byte) []byte {
			switch q.Kind {
			case directory.AskHead, directory.AskBody:
				return how(x, q, honest)
			case directory.AskDiff: // so that bodies are asked for
				return directory.AppendAnswer(nil, directory.StatusNotFound, nil)
			}
			return honest
		}
		return nil
	}
}

var endless = make([]byte, hostileBytes)

// caches are the ways in which a directory cache can be hostile. honest is what it should answer.
var caches = map[string]func(x *intruder, q directory.Request, honest []byte) []byte{
	"stale": func(x *intruder, q directory.Request, _ []byte) []byte {
		if q.Kind == directory.AskHead {
			return directory.AppendAnswer(nil, directory.StatusOK, x.kept.head)
		}
		return directory.AppendAnswer(nil, directory.StatusOK, x.kept.body)
	},
	"truncated": func(_ *intruder, q directory.Request, honest []byte) []byte {
		if q.Kind == directory.AskBody {
			return honest[:5+(len(honest)-5)/2]
		}
		return honest
	},
	"altered": func(_ *intruder, q directory.Request, honest []byte) []byte {
		if q.Kind == directory.AskBody { // the nickname of a relay
			return bytes.Replace(honest, []byte("\x62r2"), []byte("\x62z2"), 1)
		}
		return honest
	},
	"huge": func(_ *intruder, q directory.Request, honest []byte) []byte { // and says so
		if q.Kind == directory.AskBody {
			b := endless
			binary.BigEndian.PutUint32(b[1:], hostileBytes-5)
			return b
		}
		return honest
	},
	"endless": func(_ *intruder, q directory.Request, honest []byte) []byte { // says that it is not
		if q.Kind == directory.AskBody {
			copy(endless, honest)
			return endless
		}
		return honest
	},
	"silent": func(*intruder, directory.Request, []byte) []byte { return nil },
}

// hostility is a way to be a hostile cache, and the defence against it.
type hostility struct {
	how string
	off directory.Undefended
}

var hostilities = []hostility{
	{"stale", directory.Undefended{OneSource: true}},
	{"truncated", directory.Undefended{OneSource: true}},
	{"altered", directory.Undefended{OneSource: true, AnyBody: true}},
	{"huge", directory.Undefended{OneSource: true, AnySize: true}},
	{"endless", directory.Undefended{OneSource: true, AnySize: true}},
	{"silent", directory.Undefended{OneSource: true}},
}

// damaged waits until the attack has succeeded against a client without the defence.
func (f *field) damaged(t *testing.T, h hostility, c *actor, kept *directory.Consensus) {
	t.Helper()
	switch h.how {
	case "altered":
		took := within(t, 20*time.Second, "the client uses an altered consensus", func() bool {
			body, err := os.ReadFile(filepath.Join(c.dir, "consensus.body"))
			return err == nil && bytes.Contains(body, []byte("\x62z2"))
		})
		t.Logf("without the defence the client used an altered consensus after %v", took.Round(time.Millisecond))
	case "huge", "endless":
		resident := 0
		took := within(t, 40*time.Second, "the answer fills the client's memory", func() bool {
			_, resident = memory(t, c.pid())
			return resident > tooMuch
		})
		t.Logf("without the defence the client took %d MiB after %v", resident>>10, took.Round(time.Millisecond))
	default: // it is kept where it was
		time.Sleep(4 * fieldInterval)
		holdsFor(t, 4*fieldInterval, "the client has no consensus newer than the attacker wants", func() bool {
			n := f.consensus(c)
			return n == nil || !n.Head.ValidAfter.After(kept.Head.ValidAfter)
		})
		t.Logf("without the defence the client was kept back for %v", 8*fieldInterval)
	}
}

// A hostile directory cache is the only relay that the network file names beside the authorities.
func TestAttackHostileBootstrapSource(t *testing.T) {
	proof(t)
	const limit = 45 * time.Second
	for _, h := range hostilities {
		t.Run(h.how, func(t *testing.T) {
			t.Parallel()
			f := newField(t, plan{authorities: 1, relays: 4, intruders: 1, named: true, onlyNamed: true})
			f.startAll(t)
			f.agree(t, foundLimit, f.listsAll())
			x := f.node("i1")
			x.order(t, 20*time.Second, "keep")
			kept := f.consensus(f.node("i1"))
			x.order(t, 20*time.Second, "serve %s", h.how)
			if h.how == "stale" {
				time.Sleep(3 * fieldInterval) // it becomes so
			}

			victim := f.newClient(t)
			f.off = h.off
			f.start(t, victim)
			f.off = directory.Undefended{}
			if h.how == "stale" {
				within(t, 20*time.Second, "the client uses an old consensus", func() bool {
					c := f.consensus(victim)
					return c != nil && c.Head.Digest == kept.Head.Digest
				})
				t.Log("without the defence the client used an old consensus")
			} else {
				f.damaged(t, h, victim, kept)
			}
			victim.end()

			c := f.client(t, limit)
			if h.how == "stale" && strings.Contains(c.output(), "digest="+kept.Head.Digest.Short()) {
				t.Error("the client used an old consensus")
			}
			took := f.agree(t, limit, f.listsAll())
			_, peak := memory(t, c.pid())
			t.Logf("with it the client had the right consensus %v later, and its memory had a peak of %d MiB", took.Round(time.Millisecond), peak>>10)
			if peak > tooMuch {
				t.Errorf("the attack cost %d MiB of memory, the limit is %d", peak>>10, tooMuch>>10)
			}
			f.flows(t, c)
		})
	}
}

// All guards of a client are hostile directory caches, from a moment on at which it has a
// consensus already.
func TestAttackHostileGuard(t *testing.T) {
	proof(t)
	const limit = 45 * time.Second
	for _, h := range hostilities {
		t.Run(h.how, func(t *testing.T) {
			t.Parallel()
			f := newField(t, plan{authorities: 1, relays: 4, intruders: 3, parameters: directory.Parameters{directory.MeasureIntervals: 0, directory.UnmeasuredCap: 131072}})
			for _, a := range f.parts("intruder") {
				a.config.BandwidthMiB = 1024
			}
			for _, a := range f.parts("relay") {
				a.config.BandwidthMiB = 1
			}
			f.startAll(t)
			f.agree(t, foundLimit, f.listsAll())
			ways := []directory.Undefended{h.off, {}}
			var clients []*actor
			for _, off := range ways {
				f.off = off
				clients = append(clients, f.guardedBy(t, f.parts("intruder")))
			}
			f.off = directory.Undefended{}
			for _, x := range f.parts("intruder") {
				x.order(t, 20*time.Second, "keep")
			}
			for _, x := range f.parts("intruder") {
				x.order(t, 20*time.Second, "serve %s", h.how)
			}
			begun := time.Now()
			time.Sleep(200 * time.Millisecond) // what was on its way has come
			kept := f.consensus(clients[0])
			f.damaged(t, h, clients[0], kept)
			clients[0].end()

			left := max(limit-time.Since(begun), time.Second)
			within(t, left, "the client has a consensus of after the attack began", func() bool {
				c := f.consensus(clients[1])
				return c != nil && c.Head.ValidAfter.After(begun)
			})
			f.agree(t, max(limit-time.Since(begun), time.Second), f.listsAll())
			_, peak := memory(t, clients[1].pid())
			t.Logf("%v after the attack had begun the client had the right consensus; its memory had a peak of %d MiB", time.Since(begun).Round(time.Millisecond), peak>>10)
			if peak > tooMuch {
				t.Errorf("the attack cost %d MiB of memory, the limit is %d", peak>>10, tooMuch>>10)
			}
			f.flows(t, clients[1])
		})
	}
}

// guardedBy starts clients until one has the given relays for its first guards.
func (f *field) guardedBy(t *testing.T, guards []*actor) *actor {
	t.Helper()
	for range 20 {
		c := f.client(t, 20*time.Second)
		var list []byte
		within(t, 5*time.Second, "the guards are written down", func() bool {
			var err error
			list, err = os.ReadFile(filepath.Join(c.dir, "guards"))
			return err == nil
		})
		last := 0
		for _, g := range guards {
			if at := bytes.Index(list, g.id[:]); at < 0 {
				last = len(list)
			} else {
				last = max(last, at)
			}
		}
		others := len(list)
		for _, r := range f.parts("relay") {
			if at := bytes.Index(list, r.id[:]); at >= 0 {
				others = min(others, at)
			}
		}
		if last < others {
			return c
		}
		c.end()
	}
	t.Fatal("no client took the attacker's relays for its guards")
	return nil
}
