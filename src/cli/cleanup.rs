//! `sidetrack cleanup`: removes what is ours from a network namespace.

use clap::ArgMatches;

use super::arguments;
use super::settings::logging_alone;
use crate::kernel::install::{self, Removed};
use crate::kernel::{KernelError, Namespace, netns};

/// Runs the command.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    logging_alone(matches)?;
    let removed = match arguments::text_or_variable(matches, "netns") {
        Some(netns) => netns::within(netns::path(&netns), cleanup)??,
        None => cleanup()?,
    };
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
    Ok(())
}

fn cleanup() -> Result<Removed, KernelError> {
    let mut namespace = Namespace::default();
    let observed = namespace.observe()?;
    install::cleanup(&mut namespace, &observed)
}
