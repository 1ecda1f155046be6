package scenario

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Names of groups that a scenario has besides its own.
const (
	authorityGroup = "authority"
	serverGroup    = "server"
	livenessName   = "liveness"
)

// The kinds of loads.
const (
	loadWeb   = "web"
	loadBulk  = "bulk"
	loadChat  = "chat"
	loadTrace = "trace"
)

var loadKinds = []string{loadWeb, loadBulk, loadChat, loadTrace}

func (s *Scenario) authorities() int { return max(1, s.Network.Authorities) }

func (r *Relays) name() string {
	if r.Name == "" {
		return "relay"
	}
	return r.Name
}

func (r *Relays) policy() string {
	if r.Policy == "" {
		return "all"
	}
	return r.Policy
}

func (c *Clients) name() string {
	if c.Name == "" {
		return "client"
	}
	return c.Name
}

func (l *Load) port() uint16 {
	switch {
	case l.Port != 0:
		return uint16(l.Port)
	case l.Kind == loadChat:
		return 443
	}
	return 80
}

// servers are those of the scenario, or the one that there is without any.
func (s *Scenario) servers() []Servers {
	if len(s.Servers) == 0 {
		return []Servers{{Host: defaultHost}}
	}
	return s.Servers
}

func (v *Servers) ports() []int {
	if len(v.Ports) == 0 {
		return []int{80, 443}
	}
	return v.Ports
}

// serves says whether a server answers.
func (s *Scenario) serves(host string, port uint16) bool {
	for _, v := range s.servers() {
		for _, p := range v.ports() {
			if v.Host == host && p == int(port) {
				return true
			}
		}
	}
	return false
}

func (c *Churn) from(s *Scenario) Duration {
	if c.From == 0 {
		return s.Warmup
	}
	return c.From
}

func (c *Churn) until(s *Scenario) Duration {
	if c.Until == 0 {
		return s.Duration
	}
	return c.Until
}

func (f *Fault) until(s *Scenario) Duration {
	if f.Until == 0 {
		return s.Duration
	}
	return f.Until
}

// lasts is how long it does; 0 is for ever.
func (f *Fault) lasts() Duration {
	if f.Kind == "restart" && f.For == 0 {
		return Duration(1e9)
	}
	return f.For
}

// times is how often it happens, at most one more than may be.
func (f *Fault) times(s *Scenario) int {
	if f.Every <= 0 || f.until(s) <= f.At {
		return 1
	}
	return int(min((f.until(s)-f.At)/f.Every+1, maxEvents+1))
}

// kind is what a group's machines run.
type kind int

const (
	isAuthority kind = iota
	isRelay
	isClient
	isServer
)

// group is a name, and how many machines have it.
type group struct {
	name  string
	kind  kind
	index int // among the groups of its kind
	count int
}

// groups are all, in the order in which their machines are made.
func (s *Scenario) groups() []group {
	list := []group{{authorityGroup, isAuthority, 0, s.authorities()}}
	for i := range s.Relays {
		list = append(list, group{s.Relays[i].name(), isRelay, i, s.Relays[i].Count})
	}
	list = append(list, group{serverGroup, isServer, 0, len(s.servers())})
	for i := range s.Clients {
		list = append(list, group{s.Clients[i].name(), isClient, i, s.Clients[i].Count})
	}
	return list
}

// groupNames are those of groups with processes.
func (s *Scenario) groupNames() (names []string) {
	for _, g := range s.groups() {
		if g.kind != isServer {
			names = append(names, g.name)
		}
	}
	return names
}

func nodeName(group string, i int) string { return fmt.Sprintf("%s-%d", group, i+1) }

// groupOf is the group and number, from 0, of a machine; an empty name when there is none.
func (s *Scenario) groupOf(node string) (name string, index int) {
	cut := strings.LastIndexByte(node, '-')
	if cut < 0 {
		return "", 0
	}
	n, err := strconv.Atoi(node[cut+1:])
	for _, g := range s.groups() {
		if err == nil && g.name == node[:cut] && n >= 1 && n <= g.count && nodeName(g.name, n-1) == node {
			return g.name, n - 1
		}
	}
	return "", 0
}

// match counts the machines whose names fit a pattern.
func (s *Scenario) match(pattern string) (n int) {
	if name, _ := s.groupOf(pattern); name != "" {
		return 1
	}
	if !strings.ContainsAny(pattern, "*?[") {
		return 0
	}
	for _, g := range s.groups() {
		if pattern == g.name+"-*" {
			n += max(0, g.count)
			continue
		}
		for i := range min(g.count, maxNodes) {
			if ok, err := path.Match(pattern, nodeName(g.name, i)); ok && err == nil {
				n++
			}
		}
	}
	return n
}

// examples shows what names there are.
func (s *Scenario) examples() string {
	var names []string
	for _, g := range s.groups() {
		switch {
		case g.count == 1:
			names = append(names, nodeName(g.name, 0))
		case g.count > 1:
			names = append(names, fmt.Sprintf("%s to %d", nodeName(g.name, 0), g.count))
		}
	}
	return strings.Join(names, ", ")
}
