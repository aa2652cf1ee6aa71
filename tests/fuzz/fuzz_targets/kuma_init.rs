//! Flags of kuma-init, as `name=value`, variables, as `NAME:value`, and files, anything else, separated by zero bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetrack::mesh::kuma::front_end;
use sidetrack::types::NoAccounts;
use sidetrack_fuzz::{plan_and_render, texts};

fuzz_target!(|data: &[u8]| {
    let given: Vec<String> = texts(data).collect();
    let find = |separator: char, name: &str| {
        let pairs = given.iter().filter_map(|text| text.split_once(separator));
        let values: Vec<String> = pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .collect();
        (!values.is_empty()).then_some(values)
    };
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphabetic() || b"-_".contains(&byte));
    let is_file = |text: &&String| !text.split_once([':', '=']).is_some_and(|(name, _)| is_name(name) && !text.contains('\n'));
    let files: Vec<_> = given.iter().filter(is_file).map(|text| ("file".to_owned(), text.clone())).collect();
    let flag = |setting: &front_end::table::Setting| find('=', setting.name);
    let parsed = front_end::read(flag, &files, |name| find(':', name)?.pop(), &NoAccounts);
    match parsed.settings {
        Ok(settings) => plan_and_render(&settings.config),
        Err(mistakes) => assert!(!mistakes.is_empty()),
    }
});
