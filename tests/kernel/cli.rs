//! The command line: sources of options, their errors, and messages.

use crate::SIDETRACK;
use crate::common::{Netns, Owner, output_of};
use crate::program::{Run, sidetrack, state};
use crate::temporary::Temporary;

#[test]
fn errors_of_all_sources_are_reported_at_once() {
    let file = Temporary::new(
        "mistakes.json",
        r#"{"exclude-uids": "x", "nonsense": 1, "loopbackCidr": "10.0.0.0/8"}"#,
    );
    let netns = Netns::new();
    let before = state(&netns, "nftables");
    let mut command = netns.command(SIDETRACK);
    command
        .args(["apply", "--config", file.path(), "--proxy-inbound-port", "0"])
        .args(["--exclude-outbound-cidrs", "10.0.0.0/8,10.0.0.0/33", "--proxy-uid", ""])
        .env("SIDETRACK_IP_FAMILY", "both")
        .env("SIDETRACK_PROXY_GID", "");
    let run = Run::of(&mut command).failed(
        2,
        &[
            "--proxy-inbound-port: \"0\" is not a port from 1 to 65535",
            "--exclude-outbound-cidrs: \"10.0.0.0/33\" is not an address or a CIDR",
            "SIDETRACK_IP_FAMILY: \"both\" is not one of auto, ipv4, ipv6, dual",
            "exclude-uids: \"x\" is not a UID from 0 to 4294967294",
            "nonsense is not an option",
            "loopback-cidr: \"10.0.0.0/8\" is not a CIDR inside 127.0.0.0/8",
            "--proxy-uid and --proxy-gid: both are empty",
        ],
    );
    assert_eq!(run.stderr.lines().count(), 7, "{run:?}");
    assert_eq!(state(&netns, "nftables"), before);
}

#[test]
fn unknown_flags_and_commands_are_input_errors() {
    let netns = Netns::new();
    for arguments in [
        &["apply", "--nonsense"][..],
        &["nonsense"],
        &["apply", "extra"],
        &["cleanup", "--proxy-uid", "1"],
    ] {
        sidetrack(&netns, arguments).failed(2, &["error"]);
    }
}

#[test]
fn namespace_is_entered_by_path_and_name() {
    let host = Netns::new();
    let pod = Netns::new();
    let path = pod.path();
    sidetrack(&host, &["apply", "--netns", path.to_str().expect("text")]).succeeded();
    assert!(state(&pod, "nftables").contains("sidetrack"));
    assert!(!state(&host, "nftables").contains("sidetrack"));
    sidetrack(&host, &["cleanup", "--netns", path.to_str().expect("text")]).succeeded();
    assert!(!state(&pod, "nftables").contains("sidetrack"));
}

#[test]
fn invalid_namespace_is_reported() {
    let netns = Netns::new();
    sidetrack(&netns, &["apply", "--netns", "no-such"]).failed(1, &["/run/netns/no-such", "ip netns"]);
    sidetrack(&netns, &["apply", "--netns", "/etc/passwd"]).failed(1, &["/etc/passwd is not a network namespace"]);
    sidetrack(&netns, &["cleanup", "--netns", "/proc/self/ns/mnt"]).failed(1, &["not a network namespace"]);
}

#[test]
fn a_dry_run_needs_no_privilege() {
    let nobody = Owner::new(65534, 65534);
    let netns = Netns::new();
    for output in ["nft", "iptables", "json"] {
        let as_root = sidetrack(&netns, &["apply", "--dry-run", "--output", output]).succeeded();
        let mut command = netns.command_of(nobody, SIDETRACK);
        let as_nobody = Run::of(command.args(["apply", "--dry-run", "--output", output])).succeeded();
        assert_eq!(as_nobody.stdout, as_root.stdout);
        assert_eq!(as_nobody.stderr, "");
    }
}

#[test]
fn each_event_is_one_log_line_in_text_and_json() {
    let netns = Netns::new();
    let text = sidetrack(&netns, &["apply"]).succeeded();
    assert_eq!(text.stderr.lines().count(), 1, "{text:?}");
    assert_eq!(text.stdout, "");
    let json = sidetrack(&netns, &["cleanup", "--log-format", "json", "-vv"]).succeeded();
    for line in json.stderr.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(event["level"].is_string() && event["message"].is_string(), "{line}");
    }
    assert!(json.stderr.contains("DEBUG"), "{json:?}");
    let quiet = sidetrack(&netns, &["apply", "--log-level", "error"]).succeeded();
    assert_eq!(quiet.stderr, "");
}

#[test]
fn json_plan_has_the_comment_of_each_rule() {
    let run = sidetrack(&Netns::new(), &["apply", "--dry-run", "--output", "json"]).succeeded();
    let plan: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(plan["version"], 2);
    assert_eq!(plan["loopbackAddresses"], serde_json::json!(["::6/128"]));
    let rules: Vec<_> = plan["chains"]
        .as_array()
        .expect("chains")
        .iter()
        .flat_map(|chain| chain["rules"].as_array().expect("rules").iter())
        .collect();
    assert!(rules.len() > 10);
    assert!(
        rules
            .iter()
            .all(|rule| rule["comment"].as_str().is_some_and(|comment| !comment.is_empty()))
    );
}

#[test]
fn cleanup_ignores_options_of_other_commands() {
    let mut command = Netns::new().command(SIDETRACK);
    command.arg("cleanup").env("SIDETRACK_PROXY_UID", "nonsense");
    Run::of(&mut command).succeeded();
}

