package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/cert"
	"cepa/control"
	"cepa/daemon"
	"cepa/directory"
)

func keysCommand() *cli.Command {
	dir := &cli.StringFlag{Name: "dir", Usage: "`DIR` of a relay or an authority"}
	network := &cli.StringFlag{Name: "network", Usage: "network `FILE`, if the node's settings, its folder and the one above do not have it"}
	return &cli.Command{
		Name:  "keys",
		Usage: "look at the keys of a relay or an authority, renew them, keep the identity offline",
		Subcommands: []*cli.Command{
			{
				Name:  "show",
				Usage: "say which keys are in a folder and until when they are good",
				Description: strings.TrimSpace(`
Example:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa keys show --dir /tmp/overlay/authority`),
				Flags:  []cli.Flag{dir, network, &cli.BoolFlag{Name: "json", Usage: "one JSON object"}},
				Action: keysShow,
			},
			{
				Name:  "new",
				Usage: "make the keys of a relay or an authority that is yet to join",
				Description: strings.TrimSpace(`
Makes all keys in DIR; or, with --identity-file, an identity key in that file alone, for a node
whose identity is never to be on its machine: certify its signing keys with 'cepa keys renew'.

Examples:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa keys new --dir /tmp/overlay/authority-2 --network /tmp/overlay/network.toml
   cepa keys new --identity-file /tmp/overlay/identity-3.key
   cepa keys renew --dir /tmp/overlay/relay-3 --identity /tmp/overlay/identity-3.key`),
				Flags: []cli.Flag{
					dir, network,
					&cli.StringFlag{Name: "identity-file", Usage: "`FILE` for an identity key, and nothing else"},
				},
				Action: keysNew,
			},
			{
				Name:  "renew",
				Usage: "certify a new signing key with an identity key that is kept elsewhere",
				Description: strings.TrimSpace(`
Makes a signing key in DIR and certifies it with the identity key in a file, such as on a medium
that is put in for this. The identity is not copied. A node that runs there takes the new key at
once, any other at its start. On a machine without the node's folder give any DIR and the network
file, and take the signing.next that is made there to the node's folder; it is a secret too.
Renew within the 30 days (--days) for which a signing key is good.

Example:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa keys offline --dir /tmp/overlay/authority --to /tmp/overlay/identity-of-authority.key
   cepa keys renew --dir /tmp/overlay/authority --identity /tmp/overlay/identity-of-authority.key`),
				Flags: []cli.Flag{
					dir, network,
					&cli.StringFlag{Name: "identity", Usage: "`FILE` with the identity key"},
					&cli.IntFlag{Name: "days", Value: int(cert.SigningLifetime / day), Usage: fmt.Sprintf("for how long the signing key is to be good, 1 to %d", cert.MaxSigning/day)},
				},
				Action: keysRenew,
			},
			{
				Name:  "offline",
				Usage: "move the identity key out of a node's folder",
				Description: strings.TrimSpace(`
Moves identity.key from DIR to a file, on a medium that you then take away and copy. The node goes
on with its signing key until that ends; renew it before with 'cepa keys renew'. To undo it, put
the file back as identity.key.

Example:

   cepa network new --test --dir /tmp/overlay --authority 127.1.0.1:9001
   cepa keys offline --dir /tmp/overlay/authority --to /tmp/overlay/identity-of-authority.key`),
				Flags:  []cli.Flag{dir, network, &cli.StringFlag{Name: "to", Usage: "`FILE` that gets the identity key; it must not exist"}},
				Action: keysOffline,
			},
			familyCommand(),
		},
	}
}

const day = 24 * time.Hour

// keysFolder reads --dir and the network file.
func keysFolder(c *cli.Context, needed ...string) (dir string, n *directory.Network, err error) {
	if c.Args().Present() {
		return "", nil, usagef("'cepa keys %s' takes no argument %q: did you mean --dir %s?", c.Command.Name, c.Args().First(), c.Args().First())
	}
	for _, flag := range append([]string{"dir"}, needed...) {
		if c.String(flag) == "" {
			return "", nil, usagef("'cepa keys %s' needs --%s; see 'cepa keys %s --help'", c.Command.Name, flag, c.Command.Name)
		}
	}
	dir = c.String("dir")
	path := c.String("network")
	if path == "" {
		if path, err = daemon.FindNetworkFile(dir); err != nil {
			return "", nil, err
		}
	}
	n, err = daemon.LoadNetwork(path)
	return dir, n, err
}

func keysShow(c *cli.Context) error {
	dir, n, err := keysFolder(c)
	if err != nil {
		return err
	}
	now := time.Now()
	r, err := daemon.InspectKeys(dir, n, now)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, keysJSON(r, dir))
	}
	printKeys(c.App.Writer, r, dir, n, now)
	return nil
}

