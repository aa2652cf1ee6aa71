//! The entries of a table of legacy iptables, decoded into rules; a packet is followed through them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetrack::backend::iptables::legacy::decode::{EntryPoint, TABLES, table};
use sidetrack::ruleset::Hook;
use sidetrack::ruleset::netfilter::Netfilter;
use sidetrack::types::Family;

fuzz_target!(|entries: &[u8]| {
    for family in Family::BOTH {
        for kinds in TABLES {
            let point = |hook| EntryPoint {
                hook,
                first: 0,
                policy: entries.len() / 2,
            };
            let points = [point(Hook::Prerouting), point(Hook::Output)];
            let decoded = table(kinds.name, kinds, family, entries, &points);
            sidetrack_fuzz::follow(&Netfilter {
                tables: vec![decoded],
                unreadable: Vec::new(),
            });
        }
    }
});
