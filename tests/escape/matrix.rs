//! Every attack under every way to lock the application in.

#![allow(
    clippy::print_stdout,
    reason = "the outcome of each attack is read when a test fails"
)]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;

use sidetrack::types::Family;

use crate::attacks::plain;
use crate::column::{Column, PROXY_CGROUP};
use crate::common::{Cgroup, Owner, copy_program};
use crate::lab::{Lab, Outcome, Stage};
use crate::table::{ATTACKS, Attack, Escapes, Rules, Who};

/// A shell that runs as the proxy's user, whoever starts it. It is removed with the directory of the build.
pub fn set_user_id_shell() -> &'static Path {
    static SHELL: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = std::env::temp_dir().join("sidetrack-set-user-id-shell");
        let copy = path.with_extension(std::process::id().to_string());
        copy_program(Path::new("/bin/bash"), &copy);
        chown(&copy, Some(Owner::PROXY.uid), Some(Owner::PROXY.gid)).expect("another owner");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).expect("a mode");
        fs::rename(&copy, &path).expect("a file");
        path
    });
    &SHELL
}

/// Whether the kernel does not have what the attack needs.
fn is_missing(attack: &Attack, outcome: &Outcome) -> bool {
    let missing = [
        libc::EPROTONOSUPPORT,
        libc::ESOCKTNOSUPPORT,
        libc::EAFNOSUPPORT,
        libc::ENOSYS,
        libc::EPERM,
    ];
    let error = outcome.result.as_ref().err().and_then(std::io::Error::raw_os_error);
    attack.is_optional && outcome.escaped.is_empty() && error.is_some_and(|error| missing.contains(&error))
}

fn run(lab: &mut Option<Lab>, column: Column, attack: &Attack, family: Family) -> Outcome {
    let is_fresh = lab.is_none();
    let lab = lab.get_or_insert_with(Lab::new);
    lab.proxy_cgroup = column.proxy_cgroup();
    if is_fresh && attack.rules == Rules::Before {
        column.apply(&lab.pod);
    }
    lab.run(family, || attack.who.assume(), attack.run, |pod| column.apply(pod))
}

/// How many pods are attacked at once. An attack mostly waits for packets.
const PODS: usize = 4;

/// Runs every attack, and returns where an outcome is another one than the table says.
fn differences(column: Column) -> Vec<String> {
    // Made by root, before an attack needs it.
    set_user_id_shell();
    thread::scope(|scope| {
        let attacks = |pod| ATTACKS.iter().skip(pod).step_by(PODS);
        let attackers: Vec<_> = (0..PODS)
            .map(|pod| scope.spawn(move || differences_in_pod(column, attacks(pod))))
            .collect();
        let differences = attackers
            .into_iter()
            .map(|attacker| attacker.join().expect("attacks that end"));
        differences.flatten().collect()
    })
}

fn differences_in_pod<'a>(column: Column, attacks: impl Iterator<Item = &'a Attack>) -> Vec<String> {
    let mut differences = Vec::new();
    let mut lab: Option<Lab> = None;
    for attack in attacks {
        for family in attack.families {
            // What asks for steps, or may change anything, does it in a pod of its own.
            if attack.rules == Rules::OnRequest || attack.who == Who::NetAdmin {
                lab = None;
            }
            let mut outcome = run(&mut lab, column, attack, *family);
            let should_escape = attack.escapes(column).by(*family);
            if let Some(lab) = &mut lab
                && should_escape
                && outcome.escaped.is_empty()
                && outcome.result.is_ok()
            {
                outcome.escaped = lab.late_frames();
            }
            let name = format!("{}, {}, {family}", attack.name, attack.who.name());
            let escaped = !outcome.escaped.is_empty();
            println!("{column:?}: {name}: {:?}: {:?}", outcome.escaped, outcome.result);
            if should_escape && is_missing(attack, &outcome) {
                println!("{column:?}: {name}: not in this kernel");
            } else if escaped != should_escape {
                differences.push(format!(
                    "{name}: {:?} left the pod; {:?}",
                    outcome.escaped, outcome.result
                ));
            }
            // Later frames of the same attack must not be counted as another one's.
            if escaped || attack.rules == Rules::OnRequest || attack.who == Who::NetAdmin {
                lab = None;
            }
        }
    }
    differences
}

fn check(column: Column) {
    let differences = differences(column);
    assert!(differences.is_empty(), "{column:?}:\n{}", differences.join("\n"));
}

#[test]
fn attacks_escape_a_proxy_variable() {
    check(Column::Variable);
}

#[test]
fn attacks_escape_the_redirection_alone() {
    check(Column::Redirect);
}

#[test]
fn attacks_escape_an_owner_match() {
    check(Column::OwnerMatch);
}

#[test]
fn attacks_escape_an_owner_match_of_both_families() {
    check(Column::OwnerMatchOfBoth);
}

