//! A netlink datagram of the kernel: split into messages, listed, and decoded into rules, which a packet is followed
//! through, or into the steps of traced packets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::time::Duration;

use sidetrack::backend::nftables::installed::{self, TableMessages};
use sidetrack::backend::nftables::listing::Listing;
use sidetrack::backend::nftables::{Message, decode, live};
use sidetrack::linux::netlink::{Answer, answers};
use sidetrack::ruleset::netfilter::Netfilter;
use sidetrack::trace::{Rules, TABLE_PREFIX, Tracer};

fuzz_target!(|datagram: &[u8]| {
    let Ok(answers) = answers(datagram) else {
        return;
    };
    let messages: Vec<Message> = answers
        .iter()
        .filter_map(|answer| match answer {
            Answer::Message { kind, payload, .. } => Message::read(*kind, payload).ok(),
            Answer::Interrupted { .. } | Answer::Status { .. } => None,
        })
        .collect();
    if let Ok(listing) = Listing::of(&messages) {
        assert!(listing.set_names().all(|name| listing.set(name).is_some()));
        decode(&listing);
    }
    let (mut tracer, rules) = (Tracer::new(TABLE_PREFIX), Rules::default());
    for trace in messages.iter().filter_map(|message| live::decode(message).ok().flatten()) {
        tracer.message(&trace, &rules, Duration::ZERO);
    }
    tracer.finish(&rules);
    let counts = tracer.counts();
    assert_eq!(counts.started, counts.repeated + counts.connections);
    // The families inet, ip and ip6 (linux/netfilter.h).
    for family in [1, 2, 10] {
        let listed = TableMessages {
            family,
            name: "sidetrack".to_owned(),
            title: "inet sidetrack".to_owned(),
            messages: messages.clone(),
        };
        if let Ok(decoded) = installed::table(&listed) {
            sidetrack_fuzz::follow(&Netfilter {
                tables: decoded.table.into_iter().collect(),
                unreadable: decoded.unread,
            });
        }
    }
});
