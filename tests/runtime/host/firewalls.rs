//! A host whose firewall service flushes rules: our rules are applied again.

use std::fmt::Write as _;

use super::boot::Host;
use super::{OPTIONS, in_force, persist};

/// As Debian's nftables has it, with more than can be loaded at once.
fn large_configuration() -> String {
    let mut text = "#!/usr/sbin/nft -f\nflush ruleset\ntable inet filter {\n  set hosts {\n    type ipv4_addr\n    flags interval\n    elements = {\n".to_owned();
    for number in 0..20_000 {
        let _ = writeln!(text, "      10.{}.{}.0/25,", number / 256, number % 256);
    }
    text + "    }\n  }\n  chain input {\n    type filter hook input priority 0\n    ip saddr @hosts counter\n  }\n}\n"
}

/// Whether the host is redirected as it should be, and systemd says so, too.
#[track_caller]
fn is_redirected(host: &Host, when: &str) {
    // `systemctl restart` of a firewall does not wait for the units that follow it.
    host.shell("while systemctl list-jobs --no-legend | grep -q .; do sleep 0.05; done")
        .succeeded();
    let check = host.sidetrack(&["check", "--config", super::CONFIG]);
    assert_eq!(check.code, Some(0), "{when}: {check:?}");
    host.shell("systemctl is-active sidetrack").succeeded();
}

#[test]
fn host_is_redirected_after_firewall_start_restart_or_reload() {
    let mut host = Host::boot();
    host.write("/etc/nftables.conf", &large_configuration());
    host.shell("systemctl --quiet enable nftables; systemctl start nftables")
        .succeeded();
    let said = persist(&host, OPTIONS);
    assert!(said.contains("firewall=\"nftables.service\""), "{said}");
    host.shell("systemctl daemon-reload; systemctl start sidetrack")
        .succeeded();
    is_redirected(&host, "applied");
    let verified = host.run("systemd-analyze", &["verify", super::UNIT]).succeeded();
    assert_eq!(verified.stderr, "");

    for verb in ["restart", "reload", "restart"] {
        host.shell(&format!("systemctl {verb} nftables")).succeeded();
        is_redirected(&host, verb);
    }
    for boot in 0..2 {
        host.reboot();
        is_redirected(&host, &format!("boot {boot}"));
        host.shell("nft list set inet filter hosts | grep -q 10.77.7.0/25")
            .succeeded();
    }

    // What it takes with it is not said to be there.
    host.shell("systemctl stop nftables; ! systemctl is-active sidetrack")
        .succeeded();
    assert!(!in_force(&host, "nftables").contains("sidetrack"));
    host.shell("systemctl start nftables").succeeded();
    is_redirected(&host, "start");

    host.sidetrack(&["cleanup", "--persist"]).succeeded();
    host.shell("! ls /etc/systemd/system/nftables.service.wants")
        .succeeded();
}

/// A firewall that was not active, or not installed, when the redirection was applied flushes it when it is started.
#[test]
fn host_is_redirected_after_first_start_of_firewall() {
    let mut host = Host::boot();
    host.write("/etc/nftables.conf", &large_configuration());
    persist(&host, OPTIONS);
    host.shell("systemctl daemon-reload; systemctl start sidetrack")
        .succeeded();
    host.shell("systemctl start nftables").succeeded();
    is_redirected(&host, "first start");
    for name in ["ufw", "shorewall"] {
        host.write(&format!("/etc/systemd/system/{name}.service"), &service(name));
        host.shell(&format!("systemctl daemon-reload; systemctl start {name}"))
            .succeeded();
        is_redirected(&host, name);
    }

    // Boot has an order with all of them.
    host.shell("systemctl --quiet enable ufw shorewall").succeeded();
    host.reboot();
    is_redirected(&host, "boot");
    let journal = host.shell("journalctl --no-pager --boot").succeeded();
    assert!(!journal.stdout.contains("ordering cycle"), "{}", journal.stdout);

    // A redirection that was stopped is not started by a reload.
    host.shell("systemctl stop sidetrack; systemctl reload ufw; ! systemctl is-active sidetrack")
        .succeeded();
    host.sidetrack(&["cleanup", "--persist"]).succeeded();
    let etc = host.etc();
    assert!(!etc.contains("sidetrack"), "{etc}");
}

/// A service that flushes rules as the firewall of this name does.
fn service(name: &str) -> String {
    let order = match name {
        "shorewall" | "shorewall6" | "arno-iptables-firewall" => {
            "Wants=network-online.target\nAfter=network-online.target"
        }
        _ => "DefaultDependencies=no\nWants=network-pre.target\nBefore=network-pre.target",
    };
    format!(
        "[Unit]\n{order}\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=nft flush ruleset\n\
         ExecReload=nft flush ruleset\nExecStop=true\n[Install]\nWantedBy=multi-user.target\n"
    )
}

/// Services of these names are not on the machine that runs the tests: a service of the same kind stands for each.
#[test]
fn each_firewall_service_that_the_unit_names_is_followed() {
    let host = Host::boot();
    let early = [
        "netfilter-persistent",
        "iptables",
        "ip6tables",
        "firewalld",
        "ufw",
        "ferm",
        "firehol",
    ];
    let late = ["shorewall", "shorewall6", "arno-iptables-firewall"];
    let names = [&early[..], &late].concat();
    for name in &names {
        host.write(&format!("/etc/systemd/system/{name}.service"), &service(name));
    }
    host.shell(&format!("systemctl daemon-reload; systemctl start {}", names.join(" ")))
        .succeeded();
    persist(&host, OPTIONS);
    host.shell("systemctl daemon-reload; systemctl start sidetrack")
        .succeeded();
    for name in names {
        let verbs: &[&str] = if late.contains(&name) {
            &["restart"]
        } else {
            &["restart", "reload"]
        };
        for verb in verbs {
            host.shell(&format!("systemctl {verb} {name}")).succeeded();
            is_redirected(&host, &format!("{verb} of {name}"));
        }
    }
}
