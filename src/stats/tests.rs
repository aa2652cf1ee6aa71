use super::*;
use crate::facts::Facts;
use crate::options::Settings;
use crate::plan::Plan;
use crate::types::{InboundMode, parse_ports};

fn ruleset(change: impl FnOnce(&mut crate::options::Config)) -> Ruleset {
    let mut config = Settings::default().config;
    config.general.counters = true;
    change(&mut config);
    Plan::new(&config, &Facts::default()).unwrap().ruleset
}

fn excluding() -> Ruleset {
    ruleset(|config| config.outbound.exclude_ports = parse_ports("3306").unwrap())
}

/// Counts, as if the n-th rule that counts had this value.
fn counted(ruleset: &Ruleset, value: impl Fn(&Counter) -> u64) -> Counts {
    let mut counts = Counts::default();
    for counter in ruleset.counters() {
        counts.set(counter.chain.clone(), counter.position, value(&counter));
    }
    counts
}

fn count(stats: &Stats, hook: Hook, reason: &str) -> u64 {
    let same = stats
        .rows
        .iter()
        .filter(|row| row.key.hook == hook && row.key.reason == reason);
    same.map(|row| row.count).sum()
}

#[test]
fn rest_of_entered_connections_matches_no_rule() {
    let ruleset = excluding();
    let counts = counted(&ruleset, |counter| {
        match (&counter.counted, counter.rule.comment.as_ref()) {
            (Counted::Enters, "locally generated TCP") => 100,
            (Counted::Decides, "excluded outbound ports") => 7,
            (Counted::Decides, "outbound, to the proxy") => 80,
            _ => 0,
        }
    });
    let stats = Stats::new(&ruleset, &counts);
    assert_eq!(count(&stats, Hook::Output, NO_RULE), 13);
    assert_eq!(count(&stats, Hook::Output, "excluded outbound ports"), 7);
    assert_eq!(count(&stats, Hook::Prerouting, NO_RULE), 0);
}

#[test]
fn replaced_rules_continue_the_numbers() {
    let before = excluding();
    let numbers = counted(&before, |counter| {
        1000 + counter.position as u64
            * match counter.counted {
                Counted::Decides => 1,
                Counted::Enters => 10_000,
            }
    });
    let stats = Stats::new(&before, &numbers);
    assert_eq!(Stats::new(&before, &stats.carried_over(&before)).rows, stats.rows);
    // Without the rule of a reason, the others keep their numbers.
    let after = ruleset(|config| config.proxy.outbound_port = Port::new(15002).unwrap());
    let carried = Stats::new(&after, &stats.carried_over(&after));
    for Row { key, count } in &stats.rows {
        let expected = if key.reason == "excluded outbound ports" {
            0
        } else {
            *count
        };
        assert_eq!(self::count(&carried, key.hook, &key.reason), expected, "{key:?}");
    }
}

#[test]
fn rules_without_counters_begin_with_no_values() {
    let stats = Stats::new(&excluding(), &counted(&excluding(), |_| 5));
    let without = ruleset(|config| config.general.counters = false);
    assert!(stats.carried_over(&without).is_empty());
}

#[test]
fn reasons_are_words_for_machines() {
    let ruleset = excluding();
    let stats = Stats::new(&ruleset, &counted(&ruleset, |_| 0));
    let words: Vec<String> = stats.rows.iter().map(|row| row.key.reason_word()).collect();
    for word in [
        "outbound_to_the_proxy",
        "excluded_outbound_ports",
        "the_proxys_own_traffic",
        "no_rule_matches",
    ] {
        assert!(words.iter().any(|found| found == word), "{word} in {words:?}");
    }
    let odd = Key {
        reason: "  A\"b\n\u{1b}ü ".to_owned(),
        ..Key::of_the_rest(Hook::Output)
    };
    assert_eq!(odd.reason_word(), "a_b");
}

#[test]
fn packets_of_mangle_chains_are_no_connections() {
    let ruleset = ruleset(|config| config.inbound.mode = InboundMode::Tproxy);
    let stats = Stats::new(&ruleset, &counted(&ruleset, |_| 1));
    let unit = |reason: &str| {
        let row = stats.rows.iter().find(|row| row.key.reason == reason);
        row.unwrap_or_else(|| panic!("{reason} in {stats:?}")).key.unit
    };
    assert_eq!(unit("inbound, to the proxy's transparent socket"), Unit::Connections);
    assert_eq!(unit("the mesh's own ports"), Unit::Packets);
    assert_eq!(unit("outbound, to the proxy"), Unit::Connections);
}
