package directory

import (
	"fmt"
	"slices"
	"time"

	"cepa/env"
)

// colleague is another authority, and what is to be said to it or asked of it.
type colleague struct {
	to    env.Target
	queue []*parcel
	open  int
}

// parcel is one request to a colleague. It is repeated until it is answered, is no longer wanted, or its time is over.
type parcel struct {
	request Request
	limit   int           // of the answer's body
	until   env.Mono      // the end of its time
	pause   time.Duration // before it is repeated; 0: it is not
	longest time.Duration // to which the pause doubles; 0: it does not
	wanted  func() bool
	done    func(Status, []byte, error) // hears the answer, or of the last failure; may be nil
}

// openParcels is how many requests one colleague is sent at once.
const openParcels = 4

// newColleagues are the other authorities of a network.
func newColleagues(a *Authority) (out []*colleague) {
	for _, t := range targetsOf(a.network.Authorities) {
		if t.Identity != a.cfg.Identity {
			out = append(out, &colleague{to: t})
		}
	}
	return out
}

func (a *Authority) send(c *colleague, p *parcel) {
	c.queue = append(c.queue, p)
	a.pumpParcels(c)
}

func (a *Authority) pumpParcels(c *colleague) {
	for a.running && c.open < openParcels && len(c.queue) > 0 {
		p := c.queue[0]
		c.queue = slices.Delete(c.queue, 0, 1)
		if a.isWanted(p) {
			c.open++
			a.transmit(c, p)
		}
	}
}

func (a *Authority) isWanted(p *parcel) bool {
	return a.running && a.env.Clock.Now() < p.until && p.wanted()
}

// transmit makes one attempt. An answer that does not come within two rounds frees its place, so that a colleague who
// was cut off hears again of things as soon as he is back.
func (a *Authority) transmit(c *colleague, p *parcel) {
	over := false
	finish := func(status Status, body []byte, err error) {
		if over {
			return
		}
		over = true
		c.open--
		if failed := err != nil || status == StatusBusy; failed && p.pause > 0 {
			again := p.pause
			if p.longest > 0 {
				p.pause = min(2*p.pause, p.longest)
			}
			a.env.Clock.AfterFunc(again, func() {
				if a.isWanted(p) {
					a.send(c, p)
				}
			})
		} else if p.done != nil && a.running {
			p.done(status, body, err)
		}
		a.pumpParcels(c)
	}
	timer := a.env.Clock.AfterFunc(2*a.agenda.delta, func() { finish(0, nil, fmt.Errorf("%w in time", errNoAnswer)) })
	fetch(a.cfg.Agent.cfg.Fetcher, c.to, p.request, p.limit, func(status Status, body []byte, err error) {
		timer.Stop()
		finish(status, body, err)
	})
}
