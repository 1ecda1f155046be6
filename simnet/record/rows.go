package record

// The rows of the tables. A field's tag names its column; "optional" columns are empty in CSV and
// null in Parquet when nothing is to be said; doc says what a column is, and in what unit where its name does
// not: _ns are nanoseconds since the beginning of the run, or of a duration; _bytes are bytes. Names of hosts are
// those of the scenario. docs/simulation.md lists all of it, which a test compares with this.

// Stream is a row of the table streams: one stream of an application, when it is over.
type Stream struct {
	ID        uint64 `parquet:"id" doc:"number of the stream"`
	Client    string `parquet:"client" doc:"host of the application"`
	Region    string `parquet:"region" doc:"where that is"`
	Workload  string `parquet:"workload,optional" doc:"what the user does, as the scenario names it"`
	Server    string `parquet:"server" doc:"name or address that was asked for"`
	Port      uint16 `parquet:"port" doc:"of the server"`
	Isolation string `parquet:"isolation,optional" doc:"isolation key: streams with different keys never share a circuit"`
	Circuit   uint64 `parquet:"circuit,optional" doc:"number of the client's circuit that carried it, as in circuits"`
	Guard     string `parquet:"guard,optional" doc:"first relay of that circuit"`
	Middle    string `parquet:"middle,optional" doc:"second"`
	Exit      string `parquet:"exit,optional" doc:"last"`
	Opened    int64  `parquet:"opened_ns" doc:"the application asked"`
	Connected int64  `parquet:"connected_ns,optional" doc:"the exit had a connection, and the client heard of it"`
	First     int64  `parquet:"first_ns,optional" doc:"the first byte came back"`
	Last      int64  `parquet:"last_ns,optional" doc:"the last byte so far came back"`
	Ended     int64  `parquet:"ended_ns,optional" doc:"it was over"`
	Up        int64  `parquet:"up_bytes" doc:"payload that the application sent, headers of its exchanges apart"`
	Down      int64  `parquet:"down_bytes" doc:"payload that came back"`
	Wanted    int64  `parquet:"wanted_bytes" doc:"payload that was to come back"`
	Exchanges int    `parquet:"exchanges" doc:"of a request and an answer, that it was to have; between two of them the application may have paused"`
	Result    string `parquet:"result" doc:"ok; error; open: not over when the run ended or its client was stopped; lost: its client's process ended"`
	Reason    string `parquet:"reason,optional" doc:"of an error, in a word or two"`
	Error     string `parquet:"error,optional" doc:"in full"`
}

// Circuit is a row of the table circuits: one that a client built for its users, when it is over.
type Circuit struct {
	Client    string `parquet:"client" doc:"host of the client"`
	ID        uint64 `parquet:"circuit" doc:"number of the circuit, for this process of the client: it begins anew after a restart"`
	Guard     string `parquet:"guard" doc:"first relay of its path"`
	Middle    string `parquet:"middle,optional" doc:"second"`
	Exit      string `parquet:"exit,optional" doc:"last"`
	Began     int64  `parquet:"began_ns" doc:"its path was chosen, and the guard asked"`
	Open      int64  `parquet:"open_ns,optional" doc:"all hops were part of it"`
	Used      int64  `parquet:"used_ns,optional" doc:"the first stream of a user was asked for on it"`
	Ended     int64  `parquet:"ended_ns,optional" doc:"it was over"`
	Hops      int    `parquet:"hops" doc:"that were part of it when it ended"`
	Streams   int    `parquet:"streams" doc:"streams and look-ups asked for on it, the client's own probes among them, those that failed too"`
	Isolation string `parquet:"isolation,optional" doc:"isolation key of its streams"`
	Cause     string `parquet:"cause" doc:"why it ended: closed, local, link, create, extend, handshake, lost, protocol (see circuit.Causes); open: not over when the run ended; gone: its client's process ended"`
	Error     string `parquet:"error,optional" doc:"in full"`
}

// Relay is a row of the table relays: one relay or authority at one moment, and what it did since
// the row before.
type Relay struct {
	Time         int64  `parquet:"time_ns" doc:"when"`
	Name         string `parquet:"relay" doc:"its host"`
	Role         string `parquet:"role" doc:"relay, or authority: one that carries no circuits of others"`
	Up           bool   `parquet:"up" doc:"its process runs; if not, all that follows but weight and the bytes of the host is 0"`
	Weight       uint32 `parquet:"weight" doc:"KiB/s that the newest consensus of any node says it carries; 0 when it is not listed"`
	Circuits     int64  `parquet:"circuits" doc:"through it, now"`
	Streams      int64  `parquet:"exit_streams" doc:"that it is the exit of, now"`
	Links        int64  `parquet:"links" doc:"now"`
	Queued       int64  `parquet:"queued_bytes" doc:"cells in its queues, now"`
	Memory       int64  `parquet:"memory_bytes" doc:"of its budget for queues and buffers, in use now"`
	Budget       int64  `parquet:"budget_bytes" doc:"that budget"`
	CellsIn      int64  `parquet:"cells_in" doc:"that came, since the row before"`
	CellsOut     int64  `parquet:"cells_out" doc:"that went, since then"`
	BytesUp      int64  `parquet:"up_bytes" doc:"its host sent, headers of TCP and IP included, since then"`
	BytesDown    int64  `parquet:"down_bytes" doc:"its host received, since then"`
	Handshakes   int64  `parquet:"handshakes" doc:"of circuits, done since then"`
	LoopTime     int64  `parquet:"loop_ns" doc:"for which its event loop was busy, since then"`
	PoolTime     int64  `parquet:"pool_ns" doc:"of its other cores, for handshakes and signatures, since then"`
	ExitBytesIn  int64  `parquet:"exit_in_bytes" doc:"from servers, since then"`
	ExitBytesOut int64  `parquet:"exit_out_bytes" doc:"to servers, since then"`
}

// Link is a row of the table links: all links from one host to another, one direction, at one moment. There is
// one only if something went or waits.
type Link struct {
	Time   int64  `parquet:"time_ns" doc:"when"`
	From   string `parquet:"from" doc:"host that sends"`
	To     string `parquet:"to" doc:"host that receives"`
	Links  int    `parquet:"links" doc:"open now"`
	Bytes  int64  `parquet:"sent_bytes" doc:"that TCP sent since the row before, headers apart"`
	Queued int64  `parquet:"queued_bytes" doc:"that wait below the node for TCP to send them, now"`
	Flight int64  `parquet:"flight_bytes" doc:"sent and not acknowledged, now"`
}

// Consensus is a row of the table consensus: a node takes a consensus into use.
type Consensus struct {
	Time       int64  `parquet:"time_ns" doc:"when"`
	Node       string `parquet:"node" doc:"host of the node"`
	ValidAfter int64  `parquet:"valid_after_ms" doc:"of the consensus, milliseconds since 1970 by the world's calendar"`
	Digest     string `parquet:"digest" doc:"of the consensus, hexadecimal"`
	Previous   string `parquet:"previous,optional" doc:"digest of the one before"`
	Relays     int    `parquet:"relays" doc:"that it lists"`
	Bytes      int64  `parquet:"body_bytes" doc:"size of its body"`
	Signers    int    `parquet:"signers" doc:"authorities whose signatures it has"`
}
