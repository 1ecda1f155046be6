package simnet

import (
	"strconv"
	"time"

	"cepa/env"
)

// Workload is what a user of a client does, again and again: think, then have Flows streams at once.
type Workload struct {
	Name  string
	Host  string // of a Server
	Port  uint16
	Think time.Duration // mean of an exponential distribution; 0 is without a pause
	Flows int           // at once; 0 is 1
	// Up and Down are bytes of each exchange. When Spread is set they are means of an exponential
	// distribution.
	Up, Down  int64
	Spread    bool
	Exchanges int
	Pause     time.Duration
	Patience  time.Duration
	Read      int64 // bytes a second that the application reads; 0 is all
	// Isolated gives each round its own isolation key; otherwise the user has one.
	Isolated bool
	Rounds   int // 0 is without end
}

// Web is somebody who reads pages: after half a minute of thought on average, a page of so many
// bytes on average, over two streams.
func Web(host string, bytes int64) Workload {
	return Workload{Name: "web", Host: host, Port: 80, Think: 30 * time.Second, Flows: 2, Up: 500, Down: bytes / 2, Spread: true, Patience: 2 * time.Minute}
}

// Bulk is a download that is begun anew when it has ended.
func Bulk(host string, bytes int64) Workload {
	return Workload{Name: "bulk", Host: host, Port: 80, Down: bytes, Up: 200, Patience: 5 * time.Minute}
}

// Chat is a stream that stays open, with a little to and fro every few seconds.
func Chat(host string) Workload {
	return Workload{Name: "chat", Host: host, Port: 443, Up: 200, Down: 300, Exchanges: 100, Pause: 4 * time.Second, Patience: 2 * time.Minute}
}

// Use has a user work with a client, from when it is ready until stop is called or the client's
// process ends.
func (c *Client) Use(load Workload) (stop func()) {
	w := c.n.w
	u := &user{w: w, c: c, life: c.Host.life, load: load}
	c.users++
	u.dice = w.Stream(StreamWorkload, c.Host.Name, load.Name, strconv.Itoa(c.users))
	u.key = load.Name + strconv.Itoa(c.users)
	c.WhenReady(u.think)
	return func() { u.stopped = true }
}

type user struct {
	w       *World
	c       *Client
	life    uint32
	load    Workload
	dice    Stream
	key     string
	round   int
	open    int
	stopped bool
}

func (u *user) think() {
	if u.over() || u.load.Rounds > 0 && u.round >= u.load.Rounds {
		return
	}
	u.round++
	var d time.Duration
	if u.load.Think > 0 {
		d = time.Duration(u.dice.Exponential(int64(u.load.Think)))
	}
	u.w.after(u.c.Host, d, KindTimer, u.act)
}

func (u *user) over() bool { return u.stopped || u.c.stopped || u.c.Host.life != u.life }

func (u *user) act() {
	if u.over() {
		return
	}
	key := u.key
	if u.load.Isolated {
		key += "/" + strconv.Itoa(u.round)
	}
	began := u.w.now
	for range max(1, u.load.Flows) {
		spec := FlowSpec{
			Host: u.load.Host, Port: u.load.Port, Up: u.size(u.load.Up), Down: u.size(u.load.Down), Exchanges: u.load.Exchanges,
			Pause: u.load.Pause, Isolation: key, Patience: u.load.Patience, Read: u.load.Read, Workload: u.load.Name,
		}
		u.open++
		u.c.Open(spec, func(f *Flow) { u.ended(f, began) })
	}
}

// ended goes on when all streams of a round are over; after a failure at once not to be repeated
// without end.
func (u *user) ended(f *Flow, began env.Mono) {
	u.open--
	if u.open > 0 {
		return
	}
	if f.Err != nil && u.load.Think == 0 && u.w.now.Sub(began) < time.Second {
		u.w.after(u.c.Host, time.Second, KindTimer, u.think)
		return
	}
	u.think()
}

func (u *user) size(mean int64) int64 {
	if !u.load.Spread {
		return mean
	}
	return max(1, u.dice.Exponential(mean))
}
