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
//! Pure, from the bottom up: [`types`] are values that cannot be wrong; [`options`] reads and validates what is to be
//! redirected, [`mesh`] knows what each service mesh does and takes other tools' flags and annotations; [`plan`] decides,
//! [`ruleset`] is what was decided; [`render`] writes it for people and machines, [`drift`] compares it with what is
//! installed, [`simulate`] follows packets through it, [`lint`] reads manifests.
//!
//! With effects: [`linux`] is netlink, namespaces, capabilities and files; [`backend`] reads and writes rules by nftables
//! or iptables; [`probe`] makes connections that prove them. [`cli`] is the command line, [`cni`] the plugin that container
//! runtimes call, [`node`] its installer, [`host`] what makes a redirection last on a host with systemd.

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
