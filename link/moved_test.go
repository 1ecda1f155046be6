package link

import (
	"errors"
	"net/netip"
	"testing"
)

// TestMovedEndsLinksFromThatAddress: links from an address that is gone are over at once, and others go on.
func TestMovedEndsLinksFromThatAddress(t *testing.T) {
	t.Parallel()
	client, relay := newNode(t, "", nil), newNode(t, "r", nil)
	connect(t, client, relay)
	if n := client.Moved(func(a netip.Addr) bool { return a == netip.MustParseAddr("10.1.2.3") }); n != 0 {
		t.Errorf("%d links of another address were ended", n)
	}
	if n := client.Moved(func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.1") }); n != 1 {
		t.Errorf("%d links were ended", n)
	}
	if e := receive(t, "OnDown", client.downs); !errors.Is(e.down, ErrMoved) {
		t.Errorf("OnDown(%v)", e.down)
	}
	receive(t, "OnDown at the far end", relay.downs)
}
