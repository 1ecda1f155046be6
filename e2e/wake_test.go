//go:build linux

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wakeLimit is how soon a client works again after sleep or a change of network, also where nothing shows the change but
// that no answers come.
const wakeLimit = 10 * time.Second

// inside runs ip in the client's namespace.
func (a *abroad) inside(t *testing.T, words string) {
	t.Helper()
	if out, code := finish(t, 20*time.Second, a.command(t, append([]string{need(t, "ip")}, strings.Fields(words)...)...)); code != 0 {
		t.Fatalf("ip %s: %s", words, out)
	}
}

// outside runs ip where the relays are.
func outside(t *testing.T, words string) {
	t.Helper()
	if out, code := finish(t, 20*time.Second, exec.Command(need(t, "ip"), strings.Fields(words)...)); code != 0 {
		t.Fatalf("ip %s: %s", words, out)
	}
}

// TestClientWakes: after sleep and after changes of network the client works again within ten seconds: a program that
// tries again and again has its page, in a new circuit and in the one that was used before.
func TestClientWakes(t *testing.T) {
	long(t)
	t.Parallel() // it sleeps
	if !ownNetwork(t) {
		return
	}
	a := newAbroad(t, "interval_ms=10000")
	again := func(t *testing.T, limit time.Duration) {
		t.Helper()
		start := time.Now()
		took := map[string]time.Duration{}
		for _, user := range []string{"the same", fmt.Sprint("new ", start.UnixNano())} {
			for attempt := 1; ; attempt++ {
				err := a.page(t, user, time.Minute)
				took[user] = time.Since(start)
				if err == nil {
					break
				}
				t.Logf("attempt %d after %v: %v", attempt, time.Since(start).Round(time.Millisecond), err)
				if time.Since(start) > 2*time.Minute {
					t.Fatal("it does not come back")
				}
				time.Sleep(100 * time.Millisecond)
			}
			if took[user] > limit {
				t.Errorf("it took %v for %s", took[user].Round(time.Millisecond), user)
			}
		}
		t.Logf("the first page after %v, in a new circuit after %v", took["the same"].Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	}
	sleep := func(d time.Duration) {
		a.client.signal(syscall.SIGSTOP)
		time.Sleep(d)
		a.client.signal(syscall.SIGCONT)
	}
	if err := a.page(t, "the same", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		limit  time.Duration
		change func(t *testing.T)
	}{
		{"half a minute of sleep", wakeLimit, func(*testing.T) { sleep(30 * time.Second) }},
		{"sleep without network", wakeLimit, func(t *testing.T) { // what the relays sent meanwhile is lost
			outside(t, "link set near down")
			sleep(30 * time.Second)
			outside(t, "link set near up")
			time.Sleep(100 * time.Millisecond)
		}},
		{"another address", wakeLimit, func(t *testing.T) {
			a.inside(t, "addr flush dev far")
			a.inside(t, "addr add 10.99.0.3/24 dev far")
			a.inside(t, "route add default via "+cableOuter)
		}},
		{"no network for 20 s", wakeLimit, func(t *testing.T) {
			a.inside(t, "link set far down")
			time.Sleep(20 * time.Second)
			a.inside(t, "link set far up")
			a.inside(t, "route add default via "+cableOuter)
		}},
		{"another network while it sleeps", wakeLimit, func(t *testing.T) {
			a.client.signal(syscall.SIGSTOP)
			a.inside(t, "addr flush dev far")
			outside(t, "addr add 10.98.0.1/24 dev near")
			a.inside(t, "addr add 10.98.0.2/24 dev far")
			a.inside(t, "route add default via 10.98.0.1")
			time.Sleep(20 * time.Second)
			a.client.signal(syscall.SIGCONT)
		}},
		{"the same address behind another router", wakeLimit, func(t *testing.T) { // which knows nothing of the connections
			ports := connectionsOf(t)
			rules := "table inet moved {\n" +
				"chain in {\ntype filter hook input priority 0;\nip saddr 10.98.0.2 tcp sport " + ports + " drop;\n}\n" +
				"chain out {\ntype filter hook output priority 0;\nip daddr 10.98.0.2 tcp dport " + ports + " drop;\n}\n}\n"
			nft := exec.Command(need(t, "nft"), "-f", "-")
			nft.Stdin = strings.NewReader(rules)
			if out, code := finish(t, 20*time.Second, nft); code != 0 {
				lacking(t, "nft makes no rules here: %s", out)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.change(t)
			again(t, c.limit)
		})
	}
}

// connectionsOf are the client's ports of its connections with relays, as nft has them.
func connectionsOf(t *testing.T) string {
	t.Helper()
	out, _ := finish(t, 20*time.Second, exec.Command(need(t, "ss"), "-Htn", "state", "established", "dst", "10.98.0.2"))
	var ports []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) >= 4 {
			ports = append(ports, f[3][strings.LastIndexByte(f[3], ':')+1:])
		}
	}
	if len(ports) == 0 {
		t.Fatalf("the client has no links:\n%s", out)
	}
	return "{ " + strings.Join(ports, ", ") + " }"
}
