package simnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cepa/cert"
	"cepa/env"
	"cepa/env/envtest"
)

// TestNetworkThroughFaults: relays crash, come back, vanish and are cut off, clients crash, packets
// are lost, a clock is wrong, a disk is slow. Nothing that must not happen does, and when it is over
// everything works again.
func TestNetworkThroughFaults(t *testing.T) {
	t.Parallel()
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			s := newSmall(t, Config{Seed: seed}, 9, 3)
			if !s.RunUntil(20*time.Second, s.net.Ready) {
				t.Fatal("the clients are not ready")
			}
			s.storm(40 * time.Second)
			from := s.Now()
			good := 0
			until := from + 60e9
			s.OnFlow(func(f *Flow) {
				switch {
				case s.Now() >= until: // the clients are being stopped
				case f.Opened < from+30e9:
				case f.Err == nil:
					good++
				default:
					t.Errorf("after the faults: stream %d of %s: %v", f.ID, f.Client.Name, f.Err)
				}
			})
			s.Run(time.Minute)
			if good < 20 {
				t.Errorf("%d streams went well after the faults", good)
			}
			s.finish()
		})
	}
}

// storm makes things go wrong for a while, by lot, and then right again.
func (s *small) storm(d time.Duration) {
	dice := s.Stream(StreamChurn, "storm")
	relays, clients := s.net.Relays[1:], s.net.Clients
	start := func(f func() error) func() {
		return func() {
			if err := f(); err != nil {
				s.t.Error(err)
			}
		}
	}
	within := func(most time.Duration) time.Duration { return time.Duration(dice.Below(uint64(most))) }
	for range 12 {
		at, r, c := within(d), relays[dice.Below(uint64(len(relays)))], clients[dice.Below(uint64(len(clients)))]
		back := at + within(d-at)
		kind := dice.Below(8)
		s.After(at, func() {
			switch kind {
			case 0:
				r.Host.Crash()
			case 1:
				r.Stop(nil)
			case 2:
				r.Host.PowerOff()
			case 3:
				r.Host.Part(1)
			case 4:
				r.Host.Loss(20_000)
			case 5:
				r.Host.Clog(300 * time.Millisecond)
				r.Host.SlowDisk(3 * time.Second)
			case 6:
				r.Host.SetClock(2*time.Second, 500)
			case 7:
				c.Host.Crash()
			}
		})
		s.After(back, func() {
			r.Host.Silence(false)
			r.Host.Part(0)
			r.Host.Loss(0)
			r.Host.Clog(0)
			r.Host.SlowDisk(2 * time.Millisecond)
			r.Host.SetClock(0, 0)
		})
	}
	s.Run(d + 2*time.Second)
	for _, r := range relays {
		r.Host.Silence(false)
		if !r.Host.Alive() {
			s.Do(nil, start(r.Start))
		}
	}
	for _, c := range clients {
		if !c.Host.Alive() {
			s.Do(nil, start(c.Start))
			c.Use(Bulk("web.example", 100_000))
		}
	}
	if !s.RunUntil(time.Minute, s.net.Ready) {
		for _, c := range clients {
			s.t.Errorf("%s: %d%% %s (%s)", c.Host.Name, c.Percent, c.Doing, c.Waiting)
		}
	}
}

// TestRelayKeepsItsKeys: a relay that crashes comes back as itself.
func TestRelayKeepsItsKeys(t *testing.T) {
	t.Parallel()
	s := newSmall(t, Config{Seed: 1}, 4, 1)
	s.RunUntil(20*time.Second, s.net.Ready)
	r := s.net.Relays[2]
	id := r.Keys.Identity()
	r.Host.Crash()
	s.Run(30 * time.Second)
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	if r.Keys.Identity() != id {
		t.Error("it came back as another")
	}
	s.Run(30 * time.Second)
	if r.Percent != 100 {
		t.Errorf("it is at %d%%: %s (%s)", r.Percent, r.Doing, r.Waiting)
	}
	s.finish()
}

