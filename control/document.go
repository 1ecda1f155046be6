package control

import "time"

// Status is what a node tells of itself.
type Status struct {
	Name    string `json:"name" doc:"for people: a relay's nickname"`
	Role    string `json:"role" doc:"client, relay or authority"`
	Version string `json:"version" doc:"of the program"`
	Network string `json:"network" doc:"name of the network"`
	ID      string `json:"identity" doc:"of a relay or authority, 64 hexadecimal digits; empty of a client"`
	Address string `json:"address" doc:"where it serves: the SOCKS port of a client, the relay port of others"`
	Percent int    `json:"percent" doc:"how far it has come; 100 is ready"`
	Doing   string `json:"doing" doc:"what it does now"`
	Waiting string `json:"waiting" doc:"what it waits for; empty when it waits for nothing"`
	Exit    bool   `json:"exit" doc:"a relay whose exit policy lets something through"`
	Pid     int    `json:"pid" doc:"process id"`
	Uptime  int64  `json:"uptime_seconds" doc:"since the start of the node"`
	// Consensus is the one in use; nil when there is none.
	Consensus *Consensus `json:"consensus,omitempty" doc:"the one in use; absent when there is none"`
	// Outside is where relays say that they see this client, the latest first; none of its own requests finds it out.
	Outside []string `json:"outside,omitempty" doc:"where relays say that they see this client, the latest first"`
	Echo    string   `json:"echo,omitempty" doc:"a URL that answers with the address of who asks, as the network file has it"`
	// Warnings are what a person should know and perhaps do something about.
	Warnings []string  `json:"warnings,omitempty" doc:"what a person should know; problems says the same with what to do"`
	Notices  []Notice  `json:"-"` // the same with their codes, in the node only: Advise makes problems of them
	Problems []Problem `json:"problems,omitempty" doc:"what keeps the node from working well, the worst first, and what to do about it"`
}

// Hibernating is what a relay does that has used up its month's traffic.
const Hibernating = "hibernating"

// Asleep says whether the node is a relay that has used up its month's traffic.
func (s *Status) Asleep() bool { return s.Doing == Hibernating }

// Notice is a warning and the code by which advice is found for it.
type Notice struct{ Code, Text string }

// Problem is something that a person should know, and what to do about it.
type Problem struct {
	Code string `json:"code" doc:"a word for what it is about, which stays the same when the text changes: not-ready, consensus-ended, update-required, update-recommended, consensus-old, authorities-contradict, network-file-old, other-authorities, paths-narrow, no-circuit, keys-end, address, unreachable, port-open, hibernating; there may be more"`
	Text string `json:"text" doc:"what is wrong"`
	Do   string `json:"do" doc:"what to do about it"`
}

// Consensus is what a status says of the consensus in use.
type Consensus struct {
	ValidAfter time.Time `json:"valid_after" doc:"when it was made"`
	FreshUntil time.Time `json:"fresh_until" doc:"when there should be a newer one"`
	ValidUntil time.Time `json:"valid_until" doc:"when it can be used no longer"`
	Digest     string    `json:"digest" doc:"SHA-256, 64 hexadecimal digits"`
	Relays     int       `json:"relays" doc:"that it lists"`
	Signatures int       `json:"signatures" doc:"of authorities"`
}

// Circuit is one circuit that this node has built.
type Circuit struct {
	ID        uint64 `json:"id" doc:"unique among a client's circuits for streams; 0 of a directory circuit"`
	State     string `json:"state" doc:"building, open, or closed (in events only)"`
	Purpose   string `json:"purpose" doc:"ready (nobody has used it yet), streams, or directory (of one hop)"`
	Retired   bool   `json:"retired" doc:"it takes no new streams"`
	Suspect   bool   `json:"suspect" doc:"nothing has come on it where something should have"`
	Age       int64  `json:"age_seconds" doc:"since it was begun"`
	Hops      []Hop  `json:"hops" doc:"its relays, the guard first"`
	Built     int    `json:"built" doc:"how many of the hops are part of it yet"`
	Streams   int    `json:"streams" doc:"open or asked for on it now"`
	Isolation string `json:"isolation" doc:"equal for circuits of the same isolation key, which itself is not told; empty without one. It means nothing after a restart"`
	Reason    string `json:"reason,omitempty" doc:"in events: why it was closed"`
}

// Hop is one relay of a circuit.
type Hop struct {
	Nickname string `json:"nickname" doc:"empty when the consensus does not list the relay"`
	Identity string `json:"identity" doc:"64 hexadecimal digits"`
	Address  string `json:"address" doc:"the first of the relay's addresses"`
}

