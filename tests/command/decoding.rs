//! Rules of other programs, recorded as a kernel lists them, are decoded.
//!
//! The recordings are seeds of the fuzz targets `netlink` and `entries`, too.

use std::fs;
use std::path::Path;

use sidetrack::backend::iptables::legacy::decode::{self, EntryPoint};
use sidetrack::backend::nftables::Message;
use sidetrack::backend::nftables::installed::{self, TableMessages};
use sidetrack::render;
use sidetrack::ruleset::Hook;
use sidetrack::ruleset::netfilter::Table;
use sidetrack::types::Family;

fn recording(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/seeds")
        .join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The messages of a dump, one after another.
fn messages(dump: &[u8]) -> Vec<Message> {
    const HEADER: usize = 16;
    let (mut messages, mut rest) = (Vec::new(), dump);
    while let Some(header) = rest.first_chunk::<HEADER>() {
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_le_bytes([header[4], header[5]]);
        messages.push(Message::read(kind, &rest[HEADER..length]).expect("a message of nf_tables"));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

fn of_nftables(family: u8, title: &str, path: &str) -> Table {
    let (_, name) = title.split_once(' ').expect("a family and a name");
    let listed = TableMessages {
        family,
        name: name.to_owned(),
        title: title.to_owned(),
        messages: messages(&recording(path)),
    };
    let decoded = installed::table(&listed).expect("whole messages");
    assert_eq!(decoded.unread, [""; 0]);
    decoded.table.expect("a table that packets pass")
}

fn of_legacy(name: &str, entry_points: &[(Hook, usize, usize)]) -> Table {
    let kinds = decode::TABLES
        .into_iter()
        .find(|kinds| kinds.name == name)
        .expect("a table");
    let points = entry_points.iter().map(|(hook, first, policy)| EntryPoint {
        hook: *hook,
        first: *first,
        policy: *policy,
    });
    let bytes = recording(&format!("entries/{name}"));
    decode::table(
        &format!("{name} (legacy iptables)"),
        kinds,
        Family::V4,
        &bytes,
        &points.collect::<Vec<_>>(),
    )
}

/// A table as text: its chains in the order of their names, and their rules.
fn text(table: &Table) -> String {
    let mut chains: Vec<String> = table
        .chains
        .iter()
        .map(|chain| {
            let base = chain.base.map_or(String::new(), |base| {
                let policy = if base.drops { "drop" } else { "accept" };
                format!(" {:?} {} {} {policy}", base.kind, base.hook.name(), base.priority)
            });
            let rules = chain
                .rules
                .iter()
                .map(|rule| format!("    {}\n", render::netfilter::rule(rule)));
            format!("  {}{base}\n{}", chain.name, rules.collect::<String>())
        })
        .collect();
    chains.sort();
    format!("{}\n{}", table.name, chains.concat())
}

#[test]
fn recorded_rules_are_decoded_as_reviewed() {
    let nat = [
        (Hook::Prerouting, 0, 344),
        (Hook::Input, 496, 496),
        (Hook::Output, 648, 800),
        (Hook::Postrouting, 952, 1120),
    ];
    let mangle = [
        (Hook::Prerouting, 0, 736),
        (Hook::Input, 888, 888),
        (Hook::Forward, 1040, 1040),
        (Hook::Output, 1192, 1392),
        (Hook::Postrouting, 1544, 1544),
    ];
    insta::with_settings!({ snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        for (name, table) in [
            ("nat of iptables-nft", of_nftables(2, "ip nat", "netlink/table-of-iptables-nft")),
            ("mangle of iptables-nft", of_nftables(2, "ip mangle", "netlink/mangle-of-iptables-nft")),
            ("a firewall", of_nftables(1, "inet filter", "netlink/firewall")),
            ("nat of legacy iptables", of_legacy("nat", &nat)),
            ("mangle of legacy iptables", of_legacy("mangle", &mangle)),
        ] {
            insta::assert_snapshot!(format!("decoded {name}").replace(' ', "_"), text(&table));
        }
    });
}

/// Both variants of iptables have the same rules, and both loaded the same text.
#[test]
fn both_variants_of_iptables_are_decoded_alike() {
    let nft = of_nftables(2, "ip nat", "netlink/table-of-iptables-nft");
    let legacy = of_legacy(
        "nat",
        &[
            (Hook::Prerouting, 0, 344),
            (Hook::Output, 648, 800),
            (Hook::Postrouting, 952, 1120),
        ],
    );
    for chain in &nft.chains {
        let other = legacy.chain(&chain.name).expect("the same chain");
        assert_eq!(chain.rules.len(), other.rules.len(), "{}", chain.name);
        let comments = |chain: &sidetrack::ruleset::netfilter::Chain| {
            chain
                .rules
                .iter()
                .map(|rule| rule.comment.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(comments(chain), comments(other));
        for (rule, other) in chain.rules.iter().zip(&other.rules) {
            let last = |rule: &sidetrack::ruleset::netfilter::Rule| rule.statements.last().cloned();
            assert_eq!(last(rule), last(other), "the action");
        }
    }
}
