//! A datagram of the kernel: split into messages, decoded, listed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use sidetrack::kernel::netlink::{Answer, answers};
use sidetrack::kernel::nftables::decode;
use sidetrack::render::netlink::listing::Listing;

fuzz_target!(|datagram: &[u8]| {
    let Ok(answers) = answers(datagram) else {
        return;
    };
    let messages: Vec<NetfilterMessage> = answers
        .iter()
        .filter_map(|answer| match answer {
            Answer::Message { kind, payload } => decode(*kind, payload).ok(),
            Answer::Interrupted | Answer::Status { .. } => None,
        })
        .collect();
    let listing = Listing::of(messages.iter().filter_map(|message| match &message.inner {
        NetfilterMessageInner::NfTables(message) => Some(message),
        _ => None,
    }));
    assert!(listing.set_names().all(|name| listing.set(name).is_some()));
});
