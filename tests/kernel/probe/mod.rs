//! `sidetrack probe`: its results with real packets, with correct and with faulty rules.

mod behind;
mod faults;
mod istio;
mod locked;
mod proxies;
mod record;
mod rights;
mod selections;
mod traces;
mod ways_out;

use std::collections::BTreeSet;
use std::fmt;
use std::process::Command;

use serde_json::Value;

use crate::common::{Netns, Pod};
use crate::program::{BACKENDS, Run, apply};
use crate::{SIDETRACK, cases};

/// What a run of `sidetrack probe --json` gave.
struct Probed {
    code: Option<i32>,
    stderr: String,
    report: Value,
}

impl Probed {
    fn of(command: &mut Command) -> Self {
        let run = Run::of(command);
        let report = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
        Self {
            code: run.code,
            stderr: run.stderr,
            report,
        }
    }

    fn probes(&self) -> &[Value] {
        self.report["probes"].as_array().expect("probes")
    }

    /// The probes that came to this result: each once, as `ipv4 tcp outbound`.
    fn with_result(&self, result: &str) -> BTreeSet<String> {
        let of_result = self.probes().iter().filter(|probe| probe["result"] == result);
        of_result.map(name).collect()
    }

    /// What the report says in this field of the probes of this name.
    fn texts(&self, name_of_probe: &str, field: &str) -> Vec<String> {
        let of_name = self.probes().iter().filter(|probe| name(probe) == name_of_probe);
        of_name
            .filter_map(|probe| Some(probe[field].as_str()?.to_owned()))
            .collect()
    }

    /// All of them passed.
    #[track_caller]
    fn passed(&self) {
        assert_eq!(self.code, Some(0), "{self:#?}");
        assert_eq!(self.report["result"], "passed");
        assert!(
            self.probes().iter().all(|probe| probe["result"] == "passed"),
            "{self:#?}"
        );
        assert!(!self.probes().is_empty());
    }

    /// These failed, and all others passed. A connection that is not captured fails twice: it is not remembered either.
    #[track_caller]
    fn failed(&self, names: &[&str]) {
        let half_closed = |name: &&str| {
            let (family, direction) = name
                .split_once(" tcp ")
                .filter(|(_, name)| matches!(*name, "inbound" | "outbound"))?;
            Some(format!("{family} tcp half-closed-{direction}"))
        };
        let expected: BTreeSet<String> = names
            .iter()
            .map(|name| (*name).to_owned())
            .chain(names.iter().filter_map(half_closed))
            .collect();
        assert_eq!(self.with_result("failed"), expected, "{self:#?}");
        assert_eq!(self.with_result("not made"), BTreeSet::new(), "{self:#?}");
        assert_eq!(self.code, Some(3), "{self:#?}");
        assert_eq!(self.report["result"], "failed");
        let failed = self.probes().iter().filter(|probe| probe["result"] == "failed");
        for probe in failed {
            for field in ["found", "meaning", "advice"] {
                assert!(
                    probe[field].as_str().is_some_and(|text| !text.is_empty()),
                    "{field}: {probe}"
                );
            }
        }
    }

    /// The probes of this name failed, and say this of what was found.
    #[track_caller]
    fn says(&self, name: &str, found: &str) {
        let texts = self.texts(name, "found");
        assert!(texts.iter().any(|text| text.contains(found)), "{found:?} in {self:#?}");
    }
}

/// The exit code, and a line for whatever has not passed.
impl fmt::Debug for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "exit code {:?}, notes {}", self.code, self.report["notes"])?;
        let others = self.probes().iter().filter(|probe| probe["result"] != "passed");
        for probe in others {
            let (result, to) = (&probe["result"], &probe["destination"]);
            let why = [&probe["found"], &probe["reason"]].map(ToString::to_string).concat();
            writeln!(f, "{result} {} {} to {to}: {why}", name(probe), probe["caller"])?;
        }
        write!(f, "{}", self.stderr)
    }
}

fn name(probe: &Value) -> String {
    let text = |field: &str| probe[field].as_str().expect("text").to_owned();
    [text("family"), text("protocol"), text("name")].join(" ")
}

/// Names of both families.
fn both(names: &[&str]) -> Vec<String> {
    let of = |family: &'static str| names.iter().map(move |name| format!("{family} {name}"));
    of("ipv4").chain(of("ipv6")).collect()
}

