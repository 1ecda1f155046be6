package metrics

func directoryFamilies() []family {
	return []family{
		gauge("cepa_consensus_relays", "consensus_relays", "Relays in the consensus in use."),
		gauge("cepa_consensus_listed", "consensus_lists_this", "1 when the consensus in use lists this relay, which means that authorities reach its port; 0 when not."),
		gauge("cepa_directory_circuits", "directory_circuits", "One-hop circuits for directory requests now."),
		total("cepa_consensus_rounds_total", "directory_rounds", "Times that sources were asked for a newer consensus."),
		by(total("cepa_consensus_requests_total", "", "Requests for heads, bodies and diffs of consensuses."), "document", "directory_heads", "head", "directory_bodies", "body", "directory_diffs", "diff"),
		by(total("cepa_consensus_fetched_bytes_total", "", "Bytes of bodies and diffs of consensuses that were fetched."), "document", "directory_body_bytes", "body", "directory_diff_bytes", "diff"),
		total("cepa_consensus_accepted_total", "directory_accepted", "Consensuses that came into use."),
		total("cepa_consensus_patched_total", "directory_patched", "Consensuses that were made from a diff."),
		by(total("cepa_consensus_failures_total", "", "What kept a consensus from being used: no answer (unreached), no document or a false one (bad_answer), a diff to another body (bad_diff), older than the one held (rollback), contradicting (fork), past (expired) or before (early) its time, or by unknown authorities (stranger)."),
			"reason", "directory_unreached", "unreached", "directory_bad_answers", "bad_answer", "directory_bad_diffs", "bad_diff", "directory_rollbacks", "rollback",
			"directory_forks", "fork", "directory_expired", "expired", "directory_early", "early", "directory_strange", "stranger"),
		total("cepa_network_files_accepted_total", "directory_network_files", "Newer network files that came into use."),
		scaled(gauge("cepa_clock_skew_seconds", "clock_skew_ms", "By how much the clocks of other relays are ahead of the one here: the median of the last that were heard."), 1e-3),
		gauge("cepa_clock_skew_relays", "clock_skew_relays", "How many relays cepa_clock_skew_seconds is the median of."),
		by(gauge("cepa_protocols_missing", "", "Protocols that the consensus asks for and this version lacks: above 0 it is time to update."), "class", "protocols_missing_required", "required", "protocols_missing_recommended", "recommended"),
		by(gauge("cepa_observed_address_relays", "", "How many of the last relays see this one at the address that it announces, or at another."), "address", "observed_here", "announced", "observed_elsewhere", "other"),

		gauge("cepa_descriptors", "directory_descriptors", "Descriptors of relays that are held now."),
		gauge("cepa_descriptor_candidates", "directory_candidates", "Held descriptors now of relays that are not in the consensus."),
		gauge("cepa_descriptors_pulling", "directory_pulling", "Descriptors being fetched or queued for it now."),
		total("cepa_descriptors_published_total", "directory_published", "Descriptors of this relay that were made."),
		total("cepa_announcements_taken_total", "directory_announced", "Announcements of this relay's descriptor that authorities took."),
		total("cepa_announcements_refused_total", "directory_refused", "Announcements of other relays that were refused."),
		total("cepa_rumours_total", "directory_rumours", "Rumours of descriptors that were heard."),
		by(total("cepa_rumours_refused_total", "", "Rumours that do not verify (bad), are older than what is held (late), or over a budget (limit)."), "reason", "directory_bad_rumours", "bad", "directory_late_rumours", "late", "directory_limited_rumours", "limit"),
		total("cepa_descriptor_pulls_total", "directory_pulls", "Descriptors asked for."),
		total("cepa_descriptor_pulls_failed_total", "directory_pulls_failed", "Descriptors asked for that did not come."),
		total("cepa_descriptors_bad_total", "directory_bad_descriptors", "Descriptors that do not verify."),
		total("cepa_descriptors_stored_total", "directory_stored", "Descriptors taken into the store."),
		total("cepa_descriptors_evicted_total", "directory_evicted", "Candidates that had to go for others."),
		total("cepa_reconciliations_total", "directory_reconciled", "Comparisons with another relay that were finished."),
		total("cepa_reconciliation_symbols_total", "directory_symbols", "Symbols of sketches that comparisons took."),
		total("cepa_directory_answers_total", "directory_served", "Directory requests answered with a document."),
		total("cepa_directory_diffs_made_total", "directory_diffs_made", "Diffs of consensuses made for others."),
		by(total("cepa_directory_refused_total", "", "Directory requests that are none (bad), or over a budget (busy)."), "reason", "directory_bad_requests", "bad", "directory_busy", "busy"),

		by(total("cepa_gossip_packets_total", "", "Packets of the gossip, before anything was dropped."), "direction", "gossip_packets_in", "in", "gossip_packets_out", "out"),
		total("cepa_gossip_rumours_verified_total", "gossip_verified", "Rumours of the gossip whose signatures were checked."),
		total("cepa_gossip_rumours_accepted_total", "gossip_accepted", "Rumours of the gossip that were news."),
		total("cepa_gossip_dials_total", "gossip_dials", "Links that the gossip asked for."),
		total("cepa_gossip_evicted_total", "gossip_evicted", "Relays given up to make room for others."),
		by(total("cepa_gossip_dropped_total", "", "Packets and messages of the gossip that were dropped, by reason; reasons that never occurred are left out."), "reason", "gossip_dropped_*", ""),
		gauge("cepa_gossip_neighbours", "gossip_neighbours", "Relays now with which there is a link for the gossip."),
		by(gauge("cepa_gossip_members", "", "Relays now that the gossip has heard of (heard), and those of them that it holds for alive with their newest rumour (alive)."), "state", "gossip_members", "heard", "gossip_true_members", "alive"),
	}
}

