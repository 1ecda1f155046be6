package daemon

import (
	"encoding/json"
	"testing"
	"time"
)

func TestMonth(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		now        string
		day        int
		begin, end string
	}{
		{"2026-11-23T08:00:00Z", 1, "2026-11-01", "2026-12-01"},
		{"2026-11-23T08:00:00Z", 24, "2026-10-24", "2026-11-24"},
		{"2026-11-24T00:00:00Z", 24, "2026-11-24", "2026-12-24"},
		{"2027-01-05T00:00:00+09:00", 5, "2026-12-05", "2027-01-05"},
		{"2028-02-29T12:00:00Z", 28, "2028-02-28", "2028-03-28"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		begin, end := month(now, c.day)
		if begin.Format(time.DateOnly) != c.begin || end.Format(time.DateOnly) != c.end {
			t.Errorf("%s, day %d: %v to %v", c.now, c.day, begin, end)
		}
	}
}

// TestAccountingSleepsWhenTheMonthIsUsedUp, wakes in the next, and goes on counting after a restart.
func TestAccountingSleepsWhenTheMonthIsUsedUp(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	settings := RelayConfig{AccountingGiB: 3, AccountingDay: 1, AccountingCount: "sum"}
	var a accounting
	a.configure(&settings)
	if until := a.note(1<<30, 1<<30, now); !until.IsZero() {
		t.Fatalf("asleep at 2 of 3 GiB: %v", until)
	}
	var b accounting // the process started again: its counters begin at 0
	b.configure(&settings)
	if err := json.Unmarshal(a.state(), &b.used); err != nil {
		t.Fatal(err)
	}
	if until := b.note(100, 100, now); !until.IsZero() {
		t.Fatalf("asleep early: %v", until)
	}
	end := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	if until := b.note(1<<29, 1<<29, now); !until.Equal(end) {
		t.Fatalf("until %v, want %v", until, end)
	}
	for count, sleeps := range map[string]bool{"sum": true, "out": false, "max": false} {
		settings.AccountingCount = count
		b.configure(&settings)
		if got := !b.note(1<<29, 1<<29, now).IsZero(); got != sleeps {
			t.Errorf("%s: %v", count, got)
		}
	}
	settings.AccountingCount = "sum"
	b.configure(&settings)
	if until := b.note(1<<29+1, 1<<29, end); !until.IsZero() || b.used.Received != 1 || !b.used.Since.Equal(end) {
		t.Errorf("the next month: %v, %+v", until, b.used)
	}
}
