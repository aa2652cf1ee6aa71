//! Outcomes: what passes, and what a report says.

use super::*;
use crate::types::Id as _;

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn owner(uid: u32, gid: u32) -> Owner {
    Owner {
        uid: Uid::new(uid).unwrap(),
        gid: Gid::new(gid).unwrap(),
        mark: None,
    }
}

fn probe(subject: Subject, expected: Expected) -> Probe {
    Probe {
        subject,
        protocol: Transport::Tcp,
        caller: Caller::Process(owner(1000, 1000)),
        source: None,
        bound_to: None,
        destination: "192.0.2.254:15002".parse().unwrap(),
        expected,
        needs: Needs::Route,
    }
}

fn arrived(at: &str, original: Original) -> Finding {
    Finding::Redirected {
        at: at.parse().unwrap(),
        original,
    }
}

#[test]
fn only_what_arrives_where_it_should_has_passed() {
    let captured = probe(Subject::Outbound, Expected::Captured(port(15001)));
    let untouched = probe(Subject::Exempt, Expected::Untouched);
    let known = |text: &str| Original::Known(text.parse().unwrap());
    let findings = [
        (arrived("127.0.0.1:15001", known("192.0.2.254:15002")), true, false),
        (arrived("127.0.0.1:15001", Original::NotAsked), true, false),
        (arrived("127.0.0.1:15001", known("192.0.2.254:1")), false, false),
        (
            arrived("127.0.0.1:15001", Original::Unknown("ENOENT".to_owned())),
            false,
            false,
        ),
        (arrived("127.0.0.1:15006", known("192.0.2.254:15002")), false, false),
        (Finding::HandedOver, true, false),
        (Finding::LeftByInterface, false, true),
        (Finding::Dropped, false, false),
        (Finding::Answered, false, false),
        (Finding::AnsweredInPod, true, false),
        (Finding::Closed { proxy_listens: true }, true, false),
        (Finding::Closed { proxy_listens: false }, false, false),
        (Finding::Direct, false, true),
        (Finding::AnsweredOutside, false, false),
        (
            Finding::Unanswered {
                at: "127.0.0.1:15053".parse().unwrap(),
            },
            false,
            false,
        ),
        (Finding::Refused, false, false),
        (Finding::Lost, false, false),
        (Finding::Unreachable(String::new()), false, false),
        (Finding::NoSource(String::new()), false, false),
    ];
    for (finding, passes_captured, passes_untouched) in findings {
        let outcome = Outcome::Found(finding);
        let passes = |probe| judge(probe, &outcome) == Verdict::Passed;
        assert_eq!(passes(&captured), passes_captured, "{outcome:?}");
        assert_eq!(passes(&untouched), passes_untouched, "{outcome:?}");
    }
    for probe in [&captured, &untouched] {
        assert_eq!(judge(probe, &Outcome::NotMade(String::new())), Verdict::NotMade);
    }
    let is_remembered = |at: &str, seconds| {
        let expected = Expected::Remembered {
            port: port(15001),
            seconds: 3600,
        };
        let arrived = Box::new(arrived(at, Original::NotAsked));
        let outcome = Outcome::Found(Finding::HalfClosed { arrived, seconds });
        judge(&probe(Subject::HalfClosedOutbound, expected), &outcome) == Verdict::Passed
    };
    assert!(is_remembered("127.0.0.1:15001", 3600) && is_remembered("127.0.0.1:15001", 3599));
    assert!(!is_remembered("127.0.0.1:15001", 60) && !is_remembered("127.0.0.1:15006", 3600));
    let drops = |finding| {
        judge(
            &probe(Subject::InvalidPacket, Expected::Dropped),
            &Outcome::Found(finding),
        )
    };
    assert_eq!(drops(Finding::Dropped), Verdict::Passed);
    assert!(matches!(drops(Finding::Answered), Verdict::Failed { .. }));
    assert!(matches!(drops(Finding::Lost), Verdict::Failed { .. }));
}

#[test]
fn a_failure_says_what_it_means_for_the_pod() {
    let says = |subject, expected, finding| match judge(&probe(subject, expected), &Outcome::Found(finding)) {
        Verdict::Failed { meaning, advice } => format!("{meaning} / {advice}"),
        verdict => panic!("{verdict:?}"),
    };
    let captured = Expected::Captured(port(15001));
    let bypass = says(Subject::Inbound, captured, Finding::Direct);
    assert!(
        bypass.contains("to the application bypass the proxy") && bypass.contains("sidetrack apply"),
        "{bypass}"
    );
    let taken = says(
        Subject::Outbound,
        captured,
        arrived("127.0.0.1:9999", Original::NotAsked),
    );
    assert!(taken.contains("another redirection comes first"), "{taken}");
    let dropped = says(Subject::Outbound, captured, Finding::Lost);
    assert!(dropped.contains("firewall"), "{dropped}");
    let comes_back = says(
        Subject::Exempt,
        Expected::Untouched,
        arrived("127.0.0.1:15001", Original::NotAsked),
    );
    assert!(comes_back.contains("loop back to it"), "{comes_back}");
}

#[test]
fn a_report_counts_and_says_why() {
    let report = Report {
        outcomes: vec![
            (
                probe(Subject::Outbound, Expected::Captured(port(15001))),
                Outcome::Found(Finding::Direct),
            ),
            (
                probe(Subject::Exempt, Expected::Untouched),
                Outcome::Found(Finding::Direct),
            ),
            (
                probe(Subject::Exempt, Expected::Untouched),
                Outcome::NotMade("a reason".to_owned()),
            ),
        ],
        proxy_listens: vec!["127.0.0.1:15001".parse().unwrap()],
        notes: vec!["a note".to_owned()],
    };
    let text = report.text(Some("Expected by a source."));
    for line in [
        "failed    IPv4 TCP outbound: user 1000, group 1000 to 192.0.2.254:15002: left the pod, past the proxy\n",
        "          expected: arrives at the proxy's port 15001\n",
        "not made  IPv4 TCP exempt: user 1000, group 1000 to 192.0.2.254:15002: a reason\n",
        "A proxy listens at: 127.0.0.1:15001\n",
        "Note: a note\n",
        "1 passed, 1 failed, 1 not made\n",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    let source = [
        ("source", "rules".into()),
        ("recordedOptions", ().into()),
        ("ignoredRecord", "a reason".into()),
    ];
    let json: serde_json::Value = serde_json::from_str(&report.json(source)).unwrap();
    assert_eq!(
        (&json["source"], &json["ignoredRecord"]),
        (&"rules".into(), &"a reason".into())
    );
    assert_eq!(json["result"], "failed");
    assert_eq!(json["probes"][0]["expected"], serde_json::json!({ "port": 15001 }));
    assert_eq!(json["probes"][1]["expected"], "untouched");
    assert_eq!(json["probes"][1]["meaning"], serde_json::Value::Null);
    assert_eq!(json["probes"][2]["reason"], "a reason");
}
