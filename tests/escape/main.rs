//! A hostile application in a pod, and the frames of it that leave the pod, counted outside. Needs root.
//!
//! Each attack runs under each way to lock the application in: see `table.rs` for both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should say so and stop"
)]

// Shared with other targets, each of which uses a part of it.
#[expect(dead_code, reason = "other targets use the rest")]
#[path = "../common/cni.rs"]
mod cni;
#[expect(dead_code, unused_imports, reason = "other targets use the rest")]
#[path = "../common/mod.rs"]
mod common;
#[expect(dead_code, reason = "other targets use the rest")]
#[path = "../common/generated.rs"]
mod generated;
#[path = "../common/plans.rs"]
mod plans;
#[expect(dead_code, reason = "other targets use the rest")]
#[path = "../common/program.rs"]
mod program;

mod attacks;
mod behind;
mod column;
mod flood;
mod frame;
mod lab;
mod matrix;
mod packet;
mod recipes;
mod sys;
mod table;
mod willing;
mod wire;

use matrix::set_user_id_shell;

/// The program under test.
const SIDETRACK: &str = env!("CARGO_BIN_EXE_sidetrack");
