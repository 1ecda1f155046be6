package demo

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

var testSocks = netip.MustParseAddrPort("127.0.0.1:9850")

// outputOf runs f with the standard output going to a file, and returns what was written.
func outputOf(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	old := os.Stdout
	os.Stdout = file
	defer func() { os.Stdout = old }()
	f()
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestProgramEnvironment: every proxy variable leads to the port, nothing leads around it, and
// the rest is as it was.
func TestProgramEnvironment(t *testing.T) {
	t.Setenv("DEMO_TEST_PART", "env")
	t.Setenv("NO_PROXY", "*")
	t.Setenv("no_proxy", "localhost")
	t.Setenv("https_proxy", "http://other:1")
	t.Setenv("SOMETHING_ELSE", "kept")
	var status int
	out := outputOf(t, func() {
		var err error
		if status, err = RunProgram(context.Background(), testSocks, []string{os.Args[0]}); err != nil {
			t.Error(err)
		}
	})
	lines := strings.Split(strings.ReplaceAll(out, "\r", ""), "\n")
	count := func(line string) (n int) {
		for _, l := range lines {
			if l == line {
				n++
			}
		}
		return n
	}
	if runtime.GOOS != "windows" { // where names have no case
		for _, name := range proxyVariables {
			if n := count(name + "=socks5h://127.0.0.1:9850"); n != 1 {
				t.Errorf("%s is there %d times", name, n)
			}
		}
	}
	if status != 0 || strings.Contains(strings.ToLower(out), "no_proxy") || strings.Contains(out, "other:1") || count("SOMETHING_ELSE=kept") != 1 {
		t.Errorf("status %d, %s", status, out)
	}
}

func TestProgramStatus(t *testing.T) {
	for _, c := range []struct {
		part string
		want int
	}{{"status", 7}, {"signal", 128 + 9}} {
		if c.part == "signal" && runtime.GOOS == "windows" {
			continue
		}
		t.Setenv("DEMO_TEST_PART", c.part)
		status, err := RunProgram(context.Background(), testSocks, []string{os.Args[0]})
		if err != nil || status != c.want {
			t.Errorf("%s: %d, %v, want %d", c.part, status, err, c.want)
		}
	}
	if status, err := RunProgram(context.Background(), testSocks, []string{"no-such-program-anywhere"}); err == nil || !strings.Contains(err.Error(), "no-such-program-anywhere") {
		t.Errorf("%d, %v", status, err)
	}
}

// TestProgramIsInterrupted when the demo is to end: it gets its chance, and no more than that.
func TestProgramIsInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("programs are ended at once there")
	}
	for _, c := range []struct {
		part string
		want int
		most time.Duration
	}{{"wait", 9, time.Second}, {"ignore", 128 + 9, stopTimeout + time.Second}} {
		t.Setenv("DEMO_TEST_PART", c.part)
		ctx, cancel := context.WithCancel(context.Background())
		file, err := os.CreateTemp(t.TempDir(), "out")
		if err != nil {
			t.Fatal(err)
		}
		old := os.Stdout
		os.Stdout = file
		var ended time.Time
		go func() {
			for { // until the program says that it waits
				if data, err := os.ReadFile(file.Name()); err != nil || len(data) > 0 {
					ended = time.Now()
					cancel()
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
		status, err := RunProgram(ctx, testSocks, []string{os.Args[0]})
		os.Stdout = old
		<-ctx.Done()
		if took := time.Since(ended); status != c.want || err != nil || took > c.most {
			t.Errorf("%s: status %d, %v, after %v", c.part, status, err, took)
		}
		file.Close()
	}
}

// TestPage: one page, for whoever asks for it, and nothing else.
func TestPage(t *testing.T) {
	t.Parallel()
	p, err := servePage()
	if err != nil {
		t.Fatal(err)
	}
	get := func(method, path string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.address.String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = Hello
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	if status, body := get("GET", "/"); status != 200 || !strings.Contains(body, "three relays") || !strings.Contains(body, "127.0.0.1:") || !strings.Contains(body, "nobody anonymous") {
		t.Errorf("%d, %s", status, body)
	}
	if status, _ := get("HEAD", "/"); status != 200 {
		t.Errorf("HEAD: %d", status)
	}
	if status, _ := get("GET", "/other"); status != 404 {
		t.Errorf("another path: %d", status)
	}
	if status, _ := get("POST", "/"); status != 405 {
		t.Errorf("POST: %d", status)
	}
	p.close()
	if conn, err := net.Dial("tcp", p.address.String()); err == nil {
		conn.Close()
		t.Error("the page is still there")
	}
}

// TestSocksPort: a port that is taken is told at once, or another is taken if that will do.
func TestSocksPort(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().(*net.TCPAddr).AddrPort()
	o := Options{Socks: taken, Message: func(string, ...any) {}}
	if err := choosePort(&o); err == nil || !strings.Contains(err.Error(), "--socks") {
		t.Errorf("%v", err)
	}
	o.AnySocks = true
	if err := choosePort(&o); err != nil || o.Socks == taken || o.Socks.Port() == 0 || !o.Socks.Addr().IsLoopback() {
		t.Errorf("%v, %v", o.Socks, err)
	}
}

// TestEmbeddedDemo is the whole thing in one process: started, used, stopped, started again
// with the same network.
func TestEmbeddedDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("a whole network in one process, with a limit of time")
	}
	dir := t.TempDir()
	for range 2 {
		o := options(dir, 4)
		o.Authorities = DefaultAuthorities
		o.Socks, o.AnySocks, o.Version = netip.MustParseAddrPort("127.0.0.1:0"), true, "test"
		h := &heard{new: make(chan struct{}, 1)}
		o.Message = h.message
		d, err := Start(t.Context(), o)
		if err != nil {
			t.Fatalf("%v\n%s", err, h.text())
		}
		line, err := SelfTest(t.Context(), d.Socks())
		if err != nil || !strings.Contains(line, Hello) {
			t.Errorf("%q, %v", line, err)
		}
		from := time.Now()
		d.Stop()
		if took := time.Since(from); took > 2*time.Second {
			t.Errorf("stopping took %v", took)
		}
		if conn, err := net.Dial("tcp", d.Socks().String()); err == nil {
			conn.Close()
			t.Error("the port is still open")
		}
	}
}

// TestStartIsInterrupted: it ends soon and leaves no folder.
func TestStartIsInterrupted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o := options("", 3)
	o.Socks = netip.MustParseAddrPort("127.0.0.1:0")
	if _, err := Start(ctx, o); err == nil {
		t.Error("started although it was to end")
	}
	if entries, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	for _, n := range []int{0, 2, MaxRelays + 1} {
		o.Relays = n
		if _, err := Start(context.Background(), o); err == nil || !strings.Contains(err.Error(), "relays") {
			t.Errorf("%d relays: %v", n, err)
		}
	}
}
