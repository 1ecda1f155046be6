//go:build !linux

package main

// machineMemory is not looked for on this system.
func machineMemory() (int64, bool) { return 0, false }
