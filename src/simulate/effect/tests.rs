//! Counters against simulated packets.

use std::path::Path;
use std::ptr;

use super::*;
use crate::facts::Facts;
use crate::options::Config;
use crate::options::sources::from_file;
use crate::plan::Plan;
use crate::ruleset::ChainType;
use crate::ruleset::{Counted, Ruleset};
use crate::simulate::{Explanation, text};
use crate::types::NoAccounts;

/// Configurations whose rules jump, return and skip in different ways.
const CONFIGURATIONS: [&str; 8] = [
    "{}",
    "{\"exclude-outbound-ports\": \"3306\", \"exclude-inbound-ports\": \"22\", \"exclude-inbound-cidrs\": \"10.0.0.0/8\"}",
    "{\"include-gids\": \"1000\", \"exclude-outbound-cidrs\": \"10.0.0.0/8,fd00::/8\"}",
    "{\"include-outbound-ports\": \"443\", \"include-inbound-ports\": \"8080\", \"exclude-uids\": \"7\"}",
    "{\"reroute-interfaces\": \"tap0\", \"exclude-interfaces\": \"eth1\", \"ip-family\": \"ipv4\"}",
    "{\"redirect-dns\": true, \"dns-servers\": \"10.96.0.10\", \"proxy-uid\": \"1337,2000-2005\"}",
    "{\"inbound-mode\": \"tproxy\", \"drop-invalid\": true, \"exclude-inbound-ports\": \"22\"}",
    "{\"mesh\": \"linkerd\"}",
];

fn ruleset(config: &Config) -> Ruleset {
    Plan::new(config, &Facts::default()).unwrap().ruleset
}

fn config(text: &str) -> Config {
    let parsed = from_file(Path::new("options"), text, &NoAccounts);
    crate::mesh::settings(parsed.layer).unwrap().config
}

#[test]
fn counters_change_no_effect_and_count_each_connection_once() {
    let mut decided = 0;
    for text in CONFIGURATIONS {
        let mut config = config(text);
        let without = ruleset(&config);
        config.general.counters = true;
        let counting = ruleset(&config);
        let pod = Pod::with_addresses(&["10.1.0.7".parse().unwrap(), "2001:db8::7".parse().unwrap()], None);
        let simulation = |rules: &Ruleset| simulation("", rules.clone().into(), pod.clone());
        let comparison = compare(&simulation(&without), &simulation(&counting)).unwrap();
        assert!(
            comparison.packets > 50 && comparison.effects.is_empty(),
            "{text}: {comparison:#?}"
        );
        let rules: Netfilter = counting.clone().into();
        for packet in packets::list(&rules, &rules, &pod) {
            let path = simulate(&rules, &pod, &packet).unwrap();
            let explanation = Explanation {
                packet: &packet,
                path: &path,
                rules: &rules,
                source: "",
                pod: None,
            };
            let why = text::line(&explanation);
            let counters = counting.counters();
            let counted: Vec<_> = path
                .trace
                .iter()
                .filter(|entry| entry.base.kind == ChainType::Nat)
                .filter_map(|entry| {
                    let Step::Taken(rule) = entry.step else { return None };
                    let position = entry.chain.rules.iter().position(|other| ptr::eq(other, rule))?;
                    let is_same = |counter: &&crate::ruleset::Counter| {
                        *counter.chain == entry.chain.name && counter.position == position
                    };
                    let counter = counters.iter().find(is_same)?;
                    assert!(counter.rule.has_counter);
                    (counter.counted == Counted::Decides).then(|| rule.comment.clone())
                })
                .collect();
            let by_nat_alone = path.trace.iter().all(|entry| entry.base.kind != ChainType::Mangle);
            match counted.as_slice() {
                [] => assert!(
                    !by_nat_alone || why.contains("no rule matches"),
                    "{text}: {packet:?}: {why}"
                ),
                [comment] => {
                    let is_why = why.contains(comment.as_ref());
                    assert!(
                        !by_nat_alone || is_why,
                        "{text}: {packet:?}: {why}, counted by {comment}"
                    );
                    decided += 1;
                }
                several => panic!("{text}: {packet:?}: {several:?}"),
            }
        }
    }
    assert!(decided > 500, "{decided}");
}
