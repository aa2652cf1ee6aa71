//! The command: its input, the rules it follows, and its output.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use nix::pty::openpty;
use serde_json::Value;

use crate::SIDETRACK;
use crate::common::{Netns, Owner, Pod, Server, output_of};
use crate::program::{BACKENDS, Run, apply, sidetrack};
use crate::questions::{REVIEWED, explain, json};
use crate::temporary::Temporary;

/// `ACTION` and `PORT` of the verdict.
fn verdict(netns: &Netns, arguments: &[&str]) -> (String, u64) {
    let answer = json(netns, arguments);
    let verdict = &answer["verdict"];
    (
        verdict["action"].as_str().expect("a word").to_owned(),
        verdict["port"].as_u64().unwrap_or(0),
    )
}

fn is(action: &str, port: u64) -> (String, u64) {
    (action.to_owned(), port)
}

#[test]
fn answers_are_as_reviewed() {
    let netns = Netns::new();
    insta::with_settings!({ snapshot_path => "../../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        for (name, question) in REVIEWED {
            let name = format!("explain {name}").replace(' ', "_");
            insta::assert_snapshot!(format!("{name}.text"), explain(&netns, question).succeeded().stdout);
        }
        let (name, question) = REVIEWED[0];
        let name = format!("explain {name}").replace(' ', "_");
        let answer = explain(&netns, &[&["--json"], question].concat()).succeeded().stdout;
        insta::assert_snapshot!(format!("{name}.json"), answer);
    });
}

/// What the kernel makes of them, shown by a connection to each.
#[test]
fn addresses_are_what_the_kernel_takes_them_for() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let _app = Server::start(&pod.netns, "app", Owner::APP, &[8080]);
    for (unspecified, loopback) in [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:8080", "[::1]:8080")] {
        let peer = pod
            .netns
            .run(|| TcpStream::connect(unspecified).and_then(|stream| stream.peer_addr()));
        assert_eq!(peer.expect("a connection").to_string(), loopback);
        assert_eq!(
            verdict(&pod.netns, &["outbound", "tcp", unspecified]),
            is("accept", 8080),
            "{unspecified}"
        );
    }
    let excluding = ["--exclude-outbound-cidrs", "10.0.0.5"];
    let question = ["outbound", "tcp", "[::ffff:10.0.0.5]:443"];
    assert_eq!(verdict(&pod.netns, &question), is("redirect", 15001));
    assert_eq!(
        verdict(&pod.netns, &[&question[..], &excluding].concat()),
        is("accept", 443)
    );
}

#[test]
fn neither_root_nor_a_network_is_needed() {
    let mut command = Netns::new().command_of(crate::common::Owner::APP, SIDETRACK);
    command.args([
        "explain",
        "inbound",
        "tcp",
        "[2001:db8::10]:80",
        "--from",
        "2001:db8::5",
    ]);
    let said = Run::of(&mut command).succeeded();
    assert!(
        said.stdout
            .starts_with("The connection is redirected to port 15006 of the pod"),
        "{said:?}"
    );
}

#[test]
fn explain_follows_installed_rules_on_every_backend() {
    let pod = Pod::new();
    let questions: [(&[&str], (String, u64)); 5] = [
        (&["outbound", "tcp", "198.51.100.7:80"], is("redirect", 15001)),
        (
            &["outbound", "tcp", "[2001:db8::7]:80", "--uid", "1337"],
            is("accept", 80),
        ),
        (&["outbound", "tcp", "198.51.100.7:3306"], is("accept", 3306)),
        (&["inbound", "tcp", ":8080", "--from", "10.99.0.1"], is("tproxy", 15006)),
        (&["inbound", "tcp", ":8080", "--from", "fd99::1"], is("tproxy", 15006)),
    ];
    let options = ["--exclude-outbound-ports", "3306,6379", "--inbound-mode", "tproxy"];
    for backend in BACKENDS.into_iter().chain(["nftables-per-family"]) {
        apply(&pod.netns, backend, &options);
        for (question, expected) in &questions {
            let installed = [question, &["--from-kernel"][..]].concat();
            assert_eq!(verdict(&pod.netns, &installed), *expected, "{backend}: {question:?}");
            let planned = [question, &options[..]].concat();
            assert_eq!(verdict(&pod.netns, &planned), *expected, "{backend}: {question:?}");
            let answer = json(&pod.netns, &installed);
            assert_eq!(
                answer["rules"],
                format!("all that are installed, sidetrack's with {backend}")
            );
            assert_eq!(
                (&answer["certain"], &answer["unreadable"]),
                (&true.into(), &Value::Array(Vec::new()))
            );
        }
    }
    sidetrack(&pod.netns, &["cleanup"]).succeeded();
    let said = explain(&pod.netns, &["outbound", "tcp", "198.51.100.7:80", "--from-kernel"])
        .succeeded()
        .stdout;
    assert!(
        said.starts_with("The connection is not redirected: no rule matches."),
        "{said}"
    );
    assert!(said.contains("none of which sidetrack owns"), "{said}");
}

