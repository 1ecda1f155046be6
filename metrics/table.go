package metrics

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"cepa/cell"
)

// family is one metric: its name and meaning outside, and the counters of the node that it shows.
type family struct {
	name   string
	help   string
	kind   prometheus.ValueType
	labels []string // names
	scale  float64  // by which counters are multiplied, to come to base units; 0 is 1
	from   []source
}

// source is a counter of the node. A name that ends in "*" stands for all counters that begin so, and what follows is
// the value of the only label.
type source struct {
	counter string
	minus   string   // another counter, which is a part of it and shown elsewhere; "" is none
	values  []string // of the labels
}

// total makes a counter and gauge a gauge of one source each.
func total(name, counter, help string) family {
	return family{name: name, help: help, kind: prometheus.CounterValue, from: []source{{counter: counter}}}
}

func gauge(name, counter, help string) family {
	return family{name: name, help: help, kind: prometheus.GaugeValue, from: []source{{counter: counter}}}
}

// by makes f one metric with a label: pairs are counters and the label's values.
func by(f family, label string, pairs ...string) family {
	f.labels, f.from = []string{label}, nil
	for pair := range slices.Chunk(pairs, 2) {
		f.from = append(f.from, source{counter: pair[0], values: []string{pair[1]}})
	}
	return f
}

// scaled makes f one whose counters are in units of scale.
func scaled(f family, scale float64) family {
	f.scale = scale
	return f
}

// cells is the family of cells by kind and direction.
func cells() family {
	f := family{
		name: "cepa_cells_total", help: "Cells of 2048 bytes on established links, by direction and kind (docs/protocol.md, section Cells).",
		kind: prometheus.CounterValue, labels: []string{"direction", "kind"},
	}
	for c := range cell.Commands {
		kind := cell.Command(c)
		if !kind.Known() || kind == cell.CommandHello { // HELLO comes before a link is established
			continue
		}
		name := strings.ToLower(kind.String())
		f.from = append(f.from, source{counter: "cells_in_" + name, values: []string{"in", name}}, source{counter: "cells_out_" + name, values: []string{"out", name}})
	}
	return f
}

// families is all that is exported of the node's counters.
func families() []family {
	return slices.Concat(linkFamilies(), circuitFamilies(), relayFamilies(), clientFamilies(), directoryFamilies(), authorityFamilies(), shellFamilies())
}

func linkFamilies() []family {
	refused := by(total("cepa_link_connections_refused_total", "", "Accepted connections that were closed at once: too many handshakes from one network (rate), or a bound of the node (limit)."),
		"reason", "transport_too_fast", "rate", "transport_refused", "limit")
	refused.from[1].minus = "transport_too_fast"
	failed := by(total("cepa_link_handshakes_failed_total", "", "Links that never came up: accepted ones whose handshake failed (in) or made room for newer ones (evicted), and failed dials (out)."),
		"reason", "transport_inbound_failed", "in", "transport_evicted", "evicted", "transport_dial_failed", "out")
	failed.from[0].minus = "transport_evicted"
	return []family{
		gauge("cepa_links", "links", "Links with neighbours now, relays and clients together."),
		gauge("cepa_link_handshakes_pending", "transport_half_open", "Accepted connections now whose handshake is not done."),
		total("cepa_link_connections_accepted_total", "transport_accepted", "TCP connections accepted on the relay port."),
		refused, failed,
		total("cepa_link_dials_total", "transport_dialled", "Links that this node asked to open."),
		by(total("cepa_link_bytes_total", "", "Bytes on the TCP connections of established links, TLS included."), "direction", "transport_bytes_read", "in", "transport_bytes_written", "out"),
		total("cepa_links_refused_total", "links_refused", "Links with a good handshake that were closed at once for a limit."),
		by(total("cepa_links_closed_total", "", "Links that this node closed: the neighbour broke the protocol (protocol), nothing came or was taken for long (dead), nothing came while a new link to the same neighbour came up (lost), or nobody used it when there were many (idle)."),
			"reason", "link_errors", "protocol", "dead_links", "dead", "lost_links", "lost", "idle_links", "idle"),
		total("cepa_inbound_relay_links_total", "inbound_relay_links", "Links that other relays opened to this one: a sign that its port can be reached."),
		cells(),
		by(total("cepa_credit_grants_total", "", "Grants of hop credit in CREDIT cells."), "direction", "credits_in", "in", "credits_out", "out"),
		total("cepa_credits_returned_total", "returned", "Cells of credit that neighbours gave back unused."),
	}
}

