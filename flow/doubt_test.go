package flow

import (
	"errors"
	"testing"
	"time"
)

// doubted is a client with a circuit on a link to a relay, which falls silent both ways.
func doubted(t *testing.T, delay time.Duration) (w *world, p *path, c *circuit, ends [2]*pipeEnd) {
	t.Helper()
	w = newWorld(1)
	p = newPath(w, 1, linkOptions{delay: delay})
	c = p.circuit(t)
	w.run(7 * time.Second)
	e := p.links[0].env.(*pipeEnd)
	ends = [2]*pipeEnd{e, e.other}
	for _, e := range ends {
		e.mute = true
	}
	return w, p, c, ends
}

// TestLostLinkIsReplaced: where a router has forgotten the connection nothing comes on it any more. The neighbour's padding
// is missed, a link beside it comes up, and the lost one ends, long before the silence alone would end it.
func TestLostLinkIsReplaced(t *testing.T) {
	t.Parallel()
	w, p, c, _ := doubted(t, 100*time.Millisecond)
	lost, since := p.links[0], w.now
	if !w.runUntil(30*time.Second, func() bool { return c.gone }) {
		t.Fatal("the circuit on the lost link did not end")
	}
	// Padding each 5 s at most, 1 s for its delay, the dial, and half a second for the old link to speak.
	if took := w.now.Sub(since); took > 5*time.Second+time.Second+proofTime+200*time.Millisecond {
		t.Errorf("took %v", took)
	}
	young := p.client.links.Open(p.relays[0].id)
	if s := p.client.stats; young == nil || young == lost || p.client.dials != 1 || s.LostLinks != 1 || s.DeadLinks != 0 || s.LinkErrors != 0 {
		t.Errorf("a younger link %v after %d dials; %+v", young != nil && young != lost, p.client.dials, *s)
	}
	if len(p.client.downs) != 1 || !errors.Is(p.client.downs[0], errLost) {
		t.Errorf("the node heard %v", p.client.downs)
	}
	w.run(time.Minute)
	if len(p.client.links.All()) != 1 || len(p.relays[0].links.All()) != 1 {
		t.Errorf("%d and %d links are left", len(p.client.links.All()), len(p.relays[0].links.All()))
	}
	w.checkEmpty(t)
}

// TestDeadNeighbourIsNotDoubtedForLong: where no link beside the silent one can be had, it ends when it would have.
func TestDeadNeighbourIsNotDoubtedForLong(t *testing.T) {
	t.Parallel()
	w, p, c, _ := doubted(t, 100*time.Millisecond)
	p.client.dialErr = errors.New("no route")
	last := p.links[0].lastIn
	if !w.runUntil(30*time.Second, func() bool { return c.gone }) || w.now.Sub(last) != DefaultDead {
		t.Errorf("gone %v, %v after the last sign", c.gone, w.now.Sub(last))
	}
	if s := p.client.stats; p.client.dials > 5 || s.LostLinks != 0 || s.DeadLinks != 1 {
		t.Errorf("%d dials, %+v", p.client.dials, *s)
	}
	w.checkEmpty(t)
}

// TestSlowLinkIsKept: a link that speaks again before the proof is there keeps its circuits; a younger one beside it takes
// the new ones.
func TestSlowLinkIsKept(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, proofTime / 2} {
		w, p, c, ends := doubted(t, 100*time.Millisecond)
		p.client.delay = time.Second
		if !w.runUntil(10*time.Second, func() bool { return p.client.dials == 1 }) {
			t.Fatal("nothing was dialled")
		}
		w.run(p.client.delay + after - 100*time.Millisecond)
		for _, e := range ends {
			e.mute = false
		}
		p.links[0].env.(*pipeEnd).other.ev.(*Link).padding = true
		p.links[0].env.(*pipeEnd).other.ev.(*Link).mark()
		w.run(time.Minute)
		if c.gone || p.client.stats.DeadLinks+p.client.stats.LostLinks != 0 || len(p.client.links.All()) != 2 {
			t.Errorf("after %v: gone %v, %d links, %+v", after, c.gone, len(p.client.links.All()), *p.client.stats)
		}
		c.end(0)
		w.run(time.Minute)
		if len(p.client.links.All()) != 1 && after == 0 { // else its LINK_DRAIN was lost, as TCP never does

			t.Errorf("%d links are left", len(p.client.links.All()))
		}
		w.checkEmpty(t)
	}
}

// TestManySilentLinksAreReplacedInTurn: a node that hears from nobody does not dial all its neighbours at once.
func TestManySilentLinksAreReplacedInTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(1)
	a := w.node(nodeOptions{})
	for range 50 {
		l, _ := w.connect(a, w.node(nodeOptions{}), linkOptions{delay: time.Millisecond})
		l.env.(*pipeEnd).other.mute = true
	}
	w.run(11 * time.Second)
	if a.dials < doubtBurst || a.dials > doubtBurst+2 {
		t.Errorf("%d dials", a.dials)
	}
}
