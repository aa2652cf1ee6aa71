//! A netlink datagram of the kernel: split into messages, listed, and decoded into rules or into the steps of traced
//! packets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::time::Duration;

use sidetrack::backend::nftables::listing::Listing;
use sidetrack::backend::nftables::{Message, decode, live};
use sidetrack::linux::netlink::{Answer, answers};
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
});
