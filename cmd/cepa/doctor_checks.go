package main

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"time"

	"cepa/control"
	"cepa/directory"
)

// facts are what the checks look at: nothing else, so that each can be tried with a fault.
type facts struct {
	dir      string
	mode     fs.FileMode // of dir
	now      time.Time
	notAsked error // why the node did not answer
	status   control.Status
	// The counters twice, and the time in between.
	before, after map[string]int64
	over          time.Duration
	diskFree      int64 // bytes; -1 is not known, also of memory
	memory        int64 // of the machine
}

// grown is by how much a counter grew while the doctor watched.
func (f *facts) grown(name string) int64 { return f.after[name] - f.before[name] }

// relay says whether the node carries or serves something for others.
func (f *facts) relay() bool { return f.status.Role != "client" }

// Limits of the checks.
const (
	skewBad      = 30 * time.Second // circuits and consensuses still work
	skewVeryBad  = 10 * time.Minute // from here on certificates and consensuses are refused
	skewRelays   = 3                // that a verdict needs
	filesShare   = 80               // percent of the limit in use
	filesFew     = 4096             // below, many links meet the limit
	diskFew      = 256 << 20        // bytes
	diskNone     = 16 << 20
	budgetShare  = 80              // percent of the memory budget in use
	budgetMost   = 50              // percent of the machine's memory that the budget may be
	cpuShare     = 90              // percent of all processors
	queueTime    = time.Second / 2 // that what is queued takes to be sent
	queueLeast   = 1 << 20         // bytes that are worth a thought
	refusedShare = 5               // percent of handshakes
	lateListing  = 3600            // seconds after which a relay should be listed
	loopLong     = 2_000_000       // microseconds that one event may take
)

// diagnose runs all checks.
func diagnose(f facts) []finding {
	if f.notAsked != nil {
		return append([]finding{f.checkRunning()}, f.checkDisk(), f.checkFolder())
	}
	if f.status.Asleep() { // it does nothing that could be looked at
		return append([]finding{f.checkRunning(), f.checkDisk(), f.checkFolder()}, f.warnings()...)
	}
	list := []finding{f.checkRunning(), f.checkReady(), f.checkClock(), f.checkConsensus(), f.checkVersion()}
	if f.relay() {
		list = append(list, f.checkPort(), f.checkAddress())
	}
	list = append(list, f.checkFiles(), f.checkDisk(), f.checkFolder(), f.checkMemory(), f.checkProcessor(), f.checkUplink(), f.checkLoop())
	if f.relay() {
		list = append(list, f.checkHandshakes())
	}
	return append(list, f.warnings()...)
}

func ok(check, format string, args ...any) finding {
	return finding{Check: check, Finding: fmt.Sprintf(format, args...)}
}

func (f *facts) checkRunning() finding {
	const check = "running"
	switch {
	case f.notAsked == nil:
		return ok(check, "%s %s of network %s, pid %d, version %s", f.status.Role, f.status.Name, f.status.Network, f.status.Pid, f.status.Version)
	case errors.Is(f.notAsked, control.ErrNotRunning):
		return finding{check, levelError, "no node runs in " + f.dir, "start it, and look at its log if it ends by itself ('journalctl -u cepa' with systemd)"}
	}
	return finding{check, levelError, "the node does not answer: " + f.notAsked.Error(), "look at its log and at the load of the machine; if it stays so, restart it and report it"}
}

func (f *facts) checkReady() finding {
	const check = "ready"
	s := f.status
	if s.Percent >= 100 {
		return ok(check, "%s", s.Doing)
	}
	what := fmt.Sprintf("%d %%: %s", s.Percent, s.Doing)
	do := "wait, or see what the other lines say"
	if s.Waiting != "" {
		what += "; it waits for " + s.Waiting
	}
	level := levelWarning
	if s.Uptime > lateListing && s.Percent < 90 {
		level, do = levelError, "the node has had an hour: see what the other lines say, and whether this machine reaches the network at all"
	}
	return finding{check, level, what, do}
}