func authorityFamilies() []family {
	return []family{
		by(gauge("cepa_authority_relays", "", "Relays now with a descriptor (known), and those of them that answer (reachable)."), "state", "authority_known", "known", "authority_reachable", "reachable"),
		total("cepa_authority_probes_total", "authority_probes", "Attempts to reach relays."),
		total("cepa_authority_probes_failed_total", "authority_probes_failed", "Attempts to reach relays that failed."),
		total("cepa_authority_sessions_total", "authority_sessions", "Sessions whose votes were counted here."),
		by(total("cepa_authority_sessions_failed_total", "", "Sessions without a consensus from here: not ready in time (abstained), fewer votes than a quorum (few_votes), votes that make none (not_made), or not signed by a quorum (few_signatures)."),
			"reason", "authority_abstained", "abstained", "authority_few_votes", "few_votes", "authority_not_made", "not_made", "authority_few_signatures", "few_signatures"),
		total("cepa_authority_votes_cast_total", "authority_votes_cast", "Votes of this authority."),
		total("cepa_authority_votes_taken_total", "authority_votes_taken", "Votes accepted, with those of this authority."),
		by(total("cepa_authority_votes_refused_total", "", "Votes refused: before their time (early), with too few signatures for the round (late), or for another reason."), "reason", "authority_votes_early", "early", "authority_votes_late", "late", "authority_votes_refused", "other"),
		total("cepa_authority_vote_bodies_missed_total", "authority_bodies_missed", "Requests for bodies of votes without an answer."),
		total("cepa_authority_clocks_off_total", "authority_clocks_off", "Early and late votes that are likely due to a wrong clock."),
		total("cepa_authority_equivocations_total", "authority_equivocations", "Contradictions of other authorities."),
		total("cepa_authority_signatures_total", "authority_signatures", "Good signatures of other authorities."),
		total("cepa_authority_signatures_refused_total", "authority_signatures_refused", "Signatures of others that were refused."),
		total("cepa_authority_consensuses_signed_total", "authority_signed", "Consensuses signed here."),
		total("cepa_authority_consensuses_completed_total", "authority_completed", "Consensuses with the signatures of a quorum."),
		total("cepa_authority_save_failures_total", "authority_save_failures", "Signatures that could not be stored, and so were not published."),
		gauge("cepa_authority_last_votes", "authority_last_votes", "Votes in the last session."),
		gauge("cepa_authority_last_signatures", "authority_last_signatures", "Signatures of the last consensus made here."),
		gauge("cepa_authority_evidence", "authority_evidence", "Pieces of evidence against authorities that are kept."),
		by(gauge("cepa_measure_relays", "", "Relays of the consensus now with an estimate of their speed (known), and those that are much faster for whom they know (suspect)."), "state", "measure_known", "known", "measure_suspects", "suspect"),
		total("cepa_measurements_total", "measure_done", "Measurements of relays."),
		total("cepa_measurements_open_total", "measure_open", "Measurements in which the relay could see who measures."),
		by(total("cepa_measurements_failed_total", "", "Measurements that failed (failed), or for which no path was found (no_path)."), "reason", "measure_failed", "failed", "measure_no_path", "no_path"),
		total("cepa_measurement_bytes_total", "measure_bytes", "Bytes that came in measurements."),
		total("cepa_measurement_suspicions_total", "measure_reports", "Times that a relay became a suspect."),
		total("cepa_measurement_save_failures_total", "measure_save_fails", "Times that what was measured could not be stored."),
	}
}

func shellFamilies() []family {
	return []family{
		total("cepa_loop_events_total", "loop_events", "Events that the node's loop has run."),
		gauge("cepa_loop_queue_events", "loop_queued", "Events that wait for the loop now."),
		gauge("cepa_loop_timers", "loop_timers", "Timers of the loop now."),
		scaled(gauge("cepa_loop_longest_event_seconds", "loop_longest_event_us", "The longest that one event has held the loop since the start."), 1e-6),
		gauge("cepa_exit_connections", "conns", "TCP connections to destinations now, those that are closing included."),
		gauge("cepa_exit_dials", "dials", "Attempts to connect to destinations now."),
		gauge("cepa_exit_lookups_running", "lookups", "Look-ups of names now."),
	}
}

// leftOut are counters that are not exported, and why.
var leftOut = map[string]string{
	"cells_in":              "the sum of cepa_cells_total",
	"cells_out":             "the sum of cepa_cells_total",
	"cells_in_hello":        "HELLO comes before a link is established: always 0",
	"cells_out_hello":       "as cells_in_hello",
	"padding_out":           "cepa_cells_total of kind padding",
	"relay_refused":         "the sum of its reasons in cepa_circuit_handshakes_refused_total",
	"relay_exit_failed":     "the sum of the results of cepa_exit_streams_total",
	"transport_links":       "cepa_links",
	"consensus_valid_after": "cepa_consensus_valid_after_timestamp_seconds",
	"goroutines":            "go_goroutines",
	"heap_bytes":            "go_memstats_heap_alloc_bytes",
	"open_files":            "process_open_fds",
	"open_files_limit":      "process_max_fds",
	"cpu_ms":                "process_cpu_seconds_total",
	"processors":            "go_sched_gomaxprocs_threads",
}
