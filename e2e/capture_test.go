//go:build linux

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cepa/cell"
)

// A capture of every link, decrypted with the key log: TLS 1.3 as the protocol wants it, and
// in it nothing but whole cells, in which the destination and the content are not to be seen.
func TestLinksCarryOnlyCellsInTLS13(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	s := sniff(t, 0)
	o := newOverlay(t, "--tls-keylog")
	g := listenOrigin(t, o)
	question, answer := bytes.Repeat([]byte("the question of the client "), 4000), bytes.Repeat([]byte("the answer of the origin "), 8000)
	g.serveConns(func(c *net.TCPConn) {
		if _, err := io.ReadFull(c, make([]byte, len(question))); err == nil {
			_, _ = c.Write(answer)
		}
	})
	for i := range 5 {
		user := fmt.Sprint("user ", i)
		c, err := dialSOCKS(o.socks, user, fmt.Sprintf("localhost:%d", g.addr.Port()), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(question)
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, answer) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		c.Close()
		if err := hello(t, o.socks, user, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	relays := make(map[netip.AddrPort]bool)
	for _, n := range o.servers() {
		relays[netip.MustParseAddrPort(n.Address)] = true
	}
	time.Sleep(3 * time.Second) // keepalives and another consensus
	o.end()
	packets := s.end(t)
	text, err := os.ReadFile(filepath.Join(o.dir, "tls-keys.log"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := parseKeyLog(text)
	if err != nil {
		t.Fatal(err)
	}
	all, err := conversations(packets)
	if err != nil {
		t.Fatal(err)
	}

	secrets := map[string][]byte{
		"the client's bytes": question[:27], "the origin's bytes": answer[:25],
		"the destination's name": []byte("hello.demo"), "a request": []byte("GET / HTTP"),
	}
	outside := make(map[string]bool) // what the capture shows beside the links: the control
	links, cells, commands := 0, 0, make(map[cell.Command]int)
	for _, c := range all {
		if !relays[c.server] {
			for what, b := range secrets {
				outside[what] = outside[what] || bytes.Contains(c.toServer, b) || bytes.Contains(c.toClient, b)
			}
			continue
		}
		if len(c.toClient) == 0 {
			continue // nobody listened yet
		}
		for what, b := range secrets {
			if bytes.Contains(c.toServer, b) || bytes.Contains(c.toClient, b) {
				t.Errorf("%v to %v: %s in the clear", c.client, c.server, what)
			}
		}
		session, err := log.decrypt(c)
		if err != nil {
			t.Errorf("%v to %v: %v", c.client, c.server, err)
			continue
		}
		links++
		if err := checkHandshake(session); err != nil {
			t.Errorf("%v to %v: %v", c.client, c.server, err)
		}
		for _, direction := range [][]record{session.toServer, session.toClient} {
			n, err := checkRecords(direction, secrets, commands)
			cells += n
			if err != nil {
				t.Errorf("%v to %v: %v", c.client, c.server, err)
			}
		}
	}
	for what := range secrets {
		if !outside[what] {
			t.Errorf("the capture does not show %s between programs and nodes: it is no proof", what)
		}
	}
	t.Logf("%d packets, %d connections, %d links, %d cells: %v", len(packets), len(all), links, cells, commands)
	if links < 10 || commands[cell.CommandRelay] < 100 || commands[cell.CommandRelayEarly] == 0 || commands[cell.CommandCreate] == 0 {
		t.Errorf("%d links with the cells %v: the capture missed what there must have been", links, commands)
	}
}

// checkHandshake looks at the two hellos.
func checkHandshake(s *session) error {
	c := s.client.extensions
	if v := c[extVersions]; !bytes.Equal(v, []byte{2, versionTLS13 >> 8, versionTLS13 & 0xff}) {
		return fmt.Errorf("the dialling side offers the TLS versions %x", v)
	}
	if v := s.server.extensions[extVersions]; !bytes.Equal(v, []byte{versionTLS13 >> 8, versionTLS13 & 0xff}) {
		return fmt.Errorf("the TLS version is %x", v)
	}
	if g := c[extGroups]; !bytes.Equal(g, []byte{0, 2, groupMLKEM >> 8, groupMLKEM & 0xff}) {
		return fmt.Errorf("the dialling side offers the groups %x", g)
	}
	if k := s.server.extensions[extKeyShare]; len(k) < 2 || binary.BigEndian.Uint16(k) != groupMLKEM {
		return fmt.Errorf("the key share is of group %.2x", k)
	}
	for name, e := range map[string]uint16{"a server name": extServerName, "ALPN": extALPN, "a ticket": extPreSharedKey, "early data": extEarlyData} {
		if _, ok := c[e]; ok {
			return fmt.Errorf("the dialling side sends %s", name)
		}
	}
	return nil
}

// checkRecords looks at what one side sent after its handshake: whole cells, HELLO first.
func checkRecords(list []record, secrets map[string][]byte, commands map[cell.Command]int) (cells int, err error) {
	for i, r := range list {
		switch {
		case r.typ == recordAlert && len(r.body) == 2 && r.body[1] == alertCloseNotify && i == len(list)-1:
			continue
		case r.typ != recordApplication:
			return cells, fmt.Errorf("record %d after the handshake is of type %d: %.8x", i, r.typ, r.body)
		case len(r.body) == 0 || len(r.body)%cell.Size != 0:
			return cells, fmt.Errorf("record %d after the handshake has %d bytes, no whole cells", i, len(r.body))
		}
		for what, b := range secrets {
			if bytes.Contains(r.body, b) {
				return cells, fmt.Errorf("%s is in a cell that the link's two ends can read", what)
			}
		}
		for c := range slices.Chunk(r.body, cell.Size) {
			command := cell.Command(c[4] &^ 0x80)
			if (cells == 0) != (command == cell.CommandHello) {
				return cells, fmt.Errorf("cell %d is %v", cells, command)
			}
			if command > cell.CommandRelayEarly {
				return cells, fmt.Errorf("cell %d has the unknown command %d", cells, command)
			}
			commands[command]++
			cells++
		}
	}
	return cells, nil
}
