package main

import "golang.org/x/sys/unix"

// machineMemory is the memory of the machine in bytes.
func machineMemory() (int64, bool) {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0, false
	}
	return int64(uint64(s.Totalram) * uint64(s.Unit)), true
}
