package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cepa/daemon"
	"cepa/directory"
)

// loadPrevious is the consensus that the node held before the one in use.
func loadPrevious(s *stored) (*stored, error) {
	a, err := loadStored(filepath.Join(s.Dir, directory.PreviousHeadFile), s.NetworkPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no consensus but the one in use: compare with another by --from", s.Dir)
	}
	return a, err
}

// hasNetworkFile says whether a network file can be found by what holds a consensus.
func hasNetworkFile(path string) bool {
	dir := path
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		dir = filepath.Dir(path)
	}
	_, err := daemon.FindNetworkFile(dir)
	return err == nil
}

// stamp is a time for people.
func stamp(t time.Time) string {
	layout := "2006-01-02 15:04:05 MST"
	if t.Nanosecond() != 0 {
		layout = "2006-01-02 15:04:05.000 MST"
	}
	return t.UTC().Format(layout)
}

// rfc3339 is a time for programs.
func rfc3339(t time.Time) string {
	layout := "2006-01-02T15:04:05Z"
	if t.Nanosecond() != 0 {
		layout = "2006-01-02T15:04:05.000Z"
	}
	return t.UTC().Format(layout)
}

// distance is how long ago a time was, or in what time it will be.
func distance(t, now time.Time) string {
	d := now.Sub(t)
	text := d.Abs().Round(time.Second).String()
	if d.Abs() >= 48*time.Hour {
		text = fmt.Sprintf("%d days", int(d.Abs().Hours())/24)
	}
	if d < 0 {
		return "in " + text
	}
	return text + " ago"
}

func printConsensus(w io.Writer, s *stored) {
	h, n, c := s.Head, s.Inspection.Network, s.Consensus
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%-12s %s\n", what, fmt.Sprintf(format, args...))
	}
	line("network", "%s (%s), serial %d", n.Name, n.ID.Short(), n.Serial)
	line("", "%s", s.NetworkPath)
	line("node", "%s", s.Dir)
	line("digest", "%s", h.Digest)
	if !h.Previous.IsZero() {
		line("previous", "%s", h.Previous)
	}
	line("valid after", "%s (%s)", stamp(h.ValidAfter), distance(h.ValidAfter, s.At))
	line("fresh until", "%s (%s)", stamp(h.FreshUntil), distance(h.FreshUntil, s.At))
	line("valid until", "%s (%s)", stamp(h.ValidUntil), distance(h.ValidUntil, s.At))
	line("state", "%s", s.State)
	line("size", "head %d bytes, body %d bytes, method %d", len(s.SealedHead), len(s.SealedBody), h.Method)
	line("signatures", "%d of %d authorities, %d must", len(h.Signers), len(n.Authorities), n.Quorum)
	for _, g := range s.Signatures {
		line("", "%s %s", g.Identity.Short(), signatureText(g))
	}
	line("relays", "%d: %d guards, %d exits", len(c.Relays), c.Count(directory.FlagGuard), c.Count(directory.FlagExit))
	if err := s.wrong(); err != nil {
		line("NOT VALID", "%v", err)
	}
	fmt.Fprintln(w)
	printRelays(w, selectRelays(c, 0, relayColumns["name"], false))
}

func signatureText(g directory.SignatureReport) string {
	switch {
	case !g.Authority:
		return "is no authority of the network file"
	case g.Err != nil:
		return "BAD: " + g.Err.Error()
	}
	return "good"
}

// flagLetters are the flags in tables of 80 columns. Running and Valid are those of all relays, and so of none.
var flagLetters = []struct {
	flag   directory.Flags
	letter byte
	name   string
}{
	{directory.FlagAuthority, 'A', "Authority"}, {directory.FlagGuard, 'G', "Guard"}, {directory.FlagExit, 'E', "Exit"},
	{directory.FlagFast, 'F', "Fast"}, {directory.FlagStable, 'S', "Stable"}, {directory.FlagMiddleOnly, 'M', "MiddleOnly"},
	{directory.FlagBadExit, 'B', "BadExit"}, {directory.FlagIPv6Exit, '6', "IPv6Exit"},
}

func letters(f directory.Flags) string {
	var b strings.Builder
	for _, l := range flagLetters {
		if f.Has(l.flag) {
			b.WriteByte(l.letter)
		}
	}
	if !f.Has(directory.FlagRunning | directory.FlagValid) {
		b.WriteByte('!') // no client uses it
	}
	return b.String()
}

