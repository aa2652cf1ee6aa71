//! End to end: a pod with a real Envoy, and the rules that sidetrack wrote.

use sidetrack::types::Family;

use crate::SIDETRACK;
use crate::common::{JOURNEYS, Journey, Pod, Route, Sidecar, output_of};

/// The calls that took an unexpected way, with the reason.
fn strays(sidecar: &Sidecar) -> Vec<(Family, &'static Journey, String)> {
    let journeys = Family::BOTH
        .into_iter()
        .flat_map(|family| JOURNEYS.iter().map(move |journey| (family, journey)));
    journeys
        .filter_map(|(family, journey)| Some((family, journey, sidecar.travel(journey, family).err()?)))
        .collect()
}

fn tproxy_traffic_passes_envoy(options: &[&str]) {
    let pod = Pod::new();
    output_of(pod.netns.command(SIDETRACK).arg("apply").args(options));
    let strays = strays(&Sidecar::start(pod));
    let lines: Vec<_> = strays
        .iter()
        .map(|(family, journey, error)| format!("{family}: {} ({:?}): {error}", journey.what, journey.route))
        .collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn traffic_passes_envoy_without_any_option() {
    tproxy_traffic_passes_envoy(&[]);
}

#[test]
fn traffic_passes_envoy_with_nftables() {
    tproxy_traffic_passes_envoy(&["--backend", "nftables"]);
}

#[test]
fn traffic_passes_envoy_with_iptables_nft() {
    tproxy_traffic_passes_envoy(&["--backend", "iptables-nft"]);
}

#[test]
fn traffic_passes_envoy_with_iptables_legacy() {
    tproxy_traffic_passes_envoy(&["--backend", "iptables-legacy"]);
}

/// A call through Envoy cannot succeed without rules.
#[test]
fn without_rules_only_the_calls_through_envoy_fail() {
    let sidecar = Sidecar::start(Pod::new());
    let reaches_envoy = |route| {
        matches!(
            route,
            Route::Inbound | Route::Outbound | Route::Dropped { outbound: 1, .. }
        )
    };
    let expected = 2 * JOURNEYS.iter().filter(|journey| reaches_envoy(journey.route)).count();
    let strays = strays(&sidecar);
    assert!(
        strays.iter().all(|(_, journey, _)| reaches_envoy(journey.route)),
        "{strays:#?}"
    );
    assert_eq!(strays.len(), expected);
}
