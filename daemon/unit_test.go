package daemon

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write deploy/systemd anew")

const unitFolder = "../deploy/systemd"

// TestPackagedUnits: deploy/systemd has what the template says, and nothing else. `go test ./daemon -run TestPackagedUnits
// -update` writes it.
func TestPackagedUnits(t *testing.T) {
	t.Parallel()
	units := PackagedUnits()
	for name, u := range units {
		path := filepath.Join(unitFolder, name)
		if *update {
			if err := os.WriteFile(path, []byte(u.Text()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil || string(text) != u.Text() {
			t.Errorf("%s is not what the template says: run go test ./daemon -run TestPackagedUnits -update (%v)", path, err)
		}
	}
	files, err := filepath.Glob(unitFolder + "/*.service")
	if err != nil || len(files) != len(units) {
		t.Errorf("%q, and %d units: %v", files, len(units), err)
	}
}

// TestUnitWaitsForTheDrain: systemd kills no relay that still lets its circuits end.
func TestUnitWaitsForTheDrain(t *testing.T) {
	t.Parallel()
	text := Unit{Role: "relay", Stop: 5 * time.Minute}.Text()
	if !strings.Contains(text, "\nTimeoutStopSec=315\n") {
		t.Errorf("a drain of five minutes:\n%s", text)
	}
}

// exposureAllowed is the exposure that `systemd-analyze security` may find, in tenths of 0 to 10: "OK" ends at 20.
const exposureAllowed = "13"

// TestUnitsAreSoundAndTight: systemd's own tools take the units, those of every kind of `cepa relay setup` too, and find
// them little exposed.
func TestUnitsAreSoundAndTight(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is missing: install the Debian package systemd")
	}
	units := PackagedUnits()
	units["home.service"] = Unit{Role: "relay", User: "cepa", Settings: "/home/me/my\\x20relay/relay.toml", State: `"/home/me/my relay/state"`, Stop: defaultDrain, Home: true}
	units["web.service"] = Unit{Role: "relay", User: "cepa", Settings: "/etc/relay.toml", State: "/srv/relay", Stop: time.Hour, LowPorts: true}
	dir := t.TempDir()
	for name, u := range units {
		u.Program = "/bin/true" // verify looks whether it is there
		path := filepath.Join(dir, strings.Replace(name, "@.", "@name.", 1))
		if err := os.WriteFile(path, []byte(u.Text()), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || strings.Contains(string(out), path) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		threshold := exposureAllowed
		if u.LowPorts {
			threshold = "18"
		} else if u.Home {
			threshold = "14"
		}
		if out, err := exec.Command(analyze, "security", "--offline=true", "--threshold="+threshold, path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	// The tools can say no.
	bad := filepath.Join(dir, "bad.service")
	for text, args := range map[string][]string{
		"[Service]\nExecStart=/no/such/program\n": {"verify", "--man=no", bad},
		"[Service]\nExecStart=/bin/true\n":        {"security", "--offline=true", "--threshold=" + exposureAllowed, bad},
	} {
		if err := os.WriteFile(bad, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, args...).CombinedOutput(); err == nil {
			t.Errorf("systemd-analyze %q takes %q: %s", args, text, out)
		}
	}
}

func TestInHome(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("systemd is not for Windows")
	}
	for path, want := range map[string]bool{"/home/me/relay": true, "/root": true, "/homework": false, "/srv/home/x": false} {
		if inHome(path) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
}
