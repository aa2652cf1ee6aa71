//! Evaluation of findings: as expected or not, the consequence, and advice.

use std::net::SocketAddr;

use super::{Expected, Finding, Original, Outcome, Probe, Subject};
use crate::types::Port;

/// The judgement about one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The finding is as expected.
    Passed,
    /// The finding is another one.
    Failed {
        /// The consequence for the pod.
        meaning: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The probe could not run.
    NotMade,
}

/// Evaluates the outcome of a probe.
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
        (Expected::Untouched, finding) => matches!(finding, Finding::Direct | Finding::LeftByInterface),
        (Expected::Dropped, finding) => *finding == Finding::Dropped,
        (Expected::Rejected, finding) => *finding == Finding::Rejected,
        (
            Expected::Remembered { port, seconds },
            Finding::HalfClosed {
                arrived,
                seconds: found,
            },
        ) => {
            // The kernel counts down from the planned time.
            is_captured(probe, port, arrived) && found.saturating_add(MAX_PROBE_SECONDS) >= seconds
        }
        (Expected::Remembered { .. }, _) => false,
        (Expected::Captured(port), finding) => is_captured(probe, port, finding),
    }
}

/// The seconds that a timeout may have counted down when it is read.
const MAX_PROBE_SECONDS: u32 = 30;

fn is_captured(probe: &Probe, port: Port, finding: &Finding) -> bool {
    match finding {
        Finding::Redirected { at, original } => {
            let knows_destination = match original {
                Original::Known(destination) => *destination == probe.destination,
                Original::Unknown(_) => false,
                Original::NotAsked => true,
            };
            at.port() == port.get() && knows_destination
        }
        Finding::HandedOver | Finding::AnsweredInPod => true,
        Finding::Closed { proxy_listens } => *proxy_listens,
        Finding::Direct
        | Finding::HalfClosed { .. }
        | Finding::LeftByInterface
        | Finding::Dropped
        | Finding::Rejected
        | Finding::Answered
        | Finding::AnsweredOutside
        | Finding::Unanswered { .. }
        | Finding::Refused
        | Finding::Lost
        | Finding::Unreachable(_)
        | Finding::NoSource(_) => false,
    }
}

/// The consequence of an unexpected finding of a connection from behind a rerouted interface. A router has it then, or
/// nothing: the pod forwards it or not.
const REROUTED_BYPASS: &str = "connections of processes behind this interface do not reach the proxy";

/// The consequence of an unexpected finding.
fn meaning(probe: &Probe, finding: &Finding) -> &'static str {
    match probe.expected {
        Expected::Remembered { .. } if matches!(finding, Finding::HalfClosed { .. }) => {
            "the kernel forgets a half-closed connection that is silent for a minute, and its answer is lost"
        }
        Expected::Dropped if !probe.subject.is_locked() => {
            "packets that belong to no known connection reach the pod's sockets"
        }
        Expected::Rejected | Expected::Dropped => match (probe.subject.calls_pod(), finding) {
            (_, Finding::Redirected { .. } | Finding::HandedOver | Finding::Closed { .. } | Finding::AnsweredInPod) => {
                "the proxy gets traffic that these options do not redirect to it"
            }
            (false, Finding::Lost) => "packets that the policy rejects leave the pod, or are lost without an error",
            (false, _) => "traffic of the application leaves the pod without the proxy",
            (true, Finding::Lost) => "packets that the policy rejects arrive, or are lost without an error",
            (true, _) => "traffic from other hosts reaches the pod without the proxy",
        },
        Expected::Captured(_) | Expected::Remembered { .. } if is_bypass(finding) => match probe.subject {
            Subject::Inbound | Subject::HalfClosedInbound => "connections to the application bypass the proxy",
            Subject::SelfCall => "connections of the proxy to the pod's own address bypass its inbound port",
            Subject::Lookup => "name lookups of the application bypass the proxy",
            Subject::Rerouted => REROUTED_BYPASS,
            _ => "connections of the application bypass the proxy",
        },
        Expected::Captured(_) | Expected::Remembered { .. } => match probe.subject {
            Subject::Inbound | Subject::HalfClosedInbound => "connections to the application do not reach the proxy",
            Subject::BoundInterface => "connections of sockets bound to this interface do not reach the proxy",
            Subject::SelfCall => "connections of the proxy to the pod's own address are lost",
            Subject::Lookup => "name lookups of the application do not work",
            Subject::Rerouted => REROUTED_BYPASS,
            _ => "connections of the application do not reach the proxy",
        },
        Expected::Untouched => match (probe.subject, finding) {
            (Subject::Exempt | Subject::Passthrough, Finding::Redirected { .. } | Finding::Closed { .. }) => {
                "connections of the proxy loop back to it"
            }
            (Subject::Exempt, _) => "the proxy cannot reach other hosts",
            (Subject::Passthrough, _) => "connections from the proxy do not reach the application",
            (Subject::MeshPort, _) => "the ports of the mesh, such as those of health checks, do not work",
            (_, Finding::Redirected { .. } | Finding::Closed { .. } | Finding::HandedOver) => {
                "excluded traffic is redirected to the proxy"
            }
            _ => "excluded traffic does not reach its destination",
        },
    }
}

