package daemon

import (
	"bufio"
	"context"
	"errors"
	"io"
)

// GoLine is what the parent of an attached node writes when users may come: what describes
// the node to them is in place.
const GoLine = "go\n"

// errParent says that the process that started this one has ended.
var errParent = errors.New("the parent process has ended")

// Attach ties the process to the other end of r: the context ends when r does, however the
// parent ended, and the channel is closed when GoLine has come.
func Attach(ctx context.Context, r io.Reader) (context.Context, <-chan struct{}) {
	ctx, cancel := context.WithCancelCause(ctx)
	ready := make(chan struct{})
	go func() {
		defer cancel(errParent)
		b := bufio.NewReader(r)
		if line, err := b.ReadString('\n'); err != nil || line != GoLine {
			return
		}
		close(ready)
		_, _ = io.Copy(io.Discard, b)
	}()
	return ctx, ready
}
