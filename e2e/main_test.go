//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cepa is the program under test, built once by TestMain.
var cepa string

// all says that nothing may be left out but, in the gate, what proof leaves out.
var all = os.Getenv("CEPA_E2E") == "all" || os.Getenv("CEPA_E2E") == "gate"

// cepaVariable hands the built program to the copies of this test binary that run in a
// network namespace of their own.
const cepaVariable = "CEPA_E2E_PROGRAM"

func TestMain(m *testing.M) {
	if part := os.Getenv(partVariable); part != "" { // this process is one of an attack
		os.Exit(play(part))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	// Proxies of the person who runs the tests are not to be used by the programs in them.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasSuffix(strings.ToLower(name), "_proxy") {
			os.Unsetenv(name)
		}
	}
	if cepa = os.Getenv(cepaVariable); cepa == "" {
		dir, err := os.MkdirTemp("", "cepa-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		cepa = filepath.Join(dir, "cepa")
		build := exec.Command("go", "build", "-o", cepa, "cepa/cmd/cepa")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building cepa: %v\n%s", err, out)
			return 1
		}
	}
	defer stopShared()
	return m.Run()
}

// lacking skips the test, or fails it when nothing may be left out.
func lacking(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CEPA_E2E") != "" {
		t.Fatalf("CEPA_E2E is set and "+format, args...)
	}
	t.Skipf(format, args...)
}

// need returns the path of a program.
func need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, program))
		}
	}
	if err != nil {
		lacking(t, "the machine has no program %s", program)
	}
	return path
}

// long skips a test that takes a minute, or needs the machine for itself: CI runs it apart
// from the tests of the other packages.
func long(t testing.TB) {
	t.Helper()
	if !whole(t) {
		t.Skip("a long test: set CEPA_E2E=gate or all")
	}
}

// whole reports whether the test is to do all that it can. If not, it notes the test's name in the file that
// CEPA_E2E_LATER names: CI runs those again, by themselves and whole.
func whole(t testing.TB) bool {
	t.Helper()
	path := os.Getenv("CEPA_E2E_LATER")
	if all || path == "" {
		return all
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err == nil {
		_, err = fmt.Fprintln(f, t.Name())
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return false
}

// proof skips a test that takes minutes, of which the gate has a smaller one: .ci/long runs it.
func proof(t testing.TB) {
	t.Helper()
	if os.Getenv("CEPA_E2E") != "all" {
		t.Skip("a long proof: set CEPA_E2E=all")
	}
}

// notShort skips a test that takes more than a few seconds.
func notShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("not a quick test")
	}
}

// within polls until ok, and fails the test when that takes longer than limit. It returns
// how long it took.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("after %v still not: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(start)
}
