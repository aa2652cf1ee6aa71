//! Random options: apply succeeds, and the installed rules equal the dry run.

use crate::common::Netns;
use crate::program::{BACKENDS, apply, feed, sidetrack};
use crate::random;

#[test]
fn any_options_can_be_applied_as_in_the_dry_run() {
    random::each(48, |options| {
        let netns = Netns::new();
        for backend in BACKENDS {
            let log = apply(&netns, backend, options);
            assert!(log.contains("redirected now"), "{options:?}: {log}");
            let log = apply(&netns, backend, options);
            assert!(
                log.contains("already redirected this way"),
                "{backend}: {options:?}: {log}"
            );
            sidetrack(&netns, &[&["check", "--backend", backend], options].concat()).succeeded();
        }
        sidetrack(&netns, &["cleanup"]).succeeded();
        let dry_run = [&["apply", "--dry-run"], options].concat();
        feed(
            &netns,
            "nft",
            &["-f", "-"],
            &sidetrack(&netns, &dry_run).succeeded().stdout,
        );
        let log = apply(&netns, "nftables", options);
        assert!(log.contains("already redirected this way"), "{options:?}: {log}");
    });
}
