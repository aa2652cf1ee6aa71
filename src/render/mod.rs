//! Pure renderers of a plan.

pub mod iptables;
pub mod json;
pub mod netlink;
pub mod nft;

use crate::plan::{LOOPBACK_ADDRESS_METRIC, Plan};

/// The commands that a person would put the plan's loopback addresses in place with (ip-address(8)).
fn address_commands(plan: &Plan) -> impl Iterator<Item = String> {
    plan.loopback_addresses
        .iter()
        .map(|address| format!("ip address add {address}/128 dev lo metric {LOOPBACK_ADDRESS_METRIC}"))
}
