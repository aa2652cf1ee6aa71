//! What a finding means: whether it is as it should be, and if not, what follows from it and what to do.

use std::net::SocketAddr;

use super::{Expected, Finding, Original, Outcome, Probe, Subject};

/// The judgement about one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It came to what it should.
    Passed,
    /// It came to something else.
    Failed {
        /// What that means for the pod.
        meaning: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// It could not be made.
    NotMade,
}

/// Judges what became of a probe.
pub fn judge(probe: &Probe, outcome: &Outcome) -> Verdict {
    let finding = match outcome {
        Outcome::NotMade(_) => return Verdict::NotMade,
        Outcome::Found(finding) => finding,
    };
    if is_as_expected(probe, finding) {
        return Verdict::Passed;
    }
    Verdict::Failed {
        meaning: meaning(probe, finding),
        advice: advice(probe, finding),
    }
}

fn is_as_expected(probe: &Probe, finding: &Finding) -> bool {
    match (probe.expected, finding) {
        (Expected::Untouched, finding) => *finding == Finding::Direct,
        (Expected::Captured(port), Finding::Redirected { at, original }) => {
            let knows_destination = match original {
                Original::Known(destination) => *destination == probe.destination,
                Original::Unknown(_) => false,
                Original::NotAsked => true,
            };
            at.port() == port.get() && knows_destination
        }
        (Expected::Captured(_), Finding::HandedOver | Finding::AnsweredInPod) => true,
        (Expected::Captured(_), Finding::Closed { proxy_listens }) => *proxy_listens,
        (
            Expected::Captured(_),
            Finding::Direct
            | Finding::AnsweredOutside
            | Finding::Unanswered { .. }
            | Finding::Refused
            | Finding::Lost
            | Finding::Unreachable(_)
            | Finding::NoSource(_),
        ) => false,
    }
}

/// What follows from a finding that is not as expected.
fn meaning(probe: &Probe, finding: &Finding) -> &'static str {
    match probe.expected {
        Expected::Captured(_) if passed_by(finding) => match probe.subject {
            Subject::Inbound => "connections to the application bypass the proxy",
            Subject::SelfCall => "what the proxy sends to the pod's own address does not come in through it",
            Subject::Lookup => "name lookups of the application bypass the proxy",
            _ => "connections of the application bypass the proxy",
        },
        Expected::Captured(_) => match probe.subject {
            Subject::Inbound => "connections to the application do not reach the proxy as they should",
            Subject::SelfCall => "what the proxy sends to the pod's own address gets lost",
            Subject::Lookup => "name lookups of the application do not work",
            _ => "connections of the application do not reach the proxy as they should",
        },
        Expected::Untouched => match (probe.subject, finding) {
            (Subject::Exempt | Subject::Passthrough, Finding::Redirected { .. } | Finding::Closed { .. }) => {
                "what the proxy sends comes back to it, for ever"
            }
            (Subject::Exempt, _) => "the proxy cannot reach other hosts",
            (Subject::Passthrough, _) => "what the proxy passes on does not reach the application",
            (Subject::MeshPort, _) => "the ports of the mesh, such as those of health checks, do not work",
            (_, Finding::Redirected { .. } | Finding::Closed { .. } | Finding::HandedOver) => {
                "what is excluded goes through the proxy all the same"
            }
            _ => "what is excluded does not get through",
        },
    }
}

/// Whether nothing of the pod's own took the connection.
fn passed_by(finding: &Finding) -> bool {
    match finding {
        Finding::Direct | Finding::AnsweredOutside => true,
        Finding::Redirected { .. }
        | Finding::HandedOver
        | Finding::AnsweredInPod
        | Finding::Closed { .. }
        | Finding::Unanswered { .. }
        | Finding::Refused
        | Finding::Lost
        | Finding::Unreachable(_)
        | Finding::NoSource(_) => false,
    }
}

fn advice(probe: &Probe, finding: &Finding) -> &'static str {
    const APPLY: &str =
        "a rule is missing, or another one comes first: `sidetrack apply` with the same options puts ours right";
    const OTHERS: &str = "look for rules of others: `nft list ruleset`, `iptables-save`, `ip6tables-save`";
    const NO_ADDRESS: &str = "`sidetrack apply` puts the address ::6 on the loopback interface";
    match (probe.expected, finding) {
        (_, Finding::NoSource(_)) => NO_ADDRESS,
        (Expected::Captured(port), Finding::Redirected { at, .. }) if at.port() == port.get() => {
            "something else has redirected it too, and the proxy could not tell where to pass it on to: remove the \
             other redirection"
        }
        (Expected::Captured(_), Finding::Redirected { .. }) => {
            "another redirection takes it first, or these rules are for other ports of the proxy: remove the other \
             one, or apply these options"
        }
        (Expected::Captured(_), Finding::Refused | Finding::Closed { .. }) => OTHERS,
        (_, Finding::Lost | Finding::Unreachable(_)) => {
            "a firewall or a network policy drops it, or routes that it takes are missing: see `nft list ruleset`, \
             `ip rule`, and apply again"
        }
        (_, Finding::Unanswered { .. }) => {
            "the answer is not recognised as one: `sidetrack apply` puts the zones right"
        }
        (Expected::Captured(_), _) => APPLY,
        (Expected::Untouched, Finding::Redirected { .. } | Finding::Closed { .. } | Finding::HandedOver) => APPLY,
        (Expected::Untouched, _) => OTHERS,
    }
}

/// What is expected of a probe, in words.
pub fn expectation(probe: &Probe) -> String {
    match probe.expected {
        Expected::Captured(port) => format!("arrives at the proxy's port {port}"),
        Expected::Untouched => "arrives where it is meant to go".to_owned(),
    }
}

/// What was found, in words.
pub fn words(probe: &Probe, finding: &Finding) -> String {
    match finding {
        Finding::Direct if probe.subject.calls_pod() => "arrived by itself, past the proxy".to_owned(),
        Finding::Direct => "left the pod, past the proxy".to_owned(),
        Finding::Redirected { at, original } => {
            let at = canonical(*at);
            match original {
                Original::Known(destination) if *destination != probe.destination => {
                    format!("arrived at {at} as if it was meant for {destination}")
                }
                Original::Unknown(reason) => format!("arrived at {at} without its original destination ({reason})"),
                Original::Known(_) | Original::NotAsked => format!("arrived at {at}"),
            }
        }
        Finding::HandedOver => "was handed to the proxy with its addresses unchanged".to_owned(),
        Finding::AnsweredInPod => "was answered from within the pod".to_owned(),
        Finding::AnsweredOutside => "was answered from outside of the pod, past the proxy".to_owned(),
        Finding::Closed { .. } => "was taken, and closed before it could be seen by whom".to_owned(),
        Finding::Unanswered { at } => format!("arrived at {at}, and the answer did not get back"),
        Finding::Refused => "was refused: nobody listens where it went, or a rule rejects it".to_owned(),
        Finding::Lost => "got no answer in time".to_owned(),
        Finding::Unreachable(reason) => format!("could not get there: {reason}"),
        Finding::NoSource(reason) => format!("cannot come from its address: {reason}"),
    }
}

/// IPv4 as IPv4, also where it came by a socket of both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
