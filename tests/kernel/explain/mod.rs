//! `sidetrack explain`: its output, and that the kernel agrees with it.

mod against_kernel;
mod command;
mod foreign;
mod foreign_rules;
mod martians;
mod options;
mod other_protocols;
mod packets;
mod random_foreign;
