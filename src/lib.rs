//! sidetrack redirects a pod's TCP traffic to its sidecar proxy.
//!
//! Data flows in one direction:
//!
//! ```text
//!  flags ─┐                                        ┌─ nft script ─────────── dry run
//!  env ───┼─ Layer ─ merge ─ Config ─┐             ├─ iptables-restore text ─ dry run, iptables backend
//!  file ──┘          (validated)     ├─ Plan ──────┼─ JSON ───────────────── machines
//!                          Facts ────┘ (pure)      ├─ netlink messages ───── kernel, one transaction
//!                 (observed, plain data)           └─ simulate ───────────── explain
//! ```
//!
//! Pure modules, from the bottom up: [`types`] has values that are always valid; [`options`] reads and validates the
//! configuration; [`mesh`] describes the service meshes, and reads their annotations and the flags of their programs; [`plan`]
//! turns a configuration into a [`ruleset`]; [`render`] writes it as text, JSON and graphs; [`drift`] compares it with the
//! installed rules; [`simulate`] follows packets through it; [`stats`] reads its counters; [`trace`] reads what the kernel
//! reports of live ones; [`lint`] checks manifests.
//!
//! Modules with effects: [`linux`] has netlink, namespaces, capabilities and files; [`backend`] reads and writes rules by
//! nftables or iptables; [`probe`] validates a redirection with connections. [`cli`] is the command line, [`cni`] the plugin
//! that container runtimes call, [`node`] its installer, and [`host`] persists a redirection on a host with systemd.

pub mod backend;
pub mod cli;
pub mod cni;
pub mod drift;
pub mod facts;
pub mod host;
pub mod lint;
pub mod linux;
pub mod mesh;
pub mod node;
pub mod options;
pub mod plan;
pub mod probe;
pub mod render;
pub mod ruleset;
pub mod simulate;
pub mod stats;
pub mod trace;
pub mod types;
pub mod yaml;