// TestGossipSpreadsRumours: the epidemic reaches all relays, before they would compare what they know.
func TestGossipSpreadsRumours(t *testing.T) {
	t.Parallel()
	s := newSmall(t, Config{Seed: 1}, 12, 0)
	s.Run(30 * time.Second)
	for _, r := range s.net.Relays {
		known, want := len(r.gossip.table), 12
		if !r.spec.DirectoryOnly {
			want = 11
		}
		if known < want {
			t.Errorf("%s has heard of %d relays by gossip, of %d", r.Host.Name, known, want)
		}
		if c := r.Node.Counters(); c["directory_bad_rumours"] > 0 {
			t.Errorf("%s: %d bad rumours", r.Host.Name, c["directory_bad_rumours"])
		}
	}
	s.finish()
}

// TestWrongClockIsToldApart: a client whose clock is days off hears that from its dials.
func TestWrongClockIsToldApart(t *testing.T) {
	t.Parallel()
	s := newSmall(t, Config{Seed: 1}, 4, 0)
	s.Run(10 * time.Second)
	h := s.Host(HostSpec{Name: "late"})
	for skew, wrong := range map[time.Duration]bool{0: false, -23 * time.Hour: false, -25 * time.Hour: true, 49 * time.Hour: true} {
		h.SetClock(skew, 0)
		h.Links(envtest.LinkUpFunc(func(env.Link) env.LinkEvents { return &envtest.LinkProbe{} }), cert.Identity{}, 0, nil)
		var err error
		done := false
		s.Do(h, func() {
			h.Env().Dialer.DialLink(s.net.Relays[1].Host.Target(), func(_ env.Link, e error) { err, done = e, true })
		})
		s.RunUntil(11*time.Second, func() bool { return done })
		if errors.Is(err, env.ErrClock) != wrong || !wrong && err != nil {
			t.Errorf("%v ahead: %v", skew, err)
		}
	}
}

const printHash = "CEPA_SIMNET_PRINT_HASH"

// TestPrintHash is run by TestHashIsNotOfTheMachine, and by whoever wants to compare machines.
func TestPrintHash(t *testing.T) {
	if os.Getenv(printHash) == "" {
		t.Skip("run by TestHashIsNotOfTheMachine")
	}
	s := newSmall(t, Config{Seed: 11}, 4, 1)
	s.RunUntil(20*time.Second, s.net.Ready)
	s.After(3*time.Second, s.net.Relays[3].Host.Crash)
	s.Run(10 * time.Second)
	fmt.Println("trace", s.TraceHash())
}

// TestHashIsNotOfTheMachine: the number of its processors changes nothing, nor does their kind. The
// latter needs an emulator, qemu-aarch64.
func TestHashIsNotOfTheMachine(t *testing.T) {
	t.Parallel()
	hash := func(procs string, command ...string) string {
		cmd := exec.Command(command[0], append(command[1:], "-test.run=^TestPrintHash$")...)
		cmd.Env = append(os.Environ(), printHash+"=1", "GOMAXPROCS="+procs, "GOGC="+procs+"0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, rest, _ := strings.Cut(string(out), "trace ")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	one, two := hash("1", os.Args[0]), hash("2", os.Args[0])
	if len(one) != 64 || one != two {
		t.Errorf("on one processor %q, on two %q", one, two)
	}
	emulator := ""
	for _, name := range []string{"qemu-aarch64-static", "qemu-aarch64"} {
		if path, err := exec.LookPath(name); err == nil && emulator == "" {
			emulator = path
		}
	}
	if emulator == "" || testing.Short() {
		t.Log("not compared with arm64: there is no qemu-aarch64, or the test is to be short")
		return
	}
	program := filepath.Join(t.TempDir(), "simnet.test")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Env = append(os.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building for arm64: %v: %s", err, out)
	}
	if other := hash("2", emulator, program); other != one {
		t.Errorf("here %q, on arm64 %q", one, other)
	}
}
