//! Pure renderers of a plan.

pub mod iptables;