func (f *facts) checkClock() finding {
	const check, do = "clock", "set it right and keep it so: 'timedatectl set-ntp true' with systemd"
	skew, of := time.Duration(f.after["clock_skew_ms"])*time.Millisecond, f.after["clock_skew_relays"]
	where := "behind"
	if skew < 0 {
		where = "ahead of"
	}
	text := fmt.Sprintf("the clock here is %s %s that of %d relays", skew.Abs().Round(time.Second), where, of)
	if skew.Abs() < time.Second {
		text = fmt.Sprintf("the clock here agrees with that of %d relays within a second", of)
	}
	switch {
	case of > 0 && of < skewRelays && skew.Abs() >= skewBad:
		return finding{check, levelWarning, text + ", which are too few to be sure", do}
	case of >= skewRelays && skew.Abs() >= skewVeryBad:
		return finding{check, levelError, text, do}
	case of >= skewRelays && skew.Abs() >= skewBad:
		return finding{check, levelWarning, text, do}
	}
	if c := f.status.Consensus; c != nil && f.now.Before(c.ValidAfter.Add(-skewBad)) {
		return finding{check, levelError, fmt.Sprintf("the consensus begins %s from now by the clock here", c.ValidAfter.Sub(f.now).Round(time.Second)), do}
	}
	if of == 0 {
		return finding{check, levelUnknown, "no relay has told its time yet", ""}
	}
	return ok(check, "%s", text)
}

func (f *facts) checkConsensus() finding {
	const check = "consensus"
	c := f.status.Consensus
	if c == nil {
		return finding{check, levelError, "there is none", "is this machine online, may it connect to relays, and is the network file of today? The line 'ready' says what the node waits for"}
	}
	const do = "if it goes on, the authorities cannot agree or the node cannot reach others: look at the line 'clock', then ask the operators of the network"
	switch {
	case f.now.After(c.ValidUntil):
		return finding{check, levelError, fmt.Sprintf("it ended %s ago", f.now.Sub(c.ValidUntil).Round(time.Second)), do}
	case f.now.After(c.FreshUntil.Add(c.FreshUntil.Sub(c.ValidAfter))) && (f.relay() || f.after["directory_fruitless"] > 0): // a client looks later
		return finding{check, levelWarning, fmt.Sprintf("it is of %s and ends in %s: newer ones did not come", stamp(c.ValidAfter), c.ValidUntil.Sub(f.now).Round(time.Second)), do}
	}
	return ok(check, "of %s with %d relays, signed by %d", stamp(c.ValidAfter), c.Relays, c.Signatures)
}

func (f *facts) checkVersion() finding {
	const check = "version"
	switch {
	case f.status.Consensus == nil:
		return finding{check, levelUnknown, f.status.Version + "; without a consensus nobody says what the network wants", ""}
	case f.after["protocols_missing_required"] > 0:
		return finding{check, levelError, fmt.Sprintf("%s lacks %d protocols that the network requires", f.status.Version, f.after["protocols_missing_required"]), "update cepa now: the node is of no use as it is"}
	case f.after["protocols_missing_recommended"] > 0:
		return finding{check, levelWarning, fmt.Sprintf("%s lacks %d protocols that the network recommends", f.status.Version, f.after["protocols_missing_recommended"]), "update cepa soon"}
	}
	return ok(check, "%s speaks all that the consensus recommends", f.status.Version)
}

func (f *facts) checkPort() finding {
	const check = "port"
	inbound, listed := f.after["inbound_relay_links"], f.after["consensus_lists_this"] > 0
	do := fmt.Sprintf("let TCP to %s through: the firewall here, that of the provider, and on a router behind NAT a forwarding of the port", f.status.Address)
	switch reach := directory.ReachState(f.after["reach"]); {
	case listed:
		return ok(check, "%s can be reached: the authorities list the relay", f.status.Address)
	case reach == directory.ReachUnreached:
		return finding{check, levelError, "others were asked, and do not reach " + f.status.Address + "; until they do, the relay is not published", do}
	case reach == directory.ReachProved:
		return ok(check, "%s can be reached: another node has tried", f.status.Address)
	case inbound > 0:
		return ok(check, "%s can be reached: %d links came from relays", f.status.Address, inbound)
	case f.status.Uptime < lateListing:
		return finding{check, levelUnknown, "nobody has come to " + f.status.Address + " yet; the node is young", "if this lasts: " + do}
	}
	return finding{check, levelError, "in an hour or more no relay has come to " + f.status.Address + ", and the consensus does not list it", do}
}

