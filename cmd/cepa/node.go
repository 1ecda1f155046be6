package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"cepa/daemon"
	"cepa/internal/procs"
)

// stopTimeout is how long a node may take to end in order.
const stopTimeout = 1500 * time.Millisecond

// settingFlags are the flags of a role's settings.
func settingFlags(role string) []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "read the settings from a TOML `FILE`; flags win over it: see 'cepa config new " + role + "'"},
	}
	for _, s := range daemon.Settings(daemon.NewConfig(role)) {
		if s.Flag == "" {
			continue
		}
		usage, _, _ := strings.Cut(s.Help, ". ")
		usage = strings.TrimSuffix(usage, ".")
		if s.Default != `""` && s.Default != "0" && s.Default != "[]" && s.Default != "false" {
			usage += " (default " + strings.Trim(s.Default, `"`) + ")"
		}
		usage = strings.ToLower(usage[:1]) + usage[1:]
		if s.Value != "" {
			usage = "`" + s.Value + "`: " + usage
		}
		switch {
		case s.List():
			flags = append(flags, &cli.StringSliceFlag{Name: s.Flag, Usage: usage})
		case s.Switch():
			flags = append(flags, &cli.BoolFlag{Name: s.Flag, Usage: usage})
		default:
			flags = append(flags, &cli.StringFlag{Name: s.Flag, Usage: usage})
		}
	}
	return flags
}

// attachedFlag is for nodes that `cepa demo --processes` starts: they wait for a line on
// their standard input before they open a port to users, and end when it ends.
func attachedFlag() cli.Flag { return &cli.BoolFlag{Name: "attached", Hidden: true} }

// resolve reads the settings of a role from file, environment and flags.
func resolve(c *cli.Context, role string) (config any, from daemon.Origins, warnings []string, err error) {
	config = daemon.NewConfig(role)
	given := map[string][]string{}
	for _, s := range daemon.Settings(config) {
		if s.Flag == "" || !c.IsSet(s.Flag) {
			continue
		}
		switch {
		case s.List():
			given[s.Flag] = c.StringSlice(s.Flag)
		case s.Number():
			if _, err := strconv.Atoi(c.String(s.Flag)); err != nil {
				return nil, nil, nil, usagef("--%s %q is no number; see '%s --help'", s.Flag, c.String(s.Flag), c.Command.HelpName)
			}
			given[s.Flag] = []string{c.String(s.Flag)}
		case s.Switch():
			given[s.Flag] = []string{strconv.FormatBool(c.Bool(s.Flag))}
		default:
			given[s.Flag] = []string{c.String(s.Flag)}
		}
	}
	from, warnings, err = daemon.Layers{File: c.String("config"), Environ: os.Environ(), Flags: given}.Resolve(config)
	return config, from, warnings, err
}

// node is a relay or a client.
type node interface {
	Stop(context.Context)
	Done() <-chan struct{}
	Reload(next any) (daemon.Changes, error)
}

// drainer is a node that others use, and that can let them go before it ends.
type drainer interface{ Drain(context.Context) }

// start starts a node with settings of its role.
func start(config any, o daemon.Options) (node, error) {
	switch c := config.(type) {
	case *daemon.RelayConfig:
		o.Name = c.Nickname
		return daemon.StartRelay(*c, o)
	case *daemon.AuthorityConfig:
		return daemon.StartAuthority(*c, o)
	case *daemon.ClientConfig:
		o.Name = "client"
		return daemon.StartClient(*c, o)
	}
	return nil, fmt.Errorf("%T is no configuration", config)
}

// runNode is the action of 'cepa relay', 'cepa authority' and 'cepa client'.
func runNode(role string) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.Args().Present() {
			return usagef("'cepa %s' takes no argument %q", role, c.Args().First())
		}
		config, from, warnings, err := resolve(c, role)
		if err != nil {
			return err
		}
		if from["network"] == "not set" || from["dir"] == "not set" {
			return usagef("'cepa %s' needs --network and --dir, or --config with both; see 'cepa %s --help'", role, role)
		}
		level := new(slog.LevelVar)
		first, err := daemon.ParseLogLevel(daemon.SettingText(config, "log_level"))
		if err != nil {
			return usagef("%v", err)
		}
		level.Set(first)
		log := daemon.LogOptions{
			Level: "debug", Format: daemon.SettingText(config, "log_format"), Addresses: daemon.SettingText(config, "log_addresses") == "true",
		}
		if err := daemon.CheckLogFormat(log.Format); err != nil {
			return usagef("%v", err)
		}
		r := &running{c: c, role: role, config: config, from: from, signals: make(chan os.Signal, 4)}
		r.options = daemon.Options{
			Version: c.App.Version, Level: level,
			Log:      slog.New(daemon.WithLevel(daemon.NewLog(c.App.ErrWriter, log), level)),
			Progress: progress(c.App.Writer),
		}
		for _, w := range warnings {
			r.options.Log.Warn(w)
		}
		signal.Notify(r.signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer signal.Stop(r.signals)
		ctx := c.Context
		if c.Bool("attached") {
			ctx, r.options.Go = daemon.Attach(ctx, os.Stdin)
		}
		defer procs.Govern()()
		return r.run(ctx)
	}
}

