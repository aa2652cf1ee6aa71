//! Flags and variables, read into settings.

mod errors;
mod precedence;
mod settings;

use super::*;
use crate::options::{Config, Dialect};
use crate::types::{
    AccountsError, Backend, DnsServers, Id, InboundMode, InterfaceName, IpFamily, LogFormat, LogLevel, Mark, Output,
    Ports, RouteTable, parse_cidrs, parse_ports,
};

/// The accounts of an ordinary image.
struct Image;

impl Accounts for Image {
    fn uid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        Ok((name == "envoy").then_some(1500))
    }

    fn gid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        Ok((name == "java").then_some(2201))
    }

    fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
        Ok(false)
    }
}

/// Reads flags, by their long names, and variables.
fn parsed_in(accounts: &dyn Accounts, flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Parsed {
    let find = |pairs: &[(&str, &str)], name: &str| {
        let pair = pairs.iter().find(|(key, _)| *key == name);
        pair.map(|(_, text)| (*text).to_owned())
    };
    for (name, _) in flags {
        assert!(
            SETTINGS
                .iter()
                .any(|setting| setting.name == *name && setting.has_flag()),
            "no flag {name}"
        );
    }
    read(
        |setting| find(flags, setting.name),
        |name| find(variables, name),
        accounts,
    )
}

fn parsed(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Parsed {
    parsed_in(&Image, flags, variables)
}

fn request(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Request {
    parsed(flags, variables).request.unwrap()
}

fn config(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Config {
    request(flags, variables).settings.config
}

fn mistakes(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Vec<String> {
    let mistakes = parsed(flags, variables).request.unwrap_err();
    mistakes.iter().map(ToString::to_string).collect()
}

fn uids(config: &Config) -> Vec<u32> {
    let Dialect::Istio(order) = &config.dialect else {
        panic!("{:?}", config.dialect);
    };
    assert_eq!(config.proxy.uids, order.uids.iter().copied().collect());
    assert_eq!(config.proxy.gids, order.gids.iter().copied().collect());
    order.uids.iter().map(|uid| uid.get()).collect()
}

fn gids(config: &Config) -> Vec<u32> {
    let Dialect::Istio(order) = &config.dialect else {
        panic!("{:?}", config.dialect);
    };
    order.gids.iter().map(|gid| gid.get()).collect()
}

fn interfaces(names: &[&str]) -> Vec<InterfaceName> {
    names.iter().map(|name| InterfaceName::parse(name).unwrap()).collect()
}

fn ports(text: &str) -> Ports {
    parse_ports(text).unwrap()
}
