// Package rawio reads and writes TCP connections by system calls of which the Go runtime is not told, where it can (Linux).
//
// They never wait, since the descriptor does not block, and so there is nothing for the runtime to do: that it gives the
// processor to another thread when a call takes longer than 20 µs, as one of 64 KiB does, and takes it back afterwards, costs
// more than it brings, and keeps its monitor awake. Waiting is the runtime's, as ever.
package rawio

import (
	"io"
	"net"
	"os"
	"syscall"
)

// Conn is a connection. Reading belongs to one goroutine at a time, writing to another; all else is that of the net.Conn.
type Conn struct {
	net.Conn
	raw           syscall.RawConn // nil: the long way
	tryIn, tryOut func(fd uintptr) bool
	in            struct {
		transfer
		room   func() []byte
		unused func([]byte)
	}
	out struct {
		transfer
		once, waited bool
	}
}

// transfer is one call.
type transfer struct {
	p    []byte
	bufs [][]byte // in place of p: what is left of several
	n    int
	err  error
}

// Wrap gives c the short way to the kernel if there is one.
func Wrap(c net.Conn) *Conn {
	k := &Conn{Conn: c}
	sc, ok := c.(syscall.Conn)
	if !ok || !short {
		return k
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return k
	}
	k.raw = raw
	k.tryIn = k.readNow
	k.tryOut = k.writeNow
	return k
}

// Short reports whether there is a short way.
func (k *Conn) Short() bool { return k.raw != nil }

// readNow reports false when it would have to wait.
func (k *Conn) readNow(fd uintptr) bool {
	t := &k.in
	if t.room != nil {
		t.p = t.room()
	}
	t.n, t.err = read(fd, t.p)
	if t.err != errAgain {
		return true
	}
	if t.room != nil {
		t.unused(t.p)
		t.p = nil
	}
	return false
}

// writeNow reports false when it would have to wait for the rest, or, if once, for any.
func (k *Conn) writeNow(fd uintptr) bool {
	t := &k.out
	for t.n < len(t.p) || len(t.bufs) > 0 {
		n, err := 0, error(nil)
		if t.p != nil {
			n, err = write(fd, t.p[t.n:])
		} else {
			n, err = writev(fd, t.bufs)
		}
		if err == errAgain {
			t.waited = true
			return false
		}
		if t.err = err; err != nil {
			break
		}
		t.n += n
		for len(t.bufs) > 0 && n >= len(t.bufs[0]) {
			n -= len(t.bufs[0])
			t.bufs = t.bufs[1:]
		}
		if len(t.bufs) > 0 {
			t.bufs[0] = t.bufs[0][n:]
		}
		if t.once {
			break
		}
	}
	return true
}

// Read is as that of a net.Conn.
func (k *Conn) Read(p []byte) (int, error) {
	if k.raw == nil {
		return k.Conn.Read(p)
	}
	k.in.p, k.in.room, k.in.unused = p, nil, nil
	_, n, err := k.read()
	if n == 0 && err == io.EOF && len(p) == 0 {
		err = nil
	}
	return n, err
}

// ReadWith waits until there is something to read and only then asks for room to read it into, so that a connection at rest
// holds none. unused gets room for which there was nothing; the caller has what is returned, nil or not. It must not be called
// unless the way is short.
func (k *Conn) ReadWith(room func() []byte, unused func([]byte)) (p []byte, n int, err error) {
	k.in.p, k.in.room, k.in.unused = nil, room, unused
	return k.read()
}

func (k *Conn) read() (p []byte, n int, err error) {
	t := &k.in
	t.n, t.err = 0, nil
	err = k.raw.Read(k.tryIn)
	p, n = t.p, t.n
	t.p = nil
	switch {
	case err != nil: // a deadline, or it was closed
		return p, 0, err
	case t.err != nil:
		return p, 0, k.explain("read", t.err)
	case n == 0:
		return p, 0, io.EOF
	}
	return p, n, nil
}

// Write is as that of a net.Conn.
func (k *Conn) Write(p []byte) (int, error) {
	if k.raw == nil {
		return k.Conn.Write(p)
	}
	n, _, err := k.write(transfer{p: p}, false)
	return n, err
}

// WriteBuffers writes all of bufs, none of which is empty, with as few calls as may be. It changes them.
func (k *Conn) WriteBuffers(bufs [][]byte) (int, error) {
	if k.raw == nil {
		n, err := (*net.Buffers)(&bufs).WriteTo(k.Conn)
		return int(n), err
	}
	n, _, err := k.write(transfer{bufs: bufs}, false)
	return n, err
}

// WriteSome writes as much of p, which is not empty, as the kernel takes at once, and reports whether it had no room at first.
func (k *Conn) WriteSome(p []byte) (n int, waited bool, err error) {
	if k.raw == nil {
		n, err = k.Conn.Write(p)
		return n, false, err
	}
	return k.write(transfer{p: p}, true)
}

func (k *Conn) write(what transfer, once bool) (int, bool, error) {
	t := &k.out
	t.transfer, t.once, t.waited = what, once, false
	err := k.raw.Write(k.tryOut)
	if err == nil && t.err != nil {
		err = k.explain("write", t.err)
	}
	t.p, t.bufs = nil, nil
	return t.n, t.waited, err
}

// Control calls f with the descriptor, if there is one.
func (k *Conn) Control(f func(fd uintptr)) error {
	if k.raw == nil {
		return nil
	}
	return k.raw.Control(f)
}

func (k *Conn) explain(op string, err error) error {
	return &net.OpError{Op: op, Net: k.LocalAddr().Network(), Source: k.LocalAddr(), Addr: k.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}
