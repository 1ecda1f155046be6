package daemon

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Unit is a systemd service that runs one node with as few rights as it needs. `cepa relay setup` writes one for its
// folder, and deploy/systemd has those of the packages: one text, so that they cannot drift apart.
type Unit struct {
	Role        string // relay, client or authority
	Description string // what people see; "cepa " and Role if empty
	User        string
	Program     string // path of cepa
	Settings    string // path of its settings file
	State       string // the node's folder; below /var/lib systemd makes it
	Stop        time.Duration
	LowPorts    bool // it listens at a port below 1024
	Home        bool // settings or State are in somebody's home
	Manual      bool // the manual is installed
}

// Where the packages have things.
const (
	stateRoot = "/var/lib/"
	// stopSpare is what a node has for the rest when its circuits are gone.
	stopSpare = 15 * time.Second
)

// PackagedUnits are the units of deploy/systemd, by file name. One that ends in @.service is for several relays on one
// machine; %i is their name.
func PackagedUnits() map[string]Unit {
	unit := func(role, name string) Unit {
		u := Unit{
			Role: role, User: "cepa", Program: "/usr/bin/cepa", Settings: "/etc/cepa/" + name + ".toml", State: stateRoot + "cepa/" + name,
			Manual: true,
		}
		if role == "relay" {
			u.Stop = defaultDrain
		}
		return u
	}
	more := unit("relay", "relay-%i")
	more.Description = "cepa relay %i"
	return map[string]Unit{
		"cepa-relay.service":     unit("relay", "relay"),
		"cepa-relay@.service":    more,
		"cepa-authority.service": unit("authority", "authority"),
		"cepa-client.service":    unit("client", "client"),
	}
}

// Text is the unit file. Paths are taken as they stand, specifiers such as %i among them: see unitWord.
func (u Unit) Text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	description := u.Description
	if description == "" {
		description = "cepa " + u.Role
	}
	line("[Unit]\nDescription=%s", description)
	if u.Manual {
		line("Documentation=man:cepa-%s(1) man:cepa-%[1]s.toml(5)", u.Role)
	}
	line("Wants=network-online.target\nAfter=network-online.target time-sync.target\n")
	line("[Service]\nType=exec\nUser=%s", u.User)
	line("ExecStart=%s %s --config %s\nExecReload=/bin/kill -HUP $MAINPID", u.Program, u.Role, u.Settings)
	line("Restart=on-failure\nRestartSec=5s\n# A mistake in the command line stays one.\nRestartPreventExitStatus=2")
	if u.Role == "relay" {
		line("# The relay lets its circuits end first: this is its drain, and some more. Whoever changes one changes both.")
	}
	line("TimeoutStopSec=%d\nLimitNOFILE=65536\n# A core would have keys in it.\nLimitCORE=0\nUMask=0077\n", int((u.Stop+stopSpare)/time.Second))
	if under, ok := strings.CutPrefix(u.State, stateRoot); ok {
		line("StateDirectory=%s\nStateDirectoryMode=0700", under)
	} else {
		line("ReadWritePaths=%s", u.State)
	}
	if u.LowPorts {
		line("CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE")
	} else {
		line("# A port below 1024 needs CAP_NET_BIND_SERVICE in both, and PrivateUsers=no.\nCapabilityBoundingSet=\nAmbientCapabilities=\nPrivateUsers=yes")
	}
	home := "yes"
	if u.Home {
		home = "read-only"
	}
	line("NoNewPrivileges=yes\nProtectSystem=strict\nProtectHome=%s", home)
	families := "AF_INET AF_INET6 AF_UNIX"
	if u.Role == "relay" {
		families += " AF_NETLINK" // an exit asks for the machine's addresses, to know whether it reaches IPv6
	}
	line("RestrictAddressFamilies=%s", families)
	b.WriteString(unitSandbox)
	return b.String()
}

// unitSandbox is what holds for every node. ProcSubset=pid is not in it: it would hide how many connections may wait to
// be accepted, and Go would then take 128.
const unitSandbox = `PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
PrivateMounts=yes
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
`

// inHome reports whether a path is where ProtectHome would hide it.
func inHome(path string) bool {
	for _, home := range []string{"/home", "/root", "/run/user"} {
		if path == home || strings.HasPrefix(filepath.ToSlash(path), home+"/") {
			return true
		}
	}
	return false
}