func printKeys(w io.Writer, r daemon.KeyReport, dir string, n *directory.Network, now time.Time) {
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%-10s %s\n", what, fmt.Sprintf(format, args...))
	}
	line("identity", "%s", r.Identity)
	switch {
	case r.IdentityHere:
		line("", "its key is in %s; 'cepa keys offline' takes it away", filepath.Join(dir, "identity.key"))
	default:
		line("", "its key is kept elsewhere: renew the signing key in time with 'cepa keys renew'")
	}
	if r.Authority {
		line("", "an authority of network %s", n.Name)
	}
	switch {
	case r.SigningErr != nil:
		line("signing", "of no use: %v", r.SigningErr)
	default:
		line("signing", "certified until %s (%s)", stamp(r.Signing.Until), distance(r.Signing.Until, now))
		if r.Renewed {
			line("", "certified elsewhere, taken at the next start or already")
		}
	}
	for i, o := range r.Onion {
		what := ""
		if i == 0 {
			what = "onion"
		}
		if now.Before(o.Until) {
			line(what, "%x… announced until %s (%s)", o.Public[:4], stamp(o.Until), distance(o.Until, now))
		} else {
			line(what, "%x… accepted until %s (%s)", o.Public[:4], stamp(o.Accepted), distance(o.Accepted, now))
		}
	}
	if len(r.Onion) == 0 {
		line("onion", "none yet: it is made at the first start")
	}
}

func keysJSON(r daemon.KeyReport, dir string) any {
	type onion struct {
		Key           string `json:"key"`
		AnnounceUntil string `json:"announced_until"`
		AcceptUntil   string `json:"accepted_until"`
	}
	out := struct {
		Dir            string        `json:"dir"`
		Identity       cert.Identity `json:"identity"`
		IdentityHere   bool          `json:"identity_key_here"`
		Authority      bool          `json:"authority"`
		SigningValid   bool          `json:"signing_valid"`
		SigningError   string        `json:"signing_error,omitempty"`
		SigningFrom    string        `json:"signing_from,omitempty"`
		SigningUntil   string        `json:"signing_until,omitempty"`
		CertifiedApart bool          `json:"certified_elsewhere"`
		Onion          []onion       `json:"onion_keys"`
	}{Dir: dir, Identity: r.Identity, IdentityHere: r.IdentityHere, Authority: r.Authority, SigningValid: r.SigningErr == nil, CertifiedApart: r.Renewed, Onion: []onion{}}
	if r.SigningErr != nil {
		out.SigningError = r.SigningErr.Error()
	}
	if !r.Signing.Until.IsZero() {
		out.SigningFrom, out.SigningUntil = rfc3339(r.Signing.From), rfc3339(r.Signing.Until)
	}
	for _, o := range r.Onion {
		out.Onion = append(out.Onion, onion{hex.EncodeToString(o.Public[:]), rfc3339(o.Until), rfc3339(o.Accepted)})
	}
	return out
}

func keysNew(c *cli.Context) error {
	if file := c.String("identity-file"); file != "" && !c.Args().Present() {
		if c.String("dir") != "" {
			return usagef("'cepa keys new' takes --dir or --identity-file")
		}
		id, err := daemon.NewIdentityFile(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.App.Writer, "%s\n   the identity key: keep it and a copy away from the node\nidentity %s\n", file, id)
		return nil
	}
	dir, n, err := keysFolder(c)
	if err != nil {
		return err
	}
	id, err := daemon.NewKeys(dir, n)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s\n   the keys: keep them safe and to yourself\nidentity %s\n", dir, id)
	return nil
}

func keysRenew(c *cli.Context) error {
	days := c.Int("days")
	if days < 1 || days > int(cert.MaxSigning/day) {
		return usagef("--days is %d: a signing key is good for 1 to %d", days, cert.MaxSigning/day)
	}
	dir, n, err := keysFolder(c, "identity")
	if err != nil {
		return err
	}
	id, until, err := daemon.RenewSigning(dir, c.String("identity"), n, time.Duration(days)*day)
	if err != nil {
		return err
	}
	w := c.App.Writer
	fmt.Fprintf(w, "A new signing key of %s is certified until %s.\n", id.Short(), stamp(until))
	return tellNode(c.Context, w, dir, "The node that runs there has taken it.", "A node takes it when it starts in that folder.")
}

func keysOffline(c *cli.Context) error {
	dir, n, err := keysFolder(c, "to")
	if err != nil {
		return err
	}
	to := c.String("to")
	if err := daemon.TakeOffline(dir, to, n); err != nil {
		return err
	}
	r, err := daemon.InspectKeys(dir, n, time.Now())
	if err != nil {
		return err
	}
	w := c.App.Writer
	fmt.Fprintf(w, "The identity key of %s is in %s and no longer in %s.\n", r.Identity.Short(), to, dir)
	if err := tellNode(c.Context, w, dir, "The node that runs there has forgotten it.", ""); err != nil {
		return err
	}
	fmt.Fprintf(w, `Copy the file to two media, keep them apart, and delete it here. Without it the identity is lost
when the signing key ends. Before %s run, with the medium at hand:

   cepa keys renew --dir %s --identity FILE
`, stamp(r.Signing.Until), dir)
	return nil
}

// tellNode has the node in dir, if one runs there, look at its keys.
func tellNode(ctx context.Context, w io.Writer, dir, done, absent string) error {
	switch err := control.RefreshKeys(ctx, dir); {
	case errors.Is(err, control.ErrNotRunning):
		if absent != "" {
			fmt.Fprintln(w, absent)
		}
	case err != nil:
		return fmt.Errorf("the node that runs there did not take it: %w", err)
	default:
		fmt.Fprintln(w, done)
	}
	return nil
}
