package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
	"cepa/directory"
)

func directoryCommand() *cli.Command {
	dir := &cli.StringFlag{Name: "dir", Usage: "`DIR` of a node, or of a demo: then its client's, or that of any node which has a consensus"}
	network := &cli.StringFlag{Name: "network", Usage: "network `FILE`, if the node's settings, its folder and the one above do not have it"}
	asJSON := &cli.BoolFlag{Name: "json", Usage: "one JSON object"}
	return &cli.Command{
		Name:  "directory",
		Usage: "look at the consensus that a node keeps, whether it runs or not",
		Subcommands: []*cli.Command{
			{
				Name:  "show",
				Usage: "say what the consensus is, who signed it, and which relays it lists",
				Description: strings.TrimSpace(`
Example:

   cepa demo --dir /tmp/overlay --self-test
   cepa directory show --dir /tmp/overlay`),
				Flags:  []cli.Flag{dir, network, asJSON},
				Action: directoryShow,
			},
			{
				Name:  "verify",
				Usage: "check signatures, quorum, dates and body of the consensus",
				Description: strings.TrimSpace(`
Checks what a node checks before it uses a consensus and says each in a line. Of a folder with
several nodes it also compares what they hold. The exit status is 1 if anything is wrong; that
the consensus has expired is wrong too.

Example:

   cepa demo --dir /tmp/overlay --self-test
   cepa directory verify --dir /tmp/overlay`),
				Flags:  []cli.Flag{dir, network, asJSON},
				Action: directoryVerify,
			},
			{
				Name:  "diff",
				Usage: "say what changed between two consensuses",
				Description: strings.TrimSpace(`
Compares the consensus of --from with that of --to: folders, or files NAME.head with a NAME.body
beside them. With --dir alone, the one in use with the one before it.

Example:

   cepa demo --dir /tmp/overlay --self-test
   cp /tmp/overlay/client/consensus.head /tmp/overlay/old.head
   cp /tmp/overlay/client/consensus.body /tmp/overlay/old.body
   cepa demo --dir /tmp/overlay -- sleep 6
   cepa directory diff --from /tmp/overlay/old.head --to /tmp/overlay`),
				Flags: []cli.Flag{
					dir, network, asJSON,
					&cli.StringFlag{Name: "from", Usage: "`DIR` or FILE.head of the older one"},
					&cli.StringFlag{Name: "to", Usage: "`DIR` or FILE.head of the newer one"},
				},
				Action: directoryDiff,
			},
			{
				Name:  "relays",
				Usage: "list relays of the consensus",
				Description: strings.TrimSpace(`
Example:

   cepa demo --dir /tmp/overlay --self-test
   cepa directory relays --dir /tmp/overlay --flag Exit --sort weight`),
				Flags: []cli.Flag{
					dir, network, asJSON,
					&cli.StringSliceFlag{Name: "flag", Usage: "only relays with this `FLAG`, such as Guard or Exit; may be repeated"},
					&cli.StringFlag{Name: "sort", Value: "name", Usage: "by `COLUMN`: " + strings.Join(relayOrders, ", ")},
					&cli.BoolFlag{Name: "reverse", Usage: "the other way round"},
				},
				Action: directoryRelays,
			},
		},
	}
}

// stored is a consensus of a folder and what can be said of it.
type stored struct {
	*daemon.Stored
	*directory.Inspection
}

func loadStored(dir, network string) (*stored, error) {
	s, err := daemon.LoadStored(dir, network)
	if err != nil {
		return nil, err
	}
	in, err := s.Inspect(time.Now())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Dir, err)
	}
	return &stored{s, in}, nil
}

// storedOf loads the consensus of --dir.
func storedOf(c *cli.Context) (*stored, error) {
	if c.Args().Present() {
		return nil, usagef("'cepa directory %s' takes no argument %q", c.Command.Name, c.Args().First())
	}
	if c.String("dir") == "" {
		return nil, usagef("'cepa directory %s' needs --dir DIR of a node or a demo", c.Command.Name)
	}
	return loadStored(c.String("dir"), c.String("network"))
}

// withBody fails for a consensus whose relays cannot be told.
func (s *stored) withBody() error {
	if s.Consensus == nil {
		return fmt.Errorf("%s: %w; see 'cepa directory verify'", s.Dir, s.BodyErr)
	}
	return nil
}

// wrong is the first thing that is wrong with it.
func (s *stored) wrong() error {
	for _, f := range s.Verify() {
		if f.Err != nil {
			return f.Err
		}
	}
	return nil
}