func circuitFamilies() []family {
	return []family{
		gauge("cepa_circuit_legs", "legs", "Ends of circuits on links now: one that goes through this node has two."),
		gauge("cepa_circuit_tombstones", "tombstones", "Circuit ids now that wait for the neighbour's last word."),
		gauge("cepa_streams", "streams", "Streams that end at this node now."),
		gauge("cepa_queue_bytes", "queued_bytes", "Bytes of cells in queues of circuits now."),
		gauge("cepa_memory_budget_used_bytes", "budget_used_bytes", "What queues and buffers hold of the memory budget now."),
		gauge("cepa_memory_budget_limit_bytes", "budget_limit_bytes", "The memory budget for queues and buffers (setting memory_mib)."),
		total("cepa_memory_budget_victims_total", "budget_victims", "Circuits and streams ended to stay within the memory budget."),
		by(total("cepa_circuits_destroyed_total", "", "Circuits that this node destroyed: a neighbour or the far end broke the protocol (protocol), credit was hoarded (hoarding), a queue did not move (stuck), or others needed the room of an idle one (idle)."),
			"reason", "circuit_errors", "protocol", "hoarders", "hoarding", "stuck", "stuck", "idle_victims", "idle"),
		total("cepa_credit_overruns_total", "overruns", "Times that a neighbour sent more than it had credit for."),
		by(total("cepa_stream_bytes_total", "", "Payload of streams that end at this node."), "direction", "stream_bytes_in", "in", "stream_bytes_out", "out"),
		total("cepa_gossip_over_budget_total", "gossip_dropped", "Gossip packets dropped because a neighbour sent too many."),
	}
}

func relayFamilies() []family {
	return []family{
		gauge("cepa_relay_circuits", "relay_circuits", "Circuits through or ending at this relay now."),
		total("cepa_circuit_handshakes_total", "relay_handshakes", "Circuit handshakes done: circuits that this relay opened for others."),
		by(total("cepa_circuit_handshakes_refused_total", "", "Circuit handshakes refused: the link's or the node's limit of circuits (limit), too many from one neighbour (rate), too many waiting (queue), waited too long (age), a type unknown here (type), or a message that is not right (bad)."),
			"reason", "refused", "limit", "relay_refused_rate", "rate", "relay_refused_queue", "queue", "relay_refused_age", "age", "relay_refused_type", "type", "relay_bad_handshakes", "bad"),
		total("cepa_relay_extends_total", "relay_extends", "Requests to extend a circuit to another relay."),
		total("cepa_relay_extends_failed_total", "relay_extend_failed", "Requests to extend a circuit that failed."),
		total("cepa_relay_violations_total", "relay_violations", "Circuits destroyed since their client broke the protocol."),
		gauge("cepa_exit_streams_open", "relay_exit_streams", "Exit streams connected to their destinations now."),
		by(total("cepa_exit_streams_total", "", "Exit streams and look-ups by result; connected counts streams alone. policy: the exit policy or the neighbour forbids it; resource: a limit of this relay."),
			"result", "relay_exit_connects", "connected", "relay_exit_policy", "policy", "relay_exit_resolve", "resolve_failed", "relay_exit_refused", "refused",
			"relay_exit_unreachable", "unreachable", "relay_exit_timeout", "timeout", "relay_exit_resource", "resource", "relay_exit_other", "other"),
		total("cepa_exit_lookups_total", "relay_resolves", "Look-ups of names that clients asked for by themselves."),
		total("cepa_exit_dials_given_up_total", "relay_dials_given_up", "Attempts to connect to destinations that made room for others."),
		total("cepa_exit_streams_limited_total", "relay_exit_limited", "Exit streams refused by a limit of the settings; they are among those with the result resource."),
		by(total("cepa_exit_bytes_total", "", "Bytes from (in) and to (out) destinations."), "direction", "relay_exit_bytes_in", "in", "relay_exit_bytes_out", "out"),
		total("cepa_relay_directory_requests_total", "relay_dir_requests", "Directory requests that came over circuits."),
		total("cepa_speed_tests_total", "speed_test_given", "Answers to measurements of this relay's speed."),
		total("cepa_speed_test_bytes_total", "speed_test_bytes", "Bytes granted to measurements of this relay's speed."),
		total("cepa_speed_tests_refused_total", "speed_test_refused", "Requests to measure this relay's speed that were refused."),
	}
}

