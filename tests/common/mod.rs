//! The laboratory: a pod and its surroundings in network namespaces, and connections whose course can be told.
//!
//! Everything needs root. Nothing is left behind, however the process ends: the namespaces have no names, and the
//! processes in them die with their parent.

mod call;
mod conversation;
mod envoy;
mod http;
mod netns;
mod owner;
mod pod;
mod segment;
mod server;
mod service;
mod sidecar;
mod socket;

pub use call::{Call, Caller, To, Transport, call, call_from};
pub use conversation::{Conversation, Echo};
pub use envoy::Envoy;
pub use netns::{Netns, output_of};
pub use owner::Owner;
pub use pod::{Address, Pod};
pub use segment::{Segment, sequence_numbers};
pub use server::{Arrival, Server};
pub use sidecar::{JOURNEYS, Journey, Route, Sidecar, journey};
