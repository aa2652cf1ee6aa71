//! A record in the comments of rules: a comment a line, or words with the right digest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetrack::plan::record::{VERSION, digest};
use sidetrack::ruleset::Record;
use sidetrack_fuzz::read_record_of_any_origin;

fuzz_target!(|text: &str| {
    read_record_of_any_origin(&Record::new(text.lines().map(str::to_owned)));
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let head = format!("sidetrack {VERSION} {:016x}:", digest(words.iter().copied()));
    let comments = [head].into_iter().chain(words.iter().map(|word| (*word).to_owned()));
    read_record_of_any_origin(&Record::new(comments));
});
