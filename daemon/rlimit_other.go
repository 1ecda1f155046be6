//go:build !unix

package daemon

// fileLimit is not known on this system.
func fileLimit() (int, bool) { return 0, false }
