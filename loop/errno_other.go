//go:build !windows

package loop

// portable gives err the meaning that it has on Unix.
func portable(err error) error { return err }
