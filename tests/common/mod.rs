//! The test network: a pod and its neighbours in network namespaces, and connections whose way is observed.
//!
//! Everything needs root. Nothing is left behind, however the process ends: the namespaces have no names, and the
//! processes in them die with their parent.

pub mod call;
pub mod cgroup;
pub mod conversation;
pub mod dns;
pub mod envoy;
pub mod files;
pub mod http;
pub mod linkerd;
mod netns;
mod owner;
mod pod;
pub mod segment;
mod server;
pub mod service;
pub mod sidecar;
pub mod socket;

pub use call::{Call, Caller, To, Transport, call, call_from};
pub use cgroup::Cgroup;
pub use envoy::Envoy;
pub use files::{copy_program, with_file, write_program};
pub use linkerd::LinkerdProxy;
pub use netns::{Netns, inside, output_of};
pub use owner::Owner;
pub use pod::{Address, Pod};
pub use server::{Arrival, Server};
pub use sidecar::{JOURNEYS, Journey, Route, Sidecar};
