package circuit

import (
	"cepa/cert"
)

// Stage is a step in the life of a circuit, as an observer hears of it.
type Stage uint8

// The stages. Every circuit begins and ends; the others may be missing, and StageUsed comes once a stream.
const (
	StageBegun Stage = iota // its path is chosen, and its first hop is being asked
	StageOpen               // all hops are part of it
	StageUsed               // a stream or look-up is asked for on it
	StageOver
)

var stageNames = [...]string{"begun", "open", "used", "over"}

func (s Stage) String() string { return stageNames[s] }

// Event tells of one step in the life of a circuit.
type Event struct {
	ID    uint64 // of the circuit, which Result and Info have too
	Stage Stage
	Path  []cert.Identity // guard first; not to be modified
	Hops  int             // that are part of it
	Keyed bool            // a stream of an application uses it or did: Key is theirs, and stays
	Key   string          // the isolation key
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
	if stage == StageBegun {
		for _, r := range p.path {
			p.told = append(p.told, r.identity)
		}
	}
	e := Event{ID: p.id, Stage: stage, Path: p.told, Hops: len(p.circuit.layers), Keyed: p.keyed, Key: p.key, Streams: p.asked}
	if stage == StageOver {
		e.Cause, e.Err = f.cause.String(), f.err
	}
	observe(e)
}
