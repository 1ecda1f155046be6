//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Addresses in the networks of the tests below: most nodes are on one machine, here.
const (
	hereNet       = "10.98.0."  // of the nodes here
	narrowAddress = "10.99.0.2" // of the relay on a machine of its own, behind a narrow line
	asideAddress  = "10.97.0.1" // of an authority on a third machine, which has another line to that relay
)

// unmeasured is the largest weight of a relay that was not measured, in KiB a second.
const unmeasured = 2048

// machine is a network namespace for a part of a test's nodes; the zero machine is the test's own.
type machine struct {
	pid    int
	inside []string // in front of a command that is to run there
}

func newMachine(t *testing.T) machine {
	t.Helper()
	nsenter := need(t, "nsenter")
	holder := exec.Command(need(t, "sleep"), "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true}
	p, err := launch(holder)
	if err != nil {
		lacking(t, "no second network namespace can be made: %v", err)
	}
	t.Cleanup(p.end)
	m := machine{p.pid(), []string{nsenter, "-t", strconv.Itoa(p.pid()), "-n"}}
	m.run(t, "ip", "link", "set", "lo", "up")
	return m
}

func (m machine) command(program string, args ...string) *exec.Cmd {
	command := append(append(m.inside[:len(m.inside):len(m.inside)], program), args...)
	return exec.Command(command[0], command[1:]...)
}

// run runs a program of the system there.
func (m machine) run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := m.command(need(t, program), args...).CombinedOutput(); err != nil {
		lacking(t, "%s %q: %v\n%s", program, args, err, out)
	}
}

// join lays a line from here to m, with the address of each end and its size of network.
func (m machine) join(t *testing.T, name, address string, to machine, toAddress string) {
	t.Helper()
	here := machine{}
	near, far := name+"0", name+"1"
	here.run(t, "ip", "link", "add", near, "type", "veth", "peer", "name", far)
	here.run(t, "ip", "link", "set", far, "netns", strconv.Itoa(to.pid))
	if m.pid != 0 {
		here.run(t, "ip", "link", "set", near, "netns", strconv.Itoa(m.pid))
	}
	m.run(t, "ip", "addr", "add", address, "dev", near)
	m.run(t, "ip", "link", "set", near, "up")
	to.run(t, "ip", "addr", "add", toAddress, "dev", far)
	to.run(t, "ip", "link", "set", far, "up")
}

// shape makes what leaves by a line no faster than a rate.
func (m machine) shape(t *testing.T, line, rate string) {
	t.Helper()
	m.run(t, "tc", "qdisc", "add", "dev", line, "root", "tbf", "rate", rate, "burst", "64kb", "latency", "100ms")
}

// narrowMachine makes the machine at narrowAddress, whose line sends at a rate.
func narrowMachine(t *testing.T, rate string) machine {
	t.Helper()
	here, narrow := machine{}, newMachine(t)
	for i := 1; i <= 9; i++ {
		here.run(t, "ip", "addr", "add", fmt.Sprint(hereNet, i, "/32"), "dev", "lo")
	}
	here.join(t, "line", "10.99.0.1/24", narrow, narrowAddress+"/24")
	narrow.run(t, "ip", "route", "add", "default", "via", "10.99.0.1")
	narrow.shape(t, "line1", rate)
	return narrow
}

// measuredNetwork is one whose authority measures, with five relays on this machine and one on the narrow machine,
// which is the only exit and claims 400 MiB a second. The authority is on the machine aside.
type measuredNetwork struct {
	*founded
	authority *standalone
	socks     string
}

func newMeasuredNetwork(t *testing.T, narrow, aside machine, authority string, intervals int) *measuredNetwork {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "n")
	m := &measuredNetwork{founded: &founded{dir: dir, file: filepath.Join(dir, "network.toml"), relays: map[string]*standalone{}}}
	args := []string{"network", "new", "--test", "--dir", dir, "--authority", authority}
	for _, p := range []string{
		"interval_ms=2000", "keepalive_ms=1000", "min_relays=6", "distinct_subnets=0",
		"measure_ms=300", "measure_kib=4096", fmt.Sprint("measure_intervals=", intervals),
	} {
		args = append(args, "--param", p)
	}
	if out, err := exec.Command(cepa, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	m.authority = &standalone{dir: filepath.Join(dir, "authority"), addr: authority}
	m.authority.process = m.startOn(t, aside, "authority", "--network", m.file, "--dir", m.authority.dir, "--listen", authority)
	for i := range 5 {
		m.relay(t, fmt.Sprint("fast", i), fmt.Sprint(hereNet, 2+i, ":9001"))
	}
	m.startOn(t, narrow, "relay", "--network", m.file, "--dir", filepath.Join(dir, "narrow"), "--listen", narrowAddress+":9001",
		"--nickname", "narrow", "--exit-policy", "all", "--bandwidth", "400")
	var err error
	if m.socks, err = freePort(); err != nil {
		t.Fatal(err)
	}
	client := m.start(t, "client", "--network", m.file, "--dir", filepath.Join(dir, "client"), "--socks", m.socks)
	within(t, 30*time.Second, "the client is ready", func() bool { return strings.Contains(client.output(), "100 %") })
	return m
}

