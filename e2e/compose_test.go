//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// composed is deploy/compose as the library of Docker Compose reads it: it checks the schema, and what is named.
func composed(t *testing.T) *types.Project {
	t.Helper()
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  t.TempDir(),
		ConfigFiles: []types.ConfigFile{{Filename: "../deploy/compose/compose.yaml"}},
		Environment: types.Mapping{},
	}, func(o *loader.Options) { o.Profiles = []string{"*"} })
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// TestComposeGivesNothingAway: only the client's port is published, on loopback alone; no node has rights or a file system
// to write to but its own folder, and none but the authority sees the authority's keys.
func TestComposeGivesNothingAway(t *testing.T) {
	t.Parallel()
	project := composed(t)
	owner := map[string]string{}
	addresses := map[string]string{}
	for name, s := range project.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || s.Privileged || s.User != "" ||
			!slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Image != project.Services["client"].Image {
			t.Errorf("%s may do too much: %+v", name, s)
		}
		if (name == "client") != (len(s.Ports) == 1) {
			t.Errorf("%s publishes %+v", name, s.Ports)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s: others can reach %+v", name, p)
			}
			if socks := netip.MustParseAddrPort(flagOf(t, s, "--socks")); uint32(socks.Port()) != p.Target {
				t.Errorf("%s listens at %v, and %d is published", name, socks, p.Target)
			}
		}
		if name != "found" {
			address := s.Networks["overlay"].Ipv4Address
			if other, taken := addresses[address]; taken {
				t.Errorf("%s and %s have the address %s", name, other, address)
			}
			addresses[address] = name
			flag := "--listen"
			if name == "client" {
				flag = "--socks"
			}
			if listen := flagOf(t, s, flag); !strings.HasPrefix(listen, address+":") {
				t.Errorf("%s has the address %s and listens at %s", name, address, listen)
			}
		}
		for _, v := range s.Volumes {
			if _, known := project.Volumes[v.Source]; v.Type != types.VolumeTypeVolume || !known {
				t.Errorf("%s mounts %+v", name, v)
			}
			if v.ReadOnly {
				if v.Volume == nil || v.Volume.Subpath != "network.toml" {
					t.Errorf("%s sees more than the network file: %+v", name, v)
				}
				continue
			}
			if other := owner[v.Source]; other != "" && v.Source != "authority" {
				t.Errorf("%s and %s share a folder", name, other)
			}
			if v.Source == "authority" && name != "found" && name != "authority" {
				t.Errorf("%s sees the keys of the authority", name)
			}
			owner[v.Source] = name
		}
	}
}

// flagOf is the value of a flag in a service's command.
func flagOf(t *testing.T, s types.ServiceConfig, flag string) string {
	t.Helper()
	i := slices.Index(s.Command, flag)
	if i < 0 || i+1 == len(s.Command) {
		t.Fatalf("%s has no %s: %q", s.Name, flag, s.Command)
	}
	return s.Command[i+1]
}

// TestComposeIsANetwork: the commands, run as processes with the volumes as folders and the addresses on loopback, are a
// network that fetches the page which the file's own first lines name.
func TestComposeIsANetwork(t *testing.T) {
	notShort(t)
	need(t, "curl")
	project, root := composed(t), t.TempDir()
	// here says where something in a container is on this machine.
	here := func(s types.ServiceConfig, word string) string {
		for _, v := range s.Volumes {
			if rest, ok := strings.CutPrefix(word, v.Target); ok && (rest == "" || rest[0] == '/') {
				sub := ""
				if v.Volume != nil {
					sub = v.Volume.Subpath
				}
				return filepath.Join(root, v.Source, sub, rest)
			}
		}
		if strings.HasPrefix(word, "/") {
			t.Errorf("%s uses %s, which is no volume", s.Name, word)
		}
		return strings.ReplaceAll(word, "172.30.41.", "127.46.41.")
	}
	args := func(name string) (args []string) {
		s, ok := project.Services[name]
		if !ok {
			t.Fatalf("no service %s", name)
		}
		for _, word := range s.Command {
			args = append(args, here(s, word))
		}
		return args
	}
	if out, code := finish(t, 20*time.Second, command(t, args("found")...)); code != 0 {
		t.Fatalf("status %d: %s", code, out)
	}
	if out, code := finish(t, 20*time.Second, command(t, args("found")...)); code != 1 || !strings.Contains(out, "network.toml") {
		t.Errorf("founded again: status %d: %s", code, out)
	}
	nodes := map[string]*process{}
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		if name == "found" {
			continue
		}
		p, err := launch(command(t, args(name)...))
		fatal(t, err)
		t.Cleanup(func() {
			p.end()
			if t.Failed() {
				t.Logf("%s said:\n%s", name, p.tail())
			}
		})
		nodes[name] = p
	}
	client := project.Services["client"]
	socks := here(client, flagOf(t, client, "--socks"))
	page := here(project.Services["exit-2"], flagOf(t, project.Services["exit-2"], "--exit-notice"))
	within(t, 90*time.Second, "a page comes through three relays", func() bool {
		for name, p := range nodes {
			if !p.running() {
				t.Fatalf("%s has ended: %v", name, p.err)
			}
		}
		out, err := exec.Command("curl", "-sS", "--max-time", "10", "--socks5-hostname", socks, fmt.Sprintf("http://%s/", page)).Output()
		return err == nil && strings.Contains(string(out), "<b>exit-2</b>")
	})
	for name, s := range project.Services { // those of the image for the others
		if s.HealthCheck == nil || s.HealthCheck.Disable {
			continue
		}
		words := []string{}
		for _, word := range s.HealthCheck.Test[2:] {
			words = append(words, here(s, word))
		}
		if out, code := finish(t, 10*time.Second, command(t, words...)); code != 0 {
			t.Errorf("%s is not healthy: status %d: %s", name, code, out)
		}
	}
}
