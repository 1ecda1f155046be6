package simnet

import (
	"errors"
	"io"
	"syscall"
	"time"

	"cepa/env"
)

// hearer is who hears what happens to one end of a connection: a link or a conn.
type hearer interface {
	data(p []byte)
	ended()
	drained()
	broken(reason error)
}

// end is one end of a TCP connection: what it sends, and what has arrived for it.
//
//	Write ─▶ queue ─flush▶ kernel ─(windows, turn upwards)▶ flight ─(distance, queue downwards)▶ far.inbox ─▶ handler
//	                                                          ◀─────────────── acks ────────────────
type end struct {
	// What every segment needs comes first, in the order of its need: a run waits for memory most of its time.
	w        *World
	host     *Host
	far      *end
	hear     hearer
	lat      int64      // one way to the far end, ns
	meter    *LinkMeter // nil when nobody wants it
	link     bool       // and not a conn
	fin      bool       // EOF follows what is queued
	finSent  bool
	dead     bool // what is queued never leaves
	told     bool // the far end was told so
	inLine   bool // for the access link
	starving bool // the far end waits for room here
	paused   bool
	over     bool // the owner hears nothing more

	// Sending.
	kernel  pieces // not yet sent
	under   int    // bytes sent and not acknowledged
	queue   pieces // given to Write, not yet to the kernel
	sent    int64  // bytes, in all
	flight  ring[segment]
	landed  int      // of those in flight, have reached the far end's access link
	last    env.Mono // nothing arrives before
	used    env.Mono // when something was sent last
	acks    ring[ack]
	peak    int      // the most of under lately, until …
	peakEnd env.Mono // … which is a round trip later
	tries   int
	congestion
	speed    speed // from queue to kernel
	flushing event // on the host: more goes to the kernel, and the owner hears of it
	arriving event // the next of flight that has not landed reaches the far end's access link
	landing  event // the first of the landed gets through it
	acking   event // the first of acks arrives, when somebody waits for it

	// Receiving.
	inbox   ring[segment]
	held    int   // bytes in inbox
	read    int   // bytes that the owner has read, up to readerMost
	reading event // on the host: the owner hears of the first of inbox

	stuck   event // try again: nothing comes through
	overdue event
	finAt   env.Mono
	place   int // in host.ends; -1 when it is not there
}

// segment is what travels together.
type segment struct {
	data   []byte
	buffer []byte // to be given back when the data is read; nil when more of it follows
	last   markers
	lost   bool          // at first
	at     env.Mono      // when all of it reaches the far end's access link, and then: the far end
	left   env.Mono      // when it was sent
	span   time.Duration // from its first packet to its last
	mend   time.Duration // how much later it arrives because it was lost
	tail   bool          // nothing follows that would tell of the loss
}

// markers are what is in the stream beside bytes.
type markers uint8

const (
	plain markers = iota
	markEOF
	markReset
)

type ack struct {
	at   env.Mono
	n    int
	trip time.Duration // of the first packet of these
	lost bool
}

// connect makes both ends of a connection, with nobody to hear of it yet.
func (w *World) connect(a, b *Host, link bool) (near, far *end) {
	near, far = w.newEnd(a, b, link), w.newEnd(b, a, link)
	near.far, far.far = far, near
	return near, far
}

func (w *World) newEnd(h, to *Host, link bool) *end {
	e := &end{
		w: w, host: h, lat: w.latency.oneWay[h.region][to.region], link: link, paused: true,
		used: w.now, place: len(h.ends), meter: w.meterOf(h, to, link),
	}
	h.ends = append(h.ends, e)
	e.congestion.begin()
	for a, x := range [...]*event{&e.flushing, &e.reading, &e.arriving, &e.landing, &e.acking, &e.stuck, &e.overdue} {
		x.who, x.act = e, act(a)
	}
	e.flushing.kind = KindFlush
	w.on(&e.flushing, h)
	w.on(&e.reading, h)
	return e
}

// The events of an end.
const (
	actFlush act = iota
	actDeliver
	actArrive
	actLand
	actAck
	actRetry
	actOverdue
)

