//! The node installer: real processes, real files in a directory of their own, real events.

mod crash;
mod docs;
mod install;
#[cfg(feature = "kubernetes")]
mod kubernetes;
pub mod machine;
mod refusal;
mod repair;
mod reports;
mod service;
mod watch;
