//! Flags of istio-iptables, as `name=value`, and variables, as `NAME:value`, separated by zero bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetrack::mesh::istio::front_end;
use sidetrack::types::NoAccounts;
use sidetrack_fuzz::{plan_and_render, texts};

fuzz_target!(|data: &[u8]| {
    let given: Vec<String> = texts(data).collect();
    let find = |separator: char, name: &str| {
        let pairs = given.iter().filter_map(|text| text.split_once(separator));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .next()
    };
    let parsed = front_end::read(|setting| find('=', setting.name), |name| find(':', name), &NoAccounts);
    match parsed.request {
        Ok(request) => plan_and_render(&request.settings.config),
        Err(mistakes) => assert!(!mistakes.is_empty()),
    }
});
