//! sidetrack makes a pod's TCP traffic pass through its sidecar proxy.
//!
//! One direction of flow:
//!
//! ```text
//!  flags ─┐                                        ┌─ nft script ─────────── dry run
//!  env ───┼─ Layer ─ merge ─ Config ─┐             ├─ iptables-restore text ─ dry run, iptables backend
//!  file ──┘          (validated)     ├─ Plan ──────┼─ JSON ───────────────── machines
//!                          Facts ────┘ (pure)      ├─ netlink messages ───── kernel, one transaction
//!                 (observed, plain data)           └─ simulate ───────────── explain
//! ```
//!
//! [`config`] reads and validates options, [`compat`] those of other tools, [`plan`] decides, [`ruleset`] is what was
//! decided, [`render`] writes it down in the languages of nft, iptables, JSON and netlink. All of them are pure.
//! [`drift`] says how what is installed differs from a plan, [`simulate`] follows packets through it, [`probe`] says
//! which connections prove that it is in force. [`kernel`] alone has effects; [`cli`] is the command line, [`cni`] the
//! plugin that container runtimes call, [`node`] what puts it on a node,
//! [`host`] what makes it last on a host with systemd.

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
pub mod types;
pub mod yaml;
