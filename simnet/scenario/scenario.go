package scenario

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"cepa/simnet"
	"cepa/simnet/calibration"
)

// Scenario is a file. All times count from the beginning of the simulation. What is left out has the
// value that its comment says.
type Scenario struct {
	// About is for people: a line or a few.
	About string `toml:"about,omitempty,multiline"`
	// Duration is how long it runs: until then clients use the network. At most 366d.
	Duration Duration `toml:"duration"`
	// Warmup is how much of the beginning does not count: nobody leaves by churn, and reports leave it out.
	Warmup Duration `toml:"warmup,omitempty"`
	// Settle is how long the network runs on without clients, before the checkers look at what is left over.
	// 2m if left out; less is only good when "leftovers" is unchecked.
	Settle *Duration `toml:"settle,omitempty"`
	// Crypto is "full", or "fast": stand-ins of the same sizes and times.
	Crypto string `toml:"crypto,omitempty"`
	// Liveness is how long after the last fault, the end of churn and the last start everything must work again. A
	// minute and four intervals of the network if left out. Nothing is judged when the scenario ends before.
	Liveness Duration `toml:"liveness,omitempty"`
	// Unchecked names checkers that are switched off; all are on by default.
	Unchecked []string `toml:"unchecked,omitempty"`

	Network Network   `toml:"network"`
	CPU     CPU       `toml:"cpu,omitempty"`
	Relays  []Relays  `toml:"relays"`
	Clients []Clients `toml:"clients,omitempty"`
	Servers []Servers `toml:"servers,omitempty"`
	Churn   []Churn   `toml:"churn,omitempty"`
	Faults  []Fault   `toml:"fault,omitempty"`

	name  string
	text  []byte
	lines map[string]int
	files map[string][]byte // as attached
	made  made
}

// Network is the overlay and the distances.
type Network struct {
	// Authorities is how many there are, 1 to 9, each on a host of its own: authority-1, …  1 if left out.
	Authorities int `toml:"authorities,omitempty"`
	// Public makes it a network with the limits that one on the Internet has on who may join; test networks have
	// fewer.
	Public bool `toml:"public,omitempty"`
	// Flow is the rule for windows, one of simnet.FlowNames: cepa's own, "credits", if left out.
	Flow string `toml:"flow,omitempty"`
	// Unsent is what the kernel takes of a link ahead of what TCP may send, 4 KiB to 16 MiB; what the daemon sets, which goes by
	// the link's rate, if left out. See simnet.Config.
	Unsent Size `toml:"unsent,omitempty"`
	// Parameters are the network's, as in `cepa network new --param`.
	Parameters map[string]int64 `toml:"parameters,omitempty"`
	// Latency is "internet" (the built-in matrix), a round trip such as "60ms" between any two machines, or a
	// file of round trips: CSV, or GML as Shadow has it. "internet" if left out.
	Latency string `toml:"latency,omitempty"`
	// Jitter is how many thousandths of a latency a packet may be late, for latencies that are not "internet". 0 to 10000.
	Jitter int `toml:"jitter,omitempty"`
	// Regions weighs the regions for all machines that say nothing of their own; all are alike if left out.
	Regions map[string]int `toml:"regions,omitempty"`
}

// CPU is what work costs on relays, authorities and clients.
type CPU struct {
	// File is a calibration that `cepa sim calibrate` wrote; the one that is built in if left out.
	File string `toml:"file,omitempty"`
	// Free makes work cost no time at all.
	Free bool `toml:"free,omitempty"`
	// Cores is how many a machine has whose group does not say; 4 if left out.
	Cores int `toml:"cores,omitempty"`
}

// Access is how machines of a group are connected.
type Access struct {
	// Region is where all of them are; Regions draws by weight. If neither is there the network's weights hold.
	Region  string         `toml:"region,omitempty"`
	Regions map[string]int `toml:"regions,omitempty"`
	// Rate is that of the access link in both directions; Up and Down are for one each. Unlimited if left out.
	Rate Rate `toml:"rate,omitempty"`
	Up   Rate `toml:"up,omitempty"`
	Down Rate `toml:"down,omitempty"`
	// Mile is added on each way from and to the machine.
	Mile Duration `toml:"mile,omitempty"`
	// Buffer is how much the queue before Down holds; 100ms if left out.
	Buffer Duration `toml:"buffer,omitempty"`
	// Queue is how connections share Up: "fair" (they take turns) or "fifo". "fair" if left out.
	Queue string `toml:"queue,omitempty"`
}

