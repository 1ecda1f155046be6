package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"cepa/control"
	"cepa/directory"
	"cepa/env"
)

// accountingFile is where a relay keeps what it has used of its month.
const accountingFile = "accounting.json"

// How often a relay looks at what it has used, and how often it writes that down.
const (
	accountingTick = 5 * time.Second
	accountingSave = time.Minute
)

// Usage is what a relay has sent and received in a month, in bytes, as its file keeps it.
type Usage struct {
	Since    time.Time `json:"since"` // the month's beginning
	Received uint64    `json:"received"`
	Sent     uint64    `json:"sent"`
}

// accounting counts traffic by months. Its methods may be called from any goroutine.
type accounting struct {
	mu    sync.Mutex
	limit uint64 // bytes; 0 is none
	day   int
	count string
	used  Usage
	// What the counters said when they were read last.
	received, sent uint64
}

// month is the one that now is in, when months begin at 00:00 UTC of a day.
func month(now time.Time, day int) (begin, end time.Time) {
	now = now.UTC()
	begin = time.Date(now.Year(), now.Month(), day, 0, 0, 0, 0, time.UTC)
	if begin.After(now) {
		begin = begin.AddDate(0, -1, 0)
	}
	return begin, begin.AddDate(0, 1, 0)
}

// load takes what was kept. A file that cannot be read is an error: to begin at zero could cost the operator money.
func (a *accounting) load(store env.Store, c *RelayConfig) error {
	a.configure(c)
	text, err := store.Load(accountingFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &a.used)
	}
	if err != nil {
		return fmt.Errorf("reading what was used of the month: %s: %w; to count from zero, remove it", accountingFile, err)
	}
	return nil
}

func (a *accounting) configure(c *RelayConfig) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limit, a.day, a.count = uint64(c.AccountingGiB)<<30, max(c.AccountingDay, 1), c.AccountingCount
}

// note takes the counters of this process, and says until when the relay must sleep; zero: it need not.
func (a *accounting) note(received, sent uint64, now time.Time) (until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	begin, _ := month(now, a.day)
	if a.used.Since.Before(begin) { // a month that is later than now stays: the clock may have been set back
		a.used = Usage{Since: begin}
	}
	a.used.Received += received - a.received
	a.used.Sent += sent - a.sent
	a.received, a.sent = received, sent
	return a.until(now)
}

// until is when the relay may go on, if it must sleep.
func (a *accounting) until(now time.Time) time.Time {
	begin, end := month(now, a.day)
	if a.limit == 0 || a.used.Since.Before(begin) || a.counted() < a.limit {
		return time.Time{}
	}
	return end
}

// counted is what counts of what was used, in bytes.
func (a *accounting) counted() uint64 {
	switch a.count {
	case "out":
		return a.used.Sent
	case "max":
		return max(a.used.Sent, a.used.Received)
	}
	return a.used.Sent + a.used.Received
}

// state is the file's text.
func (a *accounting) state() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	text, _ := json.Marshal(a.used) // three plain fields
	return append(text, '\n')
}

// Hibernating says that a relay has used up its month.
type Hibernating struct{ Until time.Time }

func (h *Hibernating) Error() string {
	return fmt.Sprintf("the month's traffic (accounting_gib) is used up: sleeping until %s", h.Until.Format("2006-01-02 15:04 MST"))
}

// account counts, again and again. It runs on the loop.
func (r *Relay) account(sinceSave time.Duration) {
	t := r.links.Stats()
	in, out := r.node.ExitBytes()
	until := r.accounting.note(uint64(t.BytesRead)+in, uint64(t.BytesWritten)+out, time.Now())
	if sinceSave >= accountingSave || !until.IsZero() {
		r.saveAccounting()
		sinceSave = 0
	}
	if !until.IsZero() {
		go r.fallAsleep(until)
		return
	}
	r.loop.Env().Clock.AfterFunc(accountingTick, func() { r.account(sinceSave + accountingTick) })
}

// saveAccounting runs on the loop.
func (r *Relay) saveAccounting() {
	r.loop.Env().Store.Save(accountingFile, r.accounting.state(), func(err error) {
		if err != nil {
			r.options.Log.Error("writing down what was used of the month failed", "err", err)
		}
	})
}

// fallAsleep ends the relay because its month is used up. Whoever started it starts it again, and gets Hibernating.
func (r *Relay) fallAsleep(until time.Time) {
	r.options.Log.Warn("the month's traffic (accounting_gib) is used up: leaving the network", "until", until.Format(time.RFC3339))
	r.Drain(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r.Stop(ctx)
}

// sleeper answers on the control socket of a relay that sleeps.
type sleeper struct{ *shell }

// Counters implements control.Source.
func (sleeper) Counters(context.Context) (map[string]int64, error) {
	return map[string]int64{"hibernating": 1}, nil
}

// A relay that sleeps is a control.Node without links and circuits, so that all who watch nodes can watch it.

// Circuits implements control.Node.
func (sleeper) Circuits(context.Context) ([]control.Circuit, error) { return []control.Circuit{}, nil }

// Links implements control.Node.
func (sleeper) Links(context.Context) ([]control.Link, error) { return []control.Link{}, nil }

// Traffic implements control.Node.
func (sleeper) Traffic() (received, sent uint64) { return 0, 0 }

// Hibernate keeps the folder and the control socket of a relay that sleeps, until its month begins or ctx ends.
func Hibernate(ctx context.Context, config RelayConfig, o Options, h *Hibernating) error {
	s, err := newShell(o, config.Network, config.Dir)
	if err != nil {
		return err
	}
	go s.loop.Run()
	defer func() {
		last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.stop(last, func() {})
	}()
	s.mu.Lock()
	s.status.Role, s.status.Address = "relay", config.Address
	s.status.Notices = []control.Notice{{Code: directory.WarnHibernating, Text: h.Error()}}
	s.mu.Unlock()
	s.onProgress(0, control.Hibernating, "the next month, "+h.Until.Format("2006-01-02 15:04 MST"))
	if s.control, err = control.Listen(config.Dir, sleeper{s}); err != nil {
		return err
	}
	// A machine that slept itself, or a clock that was set, does not delay the end by more than a minute.
	for time.Now().Before(h.Until) {
		select {
		case <-time.After(min(time.Until(h.Until), time.Minute)):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
