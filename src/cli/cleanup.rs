//! `sidetrack cleanup`: removes what is ours from a network namespace.

use clap::ArgMatches;

use super::settings::logging_alone;
use super::{arguments, persist};
use crate::backend::Namespace;
use crate::backend::install::{self, Removed};
use crate::linux::netns;

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    logging_alone(matches)?;
    if matches.get_flag("persist") {
        return persist::cleanup(matches);
    }
    match arguments::text_or_variable(matches, "netns") {
        Some(netns) => netns::administer(netns::path(&netns), cleanup)?,
        None => cleanup(),
    }
}

/// Removes what is ours from this network namespace.
///
/// # Errors
/// The system cannot or may not.
pub fn cleanup() -> anyhow::Result<()> {
    let mut namespace = Namespace::claim();
    let observed = namespace.observe()?;
    let removed = install::cleanup(&mut namespace, &observed)?;
    if removed == Removed::default() {
        tracing::info!("there was nothing of sidetrack's here");
        return Ok(());
    }
    for backend in removed.rules {
        tracing::info!(%backend, "the rules were removed");
    }
    for address in removed.addresses {
        tracing::info!(%address, "the address was taken from the loopback interface");
    }
    for what in removed.policy_routing {
        tracing::info!(%what, "the policy routing was removed");
    }
    Ok(())
}
