//! `sidetrack explain`: what it says, and that it is true.

mod lab;
mod oracle;
mod truth;
