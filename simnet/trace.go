package simnet

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math/bits"
	"strings"
	"time"

	"cepa/env"
)

// Kind is what happened in an event, or what a node did in one.
type Kind uint8

// The kinds. What a node does (Send to Dial) is traced as well as what happens to it.
const (
	KindNone    Kind = iota // not traced: something else is, in the same event
	KindWorld               // of the scenario
	KindTimer               // a timer fires
	KindOffload             // a computation is done
	KindSave                // a blob is saved
	KindSaved               // it is on the disk
	KindFlush               // bytes go to the kernel
	KindSend                // cells go out
	KindCells               // cells come in
	KindWrite               // bytes of a connection go out
	KindData                // they come in
	KindEOF                 // the far end will send no more
	KindDown                // a link or connection is gone
	KindLink                // a link is up
	KindConn                // a connection is up
	KindDial                // one is dialled
	KindLookup              // a name is looked up
	KindCrash               // a process ends
	KindFlow                // a stream of an application begins or ends
)

var kindNames = [...]string{
	"none", "world", "timer", "offload", "save", "saved", "flush", "send", "cells", "write", "data", "eof", "down",
	"link", "conn", "dial", "lookup", "crash", "flow",
}

func (k Kind) String() string { return kindNames[k] }

// trace hashes all that happens: time, node, kind and bytes, in order. Nothing of the machine that
// the simulation runs on is in it.
//
//	8  time, ns
//	4  number of the host; 2^32-1 is the world
//	1  kind
//	4  length of the bytes
//	8  a number, by kind: the far host, a port, …
//	8  digest of the bytes
type trace struct {
	sum  hash.Hash
	buf  []byte
	when uint64 // of time, host, kind and size alone, one after the other
	last ring[happened]
	keep int
}

// happened is what a violation shows.
type happened struct {
	at   env.Mono
	host *Host
	kind Kind
	size int
	n    uint64
}

const (
	recordSize = 33
	recordsBuf = 128
)

func (t *trace) begin(keep int) {
	t.sum = sha256.New()
	t.buf = make([]byte, 0, recordSize*recordsBuf)
	t.keep = keep
}

func (t *trace) add(w *World, h *Host, kind Kind, n, digest uint64) {
	t.record(w, h, kind, 0, n, digest)
}

// data adds bytes.
func (t *trace) data(w *World, h *Host, kind Kind, n uint64, p []byte) {
	t.record(w, h, kind, len(p), n, digest(p))
}

func (t *trace) record(w *World, h *Host, kind Kind, size int, n, digest uint64) {
	index := ^uint32(0)
	if h != nil {
		index = uint32(h.index)
	}
	b := binary.BigEndian.AppendUint64(t.buf, uint64(w.now))
	b = append(binary.BigEndian.AppendUint32(b, index), byte(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = binary.BigEndian.AppendUint64(b, n)
	t.buf = binary.BigEndian.AppendUint64(b, digest)
	t.when = fold(t.when^uint64(w.now)^0x9e3779b97f4a7c15, uint64(index)<<40^uint64(kind)<<32^uint64(size)^0xbf58476d1ce4e5b9) + t.when
	if len(t.buf) == cap(t.buf) {
		t.sum.Write(t.buf)
		t.buf = t.buf[:0]
	}
	if t.last.n == t.keep {
		t.last.pop()
	}
	t.last.push(happened{w.now, h, kind, size, n})
}

// TraceHash is the hash of all that has happened until now, in 64 hexadecimal digits.
func (w *World) TraceHash() string {
	w.trace.sum.Write(w.trace.buf)
	w.trace.buf = w.trace.buf[:0]
	return hex.EncodeToString(w.trace.sum.Sum(nil))
}

// TimingHash is a digest of when and where what happened, and of how many bytes were moved, but not of which: 16
// hexadecimal digits. It is the same for Full and Fast.
func (w *World) TimingHash() string { return fmt.Sprintf("%016x", w.trace.when) }

// lastEvents are the last of what happened, a line each.
func (w *World) lastEvents() []string {
	lines := make([]string, 0, w.trace.last.n)
	for i := range w.trace.last.n {
		x := w.trace.last.at(i)
		who := "world"
		if x.host != nil {
			who = x.host.Name
		}
		lines = append(lines, fmt.Sprintf("%v %s %v %d bytes, %d", time.Duration(x.at), who, x.kind, x.size, x.n))
	}
	return lines
}

// digest is 64 bits that change when any byte does, or their order. It is not for enemies: they
// are in the simulation, and not outside. It takes 64 bytes a step, in four independent multiplications
// whose two halves are folded.
func digest(p []byte) uint64 {
	const k0, k1, k2, k3 = 0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0xd6e8feb86659fd93
	a, b, c, d := uint64(len(p)), uint64(k2), uint64(k3), uint64(k0)
	for ; len(p) >= 64; p = p[64:] {
		x := (*[64]byte)(p)
		a = fold(binary.LittleEndian.Uint64(x[0:8])^k0^a, binary.LittleEndian.Uint64(x[8:16])^k1)
		b = fold(binary.LittleEndian.Uint64(x[16:24])^k1^b, binary.LittleEndian.Uint64(x[24:32])^k2)
		c = fold(binary.LittleEndian.Uint64(x[32:40])^k2^c, binary.LittleEndian.Uint64(x[40:48])^k3)
		d = fold(binary.LittleEndian.Uint64(x[48:56])^k3^d, binary.LittleEndian.Uint64(x[56:64])^k0)
	}
	for ; len(p) >= 8; p = p[8:] {
		a = fold(binary.LittleEndian.Uint64(p)^k0, a^k1)
	}
	for _, x := range p {
		a = fold(uint64(x)^k2, a^k3)
	}
	return fold(a^k0, b^k1) ^ fold(c^k2, d^k3)
}

func fold(x, y uint64) uint64 {
	high, low := bits.Mul64(x, y)
	return high ^ low
}

// Violation is something that must not happen.
type Violation struct {
	Checker string
	Seed    uint64
	Time    env.Mono
	Host    string // or empty
	What    string
	Last    []string // the last events before
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: seed %d, %v, %s: %s\n  last events:\n    %s", v.Checker, v.Seed, time.Duration(v.Time), v.Host, v.What, strings.Join(v.Last, "\n    "))
}

// maxViolations bounds how many are kept.
const maxViolations = 100

// Violate is for checkers: it notes that something happened that must not.
func (w *World) Violate(c Checker, h *Host, format string, args ...any) {
	if len(w.found) >= maxViolations {
		return
	}
	v := Violation{Checker: c.Name(), Seed: w.cfg.Seed, Time: w.now, What: fmt.Sprintf(format, args...), Last: w.lastEvents()}
	if h != nil {
		v.Host = h.Name
	}
	w.found = append(w.found, v)
}

// Violations are those found until now, at most 100.
func (w *World) Violations() []Violation { return w.found }
