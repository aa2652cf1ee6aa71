//! Variables of the environment: `NAME=value`, separated by zero bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetrack::options::sources::from_environment;
use sidetrack::types::NoAccounts;
use sidetrack_fuzz::{plan_and_render_parsed, texts};

fuzz_target!(|data: &[u8]| {
    let variables = texts(data).filter_map(|text| {
        let (name, value) = text.split_once('=')?;
        Some((format!("SIDETRACK_{name}"), value.to_owned()))
    });
    plan_and_render_parsed(from_environment(variables, &NoAccounts));
});
