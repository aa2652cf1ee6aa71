//! Rules that the installer applies before the first pod, in a network namespace of their own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::fixture::{FLANNEL, Installer, Machine, eventually};
use crate::common::Owner;
use crate::sandbox::{Denial, deny, with_capabilities};

const KERNEL: &str = "sidetrack_node_degraded{part=\"kernel\"}";

/// An installer with other rights or another kernel than the machine's.
fn start(machine: &Machine, conf: &str, restrict: impl FnOnce(&mut Command)) -> Installer {
    let mut command = machine.command(&["install", "--log-level", "debug"]);
    command.env("SIDETRACK_NODE_PLUGIN_CONF", conf);
    restrict(&mut command);
    Installer::start(command)
}

/// The network namespaces that the threads of a process are in, or that it holds open.
fn network_namespaces(process: u32) -> Vec<PathBuf> {
    let links = |directory: String| {
        let entries = fs::read_dir(directory).expect("a process").flatten();
        entries
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .collect::<Vec<_>>()
    };
    let threads = fs::read_dir(format!("/proc/{process}/task"))
        .expect("a process")
        .flatten();
    let of_threads = threads.filter_map(|thread| fs::read_link(thread.path().join("ns/net")).ok());
    let held = links(format!("/proc/{process}/fd")).into_iter();
    let mut all: Vec<PathBuf> = held.filter(|link| link.to_string_lossy().starts_with("net:")).collect();
    all.extend(of_threads);
    all.sort();
    all.dedup();
    all
}

#[test]
fn rules_are_applied_once_and_nothing_is_left() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    for (conf, backend) in [
        (r#"{"select": "injected"}"#, "nftables"),
        (
            r#"{"select": "injected", "redirect": {"inbound-mode": "tproxy", "backend": "nftables-per-family"}}"#,
            "nftables-per-family",
        ),
    ] {
        let installer = start(&machine, conf, |_| {});
        installer.eventually_logs("the kernel has what the rules of pods need");
        assert!(
            installer.log().contains(&format!("backend={backend}")),
            "{}",
            installer.log()
        );
        installer.eventually_ready();
        assert_eq!(installer.metric(KERNEL), 0.0);
        let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
        eventually("the namespace is gone", || {
            match network_namespaces(installer.process()) {
                all if all == [own.clone()] => Ok(()),
                all => Err(all),
            }
        });
    }
}

#[test]
fn an_installer_without_rights_leaves_that_to_the_first_pod() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    for rights in [&[][..], &[caps::Capability::CAP_SYS_ADMIN]] {
        let conf = r#"{"select": "injected"}"#;
        let installer = start(&machine, conf, |command| {
            with_capabilities(command, Owner::ROOT, rights, &[])
        });
        installer.eventually_logs("loaded for the first pod, not before");
        assert!(
            installer.log().contains("CAP_SYS_ADMIN and CAP_NET_ADMIN"),
            "{}",
            installer.log()
        );
        installer.eventually_ready();
        assert_eq!(
            (installer.metric(KERNEL), installer.get("/readyz").1.as_str()),
            (0.0, "ok\n")
        );
    }
}

#[test]
fn a_kernel_that_cannot_do_it_is_reported_and_the_plugin_installed() {
    let without_netfilter = Denial::Socket {
        protocol: libc::NETLINK_NETFILTER as u32,
        errno: libc::EPROTONOSUPPORT,
    };
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let conf = r#"{"select": "injected", "redirect": {"backend": "nftables"}}"#;
    let installer = start(&machine, conf, |command| deny(command, without_netfilter));
    installer.eventually_logs("rules cannot be applied on this node");
    installer.eventually_ready();
    let (_, said) = installer.get("/readyz");
    assert!(
        said.contains("rules cannot be applied on this node") && said.contains("nfnetlink"),
        "{said}"
    );
    assert_eq!(installer.metric(KERNEL), 1.0);
    drop(installer);
    // The plugin will try the node's iptables.
    let installer = start(&machine, r#"{"select": "injected"}"#, |command| {
        deny(command, without_netfilter)
    });
    installer.eventually_logs("Pods get their rules by legacy iptables");
    installer.eventually_ready();
    assert_eq!(installer.metric(KERNEL), 0.0);
}
