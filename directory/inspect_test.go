package directory

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cert"
)

// TestInspectSaysWhatIsWrong: for each way in which a consensus can be bad, the check that finds it fails, the others do
// not, and what OpenHead and OpenBody accept is what Verify finds nothing wrong with.
func TestInspectSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	network := testNetwork(t, 4) // a quorum of 3
	in := testInput(t, 5)
	headBody, body := build(t, network, in)
	all := testSigners(t, 4)
	head := sealHead(t, headBody, all[:3]...)
	damaged := bytes.Clone(head)
	damaged[3+cert.EndorsementSize-1] ^= 1
	for _, c := range []struct {
		name       string
		head, body []byte
		at         time.Time
		wrong      []string
		state      State
	}{
		{"good", head, body, testNow, nil, Fresh},
		{"a signer more that is none", sealHead(t, headBody, append(all[:3:3], testSigner(t, 50))...), body, testNow, nil, Fresh},
		{"a little early", head, body, testNow.Add(-time.Minute), nil, NotYetValid},
		{"too early", head, body, testNow.Add(-time.Hour), []string{"dates"}, NotYetValid},
		{"old", head, body, testNow.Add(20 * time.Second), nil, Stale},
		{"expired", head, body, testNow.Add(time.Hour), []string{"dates"}, Expired},
		{"expired with its certificates", head, body, testNow.Add(100 * 24 * time.Hour), []string{"signature", "signature", "signature", "quorum", "dates"}, Expired},
		{"too few", sealHead(t, headBody, append(all[:2:2], testSigner(t, 50))...), body, testNow, []string{"quorum"}, Fresh},
		{"a bad signature", damaged, body, testNow, []string{"signature", "quorum"}, Fresh},
		{"a bit of the body", head, append([]byte{body[0] ^ 1}, body[1:]...), testNow, []string{"body"}, Fresh},
		{"no body", head, nil, testNow, []string{"body"}, Fresh},
		{"cut short", head, body[:len(body)-1], testNow, []string{"body"}, Fresh},
	} {
		i, err := Inspect(c.head, c.body, network, c.at)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var wrong []string
		for _, f := range i.Verify() {
			if f.What == "" || f.Detail == "" {
				t.Errorf("%s: a finding without words: %+v", c.name, f)
			}
			if f.Err != nil {
				what, _, _ := strings.Cut(f.What, " ")
				wrong = append(wrong, what)
			}
		}
		if !slices.Equal(wrong, c.wrong) || i.State != c.state || (i.Consensus == nil) != slices.Contains(wrong, "body") {
			t.Errorf("%s: wrong are %q, want %q; %v, want %v", c.name, wrong, c.wrong, i.State, c.state)
		}
		h, err := OpenHead(c.head, network, c.at)
		opens := err == nil
		if opens {
			if h.Digest != i.Head.Digest || !slices.Equal(h.Signers, i.Head.Signers) {
				t.Errorf("%s: %+v, and opened %+v", c.name, i.Head, h)
			}
			_, err = OpenBody(h, c.body, network)
			opens = err == nil
		}
		// Dates are for whoever opens it to judge. One bad signature spoils the document for Open.
		if want := !slices.Contains(wrong, "signature") && !slices.Contains(wrong, "quorum") && !slices.Contains(wrong, "body"); opens != want {
			t.Errorf("%s: it opens: %v (%v), and wrong are %q", c.name, opens, err, wrong)
		}
	}
	for name, head := range map[string][]byte{"nothing": nil, "cut short": head[:len(head)-1], "a vote": must[[]byte](t)(cert.Seal(cert.VoteDocument, testID, headBody, all...)),
		"too long": make([]byte, MaxConsensusHead+1), "another body": sealHead(t, []byte{0xa0}, all...)} {
		if _, err := Inspect(head, body, network, testNow); err == nil {
			t.Errorf("%s has the form of a head", name)
		}
	}
}

