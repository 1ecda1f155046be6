// Package calibration is what work costs on a machine: figures of the daemon's own code, as a file that
// a scenario names, for the processors of simnet's hosts.
//
// It holds values only. Package calibrate measures them; Default has fixed ones, so that a scenario
// that names no file gives the same results on any machine. Who reads scenarios calls this. Values do
// not change once they are made, and may be shared.
package calibration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"cepa/nearest"
	"cepa/simnet"
)

// Calibration has the figures in nanoseconds of a processor.
type Calibration struct {
	// Machine says in words where they come from.
	Machine string `toml:"machine" comment:"where the figures were measured"`
	// Event is any event on a node's loop: waking it, and the run through its queue.
	Event int64 `toml:"event_ns" comment:"an event on a node's loop"`
	// Pass is a cell that a relay passes on, on the loop: one look-up, the flow control of two links.
	Pass int64 `toml:"pass_ns" comment:"a cell that a relay passes on: look-up, credit, scheduling; without its layer"`
	// Layer is one layer of a cell's cipher.
	Layer int64 `toml:"layer_ns" comment:"one layer of a cell's cipher"`
	// Receive and Write are a cell at the two ends of a link, off the loop: the TLS record and the kernel.
	Receive int64 `toml:"receive_ns" comment:"a cell received: TLS and the kernel, off the loop"`
	Write   int64 `toml:"write_ns" comment:"a cell written: TLS and the kernel, off the loop"`
	// Answer is the relay's side of a circuit handshake, Begin and Finish are the client's two steps.
	Answer int64 `toml:"answer_ns" comment:"a circuit handshake, at the relay"`
	Begin  int64 `toml:"begin_ns" comment:"a circuit handshake, the client's first step"`
	Finish int64 `toml:"finish_ns" comment:"a circuit handshake, the client's second step"`
	// Verify is a document of a kilobyte with one signer: two signatures and the parsing.
	Verify int64 `toml:"verify_ns" comment:"verifying a signed document of a kilobyte"`
	// Link is one end of setting up a link: TLS, HELLO, and the certificates in it.
	Link int64 `toml:"link_ns" comment:"one end of setting up a link: TLS and HELLO"`
}

// Default are the figures that are shipped.
func Default() Calibration {
	return Calibration{
		Machine: "linux/amd64, 2 virtual cores with VAES and VPCLMULQDQ that other work shares, go1.26",
		Event:   1280, Pass: 335, Layer: 333, Receive: 1520, Write: 1520,
		Answer: 539_000, Begin: 362_000, Finish: 279_000, Verify: 251_000, Link: 2_150_000,
	}
}

// figures are the fields with their keys, in the order of the file.
func (c *Calibration) figures() []struct {
	key   string
	value *int64
} {
	return []struct {
		key   string
		value *int64
	}{
		{"event_ns", &c.Event}, {"pass_ns", &c.Pass}, {"layer_ns", &c.Layer}, {"receive_ns", &c.Receive}, {"write_ns", &c.Write},
		{"answer_ns", &c.Answer}, {"begin_ns", &c.Begin}, {"finish_ns", &c.Finish}, {"verify_ns", &c.Verify}, {"link_ns", &c.Link},
	}
}

// most bounds a figure: what takes longer than a second is no such thing.
const most = int64(time.Second)

// Parse reads a file, strictly: every figure is there, no other key is, and each is from 0 to a second.
// The error names the key and what is allowed.
func Parse(data []byte) (Calibration, error) {
	var c Calibration
	var given map[string]any
	d := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Calibration{}, fmt.Errorf("reading a calibration: %w", c.explain(err))
	}
	if err := toml.Unmarshal(data, &given); err != nil {
		return Calibration{}, fmt.Errorf("reading a calibration: %w", err)
	}
	for _, f := range c.figures() {
		if _, ok := given[f.key]; !ok {
			return Calibration{}, fmt.Errorf("reading a calibration: %s is missing", f.key)
		}
		if *f.value < 0 || *f.value > most {
			return Calibration{}, fmt.Errorf("reading a calibration: %s is %d: it must be from 0 to %d", f.key, *f.value, most)
		}
	}
	return c, nil
}

func (c *Calibration) explain(err error) error {
	var strict *toml.StrictMissingError
	var decode *toml.DecodeError
	switch {
	case errors.As(err, &strict) && len(strict.Errors) > 0:
		row, _ := strict.Errors[0].Position()
		key := strings.Join(strict.Errors[0].Key(), ".")
		names := []string{"machine"}
		for _, f := range c.figures() {
			names = append(names, f.key)
		}
		hint := ""
		if name := nearest.Name(key, names); name != "" {
			hint = fmt.Sprintf(" (did you mean %q?)", name)
		}
		return fmt.Errorf("line %d: there is no figure %q%s", row, key, hint)
	case errors.As(err, &decode):
		row, column := decode.Position()
		return fmt.Errorf("line %d, column %d: %w", row, column, err)
	}
	return err
}

// TOML is the file.
func (c Calibration) TOML() []byte {
	text, err := toml.Marshal(c)
	if err != nil {
		panic(err) // a struct of numbers and a string
	}
	return text
}

// Digest names the figures, and not the words: 64 lower-case hexadecimal digits.
func (c Calibration) Digest() string {
	c.Machine = ""
	sum := sha256.Sum256(c.TOML())
	return hex.EncodeToString(sum[:])
}

// loopsOwn is with how many cores a loop has one to itself: readers and writers of links, which do TLS,
// run on the others.
const loopsOwn = 4

// ends is what is added to a cell on the loop at a machine of so many cores: on a small one what links do
// takes the loop's core from it.
func (c Calibration) ends(cores int) (in, out int64) {
	if cores == 0 || cores >= loopsOwn {
		return 0, 0
	}
	return c.Receive, c.Write
}

// Relay is a relay on a machine with so many cores; 0 is as many as there is work.
func (c Calibration) Relay(cores int) simnet.CPU {
	in, out := c.ends(cores)
	return simnet.CPU{
		Cores: cores, Event: time.Duration(c.Event), Cell: time.Duration(in + c.Pass + c.Layer), Send: time.Duration(out),
		Offload: time.Duration(c.Answer), Link: time.Duration(c.Link),
	}
}

// Client is a client on a machine with so many cores: three layers a cell each way, and its steps of a
// handshake instead of the relay's, which share a price.
func (c Calibration) Client(cores int) simnet.CPU {
	in, out := c.ends(cores)
	return simnet.CPU{
		Cores: cores, Event: time.Duration(c.Event), Cell: time.Duration(in + c.Pass + 3*c.Layer), Send: time.Duration(out + 3*c.Layer),
		Offload: time.Duration((c.Begin + c.Finish) / 2), Link: time.Duration(c.Link),
	}
}

// Authority is an authority on a machine with so many cores: what it computes is mostly the verification
// of documents.
func (c Calibration) Authority(cores int) simnet.CPU {
	cpu := c.Relay(cores)
	cpu.Offload = time.Duration(c.Verify)
	return cpu
}
