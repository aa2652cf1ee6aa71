//! Faults and kills at any point: the pod has the complete old plan or the complete new one, and a rerun repairs
//! the rest.

pub mod injection;
mod programs;
pub mod snapshot;
mod system_calls;