func directoryShow(c *cli.Context) error {
	s, err := storedOf(c)
	if err != nil {
		return err
	}
	if err := s.withBody(); err != nil {
		return err
	}
	if c.Bool("json") {
		return writeJSON(c.App.Writer, consensusJSON(s))
	}
	printConsensus(c.App.Writer, s)
	return nil
}

func directoryVerify(c *cli.Context) error {
	s, err := storedOf(c)
	if err != nil {
		return err
	}
	findings := append([]directory.Finding{{
		What:   "network file",
		Detail: fmt.Sprintf("%s: network %s, serial %d, signed by a quorum of its own authorities", s.NetworkPath, s.Inspection.Network.Name, s.Inspection.Network.Serial),
	}}, s.Verify()...)
	findings = append(findings, otherNodes(c.String("dir"), s)...)
	bad := 0
	for _, f := range findings {
		if f.Err != nil {
			bad++
		}
	}
	if c.Bool("json") {
		if err := writeJSON(c.App.Writer, verificationJSON(s, findings)); err != nil {
			return err
		}
	} else {
		printFindings(c.App.Writer, s, findings)
	}
	if bad > 0 {
		return fmt.Errorf("%s: %d of %d checks failed", s.Dir, bad, len(findings))
	}
	return nil
}

// otherNodes compares what the nodes of one folder hold: two consensuses of one time must be the same.
func otherNodes(dir string, s *stored) (findings []directory.Finding) {
	folders := daemon.NodeFolders(dir)
	if len(folders) < 2 {
		return nil
	}
	same, older, newer := 0, 0, 0
	f := directory.Finding{What: "other nodes"}
	for _, folder := range folders {
		o, err := loadStored(folder, s.NetworkPath)
		switch {
		case err != nil:
			continue // it has none yet
		case o.Head.ValidAfter.Before(s.Head.ValidAfter):
			older++
		case o.Head.ValidAfter.After(s.Head.ValidAfter):
			newer++
		case o.Head.Digest != s.Head.Digest && len(o.Head.Signers) >= o.Inspection.Network.Quorum:
			f.Err = fmt.Errorf("%w: %s holds %s and %s holds %s, of one time", directory.ErrFork, s.Dir, s.Head.Digest.Short(), folder, o.Head.Digest.Short())
		default:
			same++
		}
	}
	f.Detail = fmt.Sprintf("%d of %d hold this one, %d an older one, %d a newer one", same, len(folders), older, newer)
	if f.Err != nil {
		f.Detail = f.Err.Error()
	}
	return append(findings, f)
}

func directoryDiff(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("'cepa directory diff' takes no argument %q", c.Args().First())
	}
	dir, network := c.String("dir"), c.String("network")
	from, to := c.String("from"), c.String("to")
	switch {
	case dir == "" && (from == "" || to == ""):
		return usagef("'cepa directory diff' needs --from and --to, or --dir for the consensus in use and the one before it")
	case dir != "" && from != "" && to != "":
		return usagef("'cepa directory diff' takes --from and --to, or --dir with one of them at most")
	}
	if to == "" {
		to = dir
	}
	b, err := loadStored(to, network)
	if err != nil {
		return err
	}
	var a *stored
	switch {
	case from != "":
		if network == "" && !hasNetworkFile(from) {
			network = b.NetworkPath
		}
		a, err = loadStored(from, network)
	case c.String("to") != "":
		a, err = loadStored(dir, network)
	default:
		a, err = loadPrevious(b)
	}
	if err != nil {
		return err
	}
	for _, s := range []*stored{a, b} {
		if err := s.withBody(); err != nil {
			return err
		}
	}
	d := directory.Compare(a.Consensus, b.Consensus)
	if c.Bool("json") {
		return writeJSON(c.App.Writer, differencesJSON(a, b, d))
	}
	printDifferences(c.App.Writer, a, b, d)
	return nil
}

func directoryRelays(c *cli.Context) error {
	var want directory.Flags
	for _, name := range c.StringSlice("flag") {
		f, err := directory.ParseFlag(name)
		if err != nil {
			return usagef("--flag: %v", err)
		}
		want |= f
	}
	order, err := relayOrder(c.String("sort"))
	if err != nil {
		return err
	}
	s, err := storedOf(c)
	if err != nil {
		return err
	}
	if err := s.withBody(); err != nil {
		return err
	}
	list := selectRelays(s.Consensus, want, order, c.Bool("reverse"))
	if c.Bool("json") {
		return writeJSON(c.App.Writer, relaysJSON(s, list))
	}
	printRelays(c.App.Writer, list)
	fmt.Fprintf(c.App.Writer, "\n%d of %d relays of the consensus of %s\n", len(list), len(s.Consensus.Relays), stamp(s.Head.ValidAfter))
	return nil
}