// Relays is a group of relays: relay-1, relay-2, …
type Relays struct {
	// Name begins the names of the group's machines, up to 12 letters, digits and "-"; "relay" if left out.
	Name  string `toml:"name,omitempty"`
	Count int    `toml:"count"`
	// Exits is how many of them are exits, evenly among the others.
	Exits int `toml:"exits,omitempty"`
	// Policy is that of the exits; "all" if left out.
	Policy string `toml:"policy,omitempty"`
	Access
	// Bandwidth, in place of the rates, is "tor": what relays of the Tor network have.
	Bandwidth string `toml:"bandwidth,omitempty"`
	// Quantiles are rates in place of Bandwidth, of which the first is the smallest relay's and the last the
	// largest's, at equal distances of rank.
	Quantiles []Rate `toml:"quantiles,omitempty"`
	// BandwidthPercent scales Bandwidth or Quantiles; 100 if left out. No relay gets less than 64 KiB/s.
	BandwidthPercent int `toml:"bandwidth_percent,omitempty"`
	// Claim is the bandwidth that each says it has; what it has, if left out.
	Claim Rate `toml:"claim,omitempty"`
	// Shape tells each the rate of its way up, as its settings would.
	Shape bool `toml:"shape,omitempty"`
	// MemoryMiB is each relay's budget for queues; 64 if left out.
	MemoryMiB int `toml:"memory_mib,omitempty"`
	Cores     int `toml:"cores,omitempty"` // in place of the CPU's
	// Start is when the first begins, Spread over how long the others are spread by lot.
	Start  Duration `toml:"start,omitempty"`
	Spread Duration `toml:"spread,omitempty"`
}

// Clients is a group of clients: client-1, client-2, …
type Clients struct {
	Name  string `toml:"name,omitempty"` // as of Relays; "client" if left out
	Count int    `toml:"count"`
	Access
	MemoryMiB int      `toml:"memory_mib,omitempty"` // 64 if left out
	Cores     int      `toml:"cores,omitempty"`
	Start     Duration `toml:"start,omitempty"`
	Spread    Duration `toml:"spread,omitempty"`
	Loads     []Load   `toml:"load,omitempty"`
}

// Load is what users of each client of a group do, again and again.
type Load struct {
	// Kind is "web", "bulk", "chat" or "trace". It sets what follows, unless that is there.
	Kind string `toml:"kind"`
	// Users is how many users of the kind each client has; 1 if left out.
	Users int `toml:"users,omitempty"`
	// Host and Port are of a server; the first one's if left out, and 80, or 443 for chat.
	Host string `toml:"host,omitempty"`
	Port int    `toml:"port,omitempty"`
	// Bytes come down: of a page over all of its streams (web: 150 kB on average), of a file (bulk: 5 MB), of one
	// answer (chat: 300 B). Up is what goes up in each exchange of a stream.
	Bytes Size `toml:"bytes,omitempty"`
	Up    Size `toml:"up,omitempty"`
	// Think is the mean of the pause before each round, exponentially distributed: 30s for web, else none.
	Think Duration `toml:"think,omitempty"`
	// Flows is how many streams a round has at once: 2 for web, else 1.
	Flows int `toml:"flows,omitempty"`
	// Exchanges is how often each stream asks and is answered, Pause how long it waits in between: 100 and 4s for chat.
	Exchanges int      `toml:"exchanges,omitempty"`
	Pause     Duration `toml:"pause,omitempty"`
	// Patience is how long an application waits for progress: 2m, for bulk 5m.
	Patience Duration `toml:"patience,omitempty"`
	// Read is how fast the application reads what comes down; at once if left out.
	Read Rate `toml:"read,omitempty"`
	// Rounds ends it after so many; 0 is never.
	Rounds int `toml:"rounds,omitempty"`
	// Fixed has web pages of exactly Bytes; otherwise sizes are drawn from an exponential distribution.
	Fixed bool `toml:"fixed,omitempty"`
	// Isolated gives each round circuits of its own.
	Isolated bool `toml:"isolated,omitempty"`
	// File is the CSV of a trace.
	File string `toml:"file,omitempty"`
	// From is when the users begin, at the earliest: before, and before their client is ready, they wait. Until
	// is when they begin nothing new; the end if left out.
	From  Duration `toml:"from,omitempty"`
	Until Duration `toml:"until,omitempty"`
}

