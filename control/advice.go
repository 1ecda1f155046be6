package control

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Codes of problems that a status shows without a warning of the node.
const (
	CodeNotReady       = "not-ready"
	CodeConsensusEnded = "consensus-ended"
)

// Advise makes the problems of a status: what its percent, its consensus and its notices say, with what to do.
func Advise(s Status, now time.Time) []Problem {
	var list []Problem
	add := func(code, text, do string) { list = append(list, Problem{code, text, do}) }
	c := s.Consensus
	switch {
	case c != nil && !now.Before(c.ValidUntil):
		add(CodeConsensusEnded, "the consensus has ended at "+c.ValidUntil.UTC().Format(time.DateTime)+" UTC and no newer one can be had: no circuit is built", askAuthorities)
	case s.Asleep(): // its notice says all
	case s.Percent < 100 && slices.ContainsFunc(s.Notices, func(n Notice) bool { return n.Code == "unreachable" }): // its notice says all
	case s.Percent < 100 && s.Waiting != "":
		add(CodeNotReady, "not ready: "+s.Doing+", waiting for "+s.Waiting, notReady(s))
	case s.Percent < 100 && s.Uptime >= 60:
		add(CodeNotReady, fmt.Sprintf("not ready after %d s: %s", s.Uptime, s.Doing), notReady(s))
	}
	for _, n := range s.Notices {
		do, ok := advice[n.Code]
		if !ok {
			do = "see the log for more ('cepa log DIR')"
		}
		add(n.Code, n.Text, do)
	}
	return list
}

func notReady(s Status) string {
	switch {
	case strings.Contains(s.Waiting, "to reach TCP port"):
		return "let the port in through the firewall of this machine and of its provider, and behind NAT forward it; the relay tries again by itself, and 'cepa doctor' says more"
	case strings.Contains(s.Waiting, "the port") || strings.Contains(s.Doing, "port"):
		return "end the program that has the port, or choose another port"
	case s.Role == "relay" && s.Consensus != nil:
		return "wait one or two consensus intervals; if it lasts, see that others can reach " + s.Address + " (firewall, port forwarding)"
	case s.Consensus == nil:
		return "wait a minute; if it lasts, check this machine's clock and network connection, and that the network file is the present one"
	}
	return "wait a minute; if it lasts, check the network connection, and see the log for what fails"
}

const askAuthorities = "check this machine's clock and network connection; if both are right, the authorities are down: ask whoever runs the network"

// advice is what to do about a notice, by its code. A test of package daemon sees that none is missing.
var advice = map[string]string{
	"update-required":        "install a newer version of cepa and restart this node",
	"update-recommended":     "install a newer version of cepa and restart this node",
	"consensus-old":          askAuthorities,
	"authorities-contradict": "tell the operators of the network before you rely on it",
	"network-file-old":       "nothing now: it is fetched again; if this lasts a day, get the file from whoever runs the network",
	"other-authorities":      "if this lasts, get the present network file from whoever runs the network",
	"no-circuit":             "check this machine's network connection and clock; see the log for what fails ('cepa log DIR')",
	"paths-narrow":           "remove what you do not need from [paths] in the settings",
	"keys-end":               "renew the signing key in time: 'cepa keys renew --help' says how",
	"address":                "do what it says, or nothing if it is wrong; 'cepa doctor DIR' looks closer",
	"port-open":              "remove allow_remote and give a loopback address, or let a firewall admit only whom you mean",
	"unreachable":            "open the port: the relay tries again by itself, at least every ten minutes; if others do reach it, set assume_reachable = true",
	"hibernating":            "nothing: it goes on by itself then; to go on now, raise accounting_gib and send SIGHUP",
}

// HasAdvice says whether there is advice for warnings of a code.
func HasAdvice(code string) bool { return advice[code] != "" }
