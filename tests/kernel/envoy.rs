//! End to end: a pod with a real Envoy, and the rules that sidetrack wrote.

use sidetrack::types::Family;

use crate::SIDETRACK;
use crate::common::{JOURNEYS, Journey, Pod, Route, Sidecar, output_of};

/// The journeys that take another way than they should, with what was wrong.
fn strays(sidecar: &Sidecar) -> Vec<(Family, &'static Journey, String)> {
    let journeys = Family::BOTH
        .into_iter()
        .flat_map(|family| JOURNEYS.iter().map(move |journey| (family, journey)));
    journeys
        .filter_map(|(family, journey)| Some((family, journey, sidecar.travel(journey, family).err()?)))
        .collect()
}

fn every_journey_takes_its_way(options: &[&str]) {
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
    every_journey_takes_its_way(&[]);
}

#[test]
fn traffic_passes_envoy_with_nftables() {
    every_journey_takes_its_way(&["--backend", "nftables"]);
}

#[test]
fn traffic_passes_envoy_with_iptables_nft() {
    every_journey_takes_its_way(&["--backend", "iptables-nft"]);
}

#[test]
fn traffic_passes_envoy_with_iptables_legacy() {
    every_journey_takes_its_way(&["--backend", "iptables-legacy"]);
}

/// A journey through Envoy could not succeed by accident.
#[test]
fn without_rules_the_journeys_through_envoy_fail_and_no_others() {
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
