//! The command lines of other tools, in our own terms. Pure: texts in, [`crate::config`] out.

pub mod istio;