// Servers is a machine that answers what clients ask.
type Servers struct {
	// Host is its name on the network, as in "web.example".
	Host string `toml:"host"`
	// Ports are where it answers; 80 and 443 if left out.
	Ports []int `toml:"ports,omitempty"`
	Access
}

// Churn has machines of groups leave and come back.
type Churn struct {
	// Groups are names of groups of relays or clients, or "authority".
	Groups []string `toml:"groups"`
	// Up and Down are the scales of the Weibull distributions of how long a machine stays and is away: 63 % of
	// the times are shorter. The shapes are 1 if left out, which is the exponential distribution; below 1, most
	// times are short and a few very long.
	Up        Duration `toml:"up,omitempty"`
	UpShape   float64  `toml:"up_shape,omitempty"`
	Down      Duration `toml:"down,omitempty"`
	DownShape float64  `toml:"down_shape,omitempty"`
	// Leave is how many percent leave in order; the others crash.
	Leave int `toml:"leave,omitempty"`
	// File is a CSV of who comes and goes when, in place of the distributions.
	File string `toml:"file,omitempty"`
	// From is when it begins, the end of the warm-up if left out; at Until, the scenario's end if left out, those that
	// are away come back.
	From  Duration `toml:"from,omitempty"`
	Until Duration `toml:"until,omitempty"`
}

// Fault is something that goes wrong.
type Fault struct {
	// Kind is one of FaultKinds.
	Kind string `toml:"kind"`
	// At is when; For is how long, for ever if left out; Every repeats it, until Until (the end if left out).
	At    Duration `toml:"at"`
	For   Duration `toml:"for,omitempty"`
	Every Duration `toml:"every,omitempty"`
	Until Duration `toml:"until,omitempty"`
	// Nodes are names of machines, with "*" for any letters. Pick draws so many of them, each time anew; all if
	// left out.
	Nodes []string `toml:"nodes"`
	Pick  int      `toml:"pick,omitempty"`
	// Delay is of clog, on each way; Loss of loss, in percent of the packets that go out; Skew and Drift (parts in a
	// million) of skew; Disk of slow-disk; Rate, Up and Down of rate.
	Delay Duration `toml:"delay,omitempty"`
	Loss  float64  `toml:"loss,omitempty"`
	Skew  Duration `toml:"skew,omitempty"`
	Drift int      `toml:"drift,omitempty"`
	Disk  Duration `toml:"disk,omitempty"`
	Rate  Rate     `toml:"rate,omitempty"`
	Up    Rate     `toml:"up,omitempty"`
	Down  Rate     `toml:"down,omitempty"`
}

// FaultKinds are what can go wrong.
//
//	crash      the process ends and forgets what it had not written; it starts again after For
//	restart    the same, back after a second if For is left out
//	leave      the node leaves in order; it starts again after For
//	power-off  the machine is gone and nobody hears of it; it starts again after For
//	silence    all packets from and to the machine disappear
//	partition  the machines reach each other and nobody else
//	clog       what comes and goes takes longer
//	loss       packets are lost
//	rate       the access link has another rate
//	skew       the clock is wrong
//	slow-disk  a save takes longer
var FaultKinds = []string{"crash", "restart", "leave", "power-off", "silence", "partition", "clog", "loss", "rate", "skew", "slow-disk"}

// Name is what the scenario was read under.
func (s *Scenario) Name() string { return s.name }

// Text is the file as it was read. It is not to be modified.
func (s *Scenario) Text() []byte { return s.text }

// Digest is the SHA-256 of the scenario in 64 hexadecimal digits: of its text, and if it names files, of the
// text, and then each file's name and content with the length of each before it, in the order of the names.
func (s *Scenario) Digest() string {
	sum := sha256.New()
	sum.Write(s.text)
	for _, name := range s.Files() {
		for _, part := range [][]byte{[]byte(name), s.files[name]} {
			var n [8]byte
			for i := range n {
				n[i] = byte(len(part) >> (8 * (7 - i)))
			}
			sum.Write(n[:])
			sum.Write(part)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Files are the names of the files that the scenario refers to, sorted.
func (s *Scenario) Files() []string {
	var names []string
	for _, r := range s.references() {
		names = append(names, r.name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// File is the content of a file that the scenario refers to, as attached. It is not to be modified.
func (s *Scenario) File(name string) []byte { return s.files[name] }

// made is what is read from the scenario's files.
type made struct {
	latency *simnet.Latency
	cpu     *calibration.Calibration
	traces  map[string][]request
	churn   map[string][]arrival
}
