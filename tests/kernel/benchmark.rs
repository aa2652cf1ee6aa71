//! The commands that the benchmark compares install the rules that it claims.

use std::process::Command;

use crate::SIDETRACK;
use crate::common::output_of;

#[test]
fn each_benchmark_sequence_installs_its_rules() {
    let arguments = ["tests/bench", SIDETRACK, "--check"];
    let printed = output_of(Command::new("python3").args(arguments));
    assert_eq!(printed, "all that is compared installs its rules\n");
}
