//! Faults of other redirectors, and the tests that sidetrack does not have them.

/// A fault of another redirector's rules, or of their application.
pub struct Regression {
    /// The project and its issue numbers: Istio's, or those of the named tool.
    pub numbers: &'static str,
    /// The fault.
    pub broke: &'static str,
    /// Tests: `path::name`, or `path::start*` for one on each backend, or the name of a case whose connections are
    /// tried on each backend.
    pub shown_by: &'static [&'static str],
}

const fn row(numbers: &'static str, broke: &'static str, shown_by: &'static [&'static str]) -> Regression {
    Regression {
        numbers,
        broke,
        shown_by,
    }
}

/// All faults, by subject.
pub const REGRESSIONS: &[Regression] = &[
    // Where traffic goes.
    row(
        "Istio, nftables",
        "rules for IPv4 caught IPv6 too, and sent it to a port without a listener",
        &[
            "tests/kernel/regressions/packets.rs::istio_nft_ipv6_that_is_not_redirected_reaches_its_destination",
            "tests/kernel/dns/mod.rs::lookups_of_a_family_that_is_not_redirected_are_not_captured",
            "IPv4 alone",
        ],
    ),
    row(
        "Istio, nftables",
        "name servers of IPv6 alone led to a chain that there is none of, and nothing was applied",
        &["tests/kernel/regressions/packets.rs::istio_nft_ipv6_name_servers_work_if_ipv6_is_not_redirected"],
    ),
    row(
        "Istio, nftables",
        "interfaces called bridge, meta or set broke the syntax",
        &[
            "tests/kernel/regressions/packets.rs::istio_nft_interface_names_may_be_keywords",
            "src/types/interface.rs::keywords_of_nft_are_valid_names",
        ],
    ),
    row(
        "46935",
        "answers to lookups were in another zone of connection tracking than the questions",
        &[
            "tests/kernel/dns/shared_ports.rs::concurrent_lookups_get_their_own_answers_with_*",
            "tests/kernel/dns/shared_ports.rs::source_port_may_be_reused_by_app_and_proxy_with_*",
        ],
    ),
    row(
        "50915, 51352",
        "chains were rearranged, and lookups over UDP were lost",
        &[
            "tests/kernel/dns/mod.rs::lookups_to_configured_servers_pass_the_forwarder_with_*",
            "tests/kernel/dns/mod.rs::all_lookups_pass_the_forwarder_with_*",
        ],
    ),
    row(
        "44996",
        "lookups of virtual machines were not captured",
        &["tests/kernel/reroute.rs::lookups_of_the_machine_pass_the_forwarder_with_*"],
    ),
    row(
        "57662, linkerd2 6758, 3107",
        "what processes behind an interface of the pod send was not outbound",
        &[
            "tests/kernel/regressions/packets.rs::istio_57662_connections_of_a_virtual_machine_are_outbound",
            "tests/kernel/reroute.rs::connections_of_the_machine_are_outbound_with_*",
        ],
    ),
    row(
        "46625",
        "the IPv6 of dual-stack pods was not redirected",
        &[
            "tests/kernel/regressions/packets.rs::istio_46625_both_families_of_a_dual_stack_pod_are_redirected",
            "both families",
        ],
    ),
    row(
        "linkerd2-proxy-init 388, Kuma",
        "IPv6 that could not be redirected bypassed the proxy, with a warning at most",
        &[
            "tests/kernel/refusal.rs::used_ipv6_that_cannot_be_redirected_is_an_error",
            "tests/kernel/iptables/programs.rs::missing_ipv6_programs_are_an_error_only_when_needed",
        ],
    ),
    row(
        "57199",
        "kernels without IPv6 failed",
        &["tests/kernel/regressions/packets.rs::istio_57199_a_pod_without_ipv6_has_ipv4_redirected"],
    ),
    row(
        "linkerd2-proxy-init 696",
        "a network of one family broke the rules of the other",
        &[
            "included destinations of one family",
            "an excluded inbound source of one family",
            "lists of both families where one is redirected",
        ],
    ),
    row(
        "58135, 54288",
        "no inbound ports were a failure with TPROXY, or all ports",
        &[
            "tests/kernel/regressions/packets.rs::istio_58135_54288_empty_inbound_ports_redirect_nothing_in_either_mode",
            "no inbound ports",
        ],
    ),
    row(
        "4286",
        "an application that runs as 1337 bypassed the proxy",
        &[
            "tests/kernel/regressions/packets.rs::istio_4286_an_app_of_uid_1337_is_captured_where_the_proxy_is_another_user",
            "another proxy user and group",
            "a proxy known by its group alone",
        ],
    ),
    row(
        "23802, linkerd2 4788",
        "init containers had no network while the proxy was not there yet, and no way around it",
        &["excluded users", "excluded groups", "ports excluded for some users"],
    ),
    row(
        "Kuma",
        "users above 65535 could not be excluded",
        &[
            "tests/kernel/regressions/packets.rs::kuma_ports_are_excluded_for_uids_above_65535",
            "src/types/id.rs::uids_above_65535_are_read",
            "ranges of proxy users and groups, up to the largest ID",
        ],
    ),
    row(
        "Kuma, App Mesh",
        "lists of more than 15 ports failed, or the rest was left out",
        &[
            "more ports than one multiport match of iptables holds",
            "tests/kernel/load.rs::lists_of_thousands_work_on_each_backend",
        ],
    ),
    row(
        "linkerd2 10726, linkerd2-proxy-init 336, 792",
        "a list of networks said nothing about its direction, and was half of what was meant",
        &["excluded inbound sources", "excluded destinations"],
    ),
    // Rules that are there already.
    row(
        "40169, 42792, 21030, 38036, 50328",
        "an init container that was restarted failed for ever where rules had changed",
        &[
            "tests/kernel/regressions/lifecycle.rs::istio_40169_restarted_init_container_succeeds_on_any_leftovers",
            "tests/kernel/istio.rs::rerun_replaces_only_changed_rules",
            "tests/kernel/istio.rs::injected_arguments_are_applied",
            "tests/kernel/lifecycle.rs::drift_of_every_kind_is_repaired",
            "tests/kernel/iptables/rules.rs::every_kind_of_drift_is_repaired",
        ],
    ),
    row(
        "linkerd2 7767, 5786, 9267, linkerd2-proxy-init 164",
        "an application that ended half-way left chains, and the next one failed: they exist already",
        &[
            "tests/kernel/regressions/lifecycle.rs::linkerd_7767_existing_chains_are_replaced",
            "tests/kernel/regressions/lifecycle.rs::istio_53147_rerun_completes_a_run_killed_between_families",
            "tests/kernel/load.rs::killed_apply_leaves_the_old_or_the_new_rules",
            "tests/kernel/routing.rs::cleanup_removes_leftovers_of_an_interrupted_apply",
        ],
    ),
    row(
        "53147",
        "IPv4 succeeded, IPv6 failed, and every later run failed on what the first had left",
        &[
            "tests/kernel/regressions/lifecycle.rs::istio_53147_failure_in_one_family_rolls_back_the_other",
            "tests/kernel/iptables/programs.rs::failure_in_one_family_rolls_back_the_other",
            "tests/kernel/iptables/programs.rs::failed_rollback_is_reported",
        ],
    ),
    row(
        "56587",
        "rules of IPv6 that were as they should be hid that those of IPv4 were not",
        &["tests/kernel/regressions/lifecycle.rs::istio_56587_rules_of_one_family_are_not_taken_for_both"],
    ),
    row(
        "Istio, verification",
        "the order of rules was not compared",
        &[
            "tests/kernel/regressions/lifecycle.rs::istio_verification_the_same_rules_in_another_order_are_drift",
            "tests/kernel/iptables/rules.rs::swapped_rules_are_drift",
        ],
    ),
    row(
        "Istio, verification",
        "foreign rules before the jumps to its own were not compared",
        &[
            "tests/kernel/regressions/lifecycle.rs::istio_verification_foreign_rules_in_builtin_chains_stay_behind_ours",
            "tests/kernel/iptables/rules.rs::our_jumps_come_first",
        ],
    ),
    row(
        "Istio, reconciliation",
        "killed in the middle of it, the pod was left with rules that drop everything",
        &[
            "tests/kernel/load.rs::killed_apply_leaves_the_old_or_the_new_rules",
            "tests/kernel/load.rs::no_connection_bypasses_the_proxy_while_*",
        ],
    ),
    row(
        "30385",
        "each rerun with TPROXY added a rule of routing, or failed: File exists",
        &[
            "tests/kernel/routing.rs::rerun_adds_no_duplicates",
            "tests/kernel/tproxy.rs::redirect_and_tproxy_replace_each_other_with_*",
            "tests/kernel/regressions/lifecycle.rs::istio_40169_restarted_init_container_succeeds_on_any_leftovers",
        ],
    ),
    row(
        "Istio, nftables",
        "the tables of TPROXY stayed when the mode became REDIRECT",
        &[
            "tests/kernel/tproxy.rs::redirect_and_tproxy_replace_each_other_with_*",
            "tests/kernel/routing.rs::policy_routing_is_removed_without_tproxy_and_restored_with_it",
        ],
    ),
    row(
        "Istio, detection",
        "looking for the right iptables woke the legacy tables, and the second run installed everything twice",
        &[
            "tests/kernel/regressions/lifecycle.rs::istio_detection_new_legacy_tables_do_not_install_the_rules_twice",
            "tests/kernel/lifecycle.rs::nftables_backend_creates_no_legacy_tables",
            "tests/kernel/lifecycle.rs::changed_backend_removes_rules_of_the_old_one",
            "tests/kernel/iptables/rules.rs::reading_leaves_no_trace",
        ],
    ),
    row(
        "52835, 48368, 47957",
        "cleanup removed what the flags of the day would have installed, and left chains, rules of interfaces and of DNS",
        &[
            "tests/kernel/regressions/lifecycle.rs::istio_52835_cleanup_removes_rules_of_other_flags",
            "tests/kernel/tproxy.rs::cleanup_removes_all_rules_of_*",
            "tests/kernel/iptables/rules.rs::own_rules_are_removed_from_every_table",
        ],
    ),
    row(
        "Istio, cleanup",
        "cleanup added addresses and rules of routing, and never removed any",
        &[
            "tests/kernel/regressions/lifecycle.rs::istio_cleanup_adds_nothing",
            "tests/kernel/routing.rs::cleanup_removes_everything_and_reports_it",
            "tests/kernel/lifecycle.rs::cleanup_removes_the_address_that_apply_added",
        ],
    ),
    row(
        "Kuma, cleanup",
        "cleanup removed every line that contained its name, and restored an older state of the rest",
        &[
            "tests/kernel/lifecycle.rs::foreign_rules_are_byte_identical_before_and_after",
            "tests/kernel/lifecycle.rs::foreign_nftables_tables_are_unchanged",
            "tests/kernel/lifecycle.rs::cleanup_keeps_a_foreign_address",
        ],
    ),
    row(
        "54610",
        "foreign tables were an error, or drift",
        &["tests/kernel/regressions/lifecycle.rs::istio_54610_custom_tables_are_unchanged_and_no_drift"],
    ),
    row(
        "Istio, nftables; Kuma; Linkerd",
        "a dry run applied the rules, added an address, or set a sysctl",
        &[
            "tests/kernel/regressions/lifecycle.rs::istio_dry_run_leaves_routing_as_it_is",
            "tests/kernel/istio.rs::dry_run_prints_and_changes_nothing",
            "tests/kernel/dry_run.rs::dry_run_changes_nothing",
        ],
    ),
    // What is asked for.
    row(
        "58781, 58836",
        "the name of an interface could add rules and arguments",
        &[
            "tests/kernel/regressions/option_values.rs::istio_58781_names_that_look_like_flags_are_names",
            "tests/kernel/regressions/option_values.rs::istio_58781_58836_interface_names_cannot_inject_rules",
            "src/types/interface.rs::wildcards_quotes_and_spaces_are_rejected",
        ],
    ),
    row(
        "Istio",
        "* was taken for ports to exclude, and iptables refused it half-way",
        &["tests/kernel/regressions/option_values.rs::istio_everything_cannot_be_excluded_by_a_star"],
    ),
    row(
        "Linkerd, App Mesh",
        "a port that is none was logged and left out",
        &[
            "tests/kernel/regressions/option_values.rs::linkerd_invalid_port_among_valid_ones_is_refused",
            "src/types/port.rs::all_invalid_ports_are_reported",
        ],
    ),
    // What the system has.
    row(
        "57978, 48746, linkerd2 14538",
        "images without iptables, nft, sh or mount",
        &[
            "tests/kernel/regressions/environments.rs::istio_57978_no_program_of_the_image_is_needed",
            "tests/kernel/minimal_container.rs::apply_runs_in_an_empty_image_with_one_capability",
            "tests/kernel/minimal_container.rs::the_nftables_backend_starts_no_other_program",
        ],
    ),
    row(
        "28897, 44118, 13986, 57380, linkerd2 7749, 8596, 13171, Kuma 12658, 8413, 5663",
        "kernels without iptable_nat or another module, and messages that say nothing",
        &[
            "src/backend/iptables/restore/tests/messages.rs::every_known_failure_comes_with_advice",
            "tests/kernel/refusal.rs::kernel_without_netfilter_netlink_falls_back_to_legacy_iptables",
            "tests/kernel/refusal.rs::missing_netfilter_netlink_names_the_kernel_module",
            "tests/kernel/refusal.rs::no_usable_backend_reports_both_reasons",
            "src/backend/install/tests.rs::auto_falls_back_to_legacy_only_where_nf_tables_cannot",
        ],
    ),
    row(
        "57679",
        "kernels without the module for comments",
        &["tests/kernel/iptables/programs.rs::refused_comments_are_left_out"],
    ),
    row(
        "49279, 49850, 49871, Kuma 10794",
        "the wrong iptables was taken, or none, where an old one did not say what it is",
        &[
            "tests/kernel/regressions/environments.rs::istio_49850_old_iptables_without_variant_is_legacy",
            "tests/kernel/iptables/programs.rs::programs_are_found_by_name_or_reported_variant",
        ],
    ),
    row(
        "47821, linkerd2 8732, Kuma 8293",
        "no nftables",
        &["tests/kernel/envoy.rs::traffic_passes_envoy_with_nftables"],
    ),
    row(
        "58492",
        "what a newer nft wrote crashed the older one of the host",
        &[
            "tests/kernel/regressions/environments.rs::istio_58492_host_nft_reads_and_rewrites_the_rules",
            "tests/kernel/dry_run.rs::dry_run_loaded_by_hand_equals_apply_with_*",
        ],
    ),
    row(
        "iptables",
        "tables that nft had written to looked empty",
        &[
            "tests/kernel/regressions/environments.rs::iptables_tables_with_nft_rules_are_not_empty",
            "tests/kernel/iptables/rules.rs::unreadable_table_is_an_error",
        ],
    ),
    row(
        "48416, Kuma 11038",
        "names were looked up by services that hang for a minute in a half-built pod",
        &["tests/kernel/regressions/environments.rs::istio_48416_kuma_11038_names_are_resolved_from_files_alone"],
    ),
    row(
        "56569",
        "mounts in a namespace of its own were blocked, or made noise",
        &["tests/kernel/regressions/environments.rs::istio_56569_nothing_is_mounted_or_unshared"],
    ),
    row(
        "42485",
        "files in /tmp could not be written",
        &["tests/kernel/minimal_container.rs::the_nftables_backend_starts_no_other_program"],
    ),
    row(
        "47002, 58507, linkerd2-proxy-init 1, Kuma 7141, 7823, 11113",
        "another iptables held the lock, and it was not waited for, or for hours",
        &[
            "tests/kernel/regressions/environments.rs::kuma_7141_apply_waits_for_the_xtables_lock",
            "tests/kernel/minimal_container.rs::nftables_backend_does_not_take_the_xtables_lock",
            "src/backend/iptables/program.rs::hanging_program_is_stopped",
        ],
    ),
    row(
        "58750",
        "pods with user namespaces of their own",
        &[
            "tests/kernel/minimal_container.rs::apply_runs_inside_another_user_namespace",
            "tests/kernel/minimal_container.rs::apply_enters_a_network_namespace_of_another_user_namespace",
        ],
    ),
    row(
        "consul-k8s 1604",
        "the rules of the host were checked instead of the pod's",
        &[
            "tests/kernel/istio.rs::the_network_namespace_is_entered",
            "tests/kernel/cli.rs::namespace_is_entered_by_path_and_name",
        ],
    ),
    row(
        "linkerd2 6254",
        "NET_RAW was needed, and pods are not given it",
        &["tests/kernel/minimal_container.rs::apply_runs_in_an_empty_image_with_one_capability"],
    ),
    row(
        "Kuma 8412",
        "missing privileges were reported as another error",
        &[
            "tests/kernel/refusal.rs::without_any_privilege",
            "tests/kernel/refusal.rs::capability_in_the_bounding_set_alone_is_reported",
            "tests/kernel/routing.rs::missing_privilege_is_reported_with_advice",
        ],
    ),
    row(
        "Istio, validation",
        "one family alone was tried",
        &[
            "tests/kernel/validation.rs::validation_names_the_family_that_is_not_redirected",
            "tests/kernel/validation.rs::rules_of_each_backend_and_mode_pass",
        ],
    ),
    row(
        "55707",
        "a list of the kernel's that changed while it was read was an error",
        &[
            "tests/kernel/regressions/environments.rs::istio_55707_a_changing_namespace_can_be_observed",
            "tests/kernel/concurrency.rs::concurrent_applies_leave_one_consistent_plan",
        ],
    ),
    row(
        "Istio, validation",
        "where all of 127.0.0.0/8 counts as loopback, it never passed",
        &["tests/kernel/regressions/environments.rs::istio_validation_under_loopback_8_finds_redirected_traffic"],
    ),
    row(
        "Istio, verification",
        "foreign rules in front, and a dormant table, counted as in order",
        &[
            "tests/kernel/regressions/lifecycle.rs::istio_verification_rule_before_ours_in_a_builtin_chain_is_moved_behind",
            "tests/kernel/regressions/lifecycle.rs::istio_verification_a_dormant_table_is_drift",
        ],
    ),
    row(
        "Kuma 8412, iptables",
        "each backend reported a missing capability differently",
        &[
            "tests/kernel/regressions/environments.rs::kuma_8412_capability_only_in_the_bounding_set_is_reported_on_every_backend",
        ],
    ),
    row(
        "sidetrack",
        "IPv4-mapped addresses in lists were rules for IPv6, which match nothing",
        &["tests/kernel/regressions/packets.rs::ipv4_mapped_destinations_are_excluded_as_ipv4"],
    ),
];
