package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"cepa/cert"
)

// RelaySetup is what a new relay is made of.
type RelaySetup struct {
	To      string      // folder that gets everything; made if missing
	Config  RelayConfig // of which Dir, and the notice page's file, are set here
	Notice  bool        // write a notice page, for exits
	Program string      // path of cepa, for the unit
	User    string      // whom the unit runs as; the caller if empty
}

// RelayFiles are what SetUpRelay made.
type RelayFiles struct {
	Identity                      cert.Identity
	Settings, State, Unit, Notice string // paths; Notice may be ""
}

// The files in a relay's folder.
const (
	setupSettings = "relay.toml"
	setupState    = "state"
	setupUnit     = "cepa-relay.service"
	setupNotice   = "exit-notice.html"
)

// What a new exit gets, so that nobody uses it to flood somebody else.
const (
	setupMaxPerDestination  = 1000
	setupRatePerDestination = 50
)

// SetUpRelay makes a relay's keys, settings and systemd unit in a folder. It replaces no file, and leaves nothing but
// folders if something is wrong with the settings.
func SetUpRelay(s RelaySetup) (f RelayFiles, err error) {
	fail := func(err error) (RelayFiles, error) { return f, fmt.Errorf("setting up the relay: %w", err) }
	to, err := filepath.Abs(s.To)
	if err != nil {
		return fail(err)
	}
	f.Settings, f.State, f.Unit = filepath.Join(to, setupSettings), filepath.Join(to, setupState), filepath.Join(to, setupUnit)
	c := &s.Config
	policy, err := parsePolicy(c.ExitPolicy)
	if err != nil {
		return fail(err)
	}
	c.Dir = f.State
	if c.Network, err = filepath.Abs(c.Network); err != nil {
		return fail(err)
	}
	for i := range c.FamilyKeys {
		if c.FamilyKeys[i], err = filepath.Abs(c.FamilyKeys[i]); err != nil {
			return fail(err)
		}
	}
	var page []byte
	if s.Notice {
		f.Notice = filepath.Join(to, setupNotice)
		c.ExitNoticeFile = f.Notice
		if page, err = NoticePage(c.Nickname, c.Contact); err != nil {
			return fail(err)
		}
	}
	if !policy.IsEmpty() {
		c.ExitMaxPerDestination, c.ExitRatePerDestination = setupMaxPerDestination, setupRatePerDestination
	}
	checked := *c
	if err := CheckConfig(&checked); err != nil {
		return fail(err)
	}
	network, err := LoadNetwork(c.Network)
	if err != nil {
		return fail(err)
	}
	for _, path := range []string{f.Settings, f.Unit, f.Notice} {
		if _, err := os.Lstat(path); path != "" && err == nil {
			return fail(fmt.Errorf("%s exists, and is not overwritten; give another folder", path))
		}
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return fail(err)
	}
	if f.Identity, err = NewKeys(f.State, network); err != nil {
		return fail(err)
	}
	err = WriteNewFile(f.Settings, []byte(CommentedFile(c)))
	if page != nil {
		err = errors.Join(err, WriteNewFile(f.Notice, page))
	}
	unit, unitErr := systemdUnit(s, f, &checked)
	if err = errors.Join(err, unitErr); err == nil {
		err = WriteNewFile(f.Unit, []byte(unit))
	}
	if err != nil {
		return fail(err)
	}
	return f, nil
}

// systemdUnit is the text of a service that runs the relay with as few rights as it needs. checked is its settings with
// their defaults.
func systemdUnit(s RelaySetup, f RelayFiles, checked *RelayConfig) (string, error) {
	who := s.User
	if who == "" {
		me, err := user.Current()
		if err != nil {
			return "", err
		}
		who = me.Username
	}
	drain, _ := time.ParseDuration(checked.Drain) // checked
	if checked.Drain == "" {
		drain = defaultDrain
	}
	u := Unit{
		Role: "relay", User: who, Program: unitWord(s.Program), Settings: unitWord(f.Settings), State: unitWord(f.State), Stop: drain,
		LowPorts: lowPort(checked.Listen) || lowPort(checked.ExitNotice),
	}
	if checked.Nickname != "" {
		u.Description = "cepa relay " + checked.Nickname
	}
	for _, path := range append([]string{s.Program, f.Settings, checked.Network}, checked.FamilyKeys...) {
		u.Home = u.Home || inHome(path)
	}
	return u.Text(), nil
}

// unitWord is a path as it stands in a unit.
func unitWord(path string) string {
	path = strings.NewReplacer("%", "%%", "$", "$$").Replace(path)
	if strings.ContainsAny(path, " \t\"'\\;") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
	}
	return path
}

func lowPort(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Port() < 1024
}

// JoinFamily adds the key of a family to family_keys in a relay's settings file. The rest of the file stays as it is.
func JoinFamily(settings, key string) (cert.FamilyID, error) {
	id, err := joinFamily(settings, key)
	if err != nil {
		return id, fmt.Errorf("joining a family: %w", err)
	}
	return id, nil
}

func joinFamily(settings, key string) (id cert.FamilyID, err error) {
	k, err := loadFamily(key)
	if err != nil {
		return id, err
	}
	id = k.ID()
	c, err := LoadRelayConfig(settings)
	if err != nil {
		return id, err
	}
	if key, err = filepath.Abs(key); err != nil {
		return id, err
	}
	for _, held := range c.FamilyKeys {
		if other, err := loadFamily(held); err == nil && other.ID() == id {
			return id, fmt.Errorf("%s has this family already, in %s", settings, held)
		}
	}
	c.FamilyKeys = append(c.FamilyKeys, key)
	if len(c.FamilyKeys) > maxFamilies {
		return id, fmt.Errorf("a relay is in at most %d families", maxFamilies)
	}
	text, err := readBounded(settings, maxConfig)
	if err != nil {
		return id, err
	}
	changed := setLine(string(text), "family_keys", settingText(&c, "family_keys"))
	var again RelayConfig
	if err := decodeTOML([]byte(changed), &again); err != nil || len(again.FamilyKeys) != len(c.FamilyKeys) {
		return id, fmt.Errorf("%s cannot be changed by itself: add %q to its family_keys", settings, key)
	}
	return id, WriteFileAtomic(settings, []byte(changed), 0o600)
}

func settingText(config any, name string) string {
	for _, s := range Settings(config) {
		if s.Name == name {
			return s.Text(config)
		}
	}
	return ""
}

// setLine gives a setting that is on one line of a file a value: in its place, or in that of its commented default, or
// before all else.
func setLine(text, name, value string) string {
	lines := strings.SplitAfter(text, "\n")
	for _, commented := range []string{"", "#"} {
		for i, line := range lines {
			key, _, ok := strings.Cut(line, "=")
			if ok && strings.TrimSpace(key) == commented+name {
				lines[i] = name + " = " + value + "\n"
				return strings.Join(lines, "")
			}
		}
	}
	return name + " = " + value + "\n" + text
}
