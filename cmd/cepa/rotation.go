package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/cert"
	"cepa/daemon"
	"cepa/directory"
)

func networkNextCommand() *cli.Command {
	return &cli.Command{
		Name:  "next",
		Usage: "draft the network file that replaces one: other authorities, relays to start from, parameters",
		Description: strings.TrimSpace(`
Writes a draft of the next file (serial one higher) that nobody has signed. A quorum of the old
file's authorities and one of the new file's sign it, each with 'cepa network sign' where its keys
are. When it is complete, start the authorities with it; relays and clients fetch it by themselves.

Example:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa keys new --dir /tmp/overlay/second --network /tmp/overlay/network.toml
   second=$(cepa keys show --dir /tmp/overlay/second | sed -n 's/^identity *//p')
   cepa network next --network /tmp/overlay/network.toml --out /tmp/overlay/next.toml --add $second=127.2.0.1:9001
   cepa network sign /tmp/overlay/next.toml --dir /tmp/overlay/authority
   cepa network sign /tmp/overlay/next.toml --dir /tmp/overlay/second --replaces /tmp/overlay/network.toml`),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "network", Usage: "the network `FILE` that is to be replaced"},
			&cli.StringFlag{Name: "out", Usage: "`FILE` for the draft; it must not exist"},
			&cli.StringSliceFlag{Name: "add", Usage: "`IDENTITY=ADDRESS` of an authority that joins, or that has moved; may be repeated"},
			&cli.StringSliceFlag{Name: "remove", Usage: "`IDENTITY` of an authority that goes, or its first digits; may be repeated"},
			&cli.StringSliceFlag{Name: "bootstrap", Usage: "`IDENTITY=ADDRESS` of a relay to start from; given once or more, they take the place of the old ones"},
			&cli.StringSliceFlag{Name: "param", Usage: "`NAME=VALUE` of a network parameter, may be repeated"},
			&cli.StringFlag{Name: "echo", Usage: "another `URL` that answers with the address of who asks; \"\" for none"},
		},
		Action: networkNext,
	}
}

func networkSignCommand() *cli.Command {
	return &cli.Command{
		Name:      "sign",
		Usage:     "sign the draft of a network file as an authority",
		ArgsUsage: "FILE",
		Description: strings.TrimSpace(`
Adds to the draft, in its place, the signature of the authority whose keys are in --dir, and says
what is still missing. To sign copies at several places at once, put them together afterwards with
'cepa network merge'.

Example:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa network next --network /tmp/overlay/network.toml --out /tmp/overlay/next.toml --param interval_ms=10000
   cepa network sign /tmp/overlay/next.toml --dir /tmp/overlay/authority --replaces /tmp/overlay/network.toml`),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "`DIR` with the authority's keys"},
			&cli.StringFlag{Name: "replaces", Usage: "the network `FILE` that is to be replaced, to say what is missing for that"},
		},
		Action: networkSign,
	}
}

func networkMergeCommand() *cli.Command {
	return &cli.Command{
		Name:      "merge",
		Usage:     "put the signatures of several copies of a draft together",
		ArgsUsage: "FILE FILE...",
		Description: strings.TrimSpace(`
Example:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa network next --network /tmp/overlay/network.toml --out /tmp/overlay/next.toml --param interval_ms=10000
   cp /tmp/overlay/next.toml /tmp/overlay/copy.toml
   cepa network sign /tmp/overlay/copy.toml --dir /tmp/overlay/authority
   cepa network merge /tmp/overlay/next.toml /tmp/overlay/copy.toml --out /tmp/overlay/whole.toml --replaces /tmp/overlay/network.toml`),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "`FILE` for the result; it must not exist"},
			&cli.StringFlag{Name: "replaces", Usage: "the network `FILE` that is to be replaced, to say what is missing for that"},
		},
		Action: networkMerge,
	}
}

// contactsOf reads IDENTITY=ADDRESS.
func contactsOf(flag string, list []string) (out []directory.Contact, err error) {
	for _, text := range list {
		name, at, ok := strings.Cut(text, "=")
		id, err := cert.ParseIdentity(name)
		address, err2 := netip.ParseAddrPort(at)
		if !ok || err != nil || err2 != nil {
			return nil, usagef("--%s %q is not IDENTITY=ADDRESS, of 64 hexadecimal digits and an IP address and port", flag, text)
		}
		out = append(out, directory.Contact{Identity: id, Addresses: []netip.AddrPort{address}})
	}
	return out, nil
}

