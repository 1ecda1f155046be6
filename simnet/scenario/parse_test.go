package scenario

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"cepa/simnet/scenarios"
)

const least = `duration = "10s"
[[relays]]
count = 3
exits = 1
`

// TestErrorsSayWhereAndWhat: what is wrong in a file is told with its line, its key, and what is allowed.
func TestErrorsSayWhereAndWhat(t *testing.T) {
	t.Parallel()
	client := "[[clients]]\ncount = 2\n"
	for _, c := range []struct{ text, want string }{
		{"", "duration is missing"},
		{"duration = \"10s\"\n", "relays are missing"},
		{"durtion = \"10s\"\n" + least, `line 1: there is no setting "durtion" (did you mean "duration"?)`},
		{"duration = 10\n", `line 1: duration is a whole number; want a duration in quotes`},
		{"duration = \"10 parsecs\"\n", `line 1: duration: "10 parsecs" is no duration such as 250ms`},
		{"duration = \"10s\nx", "line 1"},
		{"duration = \"10s\"\nduration = \"10s\"\n" + least, "line 2"},
		{"duration = \"500d\"\n" + least[17:], "line 1: duration is 12000h; want 0s to 8784h"},
		{least + "count = 4\n", "line 5"},
		{strings.Replace(least, "count = 3", "count = \"3\"", 1), "line 3: relays[0].count is text; want a whole number"},
		{strings.Replace(least, "count = 3", "count = 0", 1), "line 3: relays[0].count is 0; want 1 to 200000"},
		{strings.Replace(least, "exits = 1", "exits = 4", 1), "line 4: relays[0].exits is 4; want 0 to 3"},
		{least + "polciy = \"all\"\n", `line 5: there is no setting "relays[0].polciy" (did you mean "policy"?)`},
		{least + "policy = \"acept *:*\"\n", "line 5: relays[0].policy is wrong"},
		{least + "rate = \"10 Mbits\"\n", `line 5: relays.rate: "10 Mbits" is no rate such as 10 Mbit/s`},
		{least + "rate = \"10 bit/s\"\n", "line 5: relays[0].rate is 1 B/s; want at least 8 kbit/s"},
		{least + "rate = \"1 Mbit/s\"\nup = \"1 Mbit/s\"\n", "line 5: relays[0].rate is for both directions"},
		{least + "region = \"atlantis\"\n", ""}, // only known with the latency: see TestFilesAreChecked
		{least + "bandwidth = \"thor\"\n", `line 5: relays[0].bandwidth is "thor" (did you mean "tor"?)`},
		{least + "bandwidth = \"tor\"\nup = \"1 Mbit/s\"\n", "line 5: relays[0].bandwidth is there besides other rates"},
		{least + "quantiles = [\"2 Mbit/s\", \"1 Mbit/s\"]\n", "line 5: relays[0].quantiles[1] is 1 Mbit/s; want rates that do not fall"},
		{least + "queue = \"lifo\"\n", `line 5: relays[0].queue is "lifo" (did you mean "fifo"?); want one of fair, fifo`},
		{least + "[[relays]]\ncount = 1\n", `relays[1].name is "relay", as another group is`},
		{least + "name = \"Relay 1\"\n", "line 5: relays[0].name"},
		{least + "[relays]\n", "line 5: there may be several relays: write [[relays]]"},
		{least + "[[network]]\n", "line 5: there is only one network: write [network]"},
		{least + "[network]\nauthorities = 10\n", "line 6: network.authorities is 10; want 1 to 9"},
		{least + "[network.parameters]\ninterval_sm = 5\n", `line 6: network.parameters.interval_sm is no parameter of a network (did you mean "interval_ms"?)`},
		{least + "[network.parameters]\ninterval_ms = 5\n", "line 6: network.parameters.interval_ms is 5; want 500 to 86400000"},
		{least + "[network]\nlatency = \"far\"\n", `line 6: network.latency is "far"; want "internet"`},
		{least + "[network]\nlatency = \"../up.csv\"\n", `line 6: network.latency is "../up.csv"; want the name of a file`},
		{least + "[network]\njitter = 5\n", "line 6: network.jitter is 5, but the built-in latency has its own"},
		{least + "[network]\nflow = \"vega\"\n", `line 6: network.flow is "vega" (did you mean "vegas"?); want one of credits, doubling`},
		{least + "[network]\nunsent = \"1 KiB\"\n", "line 6: network.unsent is 1 KiB; want 4 KiB to 16 MiB"},
		{least + client + "[[clients.load]]\nkind = \"bulk\"\nread = \"10 bit/s\"\n", "line 9: clients[0].load[0].read is"},
		{least + "[network]\nregions = { frankfurt = 0 }\n", "line 6: network.regions weigh nothing"},
		{least + "[cpu]\nfree = true\nfile = \"c.toml\"\n", "line 6: cpu.free is there besides file"},
		{least + client + "[[clients.load]]\nkind = \"wbe\"\n", `line 8: clients[0].load[0].kind is "wbe" (did you mean "web"?); want one of web, bulk, chat, trace`},
		{least + client + "[[clients.load]]\nkind = \"trace\"\n", "clients[0].load[0].file is missing"},
		{least + client + "[[clients.load]]\nkind = \"trace\"\nfile = \"t.csv\"\nup = \"1 kB\"\n", "line 10: clients[0].load[0].up is in the trace's file"},
		{least + client + "[[clients.load]]\nkind = \"web\"\nhost = \"nobody.example\"\n", `clients[0].load[0].host is "nobody.example", and no server is called so`},
		{strings.Replace(least, "exits = 1", "", 1) + client + "[[clients.load]]\nkind = \"web\"\n", "clients[0].load needs an exit"},
		{least + "[[servers]]\nhost = \"10.0.0.1\"\n", `line 6: servers[0].host is "10.0.0.1"; want a host name`},
		{least + "[[churn]]\ngroups = [\"relays\"]\nup = \"1h\"\ndown = \"1m\"\n", `line 6: churn[0].groups[0] is "relays" (did you mean "relay"?); want one of authority, relay`},
		{least + "[[churn]]\ngroups = [\"relay\"]\nup = \"1h\"\n", "churn[0].down is 0s; want 1ms"},
		{least + "[[churn]]\ngroups = [\"relay\"]\nup = \"1h\"\ndown = \"1m\"\nup_shape = 0.01\n", "line 9: churn[0].up_shape is 0.01; want 0.1 to 20"},
		{strings.Replace(least, "count = 3\n", "count = 3\nshape = true\n", 1), "relays[0].shape has no rate to tell"},
		{least + "[[fault]]\nkind = \"crush\"\nat = \"1s\"\nnodes = [\"relay-1\"]\n", `line 6: fault[0].kind is "crush" (did you mean "crash"?)`},
		{least + "[[fault]]\nkind = \"crash\"\nat = \"1s\"\nnodes = [\"relay-4\"]\n", `line 8: fault[0].nodes[0] is "relay-4", which names none of the machines: authority-1, relay-1 to 3, server-1`},
		{least + "[[fault]]\nkind = \"crash\"\nat = \"11s\"\nnodes = [\"relay-1\"]\n", "line 7: fault[0].at is 11s; want 0s to 10s"},
		{least + "[[fault]]\nkind = \"crash\"\nat = \"1s\"\nnodes = [\"relay-*\"]\npick = 4\n", "line 9: fault[0].pick is 4; want 0 to 3"},
		{least + "[[fault]]\nkind = \"crash\"\nat = \"1s\"\nnodes = [\"relay-1\"]\nloss = 3\n", `line 9: fault[0].loss is for the kind "loss" only`},
		{least + "[[fault]]\nkind = \"loss\"\nat = \"1s\"\nnodes = [\"relay-1\"]\nloss = 101.0\n", "line 9: fault[0].loss is 101; want more than 0 and at most 100 percent"},
		{least + "[[fault]]\nkind = \"loss\"\nat = \"1s\"\nnodes = [\"relay-1\"]\nloss = nan\n", "want more than 0 and at most 100 percent"},
		{least + "[[fault]]\nkind = \"crash\"\nat = \"1s\"\nevery = \"1s\"\nnodes = [\"relay-1\"]\n", "line 8: fault[0].every repeats what never ends"},
		{least + "[[fault]]\nkind = \"crash\"\nat = \"1s\"\nnodes = [\"server-1\"]\n", `a server has no process`},
		{"unchecked = [\"byte\"]\n" + least, `line 1: unchecked[0] is "byte" (did you mean "bytes"?)`},
		{"crypto = \"none\"\n" + least, `line 1: crypto is "none"; want one of full, fast`},
		{"warmup = \"11s\"\n" + least, "line 1: warmup is 11s; want 0s to 10s"},
	} {
		_, err := Parse([]byte(c.text), "x.toml")
		if c.want == "" {
			if err != nil {
				t.Errorf("%q: %v", c.text, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "scenario x.toml: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q:\n  %v\n  want %s", c.text, err, c.want)
		}
	}
}

// TestFilesAreChecked: what is wrong with or in a file that a scenario names is told too.
func TestFilesAreChecked(t *testing.T) {
	t.Parallel()
	client := "[[clients]]\ncount = 2\n[[clients.load]]\nkind = \"trace\"\nfile = \"trace.csv\"\n"
	churn := "[[churn]]\ngroups = [\"relay\"]\nfile = \"churn.csv\"\n"
	for _, c := range []struct{ text, name, data, want string }{
		{least + "region = \"londn\"\n", "", "", `line 5: relays[0].region is "londn" (did you mean "london"?)`},
		{least + "regions = { atlantis = 1 }\n", "", "", `line 5: relays[0].regions.atlantis is "atlantis"; want one of dallas`},
		{least + "[network]\nlatency = \"x.csv\"\n", "", "", "line 6: network.latency cannot be read"},
		{least + "[network]\nlatency = \"x.csv\"\n", "x.csv", "a,b\nb,x\n", "line 6: network.latency is \"x.csv\": latency, line 2"},
		{least + "[network]\nlatency = \"x.csv\"\n", "x.csv", ",a,b\na,1,50\nb,50,1\n", ""},
		{least + "[network]\nlatency = \"x.gml\"\njitter = 100\n", "x.gml", "graph [ node [ id 0 ] node [ id 1 ] edge [ source 0 target 1 latency \"20 ms\" ] ]", ""},
		{least + "[cpu]\nfile = \"c.toml\"\n", "c.toml", "event_ns = 1\n", "line 6: cpu.file is \"c.toml\": reading a calibration"},
		{least + client, "trace.csv", "seconds,host,port,up,down\n0,web.example,80,100,2000\n1.5,web.example,443,100,2000\n", ""},
		{least + client, "trace.csv", "0,web.example,80,100,2000\n1.5,web.exmple,443,100,2000\n", `clients[0].load[0].file is "trace.csv": line 2: no server is called "web.exmple"`},
		{least + client, "trace.csv", "5,web.example,80,100,2000\n1.5,web.example,443,100,2000\n", "line 2: the times go back"},
		{least + client, "trace.csv", "0,web.example,80,100\n", "wrong number of fields"},
		{least + client, "trace.csv", "0,web.example,80,100,-5\n", "are not two numbers of bytes"},
		{least + churn, "churn.csv", "1,relay-2,down\n2.25,relay-2,up\n3,relay-3,leave\n", ""},
		{least + churn, "churn.csv", "1,relay-4,down\n", `"relay-4" is no machine of relay`},
		{least + churn, "churn.csv", "1,relay-1,gone\n", "want up, down or leave"},
	} {
		files := fstest.MapFS{"dir/x.toml": &fstest.MapFile{Data: []byte(c.text)}}
		if c.name != "" {
			files["dir/"+c.name] = &fstest.MapFile{Data: []byte(c.data)}
		}
		s, err := Open(files, "dir/x.toml")
		if c.want == "" {
			if err != nil {
				t.Errorf("%q, %q: %v", c.text, c.data, err)
			} else if _, err := s.Build(1, Options{}); err != nil {
				t.Errorf("%q, %q: %v", c.text, c.data, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q, %q:\n  %v\n  want %s", c.text, c.data, err, c.want)
		}
	}
}

// TestDigestIsOfTheTextAndFiles: it changes with either, and for a scenario without files it is that of sha256sum.
func TestDigestIsOfTheTextAndFiles(t *testing.T) {
	t.Parallel()
	digest := func(text, file string) string {
		s, err := Open(fstest.MapFS{"x.toml": &fstest.MapFile{Data: []byte(text)}, "l.csv": &fstest.MapFile{Data: []byte(file)}}, "x.toml")
		if err != nil {
			t.Fatal(err)
		}
		return s.Digest()
	}
	const matrix = ",a\na,1\n"
	if got, want := digest(least, ""), sha256.Sum256([]byte(least)); got != hex.EncodeToString(want[:]) {
		t.Error(got)
	}
	with := least + "[network]\nlatency = \"l.csv\"\n"
	a, b, c := digest(with, matrix), digest(with, ",a\na,2\n"), digest(with+"\n", matrix)
	if a == b || a == c || b == c || a == digest(least, "") {
		t.Error("one digest for two scenarios")
	}
	if a != digest(with, matrix) {
		t.Error("two digests for one scenario")
	}
}

// TestLibrary: each scenario that comes with cepa can be built, and says what it is about.
func TestLibrary(t *testing.T) {
	t.Parallel()
	entries, err := scenarios.Files.ReadDir(".")
	if err != nil || len(entries) < 10 {
		t.Fatal(len(entries), err)
	}
	for _, e := range entries {
		s, err := Open(scenarios.Files, e.Name())
		if err != nil {
			t.Error(err)
			continue
		}
		if s.About == "" || strings.Contains(s.About, "\n") {
			t.Errorf("%s: about is %q", e.Name(), s.About)
		}
		if len(s.Relays) > 0 && s.Relays[0].Count < 500 {
			if _, err := s.Build(1, Options{}); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestEncodeIsRead: what a program makes is read again as the same.
func TestEncodeIsRead(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"quick.toml", "churn-24h.toml", "flow-rate-change.toml", "tor-like-100.toml"} {
		s, err := Open(scenarios.Files, name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text, name)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if !same(s, again) {
			t.Errorf("%s is read as another:\n%s", name, text)
		}
	}
}

// same compares what a file can say.
func same(a, b *Scenario) bool {
	x, y := *a, *b
	for _, s := range []*Scenario{&x, &y} {
		s.name, s.text, s.lines, s.files, s.made = "", nil, nil, nil, made{}
	}
	return reflect.DeepEqual(x, y)
}

// TestDocumented: each setting is in the table of the researcher's page.
func TestDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/simulation.md")
	if err != nil {
		t.Fatal(err)
	}
	var visit func(typ reflect.Type, table string)
	visit = func(typ reflect.Type, table string) {
		names, types := fields(typ)
		for _, name := range names {
			if !bytes.Contains(page, []byte("`"+name+"`")) && !bytes.Contains(page, []byte("["+name+"]")) {
				t.Errorf("docs/simulation.md does not say what `%s` of %s is", name, table)
			}
			at := types[name]
			if at.Kind() == reflect.Slice {
				at = at.Elem()
			}
			if at.Kind() == reflect.Struct {
				visit(at, name)
			}
		}
	}
	visit(reflect.TypeFor[Scenario](), "a scenario")
	for _, kind := range FaultKinds {
		if !bytes.Contains(page, []byte("`"+kind+"`")) {
			t.Errorf("docs/simulation.md does not say what the fault `%s` is", kind)
		}
	}
}

// FuzzParse: any text is read or refused, and what is read is written and read again as the same.
func FuzzParse(f *testing.F) {
	err := fs.WalkDir(scenarios.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := scenarios.Files.ReadFile(name)
		f.Add(data)
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(least + "[[churn]]\ngroups = [\"relay\"]\nfile = \"churn.csv\"\n[servers]\n"))
	f.Add([]byte("relays = [{count = 3, exits = 1}]\nnetwork = {regions = {\"a.b\" = 1}}\nduration = \"1d\"\nnetwork.parameters.interval_ms = 5000\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data, "x")
		if err != nil {
			return
		}
		text, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text, "x")
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if !same(s, again) {
			t.Errorf("%+v\n%+v\n%s", s, again, text)
		}
	})
}
