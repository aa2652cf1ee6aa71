use std::net::IpAddr;

use super::layout::{Card, Layout, Way};
use super::*;
use crate::facts::Facts;
use crate::options::Layer;
use crate::options::table::OPTIONS;
use crate::plan::Plan;
use crate::ruleset::ChainType;
use crate::types::{Families, NoAccounts};

/// The ruleset for some options.
fn ruleset(options: &[(&str, &str)]) -> Ruleset {
    let mut layer = Layer::default();
    for (name, text) in options {
        let option = OPTIONS.iter().find(|option| option.name == *name).unwrap();
        (option.read)(&mut layer, &[(*text).to_owned()], &NoAccounts).unwrap();
    }
    let settings = crate::mesh::settings(layer).unwrap();
    Plan::new(&settings.config, &Facts::default()).unwrap().ruleset
}

const TPROXY: (&str, &str) = ("inbound-mode", "tproxy");
const DNS: [(&str, &str); 2] = [("redirect-dns", "true"), ("dns-servers", "all")];

fn rulesets() -> Vec<Ruleset> {
    vec![
        ruleset(&[]),
        ruleset(&DNS),
        ruleset(&[TPROXY]),
        ruleset(&[
            TPROXY,
            DNS[0],
            DNS[1],
            ("drop-invalid", "true"),
            ("reroute-interfaces", "tap0,tap1"),
        ]),
        ruleset(&[("include-inbound-ports", "")]),
        ruleset(&[("include-outbound-cidrs", ""), ("include-inbound-ports", "")]),
        ruleset(&[
            ("exclude-uids", "1,3,5,7,9,11"),
            ("exclude-outbound-cidrs", "10.0.0.0/8,fd00::/8"),
        ]),
    ]
}

#[test]
fn graph_has_every_rule_and_edge() {
    for ruleset in rulesets() {
        let graph = Graph::new(&ruleset);
        for chain in &ruleset.chains {
            let index = graph.nodes.iter().position(|node| node.title == chain.name).unwrap();
            let comments: Vec<&str> = graph.nodes[index].rows.iter().map(|row| row.comment.as_str()).collect();
            let wanted: Vec<&str> = chain.rules.iter().map(|rule| rule.comment.as_ref()).collect();
            assert_eq!(comments, wanted);
            for (number, rule) in chain.rules.iter().enumerate() {
                let way = graph
                    .edges
                    .iter()
                    .find(|edge| edge.from == index && edge.row == Some(number));
                let end = way.map(|way| graph.nodes[way.to].title.clone());
                let wanted = match &rule.action {
                    Action::Jump(target) => Some(target.to_string()),
                    Action::Redirect(port) | Action::Tproxy { port, .. } => Some(format!("The proxy, port {port}")),
                    Action::Drop => Some("Dropped".to_owned()),
                    _ => None,
                };
                assert_eq!(end, wanted, "{rule:?}");
            }
        }
    }
}

#[test]
fn chains_of_a_hook_follow_each_other_by_priority() {
    let graph = Graph::new(&ruleset(&[TPROXY, DNS[0], DNS[1]]));
    let titles: Vec<&str> = graph.nodes.iter().map(|node| node.title.as_str()).collect();
    let spine = [
        "Locally generated packets",
        "raw_output",
        "mangle_output",
        "output",
        "Continues to its original destination",
    ];
    let first = titles.iter().position(|title| *title == spine[0]).unwrap();
    assert_eq!(titles[first..first + spine.len()], spine);
    for index in first..first + spine.len() - 1 {
        assert!(graph.edges.contains(&Edge {
            from: index,
            row: None,
            to: index + 1
        }));
    }
}

fn overlap(one: &Card, other: &Card) -> bool {
    one.x < other.x + other.width
        && other.x < one.x + one.width
        && one.y < other.y + other.height
        && other.y < one.y + one.height
}

#[test]
fn nothing_in_the_layout_overlaps() {
    for ruleset in rulesets() {
        let graph = Graph::new(&ruleset);
        let Layout { cards, ways, size } = Layout::new(&graph);
        for (index, card) in cards.iter().enumerate() {
            assert!(
                card.x >= 0 && card.x + card.width < size.0 && card.y + card.height < size.1,
                "{card:?}"
            );
            assert!(!cards[..index].iter().any(|other| overlap(card, other)), "{card:?}");
        }
        let mut lanes: Vec<(i32, i32, i32, usize)> = Vec::new();
        for (edge, way) in graph.edges.iter().zip(&ways) {
            if let Way::Around { begin, lane, end } = *way {
                assert!(lane < size.0);
                let free = |card: &Card| lane < card.x || lane > card.x + card.width;
                assert!(cards.iter().all(free), "{way:?}");
                lanes.push((lane, begin.1.min(end.1), begin.1.max(end.1), edge.to));
            }
        }
        for (index, (lane, top, bottom, to)) in lanes.iter().enumerate() {
            let meets = |(other, other_top, other_bottom, other_to): &(i32, i32, i32, usize)| {
                lane == other && to != other_to && top < other_bottom && other_top < bottom
            };
            assert!(!lanes[..index].iter().any(meets), "two ways on one lane");
        }
    }
}

#[test]
fn texts_are_escaped() {
    let text = "<b>\"&'`#]|</b>\u{1}";
    let rule = Rule {
        matches: vec![crate::ruleset::Match::Source(crate::ruleset::Addresses::Ip(
            IpAddr::from([10, 0, 0, 1]),
        ))],
        action: Action::Drop,
        has_counter: false,
        comment: text.into(),
    };
    let ruleset = Ruleset {
        record: None,
        timeouts: None,
        families: Families::Both,
        sets: Vec::new(),
        chains: vec![Chain {
            name: "output".into(),
            hook: Some(BaseHook {
                kind: ChainType::Nat,
                hook: Hook::Output,
                priority: 0,
            }),
            rules: vec![rule],
        }],
    };
    let graph = Graph::new(&ruleset);
    let escaped = "&lt;b&gt;&quot;&amp;&#39;`#]|&lt;/b&gt;<";
    assert!(svg::document(&graph).contains(escaped));
    assert!(dot::document(&graph).contains(escaped));
    assert!(mermaid::document(&graph).contains("<i>#60;b#62;#34;#38;'#96;#35;]|#60;/b#62;</i>"));
}
