package limit

import (
	"fmt"
	"testing"
	"time"

	"cepa/env"
)

func at(d time.Duration) env.Mono { return env.Mono(0).Add(d) }

func TestBurstThenRate(t *testing.T) {
	t.Parallel()
	b := NewBuckets(2, 5, 10)
	for i := range 5 {
		if !b.Take("a", 1, at(0)) {
			t.Fatalf("token %d of the burst was refused", i)
		}
	}
	if b.Take("a", 1, at(0)) {
		t.Error("a sixth token of a burst of five")
	}
	if b.Take("a", 1, at(499*time.Millisecond)) {
		t.Error("a token before its time")
	}
	if !b.Take("a", 1, at(500*time.Millisecond)) || b.Take("a", 1, at(500*time.Millisecond)) {
		t.Error("want exactly one token after half a second at two a second")
	}
	if !b.Take("b", 1, at(500*time.Millisecond)) {
		t.Error("one key spends the tokens of another")
	}
}

func TestRefusalsCostNothing(t *testing.T) {
	t.Parallel()
	b := NewBuckets(1, 1, 10)
	b.Take("a", 1, at(0))
	for i := range 1000 { // asking again and again does not put the next token off
		b.Take("a", 1, at(time.Duration(i)*999*time.Microsecond))
	}
	if !b.Take("a", 1, at(time.Second+time.Microsecond)) {
		t.Error("no token after a second of refusals")
	}
}

func TestDebtIsPaidBack(t *testing.T) {
	t.Parallel()
	b := NewBuckets(10, 10, 10)
	if !b.Take("a", 60, at(0)) {
		t.Fatal("a full bucket gives nothing")
	}
	if b.Take("a", 1, at(5*time.Second)) { // 50 in debt, 50 gained
		t.Error("a token before the debt is paid")
	}
	if !b.Take("a", 1, at(5200*time.Millisecond)) {
		t.Error("no token after the debt was paid")
	}
}

// TestManyKeysShareABucket protects memory: whoever comes when the table is full shares what is
// left, and those who were there before keep theirs.
func TestManyKeysShareABucket(t *testing.T) {
	t.Parallel()
	b := NewBuckets(0.001, 3, 100)
	for i := range 100 {
		b.Take(fmt.Sprint("old", i), 1, at(0))
	}
	granted := 0
	for i := range 1000 {
		if b.Take(fmt.Sprint("new", i), 1, at(0)) {
			granted++
		}
	}
	if granted != 3 {
		t.Errorf("%d tokens for 1000 new keys, want the 3 of one bucket", granted)
	}
	if b.Len() > 101 {
		t.Errorf("%d keys are remembered", b.Len())
	}
	if !b.Take("old7", 1, at(0)) {
		t.Error("a key that was there first lost its tokens")
	}
}

func TestFullBucketsAreForgotten(t *testing.T) {
	t.Parallel()
	b := NewBuckets(1, 2, 1000)
	for i := range 500 {
		b.Take(fmt.Sprint(i), 1, at(0))
	}
	b.Take("debtor", 100, at(0))
	b.Take("new", 1, at(10*time.Second))
	if b.Len() != 2 {
		t.Errorf("%d keys are remembered, want the debtor and the new one", b.Len())
	}
	if b.Take("debtor", 1, at(10*time.Second)) {
		t.Error("the debt was forgotten")
	}
}
