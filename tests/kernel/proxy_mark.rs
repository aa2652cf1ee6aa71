//! `--proxy-mark`: only marked sockets are the proxy's. With a real Envoy that marks its upstream connections.

use sidetrack::types::{Family, InboundMode};

use crate::common::Caller::{App, Proxy, Sender};
use crate::common::Transport::{Tcp, Udp};
use crate::common::sidecar::{APP_CALLS_PEER, PEER_CALLS_APP, journey};
use crate::common::{Address, Journey, Owner, Pod, Route, Sidecar, To};
use crate::dns::Way::{Direct, Forwarder};
use crate::dns::{Lab, lookup};
use crate::program::{BACKENDS, apply, sidetrack};

const MARKED: Owner = Owner::PROXY.marked(77);
const MARK: &[&str] = &["--proxy-mark", "77"];

/// With a proxy of this owner.
fn journeys(proxy: Owner) -> [Journey; 5] {
    let unmarked = proxy.marked(0);
    let to_peer = To::Peer(9090);
    [
        PEER_CALLS_APP,
        APP_CALLS_PEER,
        journey("the proxy", Tcp, Sender(proxy), to_peer, Route::Direct),
        journey(
            "its user without the mark",
            Tcp,
            Sender(unmarked),
            to_peer,
            Route::Outbound,
        ),
        journey(
            "its user with another mark",
            Tcp,
            Sender(proxy.marked(78)),
            to_peer,
            Route::Outbound,
        ),
    ]
}

#[test]
fn only_marked_sockets_of_its_user_bypass_a_marking_envoy() {
    for backend in BACKENDS {
        let pod = Pod::new();
        apply(&pod.netns, backend, MARK);
        Sidecar::start_as(MARKED, InboundMode::Redirect, pod).travel_all(&journeys(MARKED));
    }
}

#[test]
fn only_marked_sockets_bypass_a_marking_envoy_of_any_user() {
    let owner = Owner::new(4321, 4321).marked(77);
    let pod = Pod::new();
    apply(
        &pod.netns,
        "nftables",
        &[MARK, &["--proxy-uid", "", "--proxy-gid", ""]].concat(),
    );
    Sidecar::start_as(owner, InboundMode::Redirect, pod).travel_all(&journeys(owner));
}

/// Its connections to the application have the mark of TPROXY, and those to other hosts its own.
#[test]
fn only_marked_sockets_of_its_user_bypass_a_transparent_envoy() {
    let owner = Owner::PROXY_AS_ROOT.marked(77);
    for backend in BACKENDS {
        let pod = Pod::new();
        apply(
            &pod.netns,
            backend,
            &[MARK, &["--inbound-mode", "tproxy", "--proxy-uid", "0"]].concat(),
        );
        Sidecar::start_as(owner, InboundMode::Tproxy, pod).travel_all(&journeys(owner));
    }
}

/// The forwarder answers from a socket without the mark, as Envoy does whose upstream connections alone are marked.
#[test]
fn only_marked_lookups_bypass_the_proxy_and_unmarked_answers_arrive() {
    for backend in BACKENDS {
        let lab = Lab::with_proxy(MARKED);
        for options in [&[][..], &["--proxy-uid", "", "--proxy-gid", ""]] {
            let dns = ["--redirect-dns", "--dns-servers", "all"];
            apply(&lab.pod.netns, backend, &[MARK, &dns, options].concat());
            let lookups = [Udp, Tcp].map(|transport| {
                [
                    lookup("an application", transport, App, Address::PEER, Forwarder),
                    lookup("the proxy's user", transport, Proxy, Address::PEER, Forwarder),
                    lookup("the proxy", transport, Sender(MARKED), Address::PEER, Direct),
                ]
            });
            lab.look_all_up(&Family::BOTH, lookups.as_flattened());
        }
    }
}

#[test]
fn probe_finds_rules_that_do_not_require_the_mark() {
    for backend in BACKENDS {
        let pod = Pod::new();
        apply(&pod.netns, backend, MARK);
        sidetrack(&pod.netns, &["probe"]).succeeded();
        apply(&pod.netns, backend, &[]);
        let probe = sidetrack(&pod.netns, &[&["probe"], MARK].concat());
        assert_eq!(probe.code, Some(3), "{probe:?}");
        let failed: Vec<&str> = probe.stdout.lines().filter(|line| line.starts_with("failed")).collect();
        assert!(
            failed.len() == 2 && failed.iter().all(|line| line.contains("impostor")),
            "{failed:#?}"
        );
    }
}
