//! Hand-made drifts in the words that they are told in, and what holds for any drift.

use std::slice::from_ref;

use proptest::collection::vec;
use proptest::prelude::*;

use super::rules::{Edit, edits};
use super::*;
use crate::config::Settings;
use crate::config::types::{DnsServers, IpFamily};
use crate::facts::{Facts, InstalledChain};
use crate::plan::Plan;
use crate::ruleset::{Family, Hook, Ruleset};

fn rule(text: &str, comment: &str) -> Rule {
    Rule {
        position: 0,
        text: text.to_owned(),
        comment: comment.to_owned(),
        foreign: false,
    }
}

/// The rules, numbered.
fn numbered(rules: impl IntoIterator<Item = Rule>) -> Vec<Rule> {
    rules
        .into_iter()
        .zip(1..)
        .map(|(rule, position)| Rule { position, ..rule })
        .collect()
}

/// Rules of one letter each.
fn rules(letters: &str) -> Vec<Rule> {
    numbered(letters.chars().map(|letter| rule(&letter.to_string(), "")))
}

fn chain(name: &str, hook: Option<&str>, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.to_owned(),
        ours: true,
        hook: hook.map(str::to_owned),
        rules,
    }
}

/// A small table as it is planned.
fn planned() -> Table {
    let hook = Some("type nat hook output priority -101; policy accept;");
    let outbound = [
        rule("meta skuid 1337 return", "the proxy's own traffic"),
        rule("meta skgid 1337 return", "the proxy's own traffic"),
        rule("ip daddr 127.0.0.1 return", "loopback"),
        rule("meta l4proto tcp redirect to :15001", "outbound, to the proxy"),
    ];
    Table {
        name: "inet sidetrack".to_owned(),
        flaw: None,
        chains: vec![
            chain(
                "output",
                hook,
                numbered([rule("meta l4proto tcp jump outbound", "TCP")]),
            ),
            chain("outbound", None, numbered(outbound)),
        ],
        sets: vec![Set {
            name: "mesh_ports".to_owned(),
            kind: "inet_service, interval".to_owned(),
            elements: ["15008", "15020-15021", "15090"].map(str::to_owned).to_vec(),
        }],
    }
}

