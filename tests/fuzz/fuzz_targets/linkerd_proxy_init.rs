//! Flags of Linkerd's proxy-init, as `name=value`, separated by zero bytes; a name may be repeated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetrack::mesh::linkerd::front_end;
use sidetrack_fuzz::{plan_and_render, texts};

fuzz_target!(|data: &[u8]| {
    let given: Vec<String> = texts(data).collect();
    let parsed = front_end::read(|setting| {
        let pairs = given.iter().filter_map(|text| text.split_once('='));
        let of_setting = pairs.filter(|(name, _)| *name == setting.name);
        of_setting.map(|(_, value)| value.to_owned()).collect()
    });
    match parsed.request {
        Ok(request) => plan_and_render(&request.settings.config),
        Err(mistakes) => assert!(!mistakes.is_empty()),
    }
});