/// Whether the connection bypassed all sockets of the pod's proxy.
fn is_bypass(finding: &Finding) -> bool {
    match finding {
        Finding::Direct | Finding::LeftByInterface | Finding::AnsweredOutside => true,
        Finding::HalfClosed { arrived, .. } => is_bypass(arrived),
        Finding::Redirected { .. }
        | Finding::HandedOver
        | Finding::AnsweredInPod
        | Finding::Dropped
        | Finding::Rejected
        | Finding::Answered
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
        "a rule is missing, or another rule comes first: run `sidetrack apply` with the same options to repair it";
    const OTHERS: &str = "look for foreign rules: `nft list ruleset`, `iptables-save`, `ip6tables-save`";
    const NO_ADDRESS: &str = "run `sidetrack apply`: it adds the address ::6 to the loopback interface";
    const BOUND: &str = "run `sidetrack apply` with the same options: it adds the route `local 127.0.0.1 dev INTERFACE`, or \
                         `local ::1 dev INTERFACE`, to the table local";
    const HALF_CLOSED: &str = "run `sidetrack apply` with the same options, and read its warnings: where rules cannot set the \
                               timeout, net.netfilter.nf_conntrack_tcp_timeout_close_wait must be raised";
    match (probe.expected, finding) {
        (_, Finding::NoSource(_)) => NO_ADDRESS,
        (Expected::Remembered { .. }, Finding::HalfClosed { .. }) => HALF_CLOSED,
        (Expected::Dropped | Expected::Rejected, _) => APPLY,
        (_, Finding::Lost | Finding::Unreachable(_)) if probe.subject == Subject::BoundInterface => BOUND,
        (_, Finding::Lost | Finding::Unreachable(_)) if probe.subject == Subject::Rerouted => APPLY,
        (_, Finding::Redirected { at, .. })
            if probe.expected.proxy_port().is_some_and(|port| at.port() == port.get()) =>
        {
            "another program has redirected it too, and the proxy could not find its original destination: remove the \
             other redirection"
        }
        (Expected::Captured(_) | Expected::Remembered { .. }, Finding::Redirected { .. }) => {
            "another redirection comes first, or these rules are for other ports of the proxy: remove the other \
             one, or apply these options"
        }
        (
            Expected::Captured(_) | Expected::Remembered { .. },
            Finding::Refused | Finding::Rejected | Finding::Closed { .. },
        ) => OTHERS,
        (_, Finding::Lost | Finding::Unreachable(_)) => {
            "a firewall or a network policy drops it, or routes that it takes are missing: see `nft list ruleset`, \
             `ip rule`, and apply again"
        }
        (_, Finding::Unanswered { .. }) => {
            "conntrack does not recognise the answer: run `sidetrack apply` to repair the conntrack zones"
        }
        (Expected::Captured(_) | Expected::Remembered { .. }, _) => APPLY,
        (Expected::Untouched, Finding::Redirected { .. } | Finding::Closed { .. } | Finding::HandedOver) => APPLY,
        (Expected::Untouched, _) => OTHERS,
    }
}

/// The expected result of a probe, as text.
pub fn expectation(probe: &Probe) -> String {
    match probe.expected {
        Expected::Captured(port) => format!("arrives at the proxy's port {port}"),
        Expected::Untouched if probe.subject == Subject::ExcludedInterface => {
            "leaves by the interface with its addresses unchanged".to_owned()
        }
        Expected::Untouched => "arrives at its original destination".to_owned(),
        Expected::Remembered { port, seconds } => {
            format!("arrives at the proxy's port {port}, and half-closed is remembered for {seconds} s")
        }
        Expected::Dropped => "is dropped".to_owned(),
        Expected::Rejected => "is rejected at once".to_owned(),
    }
}

/// A finding, as text.
pub fn description(probe: &Probe, finding: &Finding) -> String {
    match finding {
        Finding::Direct if probe.subject.calls_pod() => "arrived directly, past the proxy".to_owned(),
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
        Finding::HandedOver => "was passed to the proxy with its addresses unchanged".to_owned(),
        Finding::HalfClosed { arrived, seconds } => {
            let arrived = description(probe, arrived);
            if is_as_expected(probe, finding) {
                format!("{arrived}, and half-closed is remembered as planned")
            } else {
                format!("{arrived}, and half-closed is remembered for {seconds} s")
            }
        }
        Finding::LeftByInterface if probe.subject.is_locked() => "left by the interface".to_owned(),
        Finding::LeftByInterface => "left by the interface with its addresses unchanged".to_owned(),
        Finding::Dropped => "was dropped".to_owned(),
        Finding::Rejected => "was rejected at once".to_owned(),
        Finding::Answered => "was answered by the pod".to_owned(),
        Finding::AnsweredInPod => "was answered from within the pod".to_owned(),
        Finding::AnsweredOutside => "was answered from outside of the pod, past the proxy".to_owned(),
        Finding::Closed { .. } => "was accepted, and closed before the program could be identified".to_owned(),
        Finding::Unanswered { at } => format!("arrived at {at}, and the answer did not get back"),
        Finding::Refused => "was refused: nothing listens there, or a rule rejects it".to_owned(),
        Finding::Lost => "got no answer in time".to_owned(),
        Finding::Unreachable(reason) => format!("could not be routed: {reason}"),
        Finding::NoSource(reason) => format!("cannot use its source address: {reason}"),
    }
}

/// An IPv4-mapped address, which a dual-stack socket reports, as IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
