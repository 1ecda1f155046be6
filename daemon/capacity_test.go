package daemon

import "testing"

// TestLinksLeaveFilesForStreams: whatever the limit of open files, links leave some for exit connections, and never
// more than the link layer takes.
func TestLinksLeaveFilesForStreams(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ files, links int }{
		{64, 64}, {1024, 576}, {20_000, 14_000}, {1 << 30, 14_000}, {10_000, 7308},
	} {
		if got := linksFor(tt.files); got != tt.links {
			t.Errorf("%d files allow %d links, want %d", tt.files, got, tt.links)
		}
	}
	if n, ok := fileLimit(); ok && n < 64 {
		t.Errorf("the limit of open files is %d", n)
	}
}