func (e *end) happen(a act) {
	switch a {
	case actFlush:
		e.flush()
	case actDeliver:
		e.deliver()
	case actArrive:
		e.arrive()
	case actLand:
		e.land()
	case actAck:
		e.onAck()
	case actRetry:
		e.retry()
	case actOverdue:
		if !e.finSent {
			e.reset()
		}
	}
}

func (e *end) write(p []byte) {
	if e.over || e.fin || len(p) == 0 {
		return
	}
	e.queue.write(&e.w.buffers, p)
	e.flushSoon()
}

func (e *end) flushSoon() {
	if !e.flushing.pending() && !e.dead && e.host.life == e.flushing.life {
		e.w.queue.schedule(&e.flushing, e.w.now)
	}
}

// flush hands what there is room for to the kernel, and tells the owner.
func (e *end) flush() {
	if e.dead {
		return
	}
	waiting := e.queue.size
	for most := e.unsent(); e.queue.size > 0 && e.kernel.size < most; {
		e.queue.move(&e.kernel)
	}
	moved := e.queue.size < waiting
	if e.link && e.w.cfg.Unsent == 0 {
		e.speed.took(e.w.now, waiting-e.queue.size, e.queue.size)
	}
	e.send()
	if moved && !e.over {
		e.hear.drained()
	}
}

// send sends what may leave now.
func (e *end) send() {
	for !e.inLine {
		n := e.mayLeave()
		if n == 0 {
			break
		}
		up := &e.host.up
		if up.free > e.w.now || up.line.n > 0 {
			up.wait(e.w, e)
			return
		}
		e.leave(n)
	}
	e.markEnd()
}

// markEnd sends EOF when nothing is left before it.
func (e *end) markEnd() {
	if e.fin && !e.finSent && !e.dead && e.queue.size+e.kernel.size == 0 && !e.stuck.pending() {
		e.finSent, e.finAt = true, e.w.now
		e.travel(segment{last: markEOF}, 0)
	}
}

// mayLeave is how many bytes the windows let go now, as one segment. When it is none, and there is
// something to be sent, send is called again when that changes.
func (e *end) mayLeave() int {
	if e.kernel.size == 0 || e.dead || e.stuck.pending() {
		return 0
	}
	if !e.w.reach(e.host, e.far.host) {
		e.lose()
		return 0
	}
	e.takeAcks()
	e.rest()
	n := min(e.window, e.far.room()) - e.under
	if e.link && n < smallBuffer && e.under == 0 && e.far.room() > 0 {
		n = smallBuffer
	}
	size := min(e.kernel.size, largeBuffer)
	if rate := e.host.up.rate; rate > 0 { // two milliseconds: others wait
		size = min(size, max(smallBuffer, int(rate/500)))
	}
	if e.link {
		n, size = n/smallBuffer*smallBuffer, size/smallBuffer*smallBuffer
	}
	// A window that is open by little waits for more, as long as something is under way.
	if n <= 0 || n < min(size, segmentMSS) && e.under > 0 {
		e.far.starving = e.far.room() < e.window
		e.awaitAck()
		return 0
	}
	return min(n, size)
}

// room is how many bytes TCP at this end lets the far one have under way.
func (e *end) room() int { return readerStart + 2*e.read - e.held }

// leave sends one segment of at most n bytes.
func (e *end) leave(n int) {
	p, buffer := e.kernel.first(n)
	e.under += len(p)
	e.sent += int64(len(p))
	if e.meter != nil {
		e.meter.Bytes += int64(len(p))
	}
	e.used = e.w.now
	if e.peak < e.under || e.w.now >= e.peakEnd {
		e.peak, e.peakEnd = e.under, e.w.now.Add(e.trip())
	}
	e.travel(segment{data: p, buffer: buffer}, len(p))
	if e.queue.size > 0 && e.kernel.size <= e.unsent()/2 {
		e.flushSoon()
	}
}

