//! The texts of hand-made drifts.

mod edits;

use std::slice::from_ref;

use super::*;
use crate::facts::{Facts, InstalledChain};
use crate::options::Settings;
use crate::plan::Plan;
use crate::ruleset::{Hook, Ruleset};
use crate::types::{DnsServers, Family, IpFamily};

fn rule(text: &str, comment: &str) -> Line {
    Line {
        text: text.to_owned(),
        comment: comment.to_owned(),
        ..Line::default()
    }
}

/// The rules, numbered.
fn numbered(rules: impl IntoIterator<Item = Line>) -> Vec<Line> {
    rules
        .into_iter()
        .zip(1..)
        .map(|(rule, position)| Line { position, ..rule })
        .collect()
}

/// Rules of one letter each.
fn letters(letters: &str) -> Vec<Line> {
    numbered(letters.chars().map(|letter| rule(&letter.to_string(), "")))
}

fn chain(table: &str, chain: &str) -> Subject {
    let (table, chain) = (table.to_owned(), chain.to_owned());
    Subject::Chain { table, chain }
}

fn thing(what: Subject, text: &str) -> Thing {
    let text = text.to_owned();
    Thing { what, text }
}

const OURS: &str = "inet sidetrack";

/// A small table as it is planned: chain output, chain outbound, set mesh_ports.
fn planned() -> Contents {
    let set = Subject::Set {
        table: OURS.to_owned(),
        set: "mesh_ports".to_owned(),
    };
    let things = [
        (
            chain(OURS, "output"),
            "type nat hook output priority -101; policy accept;",
        ),
        (chain(OURS, "outbound"), ""),
        (set.clone(), "type inet_service"),
        (Subject::Table { table: OURS.to_owned() }, ""),
    ];
    let outbound = [
        rule("meta skuid 1337 return", "the proxy's own traffic"),
        rule("meta skgid 1337 return", "the proxy's own traffic"),
        rule("ip daddr 127.0.0.1 return", "loopback"),
        rule("meta l4proto tcp redirect to :15001", "outbound, to the proxy"),
    ];
    let lists = [
        (
            chain(OURS, "output"),
            vec![rule("meta l4proto tcp jump outbound", "TCP")],
        ),
        (chain(OURS, "outbound"), outbound.to_vec()),
        (
            set,
            ["15008", "15020-15021", "15090"].map(|text| rule(text, "")).to_vec(),
        ),
    ];
    Contents {
        things: things.map(|(what, text)| thing(what, text)).to_vec(),
        lists: lists
            .map(|(of, lines)| List {
                of,
                lines: numbered(lines),
            })
            .to_vec(),
    }
}

fn words(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(ToString::to_string).collect()
}

/// The differences reported after a change to the table above.
fn reported(change: impl FnOnce(&mut Contents)) -> Vec<String> {
    let mut installed = planned();
    change(&mut installed);
    for list in &mut installed.lists {
        list.lines = numbered(std::mem::take(&mut list.lines));
    }
    words(&planned().compare(&installed))
}

#[test]
fn equal_contents_have_no_differences() {
    assert_eq!(reported(|_| ()), [""; 0]);
    let in_another_order = reported(|contents| {
        contents.things.reverse();
        contents.lists.reverse();
        contents.lists[0].lines.reverse();
    });
    assert_eq!(in_another_order, [""; 0]);
}

