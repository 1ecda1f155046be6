package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKeys: an identity goes offline, signing keys are certified from there, and never is it copied back; the wrong
// identity is refused.
func TestKeys(t *testing.T) {
	l := newLibrary(t)
	dir := filepath.Join(l.dir, "authority-1")
	away := t.TempDir()
	identity := filepath.Join(away, "identity.key")
	expect := func(status int, text string, args ...string) string {
		t.Helper()
		got, stdout, stderr := words(append([]string{"keys"}, args...)...)
		if got != status || !strings.Contains(stdout+stderr, text) {
			t.Errorf("%q: status %d, %s%s; want %d and %q", args, got, stdout, stderr, status, text)
		}
		return stdout
	}
	before, err := os.ReadFile(filepath.Join(dir, "identity.key"))
	if err != nil {
		t.Fatal(err)
	}
	expect(0, "'cepa keys offline' takes it away", "show", "--dir", dir)
	expect(exitFailure, "exists", "offline", "--dir", dir, "--to", filepath.Join(l.dir, "network.toml"))
	if _, err := os.Stat(filepath.Join(dir, "identity.key")); err != nil {
		t.Fatalf("the key is gone although it was not moved: %v", err)
	}
	expect(0, "no longer in", "offline", "--dir", dir, "--to", identity)
	after, err := os.ReadFile(identity)
	if err != nil || string(after) != string(before) {
		t.Errorf("it is not what it was: %v", err)
	}
	if info, err := os.Stat(identity); err != nil || info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("others may read it: %v, %v", info.Mode(), err)
	}
	expect(exitFailure, "kept elsewhere already", "offline", "--dir", dir, "--to", identity+"2")
	expect(0, "kept elsewhere", "show", "--dir", dir)
	expect(0, "takes it when it starts", "renew", "--dir", dir, "--identity", identity, "--days", "60")
	expect(0, "in 59 days", "show", "--dir", dir)
	expect(0, "takes it when it starts", "renew", "--dir", dir, "--identity", identity, "--days", "2")
	m := l.object("keys", "show", "--json", "--dir", dir)
	if m["identity"] != l.signers[0].Identity().String() || m["identity_key_here"] != false || m["signing_valid"] != true || m["certified_elsewhere"] != true || m["authority"] != true {
		t.Errorf("%v", m)
	}
	if _, err := os.Stat(filepath.Join(dir, "identity.key")); err == nil {
		t.Error("the identity was copied back")
	}
	expect(exitFailure, "is the identity of", "renew", "--dir", filepath.Join(l.dir, "authority-2"), "--identity", identity)
	expect(exitFailure, "no identity key", "renew", "--dir", dir, "--identity", filepath.Join(l.dir, "network.toml"))
	expect(exitFailure, "no keys", "show", "--dir", t.TempDir(), "--network", filepath.Join(l.dir, "network.toml"))

	// A node whose identity never was on its machine.
	other := filepath.Join(away, "other.key")
	id := expect(0, "identity ", "new", "--identity-file", other)
	expect(exitFailure, "exists", "new", "--identity-file", other)
	fresh := filepath.Join(l.dir, "fresh")
	expect(0, "certified until", "renew", "--dir", fresh, "--identity", other)
	id = id[strings.LastIndex(id, " ")+1:]
	id = strings.TrimSpace(id)
	expect(0, id, "show", "--dir", fresh)
	expect(exitFailure, "has keys already", "new", "--dir", dir)
}

// TestNetworkRotation: an authority joins and one goes, by a file that is signed apart and put together.
func TestNetworkRotation(t *testing.T) {
	l := newLibrary(t)
	old, next := filepath.Join(l.dir, "network.toml"), filepath.Join(l.dir, "next.toml")
	expect := func(status int, text string, args ...string) {
		t.Helper()
		got, stdout, stderr := words(append([]string{"network"}, args...)...)
		if got != status || !strings.Contains(stdout+stderr, text) {
			t.Errorf("%q: status %d, %s%s; want %d and %q", args, got, stdout, stderr, status, text)
		}
	}
	_, out, _ := words("keys", "new", "--dir", filepath.Join(l.dir, "joins"))
	_, joins, ok := strings.Cut(strings.TrimSpace(out), "identity ")
	if !ok {
		t.Fatal(out)
	}
	gone := l.signers[2].Identity().String()[:10]
	expect(0, "serial 2: 3 authorities, quorum 2", "next", "--network", old, "--out", next, "--add", joins+"=127.0.0.1:9009", "--remove", gone, "--param", "interval_ms=7000")
	expect(exitFailure, "exists", "next", "--network", old, "--out", next)
	expect(exitFailure, "0 authorities", "next", "--network", old, "--out", next+"2", "--remove", "ffffffffffffffff")
	expect(exitFailure, "next.toml", "show", next) // it is signed by nobody
	copied := filepath.Join(l.dir, "copy.toml")
	data, err := os.ReadFile(next)
	if err == nil {
		err = os.WriteFile(copied, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	expect(0, "not complete", "sign", next, "--dir", filepath.Join(l.dir, "authority-1"), "--replaces", old)
	expect(0, "not complete", "sign", copied, "--dir", filepath.Join(l.dir, "joins"), "--replaces", old)
	whole := filepath.Join(l.dir, "whole.toml")
	expect(0, "not complete", "merge", next, copied, "--out", whole, "--replaces", old) // one of the old ones
	expect(0, "complete. Start", "sign", whole, "--dir", filepath.Join(l.dir, "authority-2"), "--replaces", old)
	expect(0, "interval_ms = 7000", "show", whole)
	expect(0, joins, "show", whole)
	expect(exitFailure, "differ", "merge", next, old, "--out", whole+"2")
	expect(exitUsage, "two FILEs", "merge", next)
	expect(exitUsage, "--dir", "sign", next)
	expect(exitUsage, "IDENTITY=ADDRESS", "next", "--network", old, "--out", next, "--add", "x")
	expect(exitUsage, "--network and --out", "next")
}