// travel puts a segment of n bytes on its way.
func (e *end) travel(s segment, n int) {
	w, h := e.w, e.host
	packets := int64(n+segmentMSS-1) / segmentMSS
	at := w.now
	if n > 0 {
		wire := int64(n) + packets*(segmentMTU-segmentMSS)
		h.meter.Up += wire
		s.left, s.span = at, h.up.takes(wire-min(wire, segmentMTU))
		at = h.up.pass(at, 0, wire)
	}
	at = at.Add(w.delay(h, e.far.host, e.lat))
	if p := h.loss; p > 0 && n > 0 && h.dice.Uint64()>>32 < min(p*uint64(packets), 1<<32-1) {
		s.lost = true
		s.mend, s.tail = e.mend()
	}
	e.last = max(e.last, at)
	s.at = e.last
	e.flight.push(s)
	if !e.arriving.pending() && e.flight.n == e.landed+1 {
		w.queue.schedule(&e.arriving, s.at)
	}
}

// mend is how much later a segment arrives whose first copy was lost: a round trip when others follow
// and tell of the gap, a timeout when none do.
func (e *end) mend() (late time.Duration, tail bool) {
	trip := e.trip()
	if e.kernel.size+e.queue.size >= 3*segmentMSS {
		return trip, false
	}
	return max(200*time.Millisecond, 2*trip), true
}

// trip is the time there and back, when nothing is in the way.
func (e *end) trip() time.Duration {
	return time.Duration(e.lat+e.far.lat) + 2*(e.host.extra+e.far.host.extra)
}

// timeout is TCP's, before it has been doubled.
func (e *end) timeout() time.Duration { return 200*time.Millisecond + e.trip() }

// delay is the time from one host to another, with jitter.
func (w *World) delay(from, to *Host, lat int64) time.Duration {
	d := lat
	if j := w.latency.jitter; j > 0 && lat > 0 {
		u := from.dice.Uint64() >> 32
		d += lat / 1000 * j * int64(u*u>>32) >> 32 // mostly little
	}
	return time.Duration(d) + from.extra + to.extra
}

// arrive is when a segment has come to the far end's access link.
func (e *end) arrive() {
	w, far := e.w, e.far
	s := e.flight.at(e.landed)
	if !w.reach(e.host, far.host) {
		e.tries++
		if e.tries > mostTries {
			e.giveUp()
			return
		}
		e.last = w.now.Add(e.backOff())
		for i := e.landed; i < e.flight.n; i++ {
			e.flight.at(i).at = e.last
		}
		w.queue.schedule(&e.arriving, e.last)
		return
	}
	e.tries = 0
	done := w.now
	if n := len(s.data); n > 0 {
		done = e.through(s, n)
	}
	if e.landed > 0 {
		done = max(done, e.flight.at(e.landed-1).at)
	}
	s.at = done
	e.landed++
	if e.landed < e.flight.n {
		w.queue.schedule(&e.arriving, max(w.now, e.flight.at(e.landed).at))
	}
	switch {
	case e.landed > 1:
	case done > w.now:
		w.queue.schedule(&e.landing, done)
	default:
		e.land()
	}
}

// through has a segment of n bytes pass the far end's access link, and be acknowledged. It returns when
// all of it is there: later than it came through, when a part was lost.
func (e *end) through(s *segment, n int) env.Mono {
	w, far := e.w, e.far
	down := &far.host.down
	wait := max(down.free.Sub(w.now), 0)
	packets := int64(n+segmentMSS-1) / segmentMSS
	wire := int64(n) + packets*(segmentMTU-segmentMSS)
	far.host.meter.Down += wire
	// The first packet need not wait for the last.
	first := max(down.free, w.now.Add(-s.span)).Add(down.takes(min(wire, segmentMTU)))
	done := max(down.pass(w.now, s.span, wire), w.now)
	if down.rate > 0 {
		done = max(done, w.now.Add(down.takes(min(wire, segmentMTU))))
	}
	if wait > far.host.spec.Buffer {
		s.lost = true
		s.mend += e.trip()
	}
	whole := done.Add(s.mend)
	heard := first.Add(done.Sub(first) / 2) // acknowledgements come from the first packet to the last
	if s.tail {
		heard = whole
	}
	back := w.delay(far.host, e.host, far.lat)
	at := heard.Add(back)
	if k := e.acks.n; k > 0 {
		at = max(at, e.acks.at(k-1).at)
	}
	e.acks.push(ack{at: at, n: n, trip: max(first.Sub(s.left), 0) + back, lost: s.lost})
	if e.kernel.size > 0 && !e.inLine {
		e.awaitAck()
	}
	return whole
}