/// A pod with a bridge for containers.
fn pod_with_bridge() -> Pod {
    let pod = Pod::new();
    pod.netns.ip("link add docker0 type bridge
address add 172.17.0.1/16 dev docker0
address add fd17::1/64 dev docker0 nodad
link set docker0 up
");
    pod
}

/// Runs `sidetrack probe` with these options inside. An answer to each probe has as long as a busy machine may take.
fn probe(netns: &Netns, options: &[&str]) -> Probed {
    probe_for(netns, options, "1m")
}

/// The same where a packet is lost, so that the run takes as long as it may: longer than the other probes take.
fn probe_with_losses(netns: &Netns, options: &[&str]) -> Probed {
    probe_for(netns, options, "3s")
}

fn probe_for(netns: &Netns, options: &[&str], timeout: &str) -> Probed {
    let mut command = netns.command(SIDETRACK);
    command.args(["probe", "--json", "--timeout", timeout]);
    Probed::of(command.args(options))
}

/// What every kind of traffic needs an option for.
const EVERYTHING: &[&str] = &[
    "--redirect-dns",
    "--dns-servers",
    "all",
    "--exclude-outbound-ports",
    "3306",
    "--exclude-inbound-ports",
    "22",
    "--exclude-uids",
    "7",
    "--exclude-gids",
    "9",
];

#[test]
fn every_kind_of_probe_passes_on_every_backend_and_in_every_mode() {
    for (backend, mode) in BACKENDS
        .iter()
        .flat_map(|backend| ["redirect", "tproxy"].map(|mode| (backend, mode)))
    {
        let pod = Pod::new();
        let options = [EVERYTHING, &["--inbound-mode", mode]].concat();
        apply(&pod.netns, backend, &options);
        let probed = probe(&pod.netns, &options);
        probed.passed();
        let names = [
            "tcp outbound",
            "tcp half-closed-outbound",
            "tcp exempt",
            "udp exempt",
            "tcp excluded-outbound-port",
            "tcp excluded-user",
            "tcp excluded-group",
            "tcp lookup",
            "udp lookup",
            "tcp inbound",
            "tcp half-closed-inbound",
            "tcp mesh-port",
            "tcp excluded-inbound-port",
            "tcp self-call",
            "tcp passthrough",
        ];
        let expected: BTreeSet<String> = both(&names).into_iter().collect();
        assert_eq!(probed.with_result("passed"), expected, "{backend} {mode}");
    }
}

/// Those that should have passed.
fn wrong(probed: &Probed) -> Vec<&Value> {
    probed
        .probes()
        .iter()
        .filter(|probe| probe["result"] != "passed")
        .collect()
}

/// The options of every so many cases pass: all rules of iptables are made from the same ruleset, and slowly.
fn cases_pass(backend: &str, every: usize) {
    let pod = Pod::new();
    for (case, options) in cases::all_options().step_by(every) {
        apply(&pod.netns, backend, options);
        let probed = probe(&pod.netns, options);
        assert!(wrong(&probed).is_empty(), "{case}: {:#?}", wrong(&probed));
        let passed = probed.with_result("passed").len();
        assert!(passed > 0 || case == "nothing at all", "{case}: {probed:#?}");
    }
}

#[test]
fn the_options_of_every_case_pass_on_nftables() {
    cases_pass("nftables", 1);
}

#[test]
fn the_options_of_some_cases_pass_on_iptables_nft() {
    cases_pass("iptables-nft", 5);
}

#[test]
fn the_options_of_some_cases_pass_on_iptables_legacy() {
    cases_pass("iptables-legacy", 5);
}

#[test]
fn a_pod_with_nothing_but_loopback_is_probed_too() {
    let netns = Netns::new();
    apply(&netns, "nftables", EVERYTHING);
    probe(&netns, EVERYTHING).passed();
}

#[test]
fn options_come_from_the_same_sources_as_those_of_apply() {
    let netns = Netns::new();
    apply(&netns, "nftables", &["--proxy-outbound-port", "16001"]);
    let mut command = netns.command(SIDETRACK);
    command
        .args(["probe", "--json"])
        .env("SIDETRACK_PROXY_OUTBOUND_PORT", "16001");
    Probed::of(&mut command).passed();
    Run::of(
        netns
            .command(SIDETRACK)
            .args(["probe", "--timeout", "5", "--proxy-uid", "x"]),
    )
    .failed(
        2,
        &["--timeout: \"5\" is not a duration", "--proxy-uid: \"x\" is not a UID"],
    );
}

#[test]
fn another_namespace_is_probed_from_outside() {
    let (host, pod) = (Netns::new(), Pod::new());
    apply(&pod.netns, "nftables", &[]);
    let path = pod.netns.path();
    probe(&host, &["--netns", path.to_str().expect("text")]).passed();
    assert_eq!(probe(&host, &[]).code, Some(3));
}

#[test]
fn the_text_says_of_each_failure_what_it_means_and_what_to_do() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &["--ip-family", "ipv4"]);
    let run = Run::of(pod.netns.command(SIDETRACK).args(["probe", "--ip-family", "auto"]));
    assert_eq!(run.code, Some(3), "{run:?}");
    for text in [
        "passed    IPv4 TCP outbound: user 1000, group 1000 to 192.0.2.254:15002: arrived at 127.0.0.1:15001\n",
        "failed    IPv6 TCP outbound: user 1000, group 1000 to [2001:db8::fffe]:15002: left the pod, past the proxy\n",
        "meaning: connections of the application bypass the proxy\n",
        "advice: a rule is missing, or another rule comes first: run `sidetrack apply`",
        " passed, 6 failed, 0 not made\n",
    ] {
        assert!(run.stdout.contains(text), "{text:?} is not said in {}", run.stdout);
    }
    assert!(
        run.stderr.contains("the redirection does not work as planned"),
        "{run:?}"
    );
}
