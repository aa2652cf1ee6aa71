//! Flags: alternating names and values, separated by zero bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetrack::options::sources::from_flags;
use sidetrack::types::NoAccounts;
use sidetrack_fuzz::{plan_and_render_parsed, texts};

fuzz_target!(|data: &[u8]| {
    let given: Vec<String> = texts(data).collect();
    let values = |name: &str| -> Option<Vec<String>> {
        let of_it = given.chunks_exact(2).filter(|pair| pair[0] == name);
        let values: Vec<String> = of_it.map(|pair| pair[1].clone()).collect();
        (!values.is_empty()).then_some(values)
    };
    plan_and_render_parsed(from_flags(|option| values(option.name), &NoAccounts));
});