// land is when a segment has come through it: TCP there has it.
func (e *end) land() {
	w, far := e.w, e.far
	s := e.flight.pop()
	e.landed--
	if e.landed > 0 {
		w.queue.schedule(&e.landing, max(w.now, e.flight.at(0).at))
	}
	if s.last == markReset {
		far.down(syscall.ECONNRESET)
		return
	}
	far.receive(s)
}

// receive takes what has arrived.
func (e *end) receive(s segment) {
	w := e.w
	if e.over {
		if s.buffer != nil {
			w.buffers.give(s.buffer)
		}
		// Who has closed both ways reads on for a moment, lest the far end lose what was written last.
		if len(s.data) > 0 && (e.dead || e.finSent && w.now.Sub(e.finAt) > linger) {
			e.reset()
		}
		return
	}
	if h := e.host; e.inbox.n == 0 && e.awaits() && h.busy <= w.now && h.ready.n == 0 {
		w.direct = s
		w.perform(h, &e.reading)
		return
	}
	e.held += len(s.data)
	e.inbox.push(s)
	e.wake()
}

// linger is for how long an end that was closed reads on.
const linger = 2 * time.Second

// awaits says whether the owner is to hear of what arrives now.
func (e *end) awaits() bool {
	return !e.paused && !e.over && !e.reading.pending() && e.host.life == e.reading.life
}

// wake makes the owner hear of what has arrived.
func (e *end) wake() {
	if e.inbox.n > 0 && e.awaits() {
		e.w.queue.schedule(&e.reading, e.w.now)
	}
}

// deliver is the event in which the owner hears of one segment: the one that the network brings and for which the loop
// has time at once, or the first in inbox.
func (e *end) deliver() {
	s, w := segment{}, e.w
	if w.direct.data != nil || w.direct.last != plain {
		s, w.direct = w.direct, segment{}
	} else {
		if e.over || e.paused || e.inbox.n == 0 {
			return
		}
		s = e.inbox.pop()
		e.held -= len(s.data)
	}
	n := len(s.data)
	e.read = min(e.read+n, readerMost/2)
	if e.starving && n > 0 {
		e.starving = false
		e.far.refill()
	}
	if e.inbox.n > 0 {
		e.w.queue.schedule(&e.reading, e.w.now)
	}
	switch {
	case n > 0:
		e.hear.data(s.data)
		if s.buffer != nil {
			e.w.buffers.give(s.buffer)
		}
	case s.last == markEOF && e.link:
		e.down(io.EOF)
	case s.last == markEOF:
		e.hear.ended()
	}
}

// refill hears, a while later, that the receiver has room again.
func (e *end) refill() {
	at := e.w.now.Add(e.trip() / 2)
	if k := e.acks.n; k > 0 {
		at = max(at, e.acks.at(k-1).at)
	}
	e.acks.push(ack{at: at})
	e.awaitAck()
}

// awaitAck makes send be called when the next acknowledgement comes.
func (e *end) awaitAck() {
	if e.acks.n > 0 && !e.acking.pending() {
		e.w.queue.schedule(&e.acking, max(e.acks.at(0).at, e.w.now))
	}
}

func (e *end) onAck() {
	e.takeAcks()
	e.send()
}

// takeAcks deals with the acknowledgements that have come by now.
func (e *end) takeAcks() {
	now := e.w.now
	for e.acks.n > 0 && e.acks.at(0).at <= now {
		a := e.acks.pop()
		e.under -= a.n
		switch {
		case a.n == 0:
		case a.lost:
			e.onLoss(a.n, e.sent)
		case e.window < e.limit:
			e.congestion.onAck(a.at, a.n, e.sent, a.trip, 2*e.peak > e.window)
		default:
			e.congestion.onAck(a.at, a.n, e.sent, a.trip, e.peak+largeBuffer > e.window)
		}
	}
}

// rest takes back what a window has grown when nothing was sent for long.
func (e *end) rest() {
	if idle := e.w.now.Sub(e.used); e.under == 0 && idle > 0 {
		e.onIdle(idle, e.timeout())
		e.used = e.w.now
	}
}

// mostTries is how often TCP tries again before it gives up, after about a quarter of an hour.
const mostTries = 15

