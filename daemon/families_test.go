package daemon

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"cepa/cert"
)

func TestFamilyFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two, bad := filepath.Join(dir, "one"), filepath.Join(dir, "two"), filepath.Join(dir, "bad")
	id, err := NewFamilyFile(one)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewFamilyFile(one); err == nil {
		t.Error("a key was overwritten")
	}
	if info, err := os.Stat(one); err != nil || runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others can read the key: %v, %v", info.Mode(), err)
	}
	if _, err := NewFamilyFile(two); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte("no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	network, relay := cert.NetworkID{1}, cert.Identity{2}
	list, err := families([]string{one, two}, network, relay)
	if err != nil || len(list) != 2 || list[0].Family != id {
		t.Fatalf("%v, %v", list, err)
	}
	for _, m := range list {
		if err := m.Verify(network, relay); err != nil {
			t.Error(err)
		}
		if m.Verify(network, cert.Identity{3}) == nil || m.Verify(cert.NetworkID{4}, relay) == nil {
			t.Error("the membership is good for another relay or network")
		}
	}
	for want, paths := range map[string][]string{ // order: each by itself
		"twice":                 {one, two, one},
		"64 hexadecimal digits": {bad},
		"no such file":          {filepath.Join(dir, "none")},
		"at most 4":             {one, one, one, one, one},
	} {
		if _, err := families(paths, network, relay); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", paths, err, want)
		}
	}
	if list, err := families(nil, network, relay); list != nil || err != nil {
		t.Errorf("without a family: %v, %v", list, err)
	}
}