#[test]
fn graph_draws_the_plan_and_applies_nothing() {
    let netns = Netns::new();
    let begins = |arguments: &[&str], begin: &str| {
        let run = sidetrack(&netns, &[&["graph"], arguments].concat()).succeeded();
        assert!(run.stdout.starts_with(begin), "{run:?}");
        run.stdout
    };
    begins(&[], "flowchart TB\n");
    begins(&["--format", "dot"], "digraph sidetrack {\n");
    let drawn = begins(&["--format", "svg", "--proxy-inbound-port", "4143"], "<svg ");
    assert!(drawn.contains("The proxy, port 4143"));
    sidetrack(&netns, &["graph", "--format", "png"]).failed(2, &["mermaid, dot, svg"]);
    assert_eq!(
        output_of(netns.command("nft").args(["list", "ruleset"])),
        "",
        "nothing is applied"
    );
}

#[test]
fn log_has_the_number_of_items_of_a_long_list() {
    let netns = Netns::new();
    let ports: Vec<String> = (0..300).map(|number| (20_001 + 2 * number).to_string()).collect();
    let text = sidetrack(&netns, &["apply", "--exclude-outbound-ports", &ports.join(",")])
        .succeeded()
        .stderr;
    let expected = format!(" exclude_outbound_ports=\"{} and 280 more\" ", ports[..20].join(","));
    assert!(text.contains(&expected), "{text}");
    let locked = ["apply", "--outbound-policy", "proxy-only", "--exclude-outbound-ports"];
    let text = sidetrack(&netns, &[&locked[..], &[&ports.join(",")]].concat())
        .succeeded()
        .stderr;
    let expected = format!(
        "--exclude-outbound-ports={} and 280 more: TCP to these ports",
        ports[..20].join(",")
    );
    assert!(text.contains(&expected) && !text.contains(&ports[20]), "{text}");
    let rules = sidetrack(&netns, &["apply", "-v", "--exclude-outbound-ports", &ports.join(",")]);
    assert!(rules.succeeded().stderr.contains(&ports[299]));
}

#[test]
fn applied_plan_is_logged_once() {
    let netns = Netns::new();
    let options = [
        "--mesh",
        "kuma",
        "--ip-family",
        "ipv4",
        "--exclude-outbound-ports",
        "3306,6379",
        "--exclude-uids",
        "7-9",
        "--redirect-dns",
        "--dns-servers",
        "10.96.0.10",
        "--exclude-outbound-ports-for-uids",
        "tcp:22:1000",
    ];
    let text = sidetrack(&netns, &[&["apply"], &options[..]].concat())
        .succeeded()
        .stderr;
    assert_eq!(text.lines().count(), 1, "{text}");
    for said in [
        " INFO traffic is redirected now backend=nftables families=\"IPv4\" why=\"as configured\" mesh=kuma proxy_uid=5678 ",
        " proxy_inbound_port=15006 proxy_outbound_port=15001 include_inbound_ports=* include_outbound_cidrs=* ",
        " exclude_outbound_ports=\"3306,6379\" exclude_outbound_ports_for_uids=\"tcp:22:1000\" exclude_uids=\"7-9\" ",
        " dns_port=15053 dns_servers=\"10.96.0.10\" ",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let json = [&["apply", "--log-format", "json", "-v"], &options[..]].concat();
    let json = sidetrack(&netns, &json).succeeded().stderr;
    let events: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    let event = |message: &str| {
        let found = events.iter().filter(|event| event["message"] == message);
        let found: Vec<_> = found.collect();
        assert_eq!(found.len(), 1, "{message}: {json}");
        found[0].clone()
    };
    let applied = event("traffic is already redirected this way");
    assert_eq!(applied["exclude_uids"], "7-9", "{applied}");
    assert_eq!(applied["level"], "INFO");
    assert!(applied.get("exclude_gids").is_none(), "{applied}");
    let rules = event("the rules");
    assert!(
        rules["nft"].as_str().expect("text").contains("table inet sidetrack {"),
        "{rules}"
    );
}

#[test]
fn flags_of_other_tools_are_reported_with_replacements() {
    let netns = Netns::new();
    for (flags, said) in [
        (
            &["--ipv6=false"][..],
            &["--ipv6 is a flag of linkerd2-proxy-init", "use --ip-family"][..],
        ),
        (
            &[
                "--proxy-uid",
                "2102",
                "--firewall-bin-path",
                "iptables-nft",
                "--use-wait-flag",
            ],
            &[
                "--firewall-bin-path is a flag of",
                "PATH",
                "--use-wait-flag is a flag of",
                "leave it out",
            ],
        ),
        (&["--iptables-mode", "nft"], &["use --backend", "iptables-legacy"]),
        (
            &["--vnet", "docker0:172.17.0.0/16"],
            &["kumactl install transparent-proxy", "--reroute-interfaces"],
        ),
        (&["--redirect-all-dns-traffic"], &["--redirect-dns --dns-servers all"]),
        (
            &["-proxy-uid", "5995"],
            &["-proxy-uid is a flag of consul connect redirect-traffic", "two hyphens"],
        ),
        (&["--istio-inbound-ports", "*"], &["use sidetrack istio-iptables"]),
    ] {
        let run = sidetrack(&netns, &[&["apply"], flags].concat()).failed(2, said);
        assert!(run.stderr.starts_with("error: "), "{run:?}");
    }
    for unknown in ["--ipv66", "--nonsense"] {
        sidetrack(&netns, &["apply", unknown]).failed(2, &["unexpected argument"]);
    }
    sidetrack(
        &netns,
        &["apply", "--log-format", "plain", "--log-level", "warning", "--dry-run"],
    )
    .succeeded();
}
