//! A configuration file, JSON or YAML.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sidetrack::options::sources::from_file;
use sidetrack::types::NoAccounts;
use sidetrack_fuzz::plan_and_render_parsed;

fuzz_target!(|text: &str| {
    plan_and_render_parsed(from_file(Path::new("sidetrack.yaml"), text, &NoAccounts));
});
