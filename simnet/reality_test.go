package simnet

import (
	"testing"
	"time"
)

// measuredTransfers are medians of three transfers each over one TCP connection of Linux 6.18 with CUBIC, between two
// network namespaces (package netlink; TestTransfersAgree of package e2e measures them anew): from when
// the connection is open to the last byte, where the sender's access link has a token bucket and the receiver's a
// queue of 100 ms.
var measuredTransfers = []struct {
	up, down int64         // bytes a second
	way      time.Duration // one way
	size     int
	took     time.Duration
}{
	{3145728, 5000000, 8 * time.Millisecond, 51200, 51 * time.Millisecond},
	{3145728, 5000000, 8 * time.Millisecond, 1048576, 383 * time.Millisecond},
	{3145728, 5000000, 8 * time.Millisecond, 5242880, 1861 * time.Millisecond},
	{3145728, 5000000, 8 * time.Millisecond, 20971520, 7066 * time.Millisecond},
	{3145728, 5000000, 25 * time.Millisecond, 51200, 153 * time.Millisecond},
	{3145728, 5000000, 25 * time.Millisecond, 1048576, 526 * time.Millisecond},
	{3145728, 5000000, 25 * time.Millisecond, 5242880, 1958 * time.Millisecond},
	{3145728, 5000000, 25 * time.Millisecond, 20971520, 7114 * time.Millisecond},
	{3145728, 5000000, 60 * time.Millisecond, 51200, 363 * time.Millisecond},
	{3145728, 5000000, 60 * time.Millisecond, 1048576, 922 * time.Millisecond},
	{3145728, 5000000, 60 * time.Millisecond, 5242880, 2330 * time.Millisecond},
	{3145728, 5000000, 60 * time.Millisecond, 20971520, 7663 * time.Millisecond},
	{4194304, 1250000, 8 * time.Millisecond, 51200, 64 * time.Millisecond},
	{4194304, 1250000, 8 * time.Millisecond, 1048576, 891 * time.Millisecond},
	{4194304, 1250000, 8 * time.Millisecond, 5242880, 4367 * time.Millisecond},
	{4194304, 1250000, 8 * time.Millisecond, 20971520, 17423 * time.Millisecond},
	{4194304, 1250000, 25 * time.Millisecond, 51200, 160 * time.Millisecond},
	{4194304, 1250000, 25 * time.Millisecond, 1048576, 1036 * time.Millisecond},
	{4194304, 1250000, 25 * time.Millisecond, 5242880, 4467 * time.Millisecond},
	{4194304, 1250000, 25 * time.Millisecond, 20971520, 17505 * time.Millisecond},
	{4194304, 1250000, 60 * time.Millisecond, 51200, 370 * time.Millisecond},
	{4194304, 1250000, 60 * time.Millisecond, 1048576, 1296 * time.Millisecond},
	{4194304, 1250000, 60 * time.Millisecond, 5242880, 4773 * time.Millisecond},
	{4194304, 1250000, 60 * time.Millisecond, 20971520, 17811 * time.Millisecond},
	{4194304, 2500000, 8 * time.Millisecond, 51200, 53 * time.Millisecond},
	{4194304, 2500000, 8 * time.Millisecond, 1048576, 466 * time.Millisecond},
	{4194304, 2500000, 8 * time.Millisecond, 5242880, 2210 * time.Millisecond},
	{4194304, 2500000, 8 * time.Millisecond, 20971520, 8722 * time.Millisecond},
	{4194304, 2500000, 25 * time.Millisecond, 51200, 155 * time.Millisecond},
	{4194304, 2500000, 25 * time.Millisecond, 1048576, 600 * time.Millisecond},
	{4194304, 2500000, 25 * time.Millisecond, 5242880, 2337 * time.Millisecond},
	{4194304, 2500000, 25 * time.Millisecond, 20971520, 8858 * time.Millisecond},
	{4194304, 2500000, 60 * time.Millisecond, 51200, 365 * time.Millisecond},
	{4194304, 2500000, 60 * time.Millisecond, 1048576, 975 * time.Millisecond},
	{4194304, 2500000, 60 * time.Millisecond, 5242880, 2713 * time.Millisecond},
	{4194304, 2500000, 60 * time.Millisecond, 20971520, 9288 * time.Millisecond},
	{6291456, 4194304, 8 * time.Millisecond, 51200, 51 * time.Millisecond},
	{6291456, 4194304, 8 * time.Millisecond, 1048576, 300 * time.Millisecond},
	{6291456, 4194304, 8 * time.Millisecond, 5242880, 1341 * time.Millisecond},
	{6291456, 4194304, 8 * time.Millisecond, 20971520, 5223 * time.Millisecond},
	{6291456, 4194304, 25 * time.Millisecond, 51200, 154 * time.Millisecond},
	{6291456, 4194304, 25 * time.Millisecond, 1048576, 459 * time.Millisecond},
	{6291456, 4194304, 25 * time.Millisecond, 5242880, 1502 * time.Millisecond},
	{6291456, 4194304, 25 * time.Millisecond, 20971520, 5408 * time.Millisecond},
	{6291456, 4194304, 60 * time.Millisecond, 51200, 364 * time.Millisecond},
	{6291456, 4194304, 60 * time.Millisecond, 1048576, 879 * time.Millisecond},
	{6291456, 4194304, 60 * time.Millisecond, 5242880, 1930 * time.Millisecond},
	{6291456, 4194304, 60 * time.Millisecond, 20971520, 5811 * time.Millisecond},
}

// TestTransfersTakeWhatTheyTakeOnLinux: the model of TCP against the kernel's.
func TestTransfersTakeWhatTheyTakeOnLinux(t *testing.T) {
	t.Parallel()
	const percent = 12
	for _, m := range measuredTransfers {
		w := New(Config{Seed: 1, Latency: flat(t, 2*m.way, 0)})
		a, b := w.Host(HostSpec{Name: "a", Up: m.up}), w.Host(HostSpec{Name: "b", Down: m.down})
		x := start(t, w, a, b, 80, m.size)
		w.RunUntil(time.Minute, func() bool { return x.got == m.size })
		// There the sender was dialled, and begins when the third packet of the handshake has come to it.
		took := x.last.Sub(x.up) + m.way
		off := 100 * (float64(took)/float64(m.took) - 1)
		t.Logf("%8d bytes, %7d up, %7d down, %5v: %6v on Linux, %6v here, %+3.0f %%", m.size, m.up, m.down, m.way, m.took, took.Round(time.Millisecond), off)
		if off > percent || off < -percent {
			t.Errorf("%d bytes, %d up, %d down, %v: %v on Linux and %v here", m.size, m.up, m.down, m.way, m.took, took)
		}
	}
}