func printRelays(w io.Writer, list []*directory.Relay) {
	wide := len("NAME")
	for _, r := range list {
		wide = max(wide, len(r.Nickname))
	}
	fmt.Fprintf(w, "%-*s  %-8s  %10s  %-8s  %s\n", wide, "NAME", "IDENTITY", "KIB/S", "FLAGS", "ADDRESSES")
	for _, r := range list {
		name := r.Nickname
		if name == "" {
			name = "-"
		}
		fmt.Fprintf(w, "%-*s  %-8s  %10d  %-8s", wide, name, r.Identity.Short(), r.Weight, letters(r.Flags))
		for i, a := range r.Addresses {
			if i > 0 {
				fmt.Fprintf(w, "\n%*s", wide+2+8+2+10+2+8, "")
			}
			fmt.Fprintf(w, "  %s", a)
		}
		fmt.Fprintln(w)
	}
	var legend []string
	for _, l := range flagLetters {
		if slices.ContainsFunc(list, func(r *directory.Relay) bool { return r.Flags.Has(l.flag) }) {
			legend = append(legend, fmt.Sprintf("%c %s", l.letter, l.name))
		}
	}
	if len(legend) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(legend, ", "))
	}
}

// relayColumns are the orders of relays. What is equal is in the order of identities.
var relayColumns = map[string]func(a, b *directory.Relay) int{
	"name":     func(a, b *directory.Relay) int { return compareNames(a.Nickname, b.Nickname) },
	"identity": func(a, b *directory.Relay) int { return 0 },
	"weight":   func(a, b *directory.Relay) int { return -cmp.Compare(a.Weight, b.Weight) },
	"address":  func(a, b *directory.Relay) int { return a.Addresses[0].Compare(b.Addresses[0]) },
}

var relayOrders = []string{"name", "identity", "weight", "address"}

// compareNames puts relay-10 behind relay-9.
func compareNames(a, b string) int {
	stem := strings.TrimRight(a, "0123456789")
	if len(a) != len(b) && stem == strings.TrimRight(b, "0123456789") {
		return cmp.Compare(len(a), len(b))
	}
	return strings.Compare(a, b)
}

func relayOrder(name string) (func(a, b *directory.Relay) int, error) {
	order, ok := relayColumns[name]
	if !ok {
		return nil, usagef("--sort: there is no column %q%s; there are %s", name, didYouMean(name, relayOrders), strings.Join(relayOrders, ", "))
	}
	return order, nil
}

func selectRelays(c *directory.Consensus, want directory.Flags, order func(a, b *directory.Relay) int, reverse bool) []*directory.Relay {
	list := []*directory.Relay{}
	for i := range c.Relays {
		if c.Relays[i].Flags.Has(want) {
			list = append(list, &c.Relays[i])
		}
	}
	slices.SortStableFunc(list, order)
	if reverse {
		slices.Reverse(list)
	}
	return list
}

func printFindings(w io.Writer, s *stored, findings []directory.Finding) {
	fmt.Fprintf(w, "The consensus %s of %s in %s:\n", s.Head.Digest.Short(), stamp(s.Head.ValidAfter), s.Dir)
	wide := 0
	for _, f := range findings {
		wide = max(wide, len(f.What))
	}
	for _, f := range findings {
		verdict, text := "ok   ", f.Detail
		if f.Err != nil {
			verdict, text = "WRONG", f.Err.Error()
		}
		fmt.Fprintf(w, "%s  %-*s  %s\n", verdict, wide, f.What, text)
	}
}

func printDifferences(w io.Writer, a, b *stored, d directory.Differences) {
	fmt.Fprintf(w, "from  %s  %s, %d relays\nto    %s  %s, %d relays\n\n",
		a.Head.Digest.Short(), stamp(a.Head.ValidAfter), len(a.Consensus.Relays), b.Head.Digest.Short(), stamp(b.Head.ValidAfter), len(b.Consensus.Relays))
	if d.Empty() {
		fmt.Fprintln(w, "Nothing has changed but the dates.")
		return
	}
	for _, r := range d.Gone {
		fmt.Fprintf(w, "gone     %s %s\n", r.Identity.Short(), r.Nickname)
	}
	for _, r := range d.New {
		fmt.Fprintf(w, "new      %s %s, %d KiB/s, %s\n", r.Identity.Short(), r.Nickname, r.Weight, r.Flags)
	}
	fields := func(list []directory.FieldChange) {
		for _, f := range list {
			fmt.Fprintf(w, "         %s: %s -> %s\n", f.Field, orNone(f.From), orNone(f.To))
		}
	}
	for _, r := range d.Changed {
		fmt.Fprintf(w, "changed  %s %s\n", r.Identity.Short(), r.Nickname)
		fields(r.Fields)
	}
	if len(d.Network) > 0 {
		fmt.Fprintln(w, "changed  for all")
		fields(d.Network)
	}
	fmt.Fprintf(w, "\n%d gone, %d new, %d changed\n", len(d.Gone), len(d.New), len(d.Changed))
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