/// The pod's own addresses and routes, as they are.
#[test]
fn a_pod_that_is_there_says_what_is_its_own_and_which_way_leads_out() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &["--exclude-interfaces", "eth1"]);
    let kernel = |question: &[&str]| verdict(&pod.netns, &[question, &["--from-kernel"]].concat());
    assert_eq!(
        kernel(&["outbound", "tcp", "10.99.0.2:80", "--uid", "1337"]),
        is("redirect", 15006)
    );
    assert_eq!(
        kernel(&["outbound", "tcp", "10.99.1.1:80"]),
        is("accept", 80),
        "by eth1"
    );
    assert_eq!(
        kernel(&["outbound", "tcp", "10.99.0.1:80"]),
        is("redirect", 15001),
        "by eth0"
    );
    assert_eq!(
        kernel(&["outbound", "tcp", "10.99.0.1:80", "--interface", "eth1"]),
        is("accept", 80)
    );
    let inside = explain(
        &Netns::new(),
        &[
            "outbound",
            "tcp",
            ":80",
            "--netns",
            pod.netns.path().to_str().expect("text"),
        ],
    );
    assert!(inside.succeeded().stdout.contains("to 10.99.0.2:80,"), "the pod's own");
}

#[test]
fn a_rule_that_cannot_be_read_makes_the_answer_uncertain_and_says_so() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let rule = "insert rule inet sidetrack output ip dscp cs1 return comment \"\u{1b}[2Jpriority mail\"";
    output_of(pod.netns.command("nft").arg(rule));
    let question = ["outbound", "tcp", "198.51.100.7:80", "--from-kernel"];
    let answer = json(&pod.netns, &question);
    assert_eq!(
        (&answer["certain"], &answer["verdict"]["action"]),
        (&false.into(), &"redirect".into())
    );
    let unreadable = &answer["trace"][0];
    assert_eq!(
        (&unreadable["outcome"], &unreadable["chain"]),
        (&"unknown".into(), &"output".into()),
        "{unreadable}"
    );
    let said = explain(&pod.netns, &question).succeeded().stdout;
    assert!(
        said.contains("This is not certain") && said.contains("priority mail: cannot be read"),
        "{said}"
    );
    assert!(
        !said.contains('\u{1b}'),
        "what others have written must not reach the terminal as it is: {said:?}"
    );
    // Elsewhere it does not matter.
    assert_eq!(
        json(&pod.netns, &["inbound", "tcp", ":80", "--from-kernel"])["certain"],
        true
    );
}

#[test]
fn a_saved_dry_run_is_explained_like_the_plan_that_it_is() {
    let netns = Netns::new();
    let options = [
        "--redirect-dns",
        "--dns-servers",
        "all",
        "--exclude-uids",
        "5-9",
        "--inbound-mode",
        "tproxy",
    ];
    let plan = sidetrack(
        &netns,
        &[&["apply", "--dry-run", "--output", "json"], &options[..]].concat(),
    )
    .succeeded();
    let file = Temporary::new("plan.json", &plan.stdout);
    for question in [
        &["outbound", "udp", "10.96.0.10:53"][..],
        &["outbound", "tcp", "9.9.9.9:80", "--uid", "7"],
        &["inbound", "tcp", ":80"],
    ] {
        let mut planned = json(&netns, &[question, &options].concat());
        let mut saved = json(&netns, &[question, &["--plan", file.path()]].concat());
        for answer in [&mut planned, &mut saved] {
            answer.as_object_mut().expect("an object").remove("rules");
        }
        assert_eq!(saved, planned, "{question:?}");
    }
    let mut command = netns.command(SIDETRACK);
    command.args(["explain", "inbound", "tcp", ":80", "--plan", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sidetrack");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(plan.stdout.as_bytes())
        .expect("to write");
    let output = child.wait_with_output().expect("an end");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("the saved plan"),
        "{output:?}"
    );
}

#[test]
fn annotations_of_a_pod_count_like_its_flags_would() {
    let netns = Netns::new();
    let pod = Temporary::new(
        "pod.yaml",
        "kind: Pod
metadata:
  annotations:
    sidecar.istio.io/status: '{}'
    traffic.sidecar.istio.io/excludeOutboundPorts: '3306'
    unrelated: 'yes'
status:
  podIPs: [{ ip: 10.244.7.9 }, { ip: 'fd00:244::9' }]
",
    );
    let deployment = Temporary::new(
        "deployment.json",
        r#"{"kind": "Deployment", "metadata": {"annotations": {"config.linkerd.io/skip-outbound-ports": "80"}},
            "spec": {"template": {"metadata": {"annotations": {"config.linkerd.io/skip-outbound-ports": "3306"}}}}}"#,
    );
    let annotation = "traffic.sidecar.istio.io/excludeOutboundPorts=3306";
    for (source, proxy) in [
        (["--pod", pod.path()], 15001),
        (["--pod", deployment.path()], 4140),
        (["--annotation", annotation], 15001),
    ] {
        let calls = |port: &str, more: &[&str]| {
            let to = format!("10.0.0.5:{port}");
            verdict(&netns, &[&["outbound", "tcp", &to], &source[..], more].concat())
        };
        assert_eq!(calls("3306", &[]), is("accept", 3306), "{source:?}");
        assert_eq!(calls("80", &[]), is("redirect", proxy), "{source:?}");
        assert_eq!(
            calls("3306", &["--exclude-outbound-ports", "80"]),
            is("redirect", proxy),
            "a flag counts before"
        );
    }
    let own = explain(
        &netns,
        &["inbound", "tcp", ":80", "--from", "fd00::1", "--pod", pod.path()],
    )
    .succeeded()
    .stdout;
    assert!(own.contains("to [fd00:244::9]:80"), "{own}");
}