func (f *facts) checkAddress() finding {
	const check = "address"
	here, elsewhere := f.after["observed_here"], f.after["observed_elsewhere"]
	switch {
	case here+elsewhere == 0:
		return finding{check, levelUnknown, "no relay has said yet where it sees this node", ""}
	case elsewhere >= 2 && elsewhere > here:
		return finding{check, levelWarning, fmt.Sprintf("%d of %d relays see this node at another address than the %s that it announces", elsewhere, here+elsewhere, f.status.Address),
			"if the address has changed, set the new one (address in the settings) and restart; the warning below says which it is"}
	}
	return ok(check, "%d of %d relays see this node at the address that it announces", here, here+elsewhere)
}

func (f *facts) checkFiles() finding {
	const check, do = "files", "raise the limit: LimitNOFILE=65536 in the systemd unit, or 'ulimit -n'"
	limit, known := f.after["open_files_limit"]
	if !known {
		return finding{check, levelUnknown, "the limit of open files cannot be seen on this system", ""}
	}
	open := f.after["open_files"]
	text := fmt.Sprintf("%d of %d files are open", open, limit)
	switch {
	case open*100 >= limit*95:
		return finding{check, levelError, text + ": new links and connections fail", do}
	case open*100 >= limit*filesShare:
		return finding{check, levelWarning, text, do}
	case limit < filesFew && f.relay():
		return finding{check, levelWarning, text + ", which bounds how many can use this relay", do}
	}
	return ok(check, "%s", text)
}

func (f *facts) checkDisk() finding {
	const check = "disk"
	text := fmt.Sprintf("%d MiB are free where %s is", f.diskFree>>20, f.dir)
	switch {
	case f.diskFree < 0:
		return finding{check, levelUnknown, "the free space cannot be seen on this system", ""}
	case f.diskFree < diskNone:
		return finding{check, levelError, text + ": state cannot be stored", "make room: after a restart the node would have lost what it knows"}
	case f.diskFree < diskFew:
		return finding{check, levelWarning, text, "make room"}
	}
	return ok(check, "%s", text)
}

func (f *facts) checkFolder() finding {
	const check = "folder"
	if open := f.mode.Perm() & 0o077; open != 0 && runtime.GOOS != "windows" {
		return finding{check, levelWarning, fmt.Sprintf("%s is open to other users (mode %o)", f.dir, f.mode.Perm()), "chmod 700 " + f.dir}
	}
	return ok(check, "%s is this user's alone", f.dir)
}

func (f *facts) checkMemory() finding {
	const check = "memory"
	used, limit := f.after["budget_used_bytes"], f.after["budget_limit_bytes"]
	text := fmt.Sprintf("queues hold %d of %d MiB", used>>20, limit>>20)
	switch n := f.grown("budget_victims"); {
	case n > 0:
		return finding{check, levelError, fmt.Sprintf("%s, and %d circuits were ended for it in %s", text, n, f.over.Round(time.Second)),
			"raise memory_mib if the machine has more; if the line 'uplink' or 'processor' complains too, begin there"}
	case limit > 0 && used*100 >= limit*budgetShare:
		return finding{check, levelWarning, text, "raise memory_mib if the machine has more, or see the lines 'uplink' and 'processor'"}
	case f.memory > 0 && limit*100 > f.memory*budgetMost:
		return finding{check, levelWarning, fmt.Sprintf("the budget of %d MiB is more than half of the machine's %d MiB", limit>>20, f.memory>>20), "lower memory_mib: the process needs memory beside it, and the system may end it"}
	}
	return ok(check, "%s", text)
}

