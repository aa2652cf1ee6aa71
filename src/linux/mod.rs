//! What the kernel is asked for.

pub mod accounts;
pub mod files;
pub mod interfaces;
pub mod lock;
pub mod netlink;
pub mod netns;
pub mod privilege;
pub mod resolvers;
pub mod route;