// TestCompareTellsEveryChange of relays and of what holds for all, and only those.
func TestCompareTellsEveryChange(t *testing.T) {
	t.Parallel()
	open := func(in ConsensusInput) *Consensus {
		network := testNetwork(t, 1)
		headBody, body := build(t, network, in)
		head := must[*Head](t)(OpenHead(sealHead(t, headBody, testSigners(t, 1)...), network, testNow))
		return must[*Consensus](t)(OpenBody(head, body, network))
	}
	in := testInput(t, 6)
	old := open(in)
	if d := Compare(old, old); !d.Empty() {
		t.Errorf("the same differs: %+v", d)
	}
	changed := in
	changed.ValidAfter = in.ValidAfter.Add(5 * time.Second)
	changed.Relays = slices.Clone(in.Relays[1:]) // the first is gone
	gone := in.Relays[0].Identity
	fresh := in.Relays[0]
	fresh.Identity = testSigner(t, 77).Identity()
	r := &changed.Relays[2]
	id := r.Identity
	r.Weight, r.Flags, r.Nickname = r.Weight+5, r.Flags^FlagGuard, "other"
	r.Addresses = []netip.AddrPort{netip.MustParseAddrPort("45.9.9.9:1")}
	r.Ports = PortSummary{IPv4: []PortRange{{443, 443}, {8000, 8999}}}
	changed.Relays = append(changed.Relays, fresh)
	changed.Parameters = Parameters{IntervalMillis: 5000, KeepaliveMillis: 50}
	changed.Required = OurProtocols()[:2]
	d := Compare(old, open(changed))
	if len(d.Gone) != 1 || d.Gone[0].Identity != gone || len(d.New) != 1 || d.New[0].Identity != fresh.Identity || len(d.Changed) != 1 || d.Changed[0].Identity != id {
		t.Fatalf("%+v", d)
	}
	fields := func(list []FieldChange) (names []string) {
		for _, f := range list {
			names = append(names, f.Field)
			if f.From == f.To {
				t.Errorf("no change: %+v", f)
			}
		}
		return names
	}
	if got := fields(d.Changed[0].Fields); !slices.Equal(got, []string{"name", "addresses", "flags", "weight", "ports"}) {
		t.Errorf("%q", d.Changed[0].Fields)
	}
	if got := fields(d.Network); !slices.Equal(got, []string{"parameter keepalive_ms", "parameter of_the_future", "required protocols"}) {
		t.Errorf("%q", d.Network)
	}
	if back := Compare(open(changed), old); len(back.Gone) != 1 || back.Gone[0].Identity != fresh.Identity || len(back.Changed) != 1 {
		t.Errorf("the other way round: %+v", back)
	}
}

func TestFlagsHaveNames(t *testing.T) {
	t.Parallel()
	for i, name := range flagNames {
		if f, err := ParseFlag(name); err != nil || f != 1<<i || !slices.Equal(f.Names(), []string{name}) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	if _, err := ParseFlag("Exti"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), `"Exit"`) {
		t.Errorf("%v", err)
	}
	if got := (FlagExit | 1<<20).Names(); !slices.Equal(got, []string{"Exit", "0x100000"}) || len(Flags(0).Names()) != 0 {
		t.Errorf("%q", got)
	}
	for want, s := range map[string]PortSummary{
		"none": {}, "*": {IPv4: []PortRange{{1, 65535}}, IPv6: []PortRange{{1, 65535}}}, "80,8000-8999 on IPv4": {IPv4: []PortRange{{80, 80}, {8000, 8999}}},
		"22 on IPv6": {IPv6: []PortRange{{22, 22}}}, "22 on IPv4, * on IPv6": {IPv4: []PortRange{{22, 22}}, IPv6: []PortRange{{1, 65535}}},
	} {
		if got := s.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestPreviousIsStored: when a newer consensus comes into use, the one before it can still be looked at.
func TestPreviousIsStored(t *testing.T) {
	t.Parallel()
	w, c := mirrors(t, 1, 3)
	old := w.signedConsensus(testNow.Add(-2*time.Hour), cert.Digest{}, nil)
	newer := w.signedConsensus(testNow.Add(-time.Hour), old.Head.Digest, nil)
	w.all(mirror(old))
	c.start()
	w.until(time.Second, "a consensus", func() bool { return c.follower.Current() != nil })
	w.f.Run(time.Second)
	if _, err := c.env().Store.Load(PreviousHeadFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the first: %v", err)
	}
	if err := c.follower.Adopt(newer.head, newer.body); err != nil {
		t.Fatal(err)
	}
	w.f.Run(time.Second)
	for name, want := range map[string][]byte{PreviousHeadFile: old.head, previousBodyFile: old.body, HeadFile: newer.head, BodyFile: newer.body} {
		if got, err := c.env().Store.Load(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}
