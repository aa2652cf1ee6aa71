//! A netlink datagram of the kernel: split into messages, listed, and decoded into rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetrack::backend::nftables::listing::Listing;
use sidetrack::backend::nftables::{Message, decode};
use sidetrack::linux::netlink::{Answer, answers};

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
});
