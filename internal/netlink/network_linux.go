package netlink

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cepa/internal/tun"
)

// ErrUnsupported says that this machine, or this user, can have no such network.
var ErrUnsupported = errors.New("no namespaces with TUN devices")

// Config describes a Network.
type Config struct {
	Seed  uint64 // of loss and jitter
	Hosts []Host
	// Path is what is between two of them, by their indices; it must always say the same.
	Path func(from, to int) Path
}

// Network is a number of namespaces and what joins them.
type Network struct {
	cfg     Config
	spaces  []int // descriptors of the namespaces
	devices []int // and of their TUN devices, at this end
	wake    int   // eventfd: the thread is to look at stop
	begun   time.Time
	index   map[netip.Addr]int // of hosts

	mu    sync.Mutex // of what follows
	model *model
	late  Lateness
	stop  bool
	done  chan struct{} // the thread has ended
}

// Lateness is how much after their time packets were delivered: what this machine adds to the delays.
type Lateness struct {
	Packets    uint64
	Sum, Most  time.Duration
	OverMilli  uint64 // of more than a millisecond
	WriteFails uint64 // packets that the kernel did not take
}

// mtu of the devices.
const mtu = 1500

// queueLength is how many packets a device holds until they are read.
const queueLength = 4096

// New makes the namespaces and begins to carry packets.
func New(cfg Config) (*Network, error) {
	n := &Network{cfg: cfg, wake: -1, begun: time.Now(), index: make(map[netip.Addr]int), done: make(chan struct{})}
	err := n.build()
	if err != nil {
		close(n.done)
		n.release()
		return nil, err
	}
	n.model = newModel(cfg.Seed, cfg.Hosts, cfg.Path)
	n.model.deliver = n.deliver
	go n.carry()
	return n, nil
}

func (n *Network) build() error {
	for i, h := range n.cfg.Hosts {
		if _, taken := n.index[h.Address]; taken || !h.Address.Is4() {
			return fmt.Errorf("making a network: host %s has no IPv4 address of its own", h.Name)
		}
		n.index[h.Address] = i
	}
	var err error
	if n.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("making a network: %w", err)
	}
	for i := range n.cfg.Hosts {
		space, device, err := namespace(&n.cfg.Hosts[i])
		if err != nil {
			return fmt.Errorf("making host %s: %w", n.cfg.Hosts[i].Name, err)
		}
		n.spaces, n.devices = append(n.spaces, space), append(n.devices, device)
	}
	return nil
}

func (n *Network) release() {
	for _, fd := range append(append([]int{n.wake}, n.spaces...), n.devices...) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// Close ends all links. Processes in the namespaces go on, each for itself.
func (n *Network) Close() {
	n.mu.Lock()
	stopped := n.stop
	n.stop = true
	n.mu.Unlock()
	if stopped {
		return
	}
	one := [8]byte{1}
	_, _ = unix.Write(n.wake, one[:]) // there is room
	<-n.done
	n.release()
}

// Counts are what a host's packets have come to.
func (n *Network) Counts(host int) Counts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.model.count[host]
}

// Lateness is that of all packets so far.
func (n *Network) Lateness() Lateness {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.late
}

// Do calls f on a thread that is in the namespace of a host: sockets that it makes and processes that it
// starts are there, and stay there. f starts no goroutines that make any.
func (n *Network) Do(host int, f func() error) error { return within(n.spaces[host], f) }

// Start starts a process on a host.
func (n *Network) Start(host int, cmd *exec.Cmd) error { return n.Do(host, cmd.Start) }

// within calls f on a thread in a namespace.
func within(space int, f func() error) error {
	failed := make(chan error, 1)
	go func() { // a goroutine of its own: if the thread cannot come back it ends with it
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			failed <- err
			return
		}
		defer unix.Close(home)
		if err = unix.Setns(space, unix.CLONE_NEWNET); err == nil {
			err = f()
		}
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		failed <- err
	}()
	return <-failed
}