func networkNext(c *cli.Context) error {
	switch {
	case c.Args().Present():
		return usagef("'cepa network next' takes no argument %q", c.Args().First())
	case c.String("network") == "" || c.String("out") == "":
		return usagef("'cepa network next' needs --network and --out; see 'cepa network next --help'")
	}
	add, err := contactsOf("add", c.StringSlice("add"))
	if err != nil {
		return err
	}
	bootstrap, err := contactsOf("bootstrap", c.StringSlice("bootstrap"))
	if err != nil {
		return err
	}
	parameters, err := networkParameters(c)
	if err != nil {
		return err
	}
	old, err := daemon.LoadNetwork(c.String("network"))
	if err != nil {
		return err
	}
	next := *old
	next.Serial, next.Quorum, next.Created = old.Serial+1, 0, time.Now()
	if !next.Created.After(old.Created) {
		return fmt.Errorf("drafting a network file: the old one is of %s, and the clock here says %s", stamp(old.Created), stamp(next.Created))
	}
	next.Authorities = slices.Clone(old.Authorities)
	for _, prefix := range c.StringSlice("remove") {
		if err := removeContact(&next.Authorities, prefix); err != nil {
			return err
		}
		gone := func(b directory.Contact) bool {
			return strings.HasPrefix(b.Identity.String(), strings.ToLower(prefix))
		}
		next.Bootstrap = slices.DeleteFunc(slices.Clone(next.Bootstrap), gone)
	}
	for _, a := range add {
		next.Authorities = append(slices.DeleteFunc(next.Authorities, func(o directory.Contact) bool { return o.Identity == a.Identity }), a)
	}
	if len(bootstrap) > 0 {
		next.Bootstrap = bootstrap
	}
	merged := directory.Parameters{}
	for _, from := range []directory.Parameters{old.Parameters, parameters} {
		for name, v := range from {
			merged[name] = v
		}
	}
	next.Parameters = merged
	if c.IsSet("echo") {
		next.Echo = c.String("echo")
	}
	draft, err := directory.DraftNetwork(next)
	if err != nil {
		return err
	}
	if err := saveNew(c.String("out"), draft); err != nil {
		return err
	}
	w := c.App.Writer
	fmt.Fprintf(w, "%s\n   the draft of serial %d: %d authorities, quorum %d; it must be signed by %d of the old ones and %d of the new ones\n\nNext, where the keys of each are:\n\n",
		c.String("out"), draft.Serial, len(draft.Authorities), draft.Quorum, old.Quorum, draft.Quorum)
	fmt.Fprintf(w, "   cepa network sign %s --dir DIR --replaces %s\n", c.String("out"), c.String("network"))
	return nil
}

// removeContact takes out the one whose identity begins so.
func removeContact(list *[]directory.Contact, prefix string) error {
	matches := func(a directory.Contact) bool {
		return strings.HasPrefix(a.Identity.String(), strings.ToLower(prefix))
	}
	found := 0
	for _, a := range *list {
		if matches(a) {
			found++
		}
	}
	if found != 1 || prefix == "" {
		return fmt.Errorf("--remove %s: %d authorities have an identity that begins so", prefix, found)
	}
	*list = slices.DeleteFunc(*list, matches)
	return nil
}

// saveNew writes a network file that must not exist.
func saveNew(path string, n *directory.Network) error {
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("%s exists, and is not replaced", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return daemon.SaveNetwork(path, n)
}

func networkSign(c *cli.Context) error {
	if c.Args().Len() != 1 || c.String("dir") == "" {
		return usagef("'cepa network sign' needs one FILE, and --dir of an authority")
	}
	path := c.Args().First()
	draft, err := daemon.LoadDraft(path)
	if err != nil {
		return err
	}
	signed, err := daemon.SignNetwork(draft, c.String("dir"))
	if err != nil {
		return err
	}
	if err := daemon.SaveNetwork(path, signed); err != nil {
		return err
	}
	return sayComplete(c, path, signed)
}

func networkMerge(c *cli.Context) error {
	if c.Args().Len() < 2 || c.String("out") == "" {
		return usagef("'cepa network merge' needs two FILEs or more, and --out")
	}
	var whole *directory.Network
	for _, path := range c.Args().Slice() {
		draft, err := daemon.LoadDraft(path)
		if err != nil {
			return err
		}
		if whole == nil {
			whole = draft
		} else if whole, err = whole.Merge(draft); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := saveNew(c.String("out"), whole); err != nil {
		return err
	}
	return sayComplete(c, c.String("out"), whole)
}

// sayComplete says who has signed and what is missing. That something is missing is no failure: others are to sign.
func sayComplete(c *cli.Context, path string, n *directory.Network) error {
	var old *directory.Network
	if file := c.String("replaces"); file != "" {
		var err error
		if old, err = daemon.LoadNetwork(file); err != nil {
			return err
		}
	}
	w := c.App.Writer
	var names []string
	for _, id := range n.Signers() {
		names = append(names, id.Short())
	}
	fmt.Fprintf(w, "%s\n   serial %d, signed by %s\n", path, n.Serial, strings.Join(names, ", "))
	switch err := n.Complete(old); {
	case err != nil:
		fmt.Fprintf(w, "   not complete: %v\n", err)
	case old == nil:
		fmt.Fprintf(w, "   enough of its own authorities have signed; --replaces FILE says whether enough of the old ones have\n")
	default:
		fmt.Fprintf(w, "   complete. Start the authorities with it; relays and clients fetch it by themselves.\n")
	}
	return nil
}