// busy is how much of all processors the node used, in percent; false when that cannot be seen.
func (f *facts) busy() (percent int64, known bool) {
	_, known = f.after["cpu_ms"]
	all := f.over.Milliseconds() * max(f.after["processors"], 1)
	if !known || all == 0 {
		return 0, false
	}
	return f.grown("cpu_ms") * 100 / all, true
}

func (f *facts) checkProcessor() finding {
	const check = "processor"
	percent, known := f.busy()
	if !known {
		return finding{check, levelUnknown, "the use of the processors was not seen", ""}
	}
	text := fmt.Sprintf("the node uses %d %% of %d processors", percent, f.after["processors"])
	if percent >= cpuShare {
		return finding{check, levelWarning, text + ": they are what bounds it", "more or faster processors, or less to do: set bandwidth_mib to what it can carry"}
	}
	return ok(check, "%s", text)
}

func (f *facts) checkUplink() finding {
	const check = "uplink"
	queued := f.after["queued_bytes"]
	if f.over <= 0 {
		return finding{check, levelUnknown, "the node was not watched: use --sample", ""}
	}
	rate := float64(f.grown("transport_bytes_written")) / f.over.Seconds()
	wait := time.Hour
	if rate > 0 {
		wait = min(wait, time.Duration(float64(queued)/rate*float64(time.Second)))
	}
	percent, _ := f.busy()
	if queued >= queueLeast && wait >= queueTime && percent < cpuShare {
		return finding{check, levelWarning, fmt.Sprintf("%d MiB wait to be sent, %s at the present %.1f Mbit/s, and the processors are idle: the way out is what bounds the node", queued>>20, wait.Round(100*time.Millisecond), rate*8/1e6),
			"set uplink_mbit to what the line carries, so that circuits share it evenly, and bandwidth_mib to what is offered; or get a faster line"}
	}
	return ok(check, "%.1f Mbit/s go out, %d KiB wait", rate*8/1e6, queued>>10)
}

func (f *facts) checkLoop() finding {
	const check = "loop"
	if us := f.after["loop_longest_event_us"]; us >= loopLong {
		return finding{check, levelWarning, fmt.Sprintf("one event has held the loop for %s since the start", (time.Duration(us) * time.Microsecond).Round(time.Millisecond)),
			"was the machine suspended, swapping, or short of processors? If not, report it with the log"}
	}
	return ok(check, "the event loop keeps up: %d events wait", f.after["loop_queued"])
}

func (f *facts) checkHandshakes() finding {
	const check = "handshakes"
	done := f.after["relay_handshakes"]
	here := f.after["relay_refused_queue"] + f.after["relay_refused_age"]
	rate, now := f.after["relay_refused_rate"]+f.after["transport_too_fast"], f.grown("relay_refused_rate")+f.grown("transport_too_fast")
	switch all := done + here; {
	case f.grown("relay_refused_queue")+f.grown("relay_refused_age") > 0:
		return finding{check, levelWarning, fmt.Sprintf("circuits are refused now because handshakes wait too long (%d of %d since the start): the processors do not keep up", here, all), "see the line 'processor'; more or faster processors help"}
	case here*100 > all*refusedShare:
		return finding{check, levelWarning, fmt.Sprintf("%d of %d circuits since the start were refused because handshakes waited too long", here, all), "more or faster processors, if it happens again: the counters relay_refused_queue and relay_refused_age tell"}
	case now > 0:
		return finding{check, levelWarning, fmt.Sprintf("somebody asks for more than its share: %d handshakes were refused in %s for coming too fast", now, f.over.Round(time.Second)), "nothing: the limits do their work; it is not this node's fault"}
	case rate > 0:
		return ok(check, "%d done; %d were refused for coming too fast, none now", done, rate)
	}
	return ok(check, "%d done, %d refused since the node could not keep up", done, here)
}

// warnings are those of the node's own.
func (f *facts) warnings() []finding {
	var list []finding
	for _, p := range f.status.Problems {
		if p.Code != control.CodeNotReady && p.Code != control.CodeConsensusEnded { // which have checks of their own
			list = append(list, finding{"warning", levelWarning, p.Text, p.Do})
		}
	}
	return list
}
