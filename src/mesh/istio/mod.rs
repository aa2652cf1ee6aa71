//! Istio.

pub mod front_end;
