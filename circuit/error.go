package circuit

import (
	"fmt"

	"cepa/cell"
)

// Where says how far a request came.
type Where string

// The places where a request can fail.
const (
	AtClient      Where = "client"      // before anything was sent
	AtCircuit     Where = "circuit"     // no circuit, or it was lost before the stream was open
	AtExit        Where = "exit"        // the exit refused or failed
	AtDestination Where = "destination" // the destination, or its name, as the exit saw it
)

// Error is why a request failed.
type Error struct {
	Reason cell.Reason
	Where  Where
	Text   string // for a person, with what to do next; it may name the destination: not for logs
	// Scrubbed is Text without the destination; empty where Text never names it.
	Scrubbed string
}

// Plain returns the text without the destination, for logs.
func (e *Error) Plain() string {
	if e.Scrubbed != "" {
		return e.Scrubbed
	}
	return e.Text
}

// theDestination stands in a scrubbed text where the destination is in the other.
const theDestination = "the destination"

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// errorOf makes the error for the reason of an END, or of a RESOLVED without answers.
func errorOf(reason cell.Reason, to cell.Address) *Error {
	e := &Error{Reason: reason.Known(), Where: AtExit}
	switch e.Reason {
	case cell.ReasonNoSuchHost, cell.ReasonResolveFailed, cell.ReasonRefused, cell.ReasonReset, cell.ReasonHostUnreachable,
		cell.ReasonNetUnreachable, cell.ReasonTimeout:
		e.Where = AtDestination
	case cell.ReasonDestroyed:
		e.Where = AtCircuit
	}
	e.Text, e.Scrubbed = textOf(e.Reason, to.String()), textOf(e.Reason, theDestination)
	return e
}

// textOf explains a reason that an exit gave for a destination.
func textOf(reason cell.Reason, to string) string {
	switch reason {
	case cell.ReasonNoSuchHost:
		return fmt.Sprintf("no such host: %s does not exist as the exit sees it; check the spelling", to)
	case cell.ReasonResolveFailed:
		return fmt.Sprintf("the name of %s could not be resolved now, at several exits; try again later", to)
	case cell.ReasonRefused:
		return fmt.Sprintf("refused by the destination: %s does not accept connections on this port", to)
	case cell.ReasonReset:
		return fmt.Sprintf("reset by the destination: %s closed the connection while it was being opened", to)
	case cell.ReasonHostUnreachable, cell.ReasonNetUnreachable:
		return fmt.Sprintf("%s is unreachable from the exits that were asked; check the address, or try again later", to)
	case cell.ReasonPolicy:
		return fmt.Sprintf("refused by the exit's policy: no exit that was asked connects to %s on this port", to)
	case cell.ReasonTimeout:
		return fmt.Sprintf("timed out: %s did not answer the exit; it may be down or filtered", to)
	case cell.ReasonDestroyed:
		return "circuit lost before the stream was open, several times; try again"
	}
	return fmt.Sprintf("the exit could not open the stream: %v; try again", reason)
}

// final says whether an exit's answer would be the same at every other exit.
func final(reason cell.Reason) bool {
	return reason == cell.ReasonNoSuchHost || reason == cell.ReasonRefused
}
