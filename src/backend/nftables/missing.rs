//! Finds the missing kernel module after the kernel refused a step for a type that it does not know.

use libc::{NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET};

use super::attributes::{find, read, text};
use super::encode::{HEADERS_LENGTH, Step};
use super::uapi::*;

/// The modules whose absence may have caused the refusal; only one if the kernel reported the byte offset in the
/// message. Empty if the step needs no separate module.
pub fn modules(step: &Step, offset: Option<u32>) -> Vec<&'static str> {
    let attributes = step.attributes.as_bytes();
    match step.kind {
        NFT_MSG_NEWCHAIN => {
            let is_nat = find(attributes, NFTA_CHAIN_TYPE).map(text).as_deref() == Some("nat");
            if is_nat { vec!["nft_chain_nat"] } else { Vec::new() }
        }
        NFT_MSG_NEWSET => vec!["nf_tables_set"],
        NFT_MSG_NEWRULE => {
            let list = find(attributes, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
            let at = |part: &[u8]| part.as_ptr() as usize - attributes.as_ptr() as usize;
            let offset = offset.and_then(|offset| (offset as usize).checked_sub(HEADERS_LENGTH));
            let expressions = read(list).flatten().filter_map(|(_, expression)| {
                // The offset is that of the expression's header, or of something in it.
                let refused = at(expression) - HEADER_LENGTH..at(expression) + expression.len();
                let reported = offset.is_some_and(|offset| refused.contains(&offset));
                Some((reported, module(&text(find(expression, NFTA_EXPR_NAME)?))?))
            });
            let all: Vec<(bool, &str)> = expressions.collect();
            let any_reported = all.iter().any(|(reported, _)| *reported);
            let mut modules: Vec<&str> = Vec::new();
            for (reported, module) in all {
                if reported == any_reported && !modules.contains(&module) {
                    modules.push(module);
                }
            }
            modules
        }
        _ => Vec::new(),
    }
}

/// Length of an attribute's header in bytes.
const HEADER_LENGTH: usize = 4;

/// The module of an expression that nf_tables itself does not have.
fn module(expression: &str) -> Option<&'static str> {
    Some(match expression {
        "redir" => "nft_redir",
        "socket" => "nft_socket of Linux 5.13 or later",
        "tproxy" => "nft_tproxy",
        "ct" => "nft_ct",
        "counter" => "nft_counter",
        "objref" => "nft_objref",
        "fib" => "nft_fib_inet",
        "reject" => "nft_reject_inet",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::nftables::create;
    use crate::facts::Facts;
    use crate::options::Settings;
    use crate::plan::Plan;
    use crate::types::{DnsServers, InboundMode, Policy};

    fn steps() -> Vec<Step> {
        let mut config = Settings::default().config;
        config.inbound.mode = InboundMode::Tproxy;
        config.dns.redirect = true;
        config.dns.servers = DnsServers::All;
        config.general.drop_invalid = true;
        config.outbound.policy = Policy::ProxyOnly;
        create(&Plan::new(&config, &Facts::default()).unwrap().ruleset)
    }

    #[test]
    fn only_modules_that_a_step_needs_are_named() {
        let steps = steps();
        let of = |object: &str| {
            let step = steps.iter().find(|step| step.object.to_string().contains(object));
            modules(step.unwrap_or_else(|| panic!("no step {object}")), None)
        };
        assert_eq!(of("chain output"), ["nft_chain_nat"]);
        assert_eq!(of("chain raw_output"), Vec::<&str>::new());
        assert_eq!(of("chain outbound"), Vec::<&str>::new());
        assert_eq!(of("set mesh_ports"), ["nf_tables_set"]);
        assert_eq!(of("rule 'outbound, to the proxy'"), ["nft_redir"]);
        assert_eq!(of("rule 'inbound, to the proxy's transparent socket'"), ["nft_tproxy"]);
        assert_eq!(of("rule 'an application's DNS query'"), ["nft_ct"]);
        assert_eq!(of("rule 'loopback'"), Vec::<&str>::new());
        assert_eq!(of("rule 'outbound policy'"), ["nft_fib_inet", "nft_reject_inet"]);
        assert_eq!(of("rule 'within the pod, and to the proxy'"), ["nft_fib_inet"]);
    }

    #[test]
    fn error_offset_selects_the_missing_module() {
        let steps = steps();
        for step in &steps {
            let attributes = step.attributes.as_bytes();
            let all = modules(step, None);
            for offset in 0..attributes.len() + HEADERS_LENGTH + 8 {
                let some = modules(step, Some(offset as u32));
                assert!(some.iter().all(|module| all.contains(module)));
                let place = attributes
                    .get(offset.saturating_sub(HEADERS_LENGTH)..)
                    .unwrap_or_default();
                if step.kind == NFT_MSG_NEWRULE && place.starts_with(b"redir\0") {
                    assert_eq!(some, ["nft_redir"]);
                }
            }
        }
    }
}
