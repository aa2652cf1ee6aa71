//! The command line: a file for each command, what they share in `args.rs`, the tree of commands in `command.rs`.

mod apply;
mod args;
mod bound;
mod check;
mod cleanup;
mod command;
mod completions;
mod expectation;
mod explain;
mod failure;
mod front_end;
mod graph;
mod help;
mod invocation;
mod istio_iptables;
mod kuma_init;
mod linkerd_proxy_init;
mod lint;
mod logging;
mod name_servers;
mod node;
mod output;
mod persist;
mod place;
mod probe;
mod redirection;
mod settings;
mod stats;
mod trace;
mod without_policy;

pub use self::command::{command, run};