// startOn runs a node on a machine until the test ends.
func (m *measuredNetwork) startOn(t *testing.T, on machine, args ...string) *process {
	t.Helper()
	p, err := launch(on.command(cepa, args...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("%q said:\n%s", args, p.tail())
		}
	})
	return p
}

// weights are those of the consensus that the client has, in KiB a second.
func (m *measuredNetwork) weights(t *testing.T) map[string]int {
	t.Helper()
	out, err := exec.Command(cepa, "directory", "show", "--json", "--dir", filepath.Join(m.dir, "client")).Output()
	if err != nil {
		t.Fatalf("cepa directory show: %v", err)
	}
	var shown struct {
		Relays []struct {
			Name   string
			Weight int
		}
	}
	if err := json.Unmarshal(out, &shown); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	weights := map[string]int{}
	for _, r := range shown.Relays {
		weights[r.Name] = r.Weight
	}
	return weights
}

// measured waits until a consensus shows what the authority has found out, and returns the weights. Those that have no
// limit weigh several times as much as the narrow one.
func (m *measuredNetwork) measured(t *testing.T) (weights map[string]int) {
	t.Helper()
	took := within(t, 90*time.Second, "all relays are measured", func() bool {
		if c, err := tryCounters(m.authority.dir); err != nil || c["measure_known"] != 6 {
			return false
		}
		if weights = m.weights(t); weights["narrow"] <= unmeasured {
			return false
		}
		for name, w := range weights {
			if name != "narrow" && w < 2*weights["narrow"] {
				return false
			}
		}
		return true
	})
	t.Logf("6 relays were measured in %v", took.Round(time.Second))
	return weights
}

// clientRate is how many KiB a second a client gets through the narrow relay: the better one of two downloads, since
// the authority may be measuring.
func (m *measuredNetwork) clientRate(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", hereNet+"9:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(contentServer)}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { server.Close() })
	const size = 10 << 20
	best := 0
	for seed := range 2 {
		r, err := httpClient(m.socks, "", time.Minute).Get(fmt.Sprintf("http://%s/%d/%d", ln.Addr(), size, seed))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		n, err := io.Copy(io.Discard, r.Body)
		r.Body.Close()
		if err != nil || n != size {
			t.Fatalf("%d bytes, %v", n, err)
		}
		best = max(best, int(float64(size>>10)/time.Since(start).Seconds()))
	}
	return best
}

// A relay on a line of 4 MiB a second that claims a hundred times as much gets the weight of what clients get through it.
func TestClaimsDoNotDecideWeights(t *testing.T) {
	proof(t)
	if !ownNetwork(t) {
		return
	}
	narrow := narrowMachine(t, "32mbit")
	machine{}.shape(t, "line0", "32mbit") // the other direction
	m := newMeasuredNetwork(t, narrow, machine{}, hereNet+"1:9001", 30)
	weights, rate := m.measured(t), m.clientRate(t)
	t.Logf("weights %v; the client gets %d KiB/s through the narrow relay", weights, rate)
	if w := weights["narrow"]; 4*w < 3*rate || 4*w > 5*rate || rate > 4<<10 || rate < 2<<10 {
		t.Errorf("the weight is %d, and the client gets %d KiB/s", w, rate)
	}
}

// A relay whose line is narrow for all but the authority has the weight of what clients get, and is reported.
func TestFastForAuthoritiesOnlyIsReported(t *testing.T) {
	proof(t)
	if !ownNetwork(t) {
		return
	}
	narrow, aside := narrowMachine(t, "32mbit"), newMachine(t)
	machine{}.join(t, "aside", "10.97.0.254/24", aside, asideAddress+"/24")
	aside.run(t, "ip", "route", "add", "default", "via", "10.97.0.254")
	aside.join(t, "wide", "10.96.0.1/24", narrow, "10.96.0.2/24")
	aside.run(t, "ip", "route", "add", narrowAddress+"/32", "via", "10.96.0.2")
	narrow.run(t, "ip", "route", "add", asideAddress+"/32", "via", "10.96.0.1")
	// Its turn comes every 4 s, and openly every third time.
	m := newMeasuredNetwork(t, narrow, aside, asideAddress+":9001", 2)
	m.measured(t)
	found := within(t, 3*time.Minute, "the relay is reported", func() bool {
		c, err := tryCounters(m.authority.dir)
		return err == nil && c["measure_suspects"] > 0
	})
	weights, rate := m.weights(t), m.clientRate(t)
	t.Logf("reported %v later; weights %v; the client gets %d KiB/s through the narrow relay", found.Round(time.Second), weights, rate)
	if w := weights["narrow"]; 4*w < 3*rate || 4*w > 5*rate {
		t.Errorf("the weight is %d, and the client gets %d KiB/s", w, rate)
	}
	c := counters(t, m.authority.dir)
	if c["measure_suspects"] != 1 || !strings.Contains(m.authority.output(), "much faster when it sees an authority") {
		t.Errorf("%d suspects; the authority said:\n%s", c["measure_suspects"], m.authority.tail())
	}
}