// running is a node and what may happen to it.
type running struct {
	c       *cli.Context
	role    string
	config  any
	from    daemon.Origins // of the settings
	options daemon.Options
	signals chan os.Signal
}

// run runs the node until a signal, or until ctx ends. A relay that has used up its month sleeps meanwhile.
func (r *running) run(ctx context.Context) error {
	for {
		n, stopped, err := r.start(ctx)
		if stopped {
			return nil
		}
		var sleep *daemon.Hibernating
		if errors.As(err, &sleep) {
			if again, err := r.sleep(ctx, sleep); !again {
				return err
			}
			continue
		}
		if err != nil {
			return daemon.Blame(r.config, r.from, err)
		}
		if again := r.serve(ctx, n); !again {
			return nil
		}
	}
}

// start starts the node, and reports whether a signal asked it to end meanwhile.
func (r *running) start(ctx context.Context) (n node, stopped bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		n   node
		err error
	}
	started := make(chan result, 1)
	o := r.options
	o.Starting = ctx
	go func() {
		n, err := start(r.config, o)
		started <- result{n, err}
	}()
	for {
		select {
		case s := <-started:
			if stopped && s.err == nil {
				last, done := context.WithTimeout(context.Background(), stopTimeout)
				defer done()
				s.n.Stop(last)
			}
			return s.n, stopped, s.err
		case s := <-r.signals:
			if s != syscall.SIGHUP { // what starts now has read the settings
				stopped = true
				cancel()
			}
		}
	}
}

// serve waits for the end of a node, and reports whether it ended by itself.
func (r *running) serve(ctx context.Context, n node) (again bool) {
	for {
		select {
		case s := <-r.signals:
			if s == syscall.SIGHUP {
				r.reload(n)
				continue
			}
			r.drain(n)
		case <-ctx.Done():
		case <-n.Done():
			return r.role == "relay"
		}
		last, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		n.Stop(last)
		return false
	}
}

// drain lets the users of a node go, until a second signal.
func (r *running) drain(n node) {
	d, ok := n.(drainer)
	if !ok {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Drain(ctx)
	}()
	for {
		select {
		case <-done:
			return
		case s := <-r.signals:
			if s != syscall.SIGHUP {
				cancel()
			}
		}
	}
}

// reload reads the settings again and brings into force what can be.
func (r *running) reload(n node) {
	log := r.options.Log
	next, from, warnings, err := resolve(r.c, r.role)
	var changes daemon.Changes
	if err == nil {
		changes, err = n.Reload(next)
		err = daemon.Blame(next, from, err)
	}
	if err != nil {
		log.Error("SIGHUP: the settings are as they were: "+err.Error(), "look", "cepa config check "+r.c.String("config"))
		return
	}
	r.config, r.from = next, from // for the next start
	for _, w := range warnings {
		log.Warn(w)
	}
	text := "SIGHUP: the settings were read again: " + changes.String()
	if len(changes.Restart) > 0 {
		log.Warn(text)
	} else {
		log.Info(text)
	}
}

// sleep waits for the next month, and reports whether to start again then.
func (r *running) sleep(ctx context.Context, h *daemon.Hibernating) (again bool, err error) {
	config := r.config.(*daemon.RelayConfig) // no other role sleeps
	r.options.Log.Warn(h.Error())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := r.options
	o.Name = config.Nickname
	ended := make(chan error, 1)
	go func() { ended <- daemon.Hibernate(ctx, *config, o, h) }()
	for {
		select {
		case err := <-ended:
			return err == nil && ctx.Err() == nil, err
		case s := <-r.signals:
			if s == syscall.SIGHUP {
				next, from, _, err := resolve(r.c, r.role)
				if err == nil {
					err = daemon.Blame(next, from, daemon.CheckConfig(next))
				}
				if err != nil {
					r.options.Log.Error("SIGHUP: the settings are as they were: " + err.Error())
					continue
				}
				r.config, r.from = next, from
				cancel()
				return true, <-ended
			}
			cancel()
			return false, <-ended
		}
	}
}

// progress prints how far a node has come: percent, what it does, what it waits for. A node that goes back and forth
// between two steps, as in a network that is not there yet, says so once a minute and not each time.
func progress(w io.Writer) func(percent int, doing, waiting string) {
	var mu sync.Mutex
	said := make(map[string]time.Time)
	return func(percent int, doing, waiting string) {
		mu.Lock()
		defer mu.Unlock()
		maps.DeleteFunc(said, func(_ string, at time.Time) bool { return percent == 100 || time.Since(at) >= time.Minute })
		if key := doing + waiting; percent < 100 {
			if _, again := said[key]; again {
				return
			}
			said[key] = time.Now()
		}
		if waiting != "" {
			waiting = " (waiting for " + waiting + ")"
		}
		fmt.Fprintf(w, "%3d %%  %s%s\n", percent, doing, waiting)
	}
}
