//! Access to Linux: netlink, network namespaces, capabilities, sockets, files. The only module with
//! `unsafe` code, and the lowest layer with side effects: nothing here knows of rules or pods.

pub mod accounts;
pub mod cgroup;
pub mod conntrack;
pub mod credentials;
pub mod files;
pub mod interfaces;
pub mod lock;
pub mod marks;
pub mod netlink;
pub mod netns;
pub mod privilege;
pub mod proc;
pub mod processes;
pub mod release;
pub mod resolvers;
pub mod route;
pub mod signals;
pub mod sock_diag;
pub mod socket_options;
pub mod sysctl;
pub mod tcp;
pub mod unix_messages;