#[test]
fn named_exceptions_alone_escape_the_lock_with_nftables() {
    check(Column::Locked("nftables", &[]));
}

#[test]
fn named_exceptions_alone_escape_the_lock_with_a_table_for_each_family() {
    check(Column::Locked("nftables-per-family", &[]));
}

#[test]
fn named_exceptions_alone_escape_the_lock_with_iptables_nft() {
    check(Column::Locked("iptables-nft", &[]));
}

#[test]
fn named_exceptions_alone_escape_the_lock_with_iptables_legacy() {
    check(Column::Locked("iptables-legacy", &[]));
}

#[test]
fn named_exceptions_alone_escape_the_lock_of_both_directions() {
    check(Column::Locked("nftables", &["--inbound-policy", "proxy-only"]));
}

/// A mark holds whoever takes the proxy's user, as long as it cannot set one.
#[test]
fn user_of_the_proxy_is_locked_in_where_the_proxy_has_a_mark() {
    check(Column::Locked("nftables", &["--proxy-mark", "77"]));
}

/// A lock that recognises the proxy by a cgroup alone.
fn by_cgroup(cgroup: &Cgroup) -> Column {
    let options = vec![
        PROXY_CGROUP,
        cgroup.proxy().leak(),
        "--proxy-uid",
        "",
        "--proxy-gid",
        "",
    ];
    Column::Locked("nftables", options.leak())
}

/// A cgroup alone holds it, too: no user can move into that.
#[test]
fn user_of_the_proxy_is_locked_in_where_the_proxy_has_a_cgroup() {
    let cgroup = Cgroup::new();
    check(by_cgroup(&cgroup));
}

/// Whoever may write its files moves a process into a cgroup.
#[test]
fn only_root_moves_into_the_cgroup_of_the_proxy_and_escapes() {
    let cgroup = Cgroup::new();
    let mut lab = Lab::new();
    by_cgroup(&cgroup).apply(&lab.pod);
    let attack = |stage: &Stage| cgroup.enter().and_then(|()| plain::udp(stage));
    for who in [Who::Nobody, Who::Proxy, Who::NetRaw, Who::Root] {
        let outcome = lab.run(Family::V4, || who.assume(), attack, |_| {});
        match who {
            Who::Root => assert!(!outcome.escaped.is_empty(), "{outcome:?}"),
            _ => {
                assert!(outcome.escaped.is_empty(), "{who:?}: {outcome:?}");
                let refusal = outcome.result.expect_err("a refusal").kind();
                assert_eq!(refusal, ErrorKind::PermissionDenied, "{who:?}");
            }
        }
    }
}

/// IPv6 is not redirected, and locked in all the same.
#[test]
fn named_exceptions_alone_escape_the_lock_of_redirected_ipv4() {
    check(Column::Locked("nftables", &["--ip-family", "ipv4"]));
}

/// Marks, routes, lookups and sockets bound to interfaces are handled in other chains.
#[test]
fn named_exceptions_alone_escape_the_lock_with_other_options() {
    let options = &[
        "--inbound-mode",
        "tproxy",
        "--redirect-dns",
        "--dns-servers",
        "10.99.0.1,fd99::1",
        "--bound-interfaces",
        "eth0",
    ];
    check(Column::Locked("nftables", options));
}

/// The columns of the page, each with its heading.
const SHOWN: [(Column, &str); 5] = [
    (Column::Variable, "`HTTP_PROXY`"),
    (Column::Redirect, "redirection alone"),
    (Column::OwnerMatch, "iptables, owner match"),
    (Column::OwnerMatchOfBoth, "the same, ip6tables too"),
    (Column::Locked("nftables", &[]), "`proxy-only`"),
];

#[test]
fn the_page_shows_what_the_attacks_are_tested_for() {
    let mut table = "| Attack | By |".to_owned();
    table.extend(SHOWN.map(|(_, heading)| format!(" {heading} |")));
    table += "\n|---|---|---|---|---|---|---|\n";
    for attack in ATTACKS {
        table += &format!("| {} | {} |", attack.name, attack.who.name());
        table.extend(SHOWN.map(|(column, _)| format!(" {} |", cell(attack, column))));
        table.push('\n');
    }
    crate::generated::part("docs/locked-egress.md", "attacks", &table);
}

fn cell(attack: &Attack, column: Column) -> &'static str {
    let is_locked = matches!(column, Column::Locked(..));
    match attack.escapes(column) {
        Escapes::No => "held",
        Escapes::V6 if attack.families == [Family::V6] => "**out**",
        Escapes::V6 if is_locked => "**out** by IPv6 ([why](#named-exceptions))",
        Escapes::V6 => "**out** by IPv6",
        Escapes::Yes if is_locked => "**out** ([why](#named-exceptions))",
        Escapes::Yes => "**out**",
    }
}
