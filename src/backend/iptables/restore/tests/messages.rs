//! What programs say, and what we say then.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use crate::backend::iptables::error::Failure;

/// The message for what a program said on its standard error, with this input.
fn message(stderr: &str, input: &str) -> String {
    Failure::new(
        Path::new("iptables-restore"),
        ExitStatus::from_raw(2 << 8),
        stderr,
        input,
    )
    .to_string()
}

#[test]
fn the_line_that_a_program_complains_of_is_shown() {
    let stderr =
        "iptables-nft-restore v1.8.9 (nf_tables): \nline 2: RULE_APPEND failed (Invalid argument): rule in chain S\n";
    let text = message(stderr, "*nat\n-A S -p tcp\nCOMMIT\n");
    let expected = "iptables-restore failed (exit status: 2): iptables-nft-restore v1.8.9 (nf_tables): line 2: \
                    RULE_APPEND failed (Invalid argument): rule in chain S; the line is '-A S -p tcp'. ";
    assert!(text.starts_with(expected), "{text}");
    assert!(!message("iptables-restore: line 3 failed\n", "*nat\n-A S\nCOMMIT\n").contains("the line is"));
}

#[test]
fn every_known_failure_comes_with_advice() {
    let known = [
        (
            "Fatal: can't open lock file /run/xtables.lock: Permission denied",
            "XTABLES_LOCKFILE",
        ),
        (
            "Another app is currently holding the xtables lock. Stopped waiting after 10s.",
            "holds the lock",
        ),
        (
            "Could not fetch rule set generation id: Permission denied (you must be root)",
            "NET_ADMIN",
        ),
        (
            "iptables-restore: line 7 failed: Resource temporarily unavailable.",
            "try again",
        ),
        (
            "line 3: CHAIN_DEL failed (Device or resource busy): chain SIDETRACK_INBOUND",
            "a foreign rule jumps to a chain of",
        ),
        ("iptables-restore: Memory allocation problem.", "short of memory"),
        (
            "Failed to initialize nft: Protocol not supported",
            "use the variant legacy",
        ),
        (
            "can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
            "iptable_nat",
        ),
        (
            "iptables-restore: unable to initialize table 'nat'\nError occurred at line: 1",
            "iptable_nat",
        ),
        (
            "Couldn't load match `owner':No such file or directory\n",
            "module xt_owner",
        ),
        (
            "Warning: Extension multiport revision 0 not supported, missing kernel module?",
            "module xt_multiport",
        ),
        ("unknown option \"--to-ports\"", "module xt_REDIRECT"),
        ("unknown option \"--comment\"", "module xt_comment"),
        ("iptables-restore: line 9 failed", "may lack a module"),
    ];
    for (stderr, advice) in known {
        let text = message(stderr, "");
        assert!(text.contains(advice), "{text}");
        assert!(
            text.contains(stderr.lines().next().unwrap().trim_end_matches('.')),
            "{text}"
        );
    }
}
