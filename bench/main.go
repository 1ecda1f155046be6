//go:build linux

package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	if len(os.Args) > 1 {
		switch os.Args[1] { // what it starts of itself
		case "serve":
			serve(os.Args[2])
			return
		case "hop", "entry":
			forward(os.Args[1], os.Args[2], os.Args[3], os.Args[4])
			return
		}
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	cepa := flag.String("cepa", "", "the cepa `binary` (default: built from this module)")
	tor := flag.String("tor", "", "compare with C Tor too: `stock`, bulk or latency settings")
	names := flag.String("tests", strings.Join(allTests, ","), "`tests` to run")
	rounds := flag.Int("rounds", 5, "samples of each bulk test and peer")
	mib := flag.Int("mib", 128, "`MiB` of one sample")
	out := flag.String("out", "", "write all samples to `FILE` as JSON")
	only := flag.String("peers", "", "run only these `peers`")
	spares := flag.Bool("spares", true, "let cepa's client keep spare circuits; without them the test circuit measures how long one takes to build")
	flag.Parse()
	if inNamespace() {
		return nil
	}
	for _, name := range strings.Split(*names, ",") {
		if testByName(name) == nil {
			return fmt.Errorf("no test is named %q; there are %s", name, strings.Join(allTests, ", "))
		}
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &session{dir: dir, mib: *mib, rounds: *rounds}
	defer s.stop()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		s.stop()
		os.RemoveAll(dir)
		os.Exit(1)
	}()
	if *cepa == "" {
		*cepa = filepath.Join(dir, "cepa")
		if b, err := exec.Command("go", "build", "-o", *cepa, "cepa/cmd/cepa").CombinedOutput(); err != nil {
			return fmt.Errorf("building cepa: %w\n%s", err, b)
		}
	}
	if err := s.startServer(); err != nil {
		return err
	}
	wanted := func(name string) bool {
		return *only == "" || strings.Contains(","+*only+",", ","+name+",")
	}
	if wanted("chain") {
		if err := s.startChain(); err != nil {
			return err
		}
	}
	if wanted("cepa") {
		if err := s.startCepa(*cepa, *spares); err != nil {
			return err
		}
	}
	if *tor != "" {
		if err := s.startTor(*tor); err != nil {
			return err
		}
	}
	time.Sleep(time.Second)
	for _, p := range s.peers {
		if err := p.warmUp(s); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	for _, name := range strings.Split(*names, ",") {
		s.measure(testByName(name))
	}
	s.memory("after")
	s.report(os.Stdout)
	if *out != "" {
		return s.save(*out)
	}
	return nil
}

// inNamespace runs this command again in a network namespace with nothing but a loopback device, if that can be had.
// Delayed acknowledgements are off in there: without TCP_NODELAY, as in C Tor, they stall small writes for 40 ms.
func inNamespace() bool {
	const mark = "BENCH_NAMESPACE"
	if runtime.GOOS != "linux" || os.Geteuid() != 0 || os.Getenv(mark) != "" {
		return false
	}
	if exec.Command("unshare", "-n", "ip", "link", "set", "lo", "up").Run() != nil {
		log.Print("no network namespace to be had: running in that of the machine")
		return false
	}
	cmd := exec.Command("unshare", "-n", "sh", "-c", `ip link set lo up
ip route change local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1 quickack 1
ip route change local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1 quickack 1
exec "$@"`, "sh")
	self, err := os.Executable()
	if err != nil {
		log.Fatal(err)
	}
	cmd.Args = append(append(cmd.Args, self), os.Args[1:]...)
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signal.Ignore(os.Interrupt) // it goes to both
	if err := cmd.Run(); err != nil {
		os.Exit(1)
	}
	return true
}
