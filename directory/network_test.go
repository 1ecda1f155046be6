package directory

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cepa/cert"
)

func TestQuorum(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{1: 1, 3: 2, 4: 3, 7: 5, 9: 6} {
		if got := Quorum(n); got != want {
			t.Errorf("Quorum(%d) = %d, want %d", n, got, want)
		}
	}
	for n := 1; n <= cert.MaxSigners; n++ {
		if q := Quorum(n); 2*q <= n || q > n-(n-1)/3 {
			t.Errorf("Quorum(%d) = %d: two disjoint quorums, or none with f authorities down", n, q)
		}
	}
}

func TestNetworkFileComesBack(t *testing.T) {
	t.Parallel()
	contents := testContents(4)
	contents.Name = `a "test" \ Ñetwork`
	contents.Test = true
	contents.Parameters = Parameters{IntervalMillis: 5000, DistinctSubnets: 0}
	slices.Reverse(contents.Authorities)
	n := must[*Network](t)(NewNetwork(contents, testSigners(t, 3)...))
	text := must[[]byte](t)(n.AppendTOML(nil))
	got, err := ParseNetworkFile(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got.Name != contents.Name || got.ID != testID || got.Serial != 1 || got.Quorum != 3 || !got.Test || !got.Created.Equal(testNow) ||
		len(got.Authorities) != 4 || len(got.Bootstrap) != 1 || len(got.Signers()) != 3 {
		t.Errorf("came back as %+v", got)
	}
	if got.Param(DistinctSubnets) != 0 || got.Interval() != 5*time.Second || got.Keepalive() != 5*time.Second || got.Param(MinRelays) != 3 {
		t.Errorf("parameters %v", got.Parameters)
	}
	if again := must[[]byte](t)(got.AppendTOML(nil)); string(again) != string(text) {
		t.Errorf("written again it is\n%s\ninstead of\n%s", again, text)
	}
	if !got.IsAuthority(testIdentity(2)) || got.IsAuthority(testIdentity(100)) {
		t.Error("IsAuthority is wrong")
	}
}

func TestNetworkFileAlteredOrWrong(t *testing.T) {
	t.Parallel()
	contents := testContents(4)
	contents.Echo = "https://example.net/address"
	text := string(must[[]byte](t)(must[*Network](t)(NewNetwork(contents, testSigners(t, 4)...)).AppendTOML(nil)))
	for _, tt := range []struct {
		name, old, new string
		want           error
		says           string
	}{
		{"another name", `"a test"`, `"b test"`, cert.ErrSignature, "altered"},
		{"another address", "5.1.0.1", "5.1.0.2", cert.ErrSignature, "altered"},
		{"another bootstrap address", "6.0.0.1", "6.0.0.2", cert.ErrSignature, "altered"},
		{"a smaller quorum", "quorum = 3", "quorum = 2", ErrInvalid, "at least 3"},
		{"no quorum", "quorum = 3", "", ErrInvalid, "quorum 0"},
		{"a quorum of more than all", "quorum = 3", "quorum = 5", ErrInvalid, "4 authorities"},
		{"made a test network", "quorum = 3", "quorum = 3\ntest = true", cert.ErrSignature, "altered"},
		{"another echo address", "/address", "/elsewhere", cert.ErrSignature, "altered"},
		{"an echo that is no URL", "https://example", "ftp://example", ErrInvalid, "want a URL"},
		{"an echo with a user", "https://example", "https://user@example", ErrInvalid, "want a URL"},
		{"another parameter", "interval_ms = 5000", "interval_ms = 5001", cert.ErrSignature, "altered"},
		{"a parameter out of bounds", "interval_ms = 5000", "interval_ms = 1", ErrInvalid, "want 500 to"},
		{"an unknown parameter", "interval_ms = 5000", "intervall_ms = 5000", ErrInvalid, `did you mean "interval_ms"?`},
		{"an unknown key", "quorum = 3", "quorun = 3", ErrInvalid, `did you mean "quorum"?`},
		{"an unknown key in a table", "addresses = [\"6", "adresses = [\"6", ErrInvalid, `did you mean "addresses"?`},
		{"an unknown key like nothing", "quorum = 3", "zzzzzzzz = 3", ErrInvalid, "unknown key"},
		{"no TOML", "quorum = 3", "quorum = = 3", ErrMalformed, "line 9"},
		{"another serial", "serial = 1", "serial = 2", cert.ErrSignature, "altered"},
		{"serial 0", "serial = 1", "serial = 0", ErrInvalid, "serial"},
		{"a time in another form", "12:00:00.000Z", "12:00:00Z", ErrInvalid, "created"},
		{"before the certificates", "2026-03-01", "2026-01-01", cert.ErrNotYetValid, "not valid before"},
		{"no signature", "[signature]", "[signature]\ndata = \"\"\n[x]", ErrInvalid, "unknown key"},
		{"a signature that is not base64", "data = \"\"\"\n", "data = \"\"\"\n*", ErrMalformed, "base64"},
		{"a signature of another version", "data = \"\"\"\nAQUE", "data = \"\"\"\nAgUE", cert.ErrVersion, ""},
	} {
		altered := strings.Replace(text, tt.old, tt.new, 1)
		if altered == text {
			t.Errorf("%s: nothing altered", tt.name)
		}
		if _, err := ParseNetworkFile([]byte(altered)); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v and %q", tt.name, err, tt.want, tt.says)
		}
	}
	if _, err := ParseNetworkFile(make([]byte, MaxNetworkFile+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func TestNetworkFileNeedsItsQuorum(t *testing.T) {
	t.Parallel()
	if _, err := NewNetwork(testContents(4), testSigners(t, 2)...); !errors.Is(err, ErrSigners) {
		t.Errorf("signed by two of four: %v", err)
	}
	strangers := []cert.Signer{testSigner(t, 0), testSigner(t, 50), testSigner(t, 51)}
	if _, err := NewNetwork(testContents(4), strangers...); !errors.Is(err, ErrSigners) {
		t.Errorf("signed by strangers: %v", err)
	}
	if _, err := NewNetwork(testContents(4)); err == nil {
		t.Error("signed by nobody")
	}
	if _, err := (&Network{}).AppendTOML(nil); !errors.Is(err, ErrSigners) {
		t.Errorf("written without signatures: %v", err)
	}
}

func TestNetworkContentsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Network){
		"no name":             func(n *Network) { n.Name = "" },
		"no id":               func(n *Network) { n.ID = cert.NetworkID{} },
		"no authorities":      func(n *Network) { n.Authorities = nil },
		"an authority twice":  func(n *Network) { n.Authorities = append(n.Authorities, n.Authorities[0]) },
		"a private address":   func(n *Network) { n.Authorities[0].Addresses = []netip.AddrPort{addr("127.0.0.1:1")} },
		"no address":          func(n *Network) { n.Bootstrap[0].Addresses = nil },
		"no identity":         func(n *Network) { n.Bootstrap[0].Identity = cert.Identity{} },
		"a bootstrap twice":   func(n *Network) { n.Bootstrap = append(n.Bootstrap, n.Bootstrap[0]) },
		"half as quorum":      func(n *Network) { n.Quorum = 2 },
		"an unknown word":     func(n *Network) { n.Parameters = Parameters{"colour": 1} },
		"a low parameter":     func(n *Network) { n.Parameters = Parameters{OnionKeyDays: 0} },
		"a great serial":      func(n *Network) { n.Serial = 1<<53 + 1 },
		"too many bootstraps": func(n *Network) { n.Bootstrap = make([]Contact, maxBootstrap+1) },
	} {
		contents := testContents(4)
		change(&contents)
		if _, err := NewNetwork(contents, testSigners(t, 4)...); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNetworkFileIsReplacedByTheOldQuorumOnly: new authorities alone cannot vote themselves in.
func TestNetworkFileIsReplacedByTheOldQuorumOnly(t *testing.T) {
	t.Parallel()
	old := testNetwork(t, 4)
	rotated := func(serial uint64, signers ...cert.Signer) *Network {
		contents := testContents(4)
		contents.Serial = serial
		contents.Authorities = append(contents.Authorities[:3], Contact{testIdentity(60), []netip.AddrPort{addr("5.60.0.1:1")}})
		return must[*Network](t)(NewNetwork(contents, signers...))
	}
	all := testSigners(t, 4)
	if err := rotated(2, all[:3]...).Replaces(old); err != nil {
		t.Errorf("signed by a quorum: %v", err)
	}
	if err := rotated(2, all[0], all[1], testSigner(t, 60)).Replaces(old); !errors.Is(err, ErrSigners) {
		t.Errorf("signed by two of the old authorities: %v", err)
	}
	if err := rotated(1, all[:3]...).Replaces(old); !errors.Is(err, ErrNoReplacement) {
		t.Errorf("with the same serial: %v", err)
	}
	other := *rotated(2, all[:3]...)
	other.ID = cert.NetworkID{9}
	if err := other.Replaces(old); !errors.Is(err, ErrNoReplacement) {
		t.Errorf("of another network: %v", err)
	}
	early := *rotated(2, all[:3]...)
	early.Created = old.Created.Add(-time.Second)
	if err := early.Replaces(old); !errors.Is(err, ErrNoReplacement) {
		t.Errorf("made before the one in use: %v", err)
	}
	test := *rotated(2, all[:3]...)
	test.Test = true
	if err := test.Replaces(old); !errors.Is(err, ErrNoReplacement) {
		t.Errorf("a test network: %v", err)
	}
}

// TestNetworkFileOutlivesItsCertificates: it is verified at the time of its creation.
func TestNetworkFileOutlivesItsCertificates(t *testing.T) {
	t.Parallel()
	contents := testContents(1)
	contents.Created = testNow.Add(cert.SigningLifetime + time.Hour)
	if _, err := NewNetwork(contents, testSigner(t, 0)); !errors.Is(err, cert.ErrExpired) {
		t.Errorf("created after the certificate's end: %v", err)
	}
}

func TestParametersKeepTheirBounds(t *testing.T) {
	t.Parallel()
	p := Parameters{IntervalMillis: 1, OnionKeyDays: 1 << 40}
	if p.Value(IntervalMillis) != 500 || p.Value(OnionKeyDays) != 30 || Parameters(nil).Value(KeepaliveMillis) != 5000 {
		t.Error("a value out of bounds is used")
	}
	for _, info := range ParameterTable() {
		if info.Default < info.Min || info.Default > info.Max || info.Doc == "" {
			t.Errorf("%s: a default out of bounds, or nothing said", info.Name)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("an unknown name has a value")
		}
	}()
	p.Value("colour")
}

func FuzzParseNetworkFile(f *testing.F) {
	f.Add(must[[]byte](f)(testNetwork(f, 1).AppendTOML(nil)))
	f.Add(must[[]byte](f)(testNetwork(f, 4).AppendTOML(nil)))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := ParseNetworkFile(text)
		if err != nil {
			return
		}
		written := must[[]byte](t)(n.AppendTOML(nil))
		again, err := ParseNetworkFile(written)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if string(must[[]byte](t)(again.body())) != string(must[[]byte](t)(n.body())) {
			t.Errorf("written again it means something else:\n%s", written)
		}
	})
}
