//! What is known of service meshes.

pub mod annotations;
pub mod istio;
pub mod policy;
