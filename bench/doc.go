//go:build linux

// Command bench compares cepa with what it is measured against, in one run on one machine:
//
//	go run ./bench                        # cepa and a bare chain of three TLS 1.3 forwarders
//	go run ./bench -tor bulk              # and C Tor, where it is installed (apt-get install tor)
//	go run ./bench -tests down1,up1 -rounds 10 -mib 128
//
// All peers are up at the same time, and take turns at each test: the figures of other work on the machine drift by a
// factor of two, their ratios do not. Every peer is a SOCKS5 port with a list of processes; processor time is what
// these used. As root on Linux everything runs in a network namespace of its own. Result: a table on the standard
// output, and with -out the samples as JSON.
package main