func clientFamilies() []family {
	return []family{
		gauge("cepa_client_circuits", "circuit_circuits", "Circuits that this client has open now."),
		gauge("cepa_client_circuits_building", "circuit_building", "Circuits that this client builds now."),
		gauge("cepa_client_requests_waiting", "circuit_waiting", "Requests of applications that wait for a circuit now."),
		gauge("cepa_client_streams", "circuit_streams", "Streams of applications that are connected now."),
		scaled(gauge("cepa_client_circuit_late_seconds", "circuit_late_millis", "After this time, as learned, a circuit being built counts as late."), 1e-3),
		scaled(gauge("cepa_client_circuit_give_up_seconds", "circuit_give_up_millis", "After this time, as learned, a circuit being built is given up."), 1e-3),
		by(total("cepa_client_circuit_builds_total", "", "Circuits that this client began to build, by result."), "result", "circuit_built", "built", "circuit_failed", "failed"),
		total("cepa_client_circuits_lost_total", "circuit_lost", "Open circuits that relays or links ended."),
		total("cepa_client_circuits_tampered_total", "circuit_tampered", "Circuits ended for a cell that no relay may send."),
		total("cepa_client_circuits_late_total", "circuit_late", "Circuits that took longer than most."),
		total("cepa_client_circuits_suspected_total", "circuit_suspects", "Circuits on which a stream stalled and nothing else came."),
		total("cepa_client_requests_total", "circuit_requests", "Requests of applications."),
		by(total("cepa_client_request_results_total", "", "Requests of applications that have ended or are connected, by result."), "result", "circuit_connected", "connected", "circuit_resolved", "resolved", "circuit_refused", "failed"),
		total("cepa_client_request_retries_total", "circuit_retries", "Attempts beyond a request's first."),
		gauge("cepa_socks_connections", "socks_open", "Connections to the SOCKS port now."),
		total("cepa_socks_connections_accepted_total", "socks_accepted", "Connections to the SOCKS port."),
		by(total("cepa_socks_connections_refused_total", "", "Connections to the SOCKS port that were not connected, by cause; causes that never occurred are left out."), "cause", "socks_refused_*", ""),
		total("cepa_socks_connections_connected_total", "socks_connected", "Connections to the SOCKS port that were answered with success."),
		total("cepa_socks_requests_served_total", "socks_served", "Connections to the local port that were answered by a look-up, or by a page about the port."),
		total("cepa_socks_connections_aborted_total", "socks_aborted", "Connected ones that ended by an error or a timeout."),
		total("cepa_dns_queries_total", "dns_queries", "Questions to the DNS port."),
		total("cepa_dns_answered_total", "dns_answered", "Those with an answer, or that there is none."),
		total("cepa_dns_failed_total", "dns_failed", "Those with an error, or refused."),
		total("cepa_dns_dropped_total", "dns_dropped", "Those that were dropped because too many were open."),
		by(total("cepa_socks_bytes_total", "", "Bytes from (out) and to (in) applications."), "direction", "socks_bytes_sent", "out", "socks_bytes_received", "in"),
	}
}
