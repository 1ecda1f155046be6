package directory

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Warning is something that a person should know.
type Warning struct {
	Code string // what it is about: one of the words below, for programs and for who gives advice
	Text string // a short line
}

// Codes of warnings. They are part of the control API: none changes its meaning.
const (
	WarnUpdateNow     = "update-required"
	WarnUpdateSoon    = "update-recommended"
	WarnStale         = "consensus-old"
	WarnContradiction = "authorities-contradict"
	WarnNetworkFile   = "network-file-old"
	WarnOthers        = "other-authorities"
	WarnPaths         = "paths-narrow"
	WarnNoCircuit     = "no-circuit"
	WarnKeys          = "keys-end"
	WarnAddress       = "address"
	WarnUnreachable   = "unreachable"
	WarnOpenPort      = "port-open"
	WarnHibernating   = "hibernating"
)

// WarningCodes are all of them.
func WarningCodes() []string {
	return []string{WarnUpdateNow, WarnUpdateSoon, WarnStale, WarnContradiction, WarnNetworkFile, WarnOthers, WarnPaths, WarnNoCircuit, WarnKeys, WarnAddress, WarnUnreachable, WarnOpenPort, WarnHibernating}
}

// contradiction are two heads that contradict each other although a quorum has signed both: proof that authorities broke
// their word. It is stored as the length u32 of the first and both.
type contradiction struct{ one, other *Head }

func joinHeads(one, other []byte) []byte {
	data := binary.BigEndian.AppendUint32(nil, uint32(len(one)))
	return append(append(data, one...), other...)
}

// loadContradiction takes up what an earlier run has stored, so that people hear of it until they have looked at it.
func (f *Follower) loadContradiction() {
	data, err := f.env.Store.Load(forkBlob)
	if err != nil || len(data) < 4 || uint64(binary.BigEndian.Uint32(data)) > uint64(len(data)-4) {
		return
	}
	n := binary.BigEndian.Uint32(data)
	now := f.env.Clock.Wall()
	one, err := OpenHead(data[4:4+n], f.network, now)
	if err != nil {
		return
	}
	other, err := OpenHead(data[4+n:], f.network, now)
	if err != nil || one.Digest == other.Digest {
		return
	}
	f.fork = &contradiction{one, other}
}

// Warnings are what a person should know of the directory now: nothing when all is well.
func (f *Follower) Warnings() []Warning {
	var out []Warning
	warn := func(code, format string, args ...any) { out = append(out, Warning{code, fmt.Sprintf(format, args...)}) }
	wall := f.env.Clock.Wall()
	if missing := f.lacking(); len(missing) > 0 {
		warn(WarnUpdateNow, "update cepa: this version lacks what the network requires (%s), and does not use it", missing)
	} else if c := f.Current(); c != nil {
		if missing := OurProtocols().Missing(c.Recommended); len(missing) > 0 {
			warn(WarnUpdateSoon, "update cepa soon: this version lacks what the network recommends (%s)", missing)
		}
		if c.Head.State(wall) == Stale {
			warn(WarnStale, "the consensus in use is of %s and can be used until %s: no newer one can be had",
				c.Head.ValidAfter.Format(time.DateTime), c.Head.ValidUntil.Format(time.DateTime))
		}
	}
	if f.fork != nil {
		warn(WarnContradiction, "the authorities have signed two contradicting consensuses, %s of %s and %s of %s: tell the operators of the network, and keep the file %s in the state folder, which proves it; remove it when that is settled",
			f.fork.one.Digest.Short(), f.fork.one.ValidAfter.Format(time.DateTime), f.fork.other.Digest.Short(), f.fork.other.ValidAfter.Format(time.DateTime), forkBlob)
	}
	if f.behind() && f.updating == nil {
		warn(WarnNetworkFile, "the network has a newer network file, of serial %d instead of %d, which could not be fetched yet", f.current.NetworkSerial, f.network.Serial)
	}
	if f.strangers {
		warn(WarnOthers, "relays show consensuses of other authorities than the network file here names: if this lasts, get the present network file from whoever runs the network")
	}
	return out
}

// lacking are the protocols that the consensus in hand requires and this version does not speak.
func (f *Follower) lacking() Protocols {
	if f.current == nil || !f.validNow(f.current.Head) {
		return nil
	}
	return OurProtocols().Missing(f.current.Required)
}
