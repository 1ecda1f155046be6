// Package metrics serves what a monitoring system wants to know of a running node, over HTTP on loopback:
//
//	GET /metrics   the counters of the node, of the Go runtime and of the process, in Prometheus' formats
//	GET /healthz   200 when the node's event loop answers, 503 when it does not; the reason in the body
//	GET /readyz    200 when the node serves and its consensus is valid, 503 when not; the reason in the body
//
// It does not know what a node is and counts nothing itself: a Source gives it the flat counters of the control API
// (control, GET /v1/counters), and table.go says what each is called outside, or why it is left out. No value concerns
// a single client, circuit or destination, and none is renewed more often than once in Refresh.
//
// The daemon starts a Server when the settings say so, and nobody else calls the package. It is a shell: everything
// exported may be used from any goroutine, and a Source is called from many at once.
package metrics