#[test]
fn each_difference_is_reported_with_place_and_plan() {
    type Change = fn(&mut Contents);
    let cases: [(Change, &[&str]); 17] = [
        (
            |contents| drop(contents.lists[1].lines.remove(1)),
            &["missing: rule 2 of chain outbound in inet sidetrack: meta skgid 1337 return"],
        ),
        (
            |contents| contents.lists[1].lines.insert(0, rule("counter accept", "")),
            &["extra: rule 1 of chain outbound in inet sidetrack: counter accept"],
        ),
        (
            |contents| contents.lists[1].lines.swap(2, 3),
            &["moved: rule 4 of chain outbound in inet sidetrack, now rule 3: meta l4proto tcp redirect to :15001"],
        ),
        (
            |contents| contents.lists[1].lines.rotate_left(1),
            &["moved: rule 1 of chain outbound in inet sidetrack, now rule 4: meta skuid 1337 return"],
        ),
        (
            |contents| contents.lists[1].lines[3].text = "meta l4proto tcp redirect to :15009".to_owned(),
            &[
                "changed: rule 4 of chain outbound in inet sidetrack: expected meta l4proto tcp redirect to :15001, \
                 found meta l4proto tcp redirect to :15009",
            ],
        ),
        (
            |contents| {
                // By its comment it is known for the same rule, wherever it is.
                let mut changed = contents.lists[1].lines.remove(2);
                changed.text = "ip daddr 127.0.0.0/8 return".to_owned();
                contents.lists[1].lines.insert(0, changed);
            },
            &[
                "changed: rule 3 of chain outbound in inet sidetrack, now rule 1: expected ip daddr 127.0.0.1 return, \
                 found ip daddr 127.0.0.0/8 return",
            ],
        ),
        (
            |contents| contents.lists[1].lines[2] = rule("accept", ""),
            &["changed: rule 3 of chain outbound in inet sidetrack: expected ip daddr 127.0.0.1 return, found accept"],
        ),
        (
            // It has a name of its own, so that it is another rule.
            |contents| contents.lists[1].lines[2] = rule("accept", "something else"),
            &[
                "missing: rule 3 of chain outbound in inet sidetrack: ip daddr 127.0.0.1 return",
                "extra: rule 3 of chain outbound in inet sidetrack: accept",
            ],
        ),
        (
            |contents| contents.lists[1].lines.clear(),
            &[
                "missing: rule 1 of chain outbound in inet sidetrack: meta skuid 1337 return",
                "missing: rule 2 of chain outbound in inet sidetrack: meta skgid 1337 return",
                "missing: rule 3 of chain outbound in inet sidetrack: ip daddr 127.0.0.1 return",
                "missing: rule 4 of chain outbound in inet sidetrack: meta l4proto tcp redirect to :15001",
            ],
        ),
        (
            |contents| {
                contents.things.remove(1);
                contents.lists.remove(1);
            },
            &["missing: chain outbound in inet sidetrack"],
        ),
        (
            |contents| {
                let of = chain(OURS, "more");
                contents.things.push(thing(of.clone(), "type nat hook input"));
                contents.lists.push(List {
                    of,
                    lines: letters("x"),
                });
            },
            &["extra: chain more in inet sidetrack: type nat hook input"],
        ),
        (
            // Its rules are reported too.
            |contents| {
                contents.things[0].text = "type nat hook output priority -101; policy drop;".to_owned();
                contents.lists[0].lines.clear();
            },
            &[
                "changed: chain output in inet sidetrack: expected type nat hook output priority -101; policy accept;, \
                 found type nat hook output priority -101; policy drop;",
                "missing: rule 1 of chain output in inet sidetrack: meta l4proto tcp jump outbound",
            ],
        ),
        (
            |contents| contents.things[0].text.clear(),
            &[
                "changed: chain output in inet sidetrack: expected type nat hook output priority -101; policy accept;, \
                 found nothing",
            ],
        ),
        (
            |contents| {
                contents.things[3].text = "dormant".to_owned();
            },
            &["changed: table inet sidetrack: expected nothing, found dormant"],
        ),
        (
            |contents| {
                contents.lists[2].lines.remove(2);
                contents.lists[2]
                    .lines
                    .extend((1..=12).map(|port| rule(&port.to_string(), "")));
            },
            &[
                "missing: 15090 of set mesh_ports in inet sidetrack",
                "extra: 1, 2, 3, 4, 5, 6, 7, 8 and 4 more of set mesh_ports in inet sidetrack",
            ],
        ),
        (
            |contents| {
                contents.things[2].text = "type mark".to_owned();
                contents.lists[2].lines.clear();
            },
            &["changed: set mesh_ports in inet sidetrack: expected type inet_service, found type mark"],
        ),
        (
            |contents| *contents = Contents::default(),
            &[
                "missing: chain output in inet sidetrack: type nat hook output priority -101; policy accept;",
                "missing: chain outbound in inet sidetrack",
                "missing: set mesh_ports in inet sidetrack: type inet_service",
                "missing: table inet sidetrack",
            ],
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(reported(change), expected);
    }
}

#[test]
fn difference_without_text_is_reported() {
    let table = OURS.to_owned();
    let reported = words(&planned().compare_unequal(&planned(), Subject::Table { table }));
    let expected = "changed: table inet sidetrack: expected nothing, found something that sidetrack cannot describe";
    assert_eq!(reported, [expected]);
}

/// In a foreign chain, only differences that concern our rules are reported.
#[test]
fn only_foreign_rules_before_ours_are_reported() {
    let builtin = |rules: Vec<Line>| Contents {
        things: Vec::new(),
        lists: vec![List {
            of: chain("iptables nat", "OUTPUT"),
            lines: numbered(rules),
        }],
    };
    let foreign = |text| Line {
        foreign: true,
        ..rule(text, "")
    };
    let jump = || rule("-j SIDETRACK_OUTPUT", "");
    let reported = |planned: &Contents, rules: Vec<Line>| {
        let differences = planned.compare(&builtin(rules));
        assert!(differences.iter().all(Difference::is_repaired_by_apply));
        words(&differences)
    };
    let planned = builtin(vec![jump()]);
    assert_eq!(reported(&planned, vec![jump()]), [""; 0]);
    assert_eq!(
        reported(&planned, vec![foreign("-p tcp -j ACCEPT"), jump()]),
        ["foreign: rule 1 of chain OUTPUT in iptables nat comes before sidetrack's rules: -p tcp -j ACCEPT"]
    );
    assert_eq!(
        reported(&planned, vec![jump(), jump()]),
        ["extra: rule 2 of chain OUTPUT in iptables nat: -j SIDETRACK_OUTPUT"]
    );
    let missing = ["missing: rule 1 of chain OUTPUT in iptables nat: -j SIDETRACK_OUTPUT"];
    assert_eq!(reported(&planned, vec![]), missing);
    assert_eq!(words(&planned.compare(&Contents::default())), missing);
    // Nothing of ours is planned in that chain.
    assert_eq!(
        reported(&Contents::default(), vec![foreign("-p tcp -j ACCEPT"), jump()]),
        ["extra: rule 2 of chain OUTPUT in iptables nat: -j SIDETRACK_OUTPUT"]
    );
}

#[test]
fn missing_prerequisites_are_reported() {
    let address = thing(Subject::Address, "the address ::6 on the loopback interface");
    let route = thing(Subject::Route(Family::V4), "the route");
    let other_route = thing(Subject::Route(Family::V4), "the other route");
    let rule = thing(Subject::PolicyRule(Family::V6), "the rule");
    let planned = [address.clone(), route.clone()];
    let reported = |ours: &[&Thing]| {
        let ours: Vec<Thing> = ours.iter().copied().cloned().collect();
        words(&things(&planned, &ours))
    };
    assert_eq!(reported(&[&route, &address]), [""; 0]);
    assert_eq!(
        reported(&[&route, &rule]),
        ["missing: the address ::6 on the loopback interface", "extra: the rule"]
    );
    // One that is right is not taken for one that was changed.
    assert_eq!(reported(&[&other_route, &route, &address]), ["extra: the other route"]);
    assert_eq!(
        reported(&[&other_route, &address]),
        ["changed: expected the route, found the other route"]
    );
}

fn ruleset(change: impl FnOnce(&mut Settings)) -> Ruleset {
    let mut settings = Settings::default();
    change(&mut settings);
    Plan::new(&settings.config, &Facts::default()).unwrap().ruleset
}

/// A foreign chain with one rule.
fn other(hook: Hook, priority: i32, nat: bool, effect: CatchEffect, protocol: Option<u8>) -> BaseChain {
    BaseChain {
        table: "inet other".to_owned(),
        chain: "theirs".to_owned(),
        family: None,
        place: Place { hook, priority, nat },
        catches: vec![Catch {
            effect,
            rule: Some(("theirs".to_owned(), 3)),
            protocol,
        }],
    }
}

#[test]
fn foreign_chains_count_if_first_and_catching() {
    let ours = ruleset(|_| ());
    let with_dns = ruleset(|settings| {
        settings.config.dns.redirect = true;
        settings.config.dns.servers = DnsServers::All;
    });
    let reported = |ruleset: &Ruleset, other: &BaseChain| -> Vec<String> {
        let differences = in_front(ruleset, &places(ruleset), from_ref(other));
        assert!(!differences.iter().any(Difference::is_repaired_by_apply));
        differences.iter().map(ToString::to_string).collect()
    };
    let is_reported = |ruleset, other| !reported(ruleset, &other).is_empty();
    let (output, redirect) = (Hook::Output, CatchEffect::Redirect);
    let first = other(output, -200, true, redirect, None);
    assert_eq!(
        reported(&ours, &first),
        [
            "foreign: chain theirs in inet other, at hook output with priority -200, comes before sidetrack's rules: \
             its rule 3 redirects"
        ]
    );
    // NAT chains are called by their priorities, and all of them at -100.
    assert!(is_reported(&ours, other(output, -101, true, redirect, None)));
    assert!(!is_reported(&ours, other(output, -100, true, redirect, None)));
    assert!(is_reported(&ours, other(output, -100, false, CatchEffect::Drop, None)));
    assert!(!is_reported(&ours, other(output, -99, false, CatchEffect::Drop, None)));
    // Rules for a protocol that is not captured do not count.
    assert!(is_reported(
        &ours,
        other(output, -200, false, CatchEffect::Drop, Some(6))
    ));
    assert!(!is_reported(
        &ours,
        other(output, -200, false, CatchEffect::Drop, Some(17))
    ));
    assert!(is_reported(
        &with_dns,
        other(output, -200, false, CatchEffect::Drop, Some(17))
    ));
    // Nothing of ours is there.
    let outbound_only = ruleset(|settings| settings.config.inbound.include_ports = Default::default());
    assert!(!is_reported(
        &outbound_only,
        other(Hook::Prerouting, -400, false, CatchEffect::Drop, None)
    ));
    assert!(!is_reported(
        &ours,
        BaseChain {
            catches: Vec::new(),
            ..first.clone()
        }
    ));

    let of_ipv6 = || BaseChain {
        family: Some(Family::V6),
        ..first.clone()
    };
    assert!(is_reported(&ours, of_ipv6()));
    assert!(!is_reported(
        &ruleset(|settings| settings.config.general.ip_family = IpFamily::Ipv4),
        of_ipv6()
    ));

    let mut several = first;
    several.catches[0].rule = Some(("deeper".to_owned(), 1));
    several.catches.push(Catch {
        effect: CatchEffect::Drop,
        rule: None,
        protocol: None,
    });
    assert!(reported(&ours, &several)[0].ends_with("rule 1 of its chain deeper redirects, and 1 more"));
    several.catches.remove(0);
    assert!(reported(&ours, &several)[0].ends_with("comes before sidetrack's rules: its policy drops"));
    // The chains of iptables are called where iptables has them.
    let at_the_same_priority = other(output, -100, true, redirect, None);
    let reported = in_front(&ours, &places_in_iptables(&ours), &[at_the_same_priority]);
    let perhaps = "its rule 3 redirects; among chains of equal priority, the one registered last comes first";
    assert!(reported[0].to_string().ends_with(perhaps), "{reported:?}");
}

#[test]
fn another_redirector_is_always_reported() {
    let chain = InstalledChain {
        table: "ip nat".to_owned(),
        chain: "ISTIO_OUTPUT".to_owned(),
    };
    let reported = words(&redirectors(&[chain]));
    let expected = "foreign: chain ISTIO_OUTPUT in ip nat belongs to Istio (istio-init or istio-cni), which also redirects traffic";
    assert_eq!(reported, [expected]);
}

#[test]
fn json_has_text_and_parts() {
    let mut installed = planned();
    installed.lists[1].lines.swap(2, 3);
    installed.lists[1].lines = numbered(installed.lists[1].lines.clone());
    let differences = planned().compare(&installed);
    let expected = serde_json::json!({
        "kind": "moved",
        "object": "rule",
        "table": "inet sidetrack",
        "chain": "outbound",
        "expectedPosition": 4,
        "foundPosition": 3,
        "comment": "outbound, to the proxy",
        "expected": "meta l4proto tcp redirect to :15001",
        "found": "meta l4proto tcp redirect to :15001",
        "repairedByApply": true,
        "words": "moved: rule 4 of chain outbound in inet sidetrack, now rule 3: meta l4proto tcp redirect to :15001",
    });
    assert_eq!(differences[0].json(), expected);
}
