package calibration

import (
	"bytes"
	"strings"
	"testing"
)

// TestFileSaysTheFigures: what is written is read again; the digest is of the figures alone.
func TestFileSaysTheFigures(t *testing.T) {
	t.Parallel()
	c := Default()
	got, err := Parse(c.TOML())
	if err != nil || got != c {
		t.Fatalf("%+v, %v", got, err)
	}
	renamed := c
	renamed.Machine = "another"
	for i, f := range renamed.figures() {
		if renamed.Digest() != c.Digest() {
			t.Fatalf("figure %d: the digest differs before it does", i)
		}
		*f.value++
		if renamed.Digest() == c.Digest() {
			t.Errorf("%s is not in the digest", f.key)
		}
		*f.value--
	}
	if d := c.Digest(); len(d) != 64 || strings.ToLower(d) != d {
		t.Errorf("digest %q", d)
	}
}

// TestFileIsReadStrictly: an error names the key and what is allowed.
func TestFileIsReadStrictly(t *testing.T) {
	t.Parallel()
	text := string(Default().TOML())
	for _, test := range []struct{ name, text, want string }{
		{"unknown", text + "event_n = 1\n", `there is no figure "event_n" (did you mean "event_ns"?)`},
		{"missing", strings.Replace(text, "layer_ns = 333", "", 1), "layer_ns is missing"},
		{"negative", strings.Replace(text, "layer_ns = 333", "layer_ns = -1", 1), "layer_ns is -1: it must be from 0"},
		{"too much", strings.Replace(text, "layer_ns = 333", "layer_ns = 1000000001", 1), "it must be from 0"},
		{"no number", strings.Replace(text, "layer_ns = 333", `layer_ns = "x"`, 1), "column"},
		{"no file", "[[", "column"},
	} {
		if _, err := Parse([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Default().TOML())
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(c.TOML())
		if err != nil || again != c || !bytes.Equal(again.TOML(), c.TOML()) {
			t.Fatalf("%+v, %+v, %v", c, again, err)
		}
	})
}

// TestMachines: a relay has one layer a cell, a client three; few cores put the work of links on the loop.
func TestMachines(t *testing.T) {
	t.Parallel()
	c := Calibration{Event: 1, Pass: 10, Layer: 100, Receive: 1000, Write: 2000, Answer: 5, Begin: 6, Finish: 8, Verify: 9, Link: 3}
	if r := c.Relay(8); r.Cell != 110 || r.Send != 0 || r.Offload != 5 || r.Link != 3 || r.Event != 1 || r.Cores != 8 {
		t.Errorf("relay: %+v", r)
	}
	if r := c.Relay(2); r.Cell != 1110 || r.Send != 2000 {
		t.Errorf("relay on two cores: %+v", r)
	}
	if r := c.Client(0); r.Cell != 310 || r.Send != 300 || r.Offload != 7 {
		t.Errorf("client: %+v", r)
	}
	if r := c.Authority(1); r.Cell != 1110 || r.Offload != 9 {
		t.Errorf("authority: %+v", r)
	}
}
