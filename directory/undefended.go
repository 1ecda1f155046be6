package directory

import (
	"math"
	"time"
)

// Undefended switches defences off, each at the one check that it names. It is for the attack suite in package e2e
// only, which shows that an attack works without its defence before it shows that it fails with it
// (docs/threat-model.md, "Attack suite"). No flag, no file and no variable of the program sets it, which package rules
// checks; the zero value is what runs.
type Undefended struct {
	// Messages lets gossip hand whatever memberlist understands to memberlist: suspect and dead messages, any
	// incarnation, any name over any rumour.
	Messages bool
	// Replays makes the rumour and the descriptor that came last the newest, whatever their dates say.
	Replays bool
	// Budgets takes away what a neighbour, and a network of neighbours, may ask and tell in a second.
	Budgets bool
	// OneSource makes a follower believe the first head that it is shown, and ask nobody else after a bad answer.
	OneSource bool
	// AnyBody takes the body of a consensus without comparing it with what the head says of it.
	AnyBody bool
	// AnySize takes answers of any size, and waits for their end for any time.
	AnySize bool
	// Votes counts the first vote that an authority hears of another, without asking what that one told others.
	Votes bool
}

// What takes the place of a bound that is switched off.
const (
	anySize   = math.MaxInt32
	anyTime   = time.Hour
	yesterday = 23 * time.Hour // certificates are back-dated by a day
)