/// Istio redirects IPv6 only in a pod whose first address is one, or with dual stack.
#[test]
fn the_rules_of_an_init_container_are_those_of_its_program() {
    let pod = Pod::new();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pods/istio-init.yaml");
    let question = ["outbound", "tcp", "[2001:db8::5]:443", "--pod", manifest];
    assert_eq!(verdict(&pod.netns, &question), is("accept", 443));
    let said = explain(&pod.netns, &question).succeeded().stdout;
    assert!(
        said.contains("the plan of the arguments of container istio-init"),
        "{said}"
    );
}

#[test]
fn all_errors_are_reported_at_once() {
    let netns = Netns::new();
    let file = Temporary::new("wrong.json", r#"{"version": 2, "chains": 7}"#);
    let wrong = [
        "outbound",
        "quic",
        "10.0.0.5",
        "--uid",
        "nobody-here",
        "--exclude-outbound-ports",
        "http",
        "--pod-ip",
        "me",
    ];
    explain(&netns, &[&wrong[..], &["--plan", file.path()]].concat()).failed(
        2,
        &[
            "PROTOCOL: \"quic\" is not tcp, udp, icmp",
            "DESTINATION: \"10.0.0.5\" is not an address and a port",
            "--uid: \"nobody-here\"",
            "--exclude-outbound-ports: \"http\"",
            "--pod-ip: \"me\" is not an address",
            "--plan and --exclude-outbound-ports: each selects the rules to follow",
            "families: not there",
        ],
    );
    let question = ["inbound", "tcp", ":80"];
    for (arguments, said) in [
        (&["--uid", "1"][..], "leave them out"),
        (&["--from-kernel", "--plan", "p"], "--plan and --from-kernel"),
        (
            &["--from-kernel", "--annotation", "a=b"],
            "--from-kernel and --annotation",
        ),
        (&["--annotation", "a"], "is not NAME=VALUE"),
        (
            &["--annotation", "traffic.sidetrack.dev/mesh-ports=x"],
            "mesh-ports: \"x\"",
        ),
        (&["--pod", "/no/such/file"], "/no/such/file: "),
        (
            &["--pod-ip", "10.0.0.1", "--from", "fd00::1"],
            "the pod has no IPv6 address on eth0",
        ),
        (
            &["--mesh-ports", "1", "istio-iptables"],
            "--mesh-ports and istio-iptables",
        ),
    ] {
        explain(&netns, &[&question[..], arguments].concat()).failed(2, &[said]);
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let netns = Netns::new();
    let question = ["explain", "outbound", "tcp", "10.0.0.5:443"];
    let plain = sidetrack(&netns, &question).succeeded().stdout;
    let on_terminal = |no_colour: Option<&str>| {
        let terminal = openpty(None, None).expect("a terminal");
        let mut command = netns.command(SIDETRACK);
        command.args(question).stdout(terminal.slave).env_remove("NO_COLOR");
        if let Some(value) = no_colour {
            command.env("NO_COLOR", value);
        }
        let status = command.status().expect("sidetrack");
        drop(command);
        assert!(status.success());
        let mut seen = Vec::new();
        // Reading from a terminal without a writer is an error.
        let _ = File::from(terminal.master).read_to_end(&mut seen);
        String::from_utf8(seen).expect("text").replace("\r\n", "\n")
    };
    let coloured = on_terminal(None);
    assert!(
        coloured.starts_with("\u{1b}[1;32mThe connection is redirected"),
        "{coloured:?}"
    );
    let mut uncoloured = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        uncoloured += before;
        rest = after.split_once('m').expect("the end of a sequence").1;
    }
    assert_eq!(uncoloured + rest, plain, "colours add nothing else");
    assert_eq!(on_terminal(Some("1")), plain);
    assert_eq!(
        on_terminal(Some("")),
        coloured,
        "an empty NO_COLOR says nothing (no-color.org)"
    );
    assert!(!plain.contains('\u{1b}'));
}
