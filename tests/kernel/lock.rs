//! The lock that serializes runs of sidetrack in one network namespace.

use std::thread;

use sidetrack::linux::lock::Lock;

use crate::common::Netns;

#[test]
fn lock_is_per_network_namespace_and_passes_to_the_waiter() {
    let [one, other] = [Netns::new(), Netns::new()];
    let held = one.run(Lock::wait).expect("the lock");
    assert!(other.run(Lock::wait).is_some(), "another network namespace has its own");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| one.run(Lock::wait));
        // Until its socket is there: one that could not be bound yet.
        thread::sleep(std::time::Duration::from_millis(100));
        assert!(!waiting.is_finished(), "two had it at once");
        drop(held);
        assert!(waiting.join().expect("no panic").is_some());
    });
}
