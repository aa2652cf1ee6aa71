//! `sidetrack explain`: what it says, and that it is true.

mod against_kernel;
mod command;
mod packets;
