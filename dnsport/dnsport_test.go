package dnsport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"cepa/cell"
	"cepa/socks"
)

// patience bounds every wait of a test.
const patience = 20 * time.Second

// resolver answers from tables, and remembers what it was asked.
type resolver struct {
	mu    sync.Mutex
	asked []socks.Request
	wait  chan struct{} // nil, or what a question for wait.example waits for
}

var (
	four = cell.Address{IP: netip.MustParseAddr("192.0.2.1")}
	six  = cell.Address{IP: netip.MustParseAddr("2001:db8::1")}
)

func (r *resolver) Resolve(ctx context.Context, q socks.Request) ([]cell.Address, time.Duration, error) {
	r.mu.Lock()
	r.asked = append(r.asked, q)
	r.mu.Unlock()
	switch strings.ToLower(q.Host + q.IP.String()) {
	case "both.exampleinvalid ip":
		return []cell.Address{four, six}, time.Minute, nil
	case "four.exampleinvalid ip":
		return []cell.Address{four}, 100 * time.Hour, nil
	case "many.exampleinvalid ip":
		var all []cell.Address
		for i := range 100 {
			all = append(all, cell.Address{IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})})
		}
		return all, time.Minute, nil
	case "192.0.2.1", "2001:db8::1":
		return []cell.Address{{Host: "a\\b.example"}, {Host: "name.example"}}, time.Minute, nil
	case "local.exampleinvalid ip":
		return nil, 0, &socks.Error{Reason: cell.ReasonPolicy, Here: true, Scrubbed: "the destination is private"}
	case "exit.exampleinvalid ip":
		return nil, 0, &socks.Error{Reason: cell.ReasonPolicy, Scrubbed: "no exit does"}
	case "late.exampleinvalid ip":
		return nil, 0, context.DeadlineExceeded
	case "broken.exampleinvalid ip":
		return nil, 0, errors.New("broken.example is broken")
	case "wait.exampleinvalid ip":
		select {
		case <-r.wait:
			return []cell.Address{four}, 0, nil
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	return nil, 0, &socks.Error{Reason: cell.ReasonNoSuchHost}
}

