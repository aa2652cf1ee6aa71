//! Whatever fails, and wherever a run is killed: the pod has the old plan or the new one, whole, and a rerun repairs
//! the rest.

pub mod injection;
mod programs;
pub mod snapshot;
mod system_calls;
