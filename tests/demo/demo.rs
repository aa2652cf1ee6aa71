//! A pod with a real Envoy as its sidecar proxy, shown at work. `scripts/demo` runs it.
//!
//! Takes the path of the sidetrack binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a demonstration that cannot go on should say so and stop"
)]
#![allow(clippy::print_stdout, reason = "it is there to be read")]

#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
#[path = "../common/mod.rs"]
mod common;

use std::env;
use std::process::ExitCode;
use std::time::Instant;

use sidetrack::types::Family;

use common::{Address, JOURNEYS, Journey, Pod, Route, Sidecar, output_of};

fn main() -> ExitCode {
    let sidetrack = env::args_os().nth(1).expect("usage: demo SIDETRACK-BINARY");
    let pod = Pod::new();
    let netns = pod.netns.clone();

    let start = Instant::now();
    output_of(netns.command(sidetrack).arg("apply"));
    let applied = start.elapsed();
    let sidecar = Sidecar::start(pod);

    let [v4, v6] = Family::BOTH.map(|family| Address::POD.of(family));
    println!(
        "A pod ({v4}, {v6}) with Envoy and an app; `sidetrack apply` took {} ms.\n",
        applied.as_millis()
    );
    println!("{:37}{:19}{:30}IPv6", "", "should go", "IPv4");
    let mut all_as_they_should = true;
    for journey in JOURNEYS {
        let [v4, v6] = Family::BOTH.map(|family| sidecar.travel(journey, family));
        all_as_they_should &= v4.is_ok() && v6.is_ok();
        println!("{:37}{:19}{:30}{}", journey.what, way(journey), shown(v4), shown(v6));
    }

    println!("\nThe rules, as nft lists them in the pod:\n");
    print!("{}", output_of(netns.command("nft").args(["list", "ruleset"])));
    if all_as_they_should {
        println!("\nEverything went the way it should.");
        ExitCode::SUCCESS
    } else {
        println!("\nNot everything went the way it should: see the lines that say WRONG.");
        ExitCode::FAILURE
    }
}

fn way(journey: &Journey) -> &'static str {
    match journey.route {
        Route::Direct => "past Envoy",
        Route::Inbound => "in through Envoy",
        Route::Outbound => "out through Envoy",
        Route::Dropped { .. } => "no further",
    }
}

fn shown(result: Result<String, String>) -> String {
    match result {
        Ok(seen) => format!("ok, {seen}"),
        Err(error) => format!("WRONG: {error}"),
    }
}