// Stream is one request of an application.
type Stream struct {
	ID          uint64 `json:"id" doc:"unique in one run of the client"`
	State       string `json:"state" doc:"waiting (for a circuit), asked (an exit), open; in events also failed and over"`
	Kind        string `json:"kind" doc:"connect, or resolve for a look-up"`
	Destination string `json:"destination" doc:"host and port; the host is [scrubbed] unless the settings say control.show_destinations"`
	Circuit     uint64 `json:"circuit" doc:"that carries it or is to; 0 while it waits"`
	Isolation   string `json:"isolation" doc:"as of circuits"`
	Age         int64  `json:"age_seconds" doc:"since the application asked"`
	Received    uint64 `json:"bytes_received" doc:"from the destination"`
	Sent        uint64 `json:"bytes_sent" doc:"to the destination"`
	Reason      string `json:"reason,omitempty" doc:"in events: why it failed, scrubbed as the destination is"`
}

// Link is one connection with a neighbour.
type Link struct {
	Nickname  string `json:"nickname" doc:"of a relay that the consensus lists"`
	Identity  string `json:"identity" doc:"64 hexadecimal digits; empty of a client"`
	Authority bool   `json:"authority" doc:"the far end is a directory authority of the network file"`
	Address   string `json:"address" doc:"of the far end; [scrubbed] of clients"`
	Direction string `json:"direction" doc:"out when this node dialled, else in"`
	Age       int64  `json:"age_seconds"`
	Received  uint64 `json:"bytes_received" doc:"in cells"`
	Sent      uint64 `json:"bytes_sent" doc:"in cells"`
	Queued    int    `json:"queued_bytes" doc:"that wait to be sent"`
	Circuits  int    `json:"circuits" doc:"on the link now"`
	Draining  bool   `json:"draining" doc:"it takes no new circuits"`
}

// Guard is one relay that may be the first of a client's circuits.
type Guard struct {
	Nickname  string `json:"nickname"`
	Identity  string `json:"identity" doc:"64 hexadecimal digits"`
	Address   string `json:"address" doc:"the first of the relay's addresses"`
	State     string `json:"state" doc:"untried, up, suspect (it does not answer at the moment) or down"`
	InUse     bool   `json:"in_use" doc:"new circuits go through it"`
	Primary   bool   `json:"primary" doc:"one of the first three; others are asked only when no primary works"`
	Confirmed bool   `json:"confirmed" doc:"it has carried a stream"`
	Failures  int    `json:"failures" doc:"in a row"`
	Fault     string `json:"fault,omitempty" doc:"the last failure of one that is down"`
	Circuits  int    `json:"circuits" doc:"through it now, those being built too"`
}

// Sample is the traffic of one second.
type Sample struct {
	At       time.Time `json:"at" doc:"the end of that second"`
	Received uint64    `json:"received" doc:"bytes in that second"`
	Sent     uint64    `json:"sent" doc:"bytes in that second"`
}

// Bandwidth is the traffic of all links, TLS included.
type Bandwidth struct {
	Received     uint64   `json:"bytes_received" doc:"since the start"`
	Sent         uint64   `json:"bytes_sent" doc:"since the start"`
	ReceivedRate uint64   `json:"received_rate" doc:"bytes a second, mean of the last five seconds"`
	SentRate     uint64   `json:"sent_rate" doc:"bytes a second, mean of the last five seconds"`
	History      []Sample `json:"history" doc:"the last five minutes or less, the oldest first"`
}

// Relay is one relay of the consensus.
type Relay struct {
	Nickname  string   `json:"nickname"`
	Identity  string   `json:"identity" doc:"64 hexadecimal digits"`
	Addresses []string `json:"addresses" doc:"1 to 8"`
	Flags     []string `json:"flags" doc:"what the authorities say of it: Authority, Guard, Exit, Fast, Stable, Running, Valid, MiddleOnly, BadExit, IPv6Exit"`
	Weight    uint32   `json:"weight" doc:"KiB a second that the authorities trust it to carry; clients choose in proportion"`
}

// Line is one line of the log.
type Line struct {
	Number uint64    `json:"number" doc:"from 1, without gaps"`
	Time   time.Time `json:"time" doc:"to the second"`
	Level  string    `json:"level" doc:"DEBUG, INFO, WARN or ERROR"`
	Text   string    `json:"text" doc:"the message and what belongs to it, scrubbed as the log itself is"`
}

// Log is the end of the log.
type Log struct {
	Lines  []Line `json:"lines" doc:"the oldest first"`
	Missed uint64 `json:"missed" doc:"lines after the one asked for that are not kept any more"`
	Last   uint64 `json:"last" doc:"number of the newest line, for the next request; 0 when there is none"`
}

// NewIdentity is the answer to the wish for one.
type NewIdentity struct {
	Retired int `json:"retired" doc:"circuits that from now on take no new streams"`
	Running int `json:"running" doc:"of these, circuits that still carry streams, which go on"`
}

// Lost tells a reader of events that it was too slow.
type Lost struct {
	Events uint64 `json:"events" doc:"that this reader has not got"`
}

// Failure is the body of every answer that is no success.
type Failure struct {
	Error string `json:"error" doc:"what failed and why"`
}

// done is an answer that says nothing but that it was done.
type done struct{}
