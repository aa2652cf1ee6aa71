//! A saved dry run in JSON, as `explain --plan` reads it. Writing and reading it again changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetrack::render::json;

fuzz_target!(|text: &str| {
    if let Ok(plan) = json::read(text) {
        let written = json::document(&plan);
        let again = json::read(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
        assert_eq!(json::document(&again), written);
    }
});
