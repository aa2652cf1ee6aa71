//! What a hostile application sends. Each attack sends one packet or a few, and returns what the kernel told it.

pub mod admin;
pub mod earlier;
pub mod plain;
pub mod processes;
pub mod raw;
pub mod uring;
