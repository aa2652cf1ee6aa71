//! Open inbound connections while the inbound mode changes.

use std::io::ErrorKind;
use std::time::Duration;

use sidetrack::types::Family;

use super::ALL_BACKENDS;
use crate::common::conversation::{Conversation, Echo};
use crate::common::{Caller, Pod, To};
use crate::program::apply;

/// What becomes of an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Continues,
    /// The client learns at once that it is over.
    IsReset,
    /// The client learns nothing.
    Hangs,
}

/// The fate of a connection from outside to the application, and thus to the proxy, where the mode changes.
fn fate(backend: &str, family: Family, modes: [&str; 2], options: &[&str]) -> Fate {
    let pod = Pod::new();
    let mode = |mode| apply(&pod.netns, backend, &[&["--inbound-mode", mode], options].concat());
    mode(modes[0]);
    let _proxy = Echo::transparent(&pod.netns, 15006);
    let begin = || {
        Conversation::begin(&pod, Caller::Peer, To::Pod(8080), family)
            .unwrap_or_else(|error| panic!("{backend}, {family}, {modes:?}, {options:?}: {error}"))
    };
    let mut open = begin();
    open.go_on(3).expect("an echo");
    mode(modes[1]);
    let timeout = Some(Duration::from_secs(2));
    open.stream.set_read_timeout(timeout).expect("a timeout");
    let found = open.go_on(3).map_err(|error| error.kind());
    begin().go_on(3).expect("a new connection");
    match found {
        Ok(()) => Fate::Continues,
        Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Fate::IsReset,
        Err(ErrorKind::WouldBlock) => Fate::Hangs,
        Err(other) => panic!("{backend}, {family}, {modes:?}: {other}"),
    }
}

/// The rules of a mode know the connections to the proxy that it makes, and a policy rejects what they do not know.
#[test]
fn inbound_policy_resets_open_connections_of_the_other_mode() {
    const LOCKED: &[&str] = &["--inbound-policy", "proxy-only"];
    for (backend, family) in ALL_BACKENDS.into_iter().zip(Family::BOTH.into_iter().cycle()) {
        for modes in [["redirect", "tproxy"], ["tproxy", "redirect"]] {
            let fates = [&[], LOCKED].map(|options| fate(backend, family, modes, options));
            assert_eq!(
                fates,
                [Fate::Continues, Fate::IsReset],
                "{backend}, {family}: {modes:?}"
            );
        }
    }
}
