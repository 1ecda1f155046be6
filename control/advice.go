package control

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Advise makes the problems of a status: what its percent, its consensus and its warnings say, with what to do.
func Advise(s Status, now time.Time) []Problem {
	var list []Problem
	add := func(text, do string) { list = append(list, Problem{text, do}) }
	c := s.Consensus
	switch {
	case c != nil && !now.Before(c.ValidUntil):
		add("the consensus has ended at "+c.ValidUntil.UTC().Format(time.DateTime)+" UTC and no newer one can be had: no circuit is built",
			"check this machine's clock and network connection; if both are right, the authorities are down: ask whoever runs the network")
	case s.Percent < 100 && slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.HasPrefix(w, unpublished) }): // says it all
	case s.Percent < 100 && s.Waiting != "":
		add("not ready: "+s.Doing+", waiting for "+s.Waiting, notReady(s))
	case s.Percent < 100 && s.Uptime >= 60:
		add(fmt.Sprintf("not ready after %d s: %s", s.Uptime, s.Doing), notReady(s))
	}
	for _, w := range s.Warnings {
		add(w, adviceFor(w))
	}
	return list
}

// unpublished is how the warning begins of a relay that others do not reach.
const unpublished = "this relay is not published"

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

// adviceFor is what to do about a warning of the node, by how it begins or what it is about.
func adviceFor(warning string) string {
	for _, a := range []struct{ about, do string }{
		{"update cepa", "install a newer version of cepa and restart this node"},
		{"the consensus in use is of", "check this machine's clock and network connection; if both are right, the authorities are down: ask whoever runs the network"},
		{"contradicting consensuses", "tell the operators of the network before you rely on it"},
		{unpublished, "open the port: the relay tries again by itself, at least every ten minutes; if others do reach it, set assume_reachable = true"},
		{"newer network file", "nothing now: it is fetched again; if this lasts a day, get the file from whoever runs the network"},
		{"other authorities", "if this lasts, get the present network file from whoever runs the network"},
		{"no circuit can be built", "check this machine's network connection and clock; see the log for what fails"},
		{"settings for paths", "remove what you do not need from [paths] in the settings"},
		{"key", "see 'cepa keys --help' for renewing keys"},
		{"certificate", "see 'cepa keys --help' for renewing certificates"},
	} {
		if strings.Contains(warning, a.about) {
			return a.do
		}
	}
	return "see the log for more"
}
