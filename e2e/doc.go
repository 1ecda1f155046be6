// Package e2e holds the end-to-end tests: the cepa program as a user runs it, networks of
// real processes, real programs (curl, git, ssh, Chromium) that go through them, and servers
// that look at who connects. It has no other content and nobody imports it; `go test ./e2e`
// is the check. The tests run one after another, because most of them measure time or count
// what is left behind; they run on Linux, whose /proc tells whose a connection is.
//
// A test that needs a program or a right that the machine lacks is skipped and says so. With
// CEPA_E2E=all in the environment that is a failure instead, and the transfers have their
// full sizes. With -short only the quick tests run.
package e2e
