package daemon

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"cepa/env"
	"cepa/env/envtest"
)

// TestServices: a name of a service leads to where it is, on its port only; other names and
// addresses are as they were.
func TestServices(t *testing.T) {
	t.Parallel()
	f := envtest.NewFake(1)
	e := f.Node("exit").Env
	served := netip.MustParseAddrPort("127.0.0.1:8080")
	f.Hosts["other.example"] = []netip.Addr{netip.MustParseAddr("93.0.0.1")}
	reached := 0
	for _, at := range []netip.AddrPort{served, netip.MustParseAddrPort("93.0.0.1:80")} {
		f.Listen(at, func(env.Conn) env.ConnEvents { reached++; return &envtest.ConnProbe{} })
	}
	n, err := newServices(e, []Service{{"Hello.demo", 80, served.String()}, {"hello.demo", 81, "127.0.0.1:1"}, {"b.demo", 80, served.String()}})
	if err != nil {
		t.Fatal(err)
	}
	look := func(name string) (found []netip.Addr, err error) {
		asked := true
		f.Do(func() {
			n.LookupHost(name, time.Second, func(a []netip.Addr, e error) {
				if asked {
					t.Errorf("%s: answered before the call returned", name)
				}
				found, err = a, e
			})
			asked = false
		})
		f.Run(time.Second)
		return found, err
	}
	dial := func(to netip.AddrPort) (err error) {
		err = errors.New("no answer")
		f.Do(func() {
			n.DialConn(to, time.Second, func(_ env.Conn, e error) env.ConnEvents { err = e; return nil })
		})
		f.Run(2 * time.Second)
		return err
	}
	var at netip.Addr
	for _, name := range []string{"hello.demo", "HELLO.demo", "hello.demo."} {
		found, err := look(name)
		if err != nil || len(found) != 1 || !found[0].IsLoopback() {
			t.Fatalf("%s: %v, %v", name, found, err)
		}
		at = found[0]
	}
	if err := dial(netip.AddrPortFrom(at, 80)); err != nil || reached != 1 {
		t.Errorf("the service: %v, reached %d", err, reached)
	}
	for _, port := range []uint16{81, 82} {
		if err := dial(netip.AddrPortFrom(at, port)); err == nil {
			t.Errorf("port %d leads somewhere", port)
		}
	}
	if b, _ := look("b.demo"); len(b) != 1 || b[0] == at {
		t.Error("two names share an address")
	}
	if found, err := look("other.example"); err != nil || found[0] != netip.MustParseAddr("93.0.0.1") {
		t.Errorf("%v, %v", found, err)
	}
	if _, err := look("nobody.example"); err == nil {
		t.Error("a name that does not exist was found")
	}
	if err := dial(netip.MustParseAddrPort("93.0.0.1:80")); err != nil {
		t.Error(err)
	}
	for _, bad := range [][]Service{
		{{"", 80, served.String()}}, {{"a", 0, served.String()}}, {{"a", 80, "localhost:80"}}, {{"a", 80, ""}},
		{{"a", 80, served.String()}, {"A", 80, served.String()}},
	} {
		if _, err := newServices(e, bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
	if same, err := newServices(e, nil); err != nil || same != e.Network {
		t.Error("without services the network is another")
	}
}

// TestAttach: the context ends with the reader, however it ends, and users may come after the
// line alone.
func TestAttach(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	ctx, ready := Attach(context.Background(), r)
	select {
	case <-ready:
		t.Fatal("ready before the line")
	case <-ctx.Done():
		t.Fatal("ended before the parent")
	case <-time.After(10 * time.Millisecond):
	}
	if _, err := io.WriteString(w, GoLine); err != nil {
		t.Fatal(err)
	}
	<-ready
	if _, err := io.WriteString(w, "more that nobody reads\n"); err != nil || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
	w.CloseWithError(errors.New("the parent crashed"))
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), errParent) {
		t.Error(context.Cause(ctx))
	}
	for _, text := range []string{"", "go", "stop\n", "GO\n"} {
		ctx, ready := Attach(context.Background(), strings.NewReader(text))
		<-ctx.Done()
		select {
		case <-ready:
			t.Errorf("%q: users may come", text)
		default:
		}
	}
	parent, cancel := context.WithCancel(context.Background())
	ctx, _ = Attach(parent, blocking{make(chan struct{})})
	cancel()
	<-ctx.Done()
}

type blocking struct{ c chan struct{} }

func (b blocking) Read([]byte) (int, error) { <-b.c; return 0, io.EOF }
