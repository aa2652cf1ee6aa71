//! Traces live packets by nf_tables' own tracing: a table of rules that mark the first packet of each connection, and the
//! messages that the kernel then sends to the multicast group `NFNLGRP_NFTRACE`.

mod decode;
mod encode;
mod rules;
mod session;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use session::{Ended, LiveError, Marked, Session};
