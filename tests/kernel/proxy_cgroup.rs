//! `--proxy-cgroup`: only sockets of processes in a cgroup are the proxy's. With real cgroups and a real Envoy in one.

use std::thread;

use sidetrack::types::Family;

use crate::SIDETRACK;
use crate::common::Caller::{Proxy, Sender};
use crate::common::Transport::Tcp;
use crate::common::sidecar::{APP_CALLS_PEER, PEER_CALLS_APP, journey};
use crate::common::{Caller, Cgroup, Journey, Owner, Pod, Route, Server, Sidecar, To, call, output_of};
use crate::program::{BACKENDS, Run, apply, sidetrack};

const JOURNEYS: [Journey; 3] = [
    PEER_CALLS_APP,
    APP_CALLS_PEER,
    journey(
        "the proxy's user outside of its cgroup",
        Tcp,
        Proxy,
        To::Peer(9090),
        Route::Outbound,
    ),
];

/// With and without its user, and by the cgroup above.
#[test]
fn only_processes_of_its_cgroup_bypass_an_envoy_in_one() {
    for backend in BACKENDS {
        let cgroup = Cgroup::new();
        let pod = Pod::new();
        let path = format!("/{}", cgroup.proxy());
        let alone = ["--proxy-uid", "", "--proxy-gid", ""];
        apply(&pod.netns, backend, &["--proxy-cgroup", &path]);
        let sidecar = Sidecar::start(pod);
        cgroup.add(sidecar.envoy.pid());
        sidecar.travel_all(&JOURNEYS);
        apply(
            &sidecar.pod.netns,
            backend,
            &[&["--proxy-cgroup", &path][..], &alone].concat(),
        );
        sidecar.travel_all(&JOURNEYS);
        apply(
            &sidecar.pod.netns,
            backend,
            &[&["--proxy-cgroup", &cgroup.path][..], &alone].concat(),
        );
        sidecar.travel_all(&JOURNEYS);
    }
}

const SERVER: u16 = 9090;

/// The proxy's port, and the server that is called.
fn servers(pod: &Pod) -> [Server; 2] {
    [
        Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001]),
        Server::start(&pod.peer, "server", Owner::ROOT, &[SERVER]),
    ]
}

/// Where a call of another host arrives, from the proxy's cgroup or from none.
fn arrives_at(pod: &Pod, cgroup: Option<&Cgroup>, caller: Caller) -> String {
    let made = || {
        cgroup.map_or(Ok(()), Cgroup::enter).expect("a cgroup to enter");
        call(pod, Tcp, caller, To::Far(SERVER), Family::V4)
    };
    let made = thread::scope(|scope| scope.spawn(made).join().expect("a caller"));
    made.expect("a call").arrival.expect("an answer").server
}

#[test]
fn mark_and_cgroup_of_the_proxy_are_both_required() {
    for backend in BACKENDS {
        let cgroup = Cgroup::new();
        let pod = Pod::new();
        let _servers = servers(&pod);
        let marked = Sender(Owner::PROXY.marked(77));
        apply(
            &pod.netns,
            backend,
            &["--proxy-cgroup", &cgroup.proxy(), "--proxy-mark", "77"],
        );
        assert_eq!(arrives_at(&pod, Some(&cgroup), marked), "server", "{backend}");
        assert_eq!(arrives_at(&pod, Some(&cgroup), Proxy), "proxy", "{backend}");
        assert_eq!(arrives_at(&pod, None, marked), "proxy", "{backend}");
    }
}

/// A cgroup with the same path is another one: rules have its ID, or, with iptables, the cgroup itself.
#[test]
fn proxy_in_a_cgroup_that_was_made_anew_is_captured_until_the_next_apply_and_check_says_so() {
    for backend in BACKENDS {
        let cgroup = Cgroup::new();
        let pod = Pod::new();
        let options = ["--proxy-cgroup", &cgroup.proxy()];
        let _servers = servers(&pod);
        apply(&pod.netns, backend, &options);
        let check = |code| {
            for arguments in [
                &["check"][..],
                &[&["check", "--backend", backend][..], &options].concat(),
            ] {
                let check = sidetrack(&pod.netns, arguments);
                assert_eq!(check.code, Some(code), "{backend}: {check:?}");
            }
            sidetrack(&pod.netns, &["check"]).stdout
        };
        check(0);
        assert_eq!(arrives_at(&pod, Some(&cgroup), Proxy), "server", "{backend}");
        cgroup.remove();
        check(3);
        cgroup.make();
        let drift = check(3);
        assert!(drift.contains(&cgroup.proxy()), "{backend}: {drift}");
        assert_eq!(arrives_at(&pod, Some(&cgroup), Proxy), "proxy", "{backend}");
        apply(&pod.netns, backend, &options);
        check(0);
        assert_eq!(arrives_at(&pod, Some(&cgroup), Proxy), "server", "{backend}");
    }
}

#[test]
fn cgroup_that_cannot_be_matched_is_refused() {
    let cgroup = Cgroup::new();
    let pod = Pod::new();
    let path = cgroup.proxy();
    for backend in BACKENDS {
        let absent = ["apply", "--backend", backend, "--proxy-cgroup", "no/such.service"];
        sidetrack(&pod.netns, &absent).failed(1, &["no cgroup no/such.service", "0::/"]);
        let arguments = ["apply", "--backend", backend, "--proxy-cgroup", &path];
        let mut contained = pod.netns.command("unshare");
        contained.args(["--cgroup", SIDETRACK]).args(arguments);
        Run::of(&mut contained).failed(1, &["container's cgroup namespace", "--proxy-mark"]);
        let mut unmounted = pod.netns.command("unshare");
        let script = r#"umount -a -t cgroup2; exec "$@""#;
        unmounted
            .args(["--mount", "sh", "-c", script, "sh", SIDETRACK])
            .args(arguments);
        Run::of(&mut unmounted).failed(1, &["no cgroup v2 hierarchy", "mount -t cgroup2"]);
    }
    let at_boot = ["apply", "--persist", "--dry-run", "--proxy-cgroup", &path];
    sidetrack(&pod.netns, &at_boot).failed(2, &["--persist and --proxy-cgroup", "--proxy-mark"]);
    let rules = output_of(pod.netns.command("nft").args(["list", "ruleset"]));
    assert!(!rules.contains("sidetrack"), "{rules}");
}

#[test]
fn explain_follows_installed_rules_by_the_path_of_the_cgroup() {
    for backend in BACKENDS {
        let cgroup = Cgroup::new();
        let pod = Pod::new();
        let path = cgroup.proxy();
        let options = ["--proxy-cgroup", &path];
        apply(&pod.netns, backend, &options);
        let explain = |more: &[&str]| {
            let asked = ["explain", "outbound", "tcp", "192.0.2.1:443", "--uid", "1337"];
            sidetrack(&pod.netns, &[&asked, more].concat()).succeeded().stdout
        };
        for rules in [&options[..], &["--from-kernel"]] {
            let outside = explain(rules);
            assert!(outside.contains("15001"), "{backend}: {outside}");
            let inside = explain(&[rules, &["--cgroup", &path]].concat());
            assert!(inside.contains("is not redirected"), "{backend}: {inside}");
            let named = format!("only packets of cgroup {path}");
            assert!(outside.contains(&named), "{backend}: {outside}");
        }
        let probe = sidetrack(&pod.netns, &["probe"]).succeeded();
        assert!(probe.stdout.contains("impostor"), "{}", probe.stdout);
    }
}
