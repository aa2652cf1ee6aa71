//! `istio-iptables` accepts the command lines of the oracle's cases.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use sidetrack::mesh::istio::front_end::table::{SETTINGS, Setting};
use sidetrack::mesh::istio::front_end::{self, Parsed};
use sidetrack::options::{Dialect, OwnerOrder};
use sidetrack::types::{Accounts, AccountsError, InboundMode};

/// A case of the oracle: its call of `istio-iptables`, and the expected verdicts.
#[derive(Deserialize)]
struct Case {
    name: String,
    flags: Vec<String>,
    env: BTreeMap<String, String>,
    tproxy: Option<Routing>,
    proxy: (u32, u32),
}

#[derive(Deserialize)]
struct Routing {
    mark: u32,
    table: u32,
}

/// The accounts of the oracle's pod.
struct OraclePod;

impl Accounts for OraclePod {
    fn uid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        Ok((name == "envoy").then_some(1500))
    }

    fn gid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        Ok([("java", 2201), ("ftp", 2202)]
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, gid)| *gid))
    }

    fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
        Ok(false)
    }
}

/// Reads a command line of pairs and of long switches.
fn read(case: &Case) -> Parsed {
    let mut flags: BTreeMap<&str, &str> = BTreeMap::new();
    let mut words = case.flags.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let named = |setting: &&Setting| {
            word.strip_prefix("--") == Some(setting.name)
                || setting.short.is_some_and(|short| word == format!("-{short}"))
        };
        let setting = SETTINGS
            .iter()
            .find(named)
            .unwrap_or_else(|| panic!("{}: {word}", case.name));
        let text = setting.value_name().map_or("true", |_| words.next().expect("a value"));
        flags.insert(setting.name, text);
    }
    let flag = |setting: &Setting| flags.get(setting.name).map(|text| (*text).to_owned());
    front_end::read(flag, |name| case.env.get(name).cloned(), &OraclePod)
}

#[test]
fn istio_iptables_accepts_each_case_of_the_oracle() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/cases");
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut count = 0;
    for file in files {
        let path = file.expect("a file").path();
        let text = fs::read_to_string(&path).expect("text");
        let case: Case = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let request = read(&case)
            .request
            .unwrap_or_else(|mistakes| panic!("{}: {mistakes:?}", case.name));
        let config = request.settings.config;
        let Dialect::Istio(OwnerOrder { uids, gids }) = &config.dialect else {
            panic!("{}: {:?}", case.name, config.dialect);
        };
        assert_eq!(uids[0].to_string(), case.proxy.0.to_string(), "{}", case.name);
        assert_eq!(gids[0].to_string(), case.proxy.1.to_string(), "{}", case.name);
        let inbound = &config.inbound;
        let tproxy = inbound.mode == InboundMode::Tproxy && !inbound.include_ports.is_empty();
        assert_eq!(tproxy, case.tproxy.is_some(), "{}", case.name);
        if let Some(routing) = case.tproxy {
            assert_eq!(inbound.tproxy_mark.get(), routing.mark);
            assert_eq!(inbound.tproxy_route_table.get(), routing.table);
        }
        count += 1;
    }
    assert!(count >= 30, "{count} cases");
}