/// What is told of the table above, changed like this.
fn told(change: impl FnOnce(&mut Table)) -> Vec<String> {
    let mut installed = planned();
    change(&mut installed);
    for chain in &mut installed.chains {
        chain.rules = numbered(std::mem::take(&mut chain.rules));
    }
    tables(&[planned()], &[installed])
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn nothing_is_told_where_all_is_as_planned() {
    assert_eq!(told(|_| ()), [""; 0]);
    let in_another_order = told(|table| {
        table.chains.reverse();
        table.sets[0].elements.reverse();
    });
    assert_eq!(in_another_order, [""; 0]);
}

#[test]
fn each_difference_is_told_with_where_it_is_and_what_was_planned() {
    type Change = fn(&mut Table);
    let cases: [(Change, &[&str]); 17] = [
        (
            |table| drop(table.chains[1].rules.remove(1)),
            &["missing: rule 2 of chain outbound in inet sidetrack: meta skgid 1337 return"],
        ),
        (
            |table| table.chains[1].rules.insert(0, rule("counter accept", "")),
            &["extra: rule 1 of chain outbound in inet sidetrack: counter accept"],
        ),
        (
            |table| table.chains[1].rules.swap(2, 3),
            &["moved: rule 4 of chain outbound in inet sidetrack, now rule 3: meta l4proto tcp redirect to :15001"],
        ),
        (
            |table| table.chains[1].rules.rotate_left(1),
            &["moved: rule 1 of chain outbound in inet sidetrack, now rule 4: meta skuid 1337 return"],
        ),
        (
            |table| table.chains[1].rules[3].text = "meta l4proto tcp redirect to :15009".to_owned(),
            &[
                "changed: rule 4 of chain outbound in inet sidetrack: expected meta l4proto tcp redirect to :15001, \
               found meta l4proto tcp redirect to :15009",
            ],
        ),
        (
            |table| {
                // By its comment it is known for the same rule, wherever it is.
                let mut changed = table.chains[1].rules.remove(2);
                changed.text = "ip daddr 127.0.0.0/8 return".to_owned();
                table.chains[1].rules.insert(0, changed);
            },
            &[
                "changed: rule 3 of chain outbound in inet sidetrack, now rule 1: expected ip daddr 127.0.0.1 return, \
               found ip daddr 127.0.0.0/8 return",
            ],
        ),
        (
            |table| table.chains[1].rules[2] = rule("accept", ""),
            &["changed: rule 3 of chain outbound in inet sidetrack: expected ip daddr 127.0.0.1 return, found accept"],
        ),
        (
            |table| table.chains[1].rules.clear(),
            &[
                "missing: rule 1 of chain outbound in inet sidetrack: meta skuid 1337 return",
                "missing: rule 2 of chain outbound in inet sidetrack: meta skgid 1337 return",
                "missing: rule 3 of chain outbound in inet sidetrack: ip daddr 127.0.0.1 return",
                "missing: rule 4 of chain outbound in inet sidetrack: meta l4proto tcp redirect to :15001",
            ],
        ),
        (
            |table| drop(table.chains.remove(1)),
            &["missing: chain outbound in inet sidetrack: 4 rules"],
        ),
        (
            |table| table.chains.push(chain("more", None, rules("x"))),
            &["extra: chain more in inet sidetrack: 1 rule"],
        ),
        (
            |table| table.chains[0].hook = Some("type nat hook output priority -101; policy drop;".to_owned()),
            &["changed: chain output in inet sidetrack: \
               expected type nat hook output priority -101; policy accept;, \
               found type nat hook output priority -101; policy drop;"],
        ),
        (
            |table| table.chains[0].hook = None,
            &["changed: chain output in inet sidetrack: \
               expected type nat hook output priority -101; policy accept;, found nothing"],
        ),
        (
            |table| table.flaw = Some("dormant".to_owned()),
            &["changed: table inet sidetrack: expected nothing, found dormant"],
        ),
        (
            |table| drop(table.sets[0].elements.remove(2)),
            &["missing: 15090 of set mesh_ports in inet sidetrack"],
        ),
        (
            |table| table.sets[0].elements.extend((1..=12).map(|port| port.to_string())),
            &["extra: 1, 2, 3, 4, 5, 6, 7, 8 and 4 more of set mesh_ports in inet sidetrack"],
        ),
        (
            |table| table.sets[0].kind = "inet_service".to_owned(),
            &["changed: set mesh_ports in inet sidetrack: expected inet_service, interval, found inet_service"],
        ),
        (
            |table| table.sets[0].name = "other".to_owned(),
            &[
                "missing: set mesh_ports in inet sidetrack: inet_service, interval",
                "extra: set other in inet sidetrack: inet_service, interval",
            ],
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(told(change), expected);
    }
}

/// Of a chain that is not ours, only what concerns our rules is told.
#[test]
fn rules_of_others_before_ours_are_told_and_those_behind_are_not() {
    let builtin = |rules: Vec<Rule>| {
        let chain = Chain {
            ours: false,
            ..chain("OUTPUT", None, rules)
        };
        Table {
            name: "iptables nat".to_owned(),
            chains: vec![chain],
            ..Table::default()
        }
    };
    let foreign = |text| Rule {
        foreign: true,
        ..rule(text, "")
    };
    let jump = || rule("-j SIDETRACK_OUTPUT", "");
    let told = |planned: &[Table], rules: Vec<Rule>| -> Vec<String> {
        let differences = tables(planned, &[builtin(numbered(rules))]);
        assert!(differences.iter().all(Difference::is_repaired_by_apply));
        differences.iter().map(ToString::to_string).collect()
    };
    let planned = [builtin(numbered([jump()]))];
    assert_eq!(told(&planned, vec![jump()]), [""; 0]);
    assert_eq!(
        told(&planned, vec![foreign("-p tcp -j ACCEPT"), jump()]),
        ["foreign: rule 1 of chain OUTPUT in iptables nat comes before ours: -p tcp -j ACCEPT"]
    );
    assert_eq!(
        told(&planned, vec![jump(), jump()]),
        ["extra: rule 2 of chain OUTPUT in iptables nat: -j SIDETRACK_OUTPUT"]
    );
    let missing = ["missing: rule 1 of chain OUTPUT in iptables nat: -j SIDETRACK_OUTPUT"];
    assert_eq!(told(&planned, vec![]), missing);
    let nothing: Vec<Difference> = tables(&planned, &[]);
    assert_eq!(nothing.iter().map(ToString::to_string).collect::<Vec<_>>(), missing);
    // The planned side has nothing in that chain.
    assert_eq!(
        told(&[], vec![foreign("-p tcp -j ACCEPT"), jump()]),
        ["extra: rule 2 of chain OUTPUT in iptables nat: -j SIDETRACK_OUTPUT"]
    );
}

#[test]
fn what_is_needed_besides_rules_is_told_in_its_own_words() {
    let addition = |what, text: &str| Addition {
        what,
        text: text.to_owned(),
    };
    let address = addition(Subject::Address, "the address ::6 on the loopback interface");
    let route = addition(Subject::Route(Family::V4), "the route");
    let other = addition(Subject::PolicyRule(Family::V6), "the rule");
    let told = |ours: &[Addition], foreign: &[Addition]| -> Vec<String> {
        let planned = [address.clone(), route.clone()];
        let differences = additions(&planned, ours, foreign);
        differences.iter().map(ToString::to_string).collect()
    };
    assert_eq!(told(&[route.clone(), address.clone()], &[]), [""; 0]);
    assert_eq!(told(from_ref(&route), from_ref(&address)), [""; 0]);
    assert_eq!(
        told(&[route.clone(), other.clone()], &[]),
        ["missing: the address ::6 on the loopback interface", "extra: the rule"]
    );
}

fn ruleset(change: impl FnOnce(&mut Settings)) -> Ruleset {
    let mut settings = Settings::default();
    change(&mut settings);
    Plan::new(&settings.config, &Facts::default()).unwrap().ruleset
}

/// A chain of somebody else's with one rule.
fn other(hook: Hook, priority: i32, nat: bool, does: Catching, protocol: Option<u8>) -> BaseChain {
    BaseChain {
        table: "inet other".to_owned(),
        chain: "theirs".to_owned(),
        family: None,
        place: Place { hook, priority, nat },
        catches: vec![Catch {
            does,
            rule: Some(("theirs".to_owned(), 3)),
            protocol,
        }],
    }
}

#[test]
fn chains_of_others_count_where_they_come_first_and_may_catch() {
    let ours = ruleset(|_| ());
    let with_dns = ruleset(|settings| {
        settings.config.dns.redirect = true;
        settings.config.dns.servers = DnsServers::All;
    });
    let told = |ruleset: &Ruleset, other: &BaseChain| -> Vec<String> {
        let differences = in_front(ruleset, &places(ruleset), from_ref(other));
        assert!(!differences.iter().any(Difference::is_repaired_by_apply));
        differences.iter().map(ToString::to_string).collect()
    };
    let is_told = |ruleset, other| !told(ruleset, &other).is_empty();
    let (output, redirect) = (Hook::Output, Catching::Redirect);
    let first = other(output, -200, true, redirect, None);
    assert_eq!(
        told(&ours, &first),
        [
            "foreign: chain theirs in inet other, at hook output with priority -200, comes before ours: its rule 3 redirects"
        ]
    );
    // NAT chains are called by their priorities, and all of them at -100.
    assert!(is_told(&ours, other(output, -101, true, redirect, None)));
    assert!(!is_told(&ours, other(output, -100, true, redirect, None)));
    assert!(is_told(&ours, other(output, -100, false, Catching::Drop, None)));
    assert!(!is_told(&ours, other(output, -99, false, Catching::Drop, None)));
    // What is about another protocol than ours are does not get in the way.
    assert!(is_told(&ours, other(output, -200, false, Catching::Drop, Some(6))));
    assert!(!is_told(&ours, other(output, -200, false, Catching::Drop, Some(17))));
    assert!(is_told(&with_dns, other(output, -200, false, Catching::Drop, Some(17))));
    // Nothing of ours is there.
    let outbound_only = ruleset(|settings| settings.config.inbound.include_ports = Default::default());
    assert!(!is_told(
        &outbound_only,
        other(Hook::Prerouting, -400, false, Catching::Drop, None)
    ));
    assert!(!is_told(
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
    assert!(is_told(&ours, of_ipv6()));
    assert!(!is_told(
        &ruleset(|settings| settings.config.ip_family = IpFamily::Ipv4),
        of_ipv6()
    ));

    let mut several = first;
    several.catches[0].rule = Some(("deeper".to_owned(), 1));
    several.catches.push(Catch {
        does: Catching::Drop,
        rule: None,
        protocol: None,
    });
    assert!(told(&ours, &several)[0].ends_with("rule 1 of its chain deeper redirects, and 1 more"));
    several.catches.remove(0);
    assert!(told(&ours, &several)[0].ends_with("comes before ours: its policy drops"));
    // The chains of iptables are called where iptables has them.
    let at_the_same_priority = other(output, -100, true, redirect, None);
    let told = in_front(&ours, &places_in_iptables(&ours), &[at_the_same_priority]);
    let perhaps = "its rule 3 redirects; of chains with one priority, the one that was registered last comes first";
    assert!(told[0].to_string().ends_with(perhaps), "{told:?}");
}

#[test]
fn another_redirector_is_told_wherever_it_is() {
    let chain = InstalledChain {
        table: "ip nat".to_owned(),
        chain: "ISTIO_OUTPUT".to_owned(),
    };
    let told: Vec<String> = redirectors(&[chain]).iter().map(ToString::to_string).collect();
    let expected =
        "foreign: chain ISTIO_OUTPUT in ip nat is of Istio (istio-init or istio-cni), which redirects traffic too";
    assert_eq!(told, [expected]);
}

#[test]
fn a_difference_as_json_has_its_words_and_its_parts() {
    let mut installed = planned();
    installed.chains[1].rules.swap(2, 3);
    installed.chains[1].rules = numbered(installed.chains[1].rules.clone());
    let differences = tables(&[planned()], &[installed]);
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

/// The steps between lists of one letter a rule, shortly.
fn steps(expected: &str, found: &str) -> String {
    let (expected, found) = (rules(expected), rules(found));
    let steps = edits(&expected, &found).into_iter().map(|edit| match edit {
        Edit::Missing(rule) => format!("-{}", rule.text),
        Edit::Extra(rule) => format!("+{}", rule.text),
        Edit::Changed(from, to) => format!("{}>{}", from.text, to.text),
        Edit::Moved(from, to) => format!("{}{}-{}", from.text, from.position, to.position),
    });
    steps.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_fewest_steps_are_told() {
    let cases = [
        ("abcdef", "abcdef", ""),
        ("abcdef", "bcdef", "-a"),
        ("abcdef", "abcdexf", "+x"),
        ("abcdef", "fabcde", "f6-1"),
        ("abcdef", "abdecf", "c3-5"),
        ("abcdef", "axcdef", "b>x"),
        ("abcdef", "axcyef", "b>x d>y"),
        ("abcdef", "xabcef", "-d +x"),
        ("abcdef", "", "-a -b -c -d -e -f"),
        ("", "ab", "+a +b"),
        ("abc", "cba", "b2-2 c3-1"),
        // Equal rules are paired in order.
        ("aba", "ba", "-a"),
        ("ab", "aba", "+a"),
        ("ab", "aab", "+a"),
    ];
    for (expected, found, wanted) in cases {
        let told = steps(expected, found);
        assert_eq!(told, wanted, "{expected} {found}");
    }
}

#[test]
fn long_lists_are_compared_quickly() {
    let numbers = |shift: usize| numbered((0..20_000).map(|n| rule(&format!("rule {}", n + shift), "same")));
    let (one, other) = (numbers(0), numbers(10_000));
    assert_eq!(edits(&one, &other).len(), 10_000);
    let mut backwards = one.clone();
    backwards.reverse();
    assert_eq!(edits(&one, &numbered(backwards)).len(), 19_999);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The rules that no step names are the same, in the same order; with the steps, one list becomes the other.
    #[test]
    fn the_steps_account_for_every_rule(one in vec(0_u8..9, 0..12), other in vec(0_u8..9, 0..12)) {
        let list = |numbers: &[u8]| numbered(numbers.iter().map(|n| rule(&n.to_string(), if n % 3 == 0 { "three" } else { "" })));
        let (expected, found) = (list(&one), list(&other));
        let steps = edits(&expected, &found);
        prop_assert_eq!(steps.is_empty(), one == other);
        let (mut kept, mut left) = (expected.clone(), found.clone());
        let mut take = |from_expected: Option<&Rule>, from_found: Option<&Rule>| {
            kept.retain(|rule| Some(rule) != from_expected);
            left.retain(|rule| Some(rule) != from_found);
        };
        for step in steps {
            match step {
                Edit::Missing(rule) => take(Some(rule), None),
                Edit::Extra(rule) => take(None, Some(rule)),
                Edit::Changed(from, to) => {
                    prop_assert_ne!(&from.text, &to.text);
                    take(Some(from), Some(to));
                }
                Edit::Moved(from, to) => {
                    prop_assert_eq!(&from.text, &to.text);
                    take(Some(from), Some(to));
                }
            }
        }
        let texts = |rules: Vec<Rule>| rules.into_iter().map(|rule| rule.text).collect::<Vec<_>>();
        prop_assert_eq!(texts(kept), texts(left));
    }
}
