package rawio

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// pair is the two ends of a TCP connection.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

// only hides all that a connection can do but what net.Conn says.
type only struct{ net.Conn }

// Bytes arrive as they were written, in one piece or in many, the short way and the long, and then the end.
func TestBytesArrive(t *testing.T) {
	t.Parallel()
	for name, hide := range map[string]bool{"short": false, "long": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := pair(t)
			var from, to *Conn
			if hide {
				from, to = Wrap(only{a}), Wrap(only{b})
			} else {
				from, to = Wrap(a), Wrap(b)
			}
			if from.Short() != (short && !hide) {
				t.Fatal("not the way that was meant")
			}
			want := make([]byte, 5<<20) // more than the kernels hold: writing waits
			_, _ = rand.Read(want)
			failed := make(chan error, 1)
			go func() {
				defer a.Close()
				p := want
				if n, err := from.Write(p[:2<<20]); n != 2<<20 || err != nil {
					failed <- errors.Join(err, errors.New("Write"))
					return
				}
				p = p[2<<20:]
				var bufs [][]byte
				for size := 1; len(bufs) < 40 && size < len(p); size += 50_000 { // more than one call takes
					bufs = append(bufs, bytes.Clone(p[:size]))
					p = p[size:]
				}
				whole := len(want) - 2<<20 - len(p)
				if n, err := from.WriteBuffers(bufs); n != whole || err != nil {
					failed <- errors.Join(err, errors.New("WriteBuffers"))
					return
				}
				for len(p) > 0 {
					n, _, err := from.WriteSome(p)
					if err != nil {
						failed <- err
						return
					}
					p = p[n:]
				}
				failed <- nil
			}()
			got, err := io.ReadAll(to)
			if err := errors.Join(err, <-failed); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d of %d bytes arrived: %v", len(got), len(want), err)
			}
		})
	}
}

// ReadWith takes no room before there is something to read, and gives back what it did not need.
func TestReadWithTakesRoomWhenThereIsSomethingToRead(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	to := Wrap(b)
	if !to.Short() {
		t.Skip("there is no short way on this system")
	}
	held, taken := 0, make(chan int, 10)
	room := func() []byte { held++; return make([]byte, 100) }
	unused := func([]byte) { held--; taken <- held }
	read := make(chan string, 1)
	go func() {
		for {
			p, n, err := to.ReadWith(room, unused)
			if err != nil {
				read <- err.Error()
				return
			}
			held--
			read <- string(p[:n])
		}
	}()
	if n := <-taken; n != 0 {
		t.Errorf("%d rooms are held while nothing came", n)
	}
	for _, s := range []string{"one", "two"} {
		if _, err := io.WriteString(a, s); err != nil {
			t.Fatal(err)
		}
		if got := <-read; got != s {
			t.Errorf("read %q", got)
		}
	}
	a.Close()
	if got := <-read; got != io.EOF.Error() {
		t.Errorf("at the end: %s", got)
	}
}

// Deadlines, a connection that the other end has reset, and one that was closed here are told as by a net.Conn.
func TestErrorsAreThoseOfANetConn(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	from := Wrap(a)
	_ = a.SetDeadline(time.Now().Add(-time.Second))
	if _, err := from.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading after the deadline: %v", err)
	}
	if _, err := from.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing after the deadline: %v", err)
	}
	_ = a.SetDeadline(time.Time{})

	_ = b.(*net.TCPConn).SetLinger(0)
	b.Close()
	var op *net.OpError
	if _, err := from.Read(make([]byte, 1)); !errors.As(err, &op) || op.Op != "read" || op.Net != "tcp" {
		t.Errorf("reading from one that was reset: %v", err)
	}
	if n, err := from.Write([]byte("x")); n != 0 || !errors.As(err, &op) || op.Op != "write" {
		t.Errorf("writing to one that was reset: %d, %v", n, err)
	}
	a.Close()
	if _, err := from.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading from a closed one: %v", err)
	}
	if _, err := from.WriteBuffers([][]byte{{1}}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing to a closed one: %v", err)
	}
}
