//! `sidetrack explain`: what it says, and that it is true.

mod command;
mod documentation;
mod lab;
mod oracle;
mod saved;
mod truth;
