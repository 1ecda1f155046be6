package link

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"sync/atomic"
	"testing"
	"time"

	"cepa/cell"
	"cepa/env"
)

// BenchmarkLink is one link over loopback: both ends, TLS twice, the kernel once.
func BenchmarkLink(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("cells=%d", n), func(b *testing.B) {
			near, far := newNode(b, "a", nil), newNode(b, "b", nil)
			var got atomic.Int64
			done := make(chan struct{})
			total := int64(b.N) * int64(n) * cell.Size
			far.onCells = func(_ env.Link, c []byte) {
				if got.Add(int64(len(c))) == total {
					close(done)
				}
			}
			at, _ := connect(b, near, far)
			c := cells(n, 0)
			sent := 0
			step := func(env.Link) {
				for sent < b.N && at.Queued() < 512<<10 {
					at.Send(c)
					sent++
				}
			}
			b.SetBytes(int64(len(c)))
			b.ReportAllocs()
			b.ResetTimer()
			near.loop.do(func() {
				near.onDrained = step
				step(at)
			})
			<-done
			b.StopTimer()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/cell")
		})
	}
}

// BenchmarkPingPong is the time for one cell to go and come back.
func BenchmarkPingPong(b *testing.B) {
	near, far := newNode(b, "a", nil), newNode(b, "b", nil)
	back := make(chan struct{}, 1)
	far.onCells = func(l env.Link, c []byte) { l.Send(c) }
	near.onCells = func(env.Link, []byte) { back <- struct{}{} }
	at, _ := connect(b, near, far)
	c := cells(1, 0)
	b.ReportAllocs()
	for b.Loop() {
		at.Send(c)
		<-back
	}
}

// BenchmarkIdleLink is the memory of an end of an idle link that has carried traffic, both goroutines included.
func BenchmarkIdleLink(b *testing.B) {
	const links = 500
	near, far := newNode(b, "a", func(c *Config) { c.Stagger = time.Minute }), newNode(b, "b", nil)
	back := make(chan int, 4096)
	far.onCells = func(l env.Link, c []byte) { l.Send(c) }
	near.onCells = func(_ env.Link, c []byte) { back <- len(c) }
	measure := func() uint64 {
		var m runtime.MemStats
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	for b.Loop() {
		before := measure()
		ends := make([]env.Link, links)
		for i := range ends {
			ends[i], _ = connect(b, near, far)
			ends[i].Send(cells(64, 0))
			for got := 0; got < 64*cell.Size; {
				got += <-back
			}
		}
		time.Sleep(3 * calmAfter)
		b.ReportMetric(float64(measure()-before)/(2*links), "B/end")
		if name := os.Getenv("LINK_HEAP"); name != "" {
			f, _ := os.Create(name)
			pprof.WriteHeapProfile(f)
			f.Close()
		}
		for _, l := range ends {
			l.Close(nil)
			<-far.downs
		}
	}
}
