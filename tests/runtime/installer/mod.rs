//! The node installer: real processes, real files in a directory of their own, real events.

mod attached;
pub mod choice;
mod connections;
mod crash;
pub mod fixture;
mod init_containers;
mod install;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod leaving;
mod missed;
mod name_servers;
mod own;
mod pods;
mod refusal;
mod repair;
mod reports;
mod service;
#[cfg(feature = "kubernetes")]
mod startup_taint;
mod warm_up;
mod watch;
