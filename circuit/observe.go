package circuit

import (
	"cepa/cert"
)

// Stage is a step in the life of a circuit, as an observer hears of it.
type Stage uint8

// The stages. Every circuit begins and ends; the others may be missing.
const (
	StageBegun Stage = iota // its path is chosen, and its first hop is being asked
	StageOpen               // all hops are part of it
	StageKeyed              // the first stream with an isolation key uses it; no stream with another will
	StageOver
)

var stageNames = [...]string{"begun", "open", "keyed", "over"}

func (s Stage) String() string { return stageNames[s] }

// Event tells of one step in the life of a circuit.
type Event struct {
	ID    uint64 // of the circuit, which Result and Info have too
	Stage Stage
	Path  []cert.Identity // guard first; the observer's own
	Hops  int             // that are part of it
	Key   string          // the isolation key; empty before StageKeyed
	// Streams counts the streams and look-ups asked for on it until now, the client's own probes among them.
	Streams int
	// Cause and Err say why it is over: the cause in one word, see Causes, and the failure in full.
	Cause string
	Err   error
}

var causeNames = [...]string{"closed", "local", "link", "create", "extend", "handshake", "lost", "protocol"}

func (c cause) String() string { return causeNames[c] }

// Causes are all words that Event.Cause may be: closed by the client itself; a local failure; no link with
// the guard; the guard refused, or did not answer in time; a later hop did so; an answer that did
// not authenticate; destroyed by a relay, or with the link to the guard; a violation of the protocol.
func Causes() []string { return append([]string(nil), causeNames[:]...) }

// tell lets the observer hear.
func (p *pooled) tell(stage Stage, f failure) {
	observe := p.client.cfg.OnCircuit
	if observe == nil {
		return
	}
	e := Event{ID: p.id, Stage: stage, Path: make([]cert.Identity, len(p.path)), Hops: len(p.circuit.layers), Key: p.key, Streams: p.asked}
	for i, r := range p.path {
		e.Path[i] = r.identity
	}
	if stage == StageOver {
		e.Cause, e.Err = f.cause.String(), f.err
	}
	observe(e)
}
