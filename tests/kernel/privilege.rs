//! Capabilities that are given up.

use std::thread;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl::get_no_new_privs;
use sidetrack::linux::privilege::keep_those_of_the_network;

#[test]
fn what_is_not_needed_is_given_up_by_one_thread_alone() {
    let of_the_network = CapsHashSet::from([Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW]);
    let held = |set| caps::read(None, set).expect("the capabilities of this thread");
    let before = held(CapSet::Permitted);
    assert!(before.len() > of_the_network.len(), "this test needs root");
    let inside = thread::spawn(move || {
        keep_those_of_the_network();
        let sets = [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable].map(held);
        (sets, get_no_new_privs().expect("a flag"))
    });
    let (sets, no_new_privileges) = inside.join().expect("no panic");
    for kept in &sets[..2] {
        assert_eq!(*kept, of_the_network);
    }
    assert!(sets[2].is_subset(&sets[1]));
    assert!(no_new_privileges);
    assert_eq!(held(CapSet::Permitted), before);
    assert!(!get_no_new_privs().expect("a flag"));
}
