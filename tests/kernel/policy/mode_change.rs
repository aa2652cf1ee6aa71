//! Open inbound connections while the inbound mode changes.

use std::io;
use std::time::Duration;

use sidetrack::types::Family;

use super::ALL_BACKENDS;
use crate::common::conversation::{Conversation, Echo};
use crate::common::{Caller, Pod, To};
use crate::program::apply;

/// What a connection from outside to the application, and thus to the proxy, meets where the mode changes.
fn change(backend: &str, family: Family, modes: [&str; 2], options: &[&str]) -> io::Result<()> {
    let pod = Pod::new();
    let mode = |mode| apply(&pod.netns, backend, &[&["--inbound-mode", mode], options].concat());
    let begin = || Conversation::begin(&pod, Caller::Peer, To::Pod(8080), family);
    mode(modes[0]);
    let _proxy = Echo::transparent(&pod.netns, 15006);
    let mut open = begin()?;
    open.go_on(3)?;
    mode(modes[1]);
    open.stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    open.go_on(3)?;
    begin()?.go_on(3)
}

#[test]
fn open_inbound_connections_survive_a_change_of_the_mode_under_a_policy() {
    for (backend, family) in ALL_BACKENDS.into_iter().zip(Family::BOTH.into_iter().cycle()) {
        for modes in [["redirect", "tproxy"], ["tproxy", "redirect"]] {
            for policy in ["allow", "proxy-only"] {
                let changed = change(backend, family, modes, &["--inbound-policy", policy]);
                changed.unwrap_or_else(|error| panic!("{backend}, {family}, {modes:?}, {policy}: {error}"));
            }
        }
    }
}
