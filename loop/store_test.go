package loop

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestStateDirIsUsedByOneLoop(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "state")
	l := start(t, Options{StateDir: dir})
	_, err := New(Options{StateDir: dir})
	want := fmt.Sprintf("another cepa (pid %d) uses %s", os.Getpid(), dir)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a second loop in the same directory: %v, want %q", err, want)
	}
	stop(t, l)
	start(t, Options{StateDir: dir})
}

func TestStateIsPrivateAndTidy(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(dir, tempPrefix+"blob")
	if err := os.WriteFile(torn, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := start(t, Options{StateDir: dir})
	for i := range 10 {
		do(t, l, func() { l.Env().Store.Save("blob", []byte{byte(i)}, nil) })
	}
	stop(t, l)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", e.Name(), info.Mode())
		}
	}
	if got, want := strings.Join(names, " "), lockName+" blob"; got != want {
		t.Errorf("the directory holds %q, want %q", got, want)
	}
	if info, err := os.Stat(dir); err != nil || (runtime.GOOS != "windows" && info.Mode().Perm() != 0o700) {
		t.Errorf("the directory has mode %v (%v), want 0700", info.Mode(), err)
	}
}

func TestSavesAreMadeBeforeTheLoopEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := start(t, Options{StateDir: dir})
	data := bytes.Repeat([]byte("x"), 1<<20)
	do(t, l, func() {
		for i := range 20 {
			data[0] = byte(i)
			l.Env().Store.Save("blob", data, nil)
		}
		if got, err := l.Env().Store.Load("blob"); err != nil || got[0] != 19 {
			t.Errorf("Load right after Save does not give what was saved last: %v", err)
		}
	})
	stop(t, l)
	got, err := os.ReadFile(filepath.Join(dir, "blob"))
	if err != nil || len(got) != len(data) || got[0] != 19 {
		t.Errorf("the file has %d bytes (%v) and is not what was saved last", len(got), err)
	}
}

// A save that fails says so and leaves what there was.
func TestFailedSaveKeepsTheOldBlob(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := start(t, Options{StateDir: dir})
	failed := make(chan error, 2)
	save := func(name, data string) {
		do(t, l, func() { l.Env().Store.Save(name, []byte(data), func(err error) { failed <- err }) })
	}
	save("blob", "old")
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, tempPrefix+"blob"), 0o700); err != nil { // in the way
		t.Fatal(err)
	}
	save("blob", "new")
	if err := <-failed; err == nil {
		t.Error("a save that cannot be made succeeds")
	}
	do(t, l, func() {
		if got, err := l.Env().Store.Load("blob"); err != nil || string(got) != "old" {
			t.Errorf("Load after a failed save: %q, %v", got, err)
		}
	})
}

func TestStateDirErrorsSayWhat(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(Options{StateDir: file})
	if err == nil || !strings.Contains(err.Error(), "making the state directory") {
		t.Errorf("a file in place of the directory: %v", err)
	}
}

func TestNamesOfBlobs(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"a": true, "a.b-c.0": true, strings.Repeat("z", 64): true,
		"": false, strings.Repeat("z", 65): false, ".": false, "..": false, ".a": false, "a.": false,
		"_lock": false, "a/b": false, "A": false, "é": false, "a\n": false,
	} {
		if validName(name) != want {
			t.Errorf("validName(%q) is %v", name, !want)
		}
	}
}