func (e *end) backOff() time.Duration {
	return min(e.timeout()<<min(e.tries, 16), 2*time.Minute)
}

// lose is when what is sent does not come through.
func (e *end) lose() {
	e.tries++
	if e.tries > mostTries {
		e.giveUp()
		return
	}
	e.w.queue.schedule(&e.stuck, e.w.now.Add(e.backOff()))
}

func (e *end) retry() {
	if e.w.reach(e.host, e.far.host) {
		e.tries = 0
		e.onTimeout()
	}
	e.send()
}

func (e *end) giveUp() {
	e.w.after(e.host, 0, KindNone, func() { e.down(syscall.ETIMEDOUT) })
}

// pause stops or resumes reading.
func (e *end) pause(paused bool) {
	if e.paused = paused; !paused {
		e.wake()
	}
}

// closeWrite sends EOF after what is queued.
func (e *end) closeWrite() {
	if !e.over && !e.fin {
		e.fin = true
		e.flushSoon()
	}
}

// close ends both directions: with a reset, or after what is queued is written, which may take so
// long.
func (e *end) close(reset bool, flush time.Duration) {
	if e.over {
		return
	}
	e.silence()
	if reset {
		e.reset()
		return
	}
	if !e.fin {
		e.fin = true
		e.flushSoon()
	}
	e.w.queue.schedule(&e.overdue, e.w.now.Add(flush))
}

// silence has the owner hear nothing more.
func (e *end) silence() {
	e.over = true
	for e.inbox.n > 0 {
		if s := e.inbox.pop(); s.buffer != nil {
			e.w.buffers.give(s.buffer)
		}
	}
	e.held = 0
	if e.starving {
		e.starving = false
		e.far.refill()
	}
	e.w.queue.stop(&e.reading)
	if e.place >= 0 {
		list := e.host.ends
		moved := list[len(list)-1]
		list[e.place], moved.place = moved, e.place
		list[len(list)-1] = nil
		e.host.ends = list[:len(list)-1]
		e.place = -1
	}
}

// reset drops what is queued and has the far end hear of it, if packets come through.
func (e *end) reset() {
	e.stop()
	if !e.told && !e.far.over && e.w.reach(e.host, e.far.host) {
		e.told = true
		e.travel(segment{last: markReset}, 0)
	}
}

// stop drops what is queued; what is under way arrives.
func (e *end) stop() {
	e.dead = true
	e.queue.clear(&e.w.buffers)
	e.kernel.clear(&e.w.buffers)
	e.w.queue.stop(&e.flushing)
	e.w.queue.stop(&e.stuck)
	e.w.queue.stop(&e.acking)
}

// down has the owner hear that the connection is gone.
func (e *end) down(reason error) {
	if e.over {
		return
	}
	if e.inbox.n > 0 && !e.paused && !errors.Is(reason, syscall.ETIMEDOUT) && !errors.Is(reason, io.EOF) {
		// What arrived before is heard before.
		e.w.after(e.host, 0, KindNone, func() { e.down(reason) })
		return
	}
	e.silence()
	e.stop()
	h, say := e.host, func() { e.hear.broken(reason) }
	if errors.Is(reason, io.EOF) { // in the owner's own event
		say()
		return
	}
	e.w.after(h, 0, KindNone, say)
}

// abandon is close for a process that ended.
func (e *end) abandon(reset bool) {
	e.over = true
	e.inbox.clear()
	if reset {
		e.reset()
	} else {
		e.stop()
	}
}

// hurry has what waits in the queue of the far end's access link come through it so much sooner.
func (e *end) hurry(faster ratio) {
	if e.landed == 0 || faster.a == faster.b {
		return
	}
	for i := range e.landed {
		s := e.flight.at(i)
		s.at = faster.sooner(e.w.now, s.at)
	}
	e.w.queue.schedule(&e.landing, max(e.w.now, e.flight.at(0).at))
	for i := range e.acks.n {
		a := e.acks.at(i)
		a.at = faster.sooner(e.w.now, a.at)
	}
	if e.acking.pending() {
		e.w.queue.schedule(&e.acking, max(e.w.now, e.acks.at(0).at))
	}
}
