//! `iptables-restore` text.
