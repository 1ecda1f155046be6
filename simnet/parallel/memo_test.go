package parallel

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
)

// TestMemoKeepsWhatItWasGiven: what has a size is made once while it is among the newest, and what has none each time;
// the memory is bounded.
func TestMemoKeepsWhatItWasGiven(t *testing.T) {
	t.Parallel()
	m := NewMemo(1000)
	key := func(i int) [32]byte { return sha256.Sum256(fmt.Append(nil, i)) }
	made := 0
	get := func(i, size int) int {
		return m.Once(key(i), func() (any, int) { made++; return i, size }).(int)
	}
	for range 3 {
		if get(1, 10) != 1 || get(2, 0) != 2 {
			t.Fatal("another value")
		}
	}
	if made != 1+3 {
		t.Errorf("%d values were made, want one that is kept and three that are not", made)
	}
	for i := 10; i < 1000; i++ {
		get(i, 10)
		get(1, 10) // in use: it stays
	}
	if made != 4+990 {
		t.Errorf("%d values were made: what is in use was forgotten", made)
	}
	if n := len(m.young) + len(m.old); n > 102 {
		t.Errorf("%d values of 10 bytes in a memory of 1000 bytes", n)
	}
	if get(10, 10); made != 995 {
		t.Error("what nobody asked for since is still there")
	}
	if made, recalled := m.Count(); made != 995 || recalled != 2+990 {
		t.Errorf("counted %d and %d", made, recalled)
	}
}

// TestMemoIsSafe: many ask at once.
func TestMemoIsSafe(t *testing.T) {
	t.Parallel()
	m := NewMemo(2000)
	var wait sync.WaitGroup
	for w := range 4 {
		wait.Go(func() {
			for i := range 2000 {
				n := (i*7 + w) % 300
				if got := m.Once(sha256.Sum256(fmt.Append(nil, n)), func() (any, int) { return n, 10 }); got != n {
					t.Errorf("%v for %d", got, n)
				}
			}
		})
	}
	wait.Wait()
}