func start(t *testing.T, r *resolver) (*Server, string) {
	t.Helper()
	s, err := New(Config{Resolver: r})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(netip.MustParseAddrPort("127.0.0.1:0")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, s.Addr().String()
}

// Each question gets the answers of its type, and each failure its code and, where it is understood, the reason.
func TestAnswers(t *testing.T) {
	t.Parallel()
	r := &resolver{}
	_, address := start(t, r)
	for _, test := range []struct {
		name  string
		typ   uint16
		rcode int
		want  string // of the answers' data
		why   string
	}{
		{"both.example.", dns.TypeA, dns.RcodeSuccess, "192.0.2.1", ""},
		{"BOTH.example.", dns.TypeAAAA, dns.RcodeSuccess, "2001:db8::1", ""},
		{"four.example.", dns.TypeAAAA, dns.RcodeSuccess, "", ""},
		{"1.2.0.192.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, "name.example.", ""},
		{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", dns.TypePTR, dns.RcodeSuccess, "name.example.", ""},
		{"none.example.", dns.TypeA, dns.RcodeNameError, "", ""},
		{"local.example.", dns.TypeA, dns.RcodeNameError, "", "the destination is private"},
		{"exit.example.", dns.TypeA, dns.RcodeServerFailure, "", "no exit does"},
		{"late.example.", dns.TypeA, dns.RcodeServerFailure, "", "timed out"},
		{"broken.example.", dns.TypeA, dns.RcodeServerFailure, "", "a failure of this client"},
		{"both.example.", dns.TypeMX, dns.RcodeNotImplemented, "", "only A, AAAA and PTR are answered"},
		{"both.example.", dns.TypeANY, dns.RcodeNotImplemented, "", "only A, AAAA and PTR are answered"},
		{"127.1.", dns.TypeA, dns.RcodeNameError, "", "this is no host name"},
		{"a\\000b.example.", dns.TypeA, dns.RcodeNameError, "", "this is no host name"},
		{".", dns.TypeA, dns.RcodeNameError, "", "this is no host name"},
		{"both.example.", dns.TypePTR, dns.RcodeNameError, "", "PTR is answered for addresses only"},
		{"1.2.0.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "", "PTR is answered for addresses only"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			q := new(dns.Msg).SetQuestion(test.name, test.typ)
			q.SetEdns0(4096, true)
			m, _, err := (&dns.Client{Net: network, Timeout: patience}).Exchange(q, address)
			if err != nil {
				t.Fatalf("%s %s: %v", network, test.name, err)
			}
			var data []string
			for _, rr := range m.Answer {
				if h := rr.Header(); h.Name != test.name || h.Rrtype != test.typ || h.Ttl > maxTTL {
					t.Errorf("%s %s: answered %v", network, test.name, rr)
				}
				data = append(data, strings.Fields(rr.String())[4])
			}
			why := ""
			for _, o := range m.IsEdns0().Option {
				if e, ok := o.(*dns.EDNS0_EDE); ok {
					why = e.ExtraText
				}
			}
			if m.Rcode != test.rcode || strings.Join(data, " ") != test.want || why != test.why || m.AuthenticatedData || !m.RecursionAvailable {
				t.Errorf("%s %s: %v, want %d, %q, %q", network, test.name, m, test.rcode, test.want, test.why)
			}
		}
	}
	for _, q := range r.asked {
		if q.Port != 0 || q.Isolation == "" || q.Isolation != r.asked[0].Isolation {
			t.Errorf("asked for %+v", q)
		}
	}
}

// What is no question gets no answer, or one that says so; and the port goes on.
func TestWhatIsNoQuestion(t *testing.T) {
	t.Parallel()
	s, address := start(t, &resolver{})
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	response := new(dns.Msg).SetQuestion("both.example.", dns.TypeA)
	response.Response = true
	two := new(dns.Msg).SetQuestion("both.example.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	update := new(dns.Msg).SetQuestion("both.example.", dns.TypeA)
	update.Opcode = dns.OpcodeUpdate
	for _, m := range []*dns.Msg{response, two, update} {
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		c.Write(b)
	}
	c.Write([]byte("short"))
	for range 2 {
		b := make([]byte, 512)
		n, err := c.Read(b)
		var m dns.Msg
		if err != nil || m.Unpack(b[:n]) != nil || m.Rcode == dns.RcodeSuccess {
			t.Fatalf("%v, %v", &m, err)
		}
	}
	q := new(dns.Msg).SetQuestion("both.example.", dns.TypeA)
	if m, _, err := (&dns.Client{Timeout: patience}).Exchange(q, address); err != nil || len(m.Answer) != 1 {
		t.Errorf("%v, %v", m, err)
	}
	if got := s.Stats(); got.Queries != 1 || got.Answered != 1 {
		t.Errorf("counted %+v", got)
	}
}

// A long answer over UDP is cut to what the asker takes, and says so; over TCP it is whole.
func TestTruncation(t *testing.T) {
	t.Parallel()
	_, address := start(t, &resolver{})
	q := new(dns.Msg).SetQuestion("many.example.", dns.TypeA)
	m, _, err := (&dns.Client{Timeout: patience}).Exchange(q, address)
	if err != nil {
		t.Fatal(err)
	}
	m.Compress = true // as it came
	if !m.Truncated || m.Len() > dns.MinMsgSize {
		t.Errorf("over UDP: %d bytes, %v", m.Len(), err)
	}
	m, _, err = (&dns.Client{Net: "tcp", Timeout: patience}).Exchange(q, address)
	if err != nil || m.Truncated || len(m.Answer) != 100 {
		t.Errorf("over TCP: %d answers, %v", len(m.Answer), err)
	}
}

// More questions at a time than there are places are not asked: over TCP they fail, over UDP they are dropped.
func TestTooManyQuestions(t *testing.T) {
	t.Parallel()
	r := &resolver{wait: make(chan struct{})}
	s, address := start(t, r)
	for range maxQueries {
		s.places <- struct{}{}
	}
	q := new(dns.Msg).SetQuestion("both.example.", dns.TypeA)
	m, _, err := (&dns.Client{Net: "tcp", Timeout: patience}).Exchange(q, address)
	if err != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v, %v", m, err)
	}
	<-s.places
	if m, _, err = (&dns.Client{Timeout: patience}).Exchange(q, address); err != nil || len(m.Answer) != 1 {
		t.Errorf("%v, %v", m, err)
	}
	if got := s.Stats(); got.Dropped != 1 {
		t.Errorf("counted %+v", got)
	}
}

// Close cancels what is being asked, and a closed port does not listen again.
func TestClose(t *testing.T) {
	t.Parallel()
	s, address := start(t, &resolver{wait: make(chan struct{})})
	q := new(dns.Msg).SetQuestion("wait.example.", dns.TypeA)
	b, _ := q.Pack()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(b)
	for end := time.Now().Add(patience); s.Stats().Queries == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the question never came")
		}
	}
	began := time.Now()
	if err := s.Close(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	if err := s.Listen(netip.MustParseAddrPort("127.0.0.1:0")); err == nil {
		t.Error("a closed port listens")
	}
}

// dig, a real client.
func TestDig(t *testing.T) {
	t.Parallel()
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("there is no dig: install the Debian package bind9-dnsutils")
	}
	s, _ := start(t, &resolver{})
	_, port, _ := net.SplitHostPort(s.Addr().String())
	for _, test := range []struct {
		arguments, want string
	}{
		{"+short both.example A", "192.0.2.1"},
		{"+short both.example AAAA", "2001:db8::1"},
		{"+short -x 192.0.2.1", "name.example."},
		{"+short -x 2001:db8::1", "name.example."},
		{"+short +tcp both.example A", "192.0.2.1"},
		{"+noall +comments none.example A", "NXDOMAIN"},
		{"+noall +comments both.example MX", "NOTIMP"},
	} {
		out, err := exec.Command(dig, append([]string{"@127.0.0.1", "-p", port, "+time=10", "+tries=1"}, strings.Fields(test.arguments)...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), test.want) {
			t.Errorf("dig %s: %v\n%s", test.arguments, err, out)
		}
	}
}

// Any message, read as the port reads it: no panic, and a reply that the library can write. What is read as an address
// is what the library writes for that address.
func FuzzQuestion(f *testing.F) {
	for _, name := range []string{"both.example.", "1.2.0.192.in-addr.arpa.", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", "."} {
		for _, typ := range []uint16{dns.TypeA, dns.TypePTR, dns.TypeMX} {
			b, err := new(dns.Msg).SetQuestion(name, typ).Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	s, err := New(Config{Resolver: &resolver{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		var q dns.Msg
		if q.Unpack(input) != nil || len(q.Question) != 1 {
			return
		}
		if strings.HasPrefix(strings.ToLower(q.Question[0].Name), "wait.example") {
			return
		}
		m := s.answer(&q, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		m.Truncate(dns.MinMsgSize)
		if _, err := m.Pack(); err != nil {
			t.Fatalf("%v: %v", &q, err)
		}
		if ip, ok := parseReverse(q.Question[0].Name); ok {
			if back, err := dns.ReverseAddr(ip.String()); err != nil || !strings.EqualFold(back, dns.Fqdn(q.Question[0].Name)) {
				t.Fatalf("%q is %v, which is %q", q.Question[0].Name, ip, back)
			}
		}
	})
}