// namespace makes one with its device, which is up when it returns.
func namespace(h *Host) (space, device int, err error) {
	type made struct {
		space, device int
		err           error
	}
	result := make(chan made, 1)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			result <- made{err: err}
			return
		}
		defer unix.Close(home)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			result <- made{err: fmt.Errorf("%w: a namespace: %w", ErrUnsupported, err)}
			return
		}
		m := made{device: -1}
		if m.space, m.err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); m.err == nil {
			if m.device, m.err = openDevice(h); m.err != nil {
				_ = unix.Close(m.space)
			}
		}
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		result <- m
	}()
	m := <-result
	return m.space, m.device, m.err
}

// openDevice makes the device of the namespace that the thread is in, with its settings.
func openDevice(h *Host) (int, error) {
	fd, err := tun.Open(unix.O_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err = setUp(h); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setUp(h *Host) error {
	for path, value := range h.Sysctl {
		if err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0); err != nil {
			return err
		}
	}
	if err := tun.Configure(tun.Settings{Address: h.Address, MTU: mtu, Queue: queueLength}); err != nil {
		return err
	}
	if h.Congestion != "" {
		// By the route, because a namespace may not make everything its default.
		if err := run("ip", "route", "replace", "default", "dev", tun.Name, "congctl", h.Congestion); err != nil {
			return err
		}
	}
	if !h.Kernel || h.Up.Rate == 0 {
		return nil
	}
	queue := h.Up.Queue
	if queue == 0 {
		queue = 16 << 20
	}
	return run("tc", "qdisc", "add", "dev", tun.Name, "root", "tbf", "rate", strconv.FormatInt(8*h.Up.Rate, 10)+"bit",
		"burst", strconv.Itoa(2*mtu), "limit", strconv.FormatInt(queue, 10))
}

// run runs a program of iproute2.
func run(name string, args ...string) error {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/sbin", "/usr/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		return fmt.Errorf("%w: the program %s, of iproute2: %w", ErrUnsupported, name, err)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s %q: %w: %s", ErrUnsupported, name, args, err, out)
	}
	return nil
}

// carry is the thread that moves packets.
func (n *Network) carry() {
	defer close(n.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Both are asked for, and not needed: with them packets are less late on a busy machine. A real-time class is
	// not: Go's runtime waits for its own locks by yielding, which in such a class yields to nobody below.
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -19)
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	poll := make([]unix.PollFd, 0, len(n.devices)+1)
	for _, fd := range append([]int{n.wake}, n.devices...) {
		poll = append(poll, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for {
		n.mu.Lock()
		n.model.run(time.Since(n.begun))
		stop := n.stop
		var timeout *unix.Timespec
		if at, ok := n.model.next(); ok {
			wait := unix.NsecToTimespec(int64(max(at-time.Since(n.begun), 0)))
			timeout = &wait
		}
		n.mu.Unlock()
		if stop {
			return
		}
		ready, err := unix.Ppoll(poll, timeout, nil)
		if err != nil || ready == 0 {
			continue
		}
		n.mu.Lock()
		for i := range n.devices {
			if poll[i+1].Revents != 0 {
				n.read(i)
			}
		}
		n.mu.Unlock()
	}
}

// most packets of one host are read at a time.
const mostRead = 32

// read takes what a host has sent.
func (n *Network) read(from int) {
	for range mostRead {
		p := n.model.take(mtu + 64)
		size, err := unix.Read(n.devices[from], p.data)
		if err != nil {
			n.model.give(p)
			return
		}
		p.data = p.data[:size]
		to, ok := destination(p.data)
		if !ok {
			n.model.count[from].Malformed++
			n.model.give(p)
			continue
		}
		host, known := n.index[to]
		if !known {
			n.model.count[from].Unknown++
			n.model.give(p)
			continue
		}
		n.model.send(from, host, p, time.Since(n.begun))
	}
}

// destination is where an IPv4 packet goes.
func destination(p []byte) (netip.Addr, bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(p[16:20])), true
}

// deliver gives a packet to a host.
func (n *Network) deliver(to int, data []byte, at time.Duration) {
	if _, err := unix.Write(n.devices[to], data); err != nil {
		n.late.WriteFails++
	}
	late := time.Since(n.begun) - at
	n.late.Packets++
	n.late.Sum += late
	n.late.Most = max(n.late.Most, late)
	if late > time.Millisecond {
		n.late.OverMilli++
	}
}
