package ntor

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// vector is the published vector of ntor version 3, by the names it uses.
type vector map[string][]byte

func readVector(t *testing.T) vector {
	t.Helper()
	text, err := os.ReadFile("testdata/ntor_v3_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]string
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	v := vector{}
	for name, value := range fields {
		if strings.HasPrefix(name, "_") {
			continue
		}
		if v[name], err = hex.DecodeString(value); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return v
}

// checker compares values with those of the vector and remembers which of them
// were compared or used as input.
type checker struct {
	t      *testing.T
	vector vector
	seen   map[string]bool
}

func (c *checker) input(name string) []byte {
	c.t.Helper()
	value, ok := c.vector[name]
	if !ok {
		c.t.Fatalf("the vector has no %s", name)
	}
	c.seen[name] = true
	return value
}

func (c *checker) check(name string, got []byte) {
	c.t.Helper()
	if want := c.input(name); !bytes.Equal(got, want) {
		c.t.Errorf("%s is\n%x, the vector says\n%x", name, got, want)
	}
}

// TestPublishedVector runs the code of both ends, without its KEM, against every
// value of the published vector.
func TestPublishedVector(t *testing.T) {
	t.Parallel()
	c := &checker{t: t, vector: readVector(t), seen: map[string]bool{}}
	p := protocol{name: "ntor3-curve25519-sha3_256-1", verification: c.input("VER")}
	id := [32]byte(c.input("ID"))
	onionKey := NewOnionKey([32]byte(c.input("b")))
	public := onionKey.Public()
	c.check("B", public[:])

	client, message, err := p.initiate(newPrivateKey(c.input("x")), nil, nil, id, public, c.input("CM"))
	if err != nil {
		t.Fatal(err)
	}
	encKey, macKey := p.messageKeys(&client.exchange)
	c.check("X", client.exchange.x[:])
	c.check("ENC_K1", encKey[:])
	c.check("MAC_K1", macKey[:])
	c.check("msg_mac", client.exchange.mac[:])
	c.check("client_handshake", message)

	e, cm, err := p.openOffer(id, []*OnionKey{onionKey}, message)
	if err != nil {
		t.Fatal(err)
	}
	c.check("CM", cm)
	keystream := make([]byte, len(c.input("KEYSTREAM")))
	reply, err := p.sealAnswer(e, newPrivateKey(c.input("y")), c.input("SM"), keystream)
	if err != nil {
		t.Fatal(err)
	}
	seed, verify := p.secrets(e)
	p.finalKeys(&seed, &encKey, make([]byte, 1))
	c.check("Y", e.y[:])
	c.check("key_seed", seed[:])
	c.check("verify", verify[:])
	c.check("server_ENC_KEY", encKey[:])
	c.check("AUTH", reply[pointSize:pointSize+hashSize])
	c.check("server_handshake", reply)
	c.check("KEYSTREAM", keystream)

	clear(keystream)
	sm, err := client.finish(reply, keystream)
	if err != nil {
		t.Fatal(err)
	}
	c.check("SM", sm)
	c.check("KEYSTREAM", keystream)

	for name := range c.vector {
		if !c.seen[name] {
			t.Errorf("%s of the vector was not tested", name)
		}
	}
}
