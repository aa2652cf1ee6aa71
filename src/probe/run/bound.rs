//! A TCP connection of a socket that is bound to an interface, and that must not leave by it.
//!
//! The reset of a rule comes over loopback, so it does not reach the socket. But the kernel enters a connection in conntrack
//! once its first packet has passed all rules, before `connect` returns. The proxy's connection by the same interface, made
//! after it, shows that connections are entered.

use nix::errno::Errno;

use super::attempt::{Client, tracked::unreadable};
use super::start::{NotStarted, Started};
use crate::linux::conntrack;
use crate::probe::{Caller, Finding, Original, Outcome, Owner, Probe};

/// The outcome of a probe. `connect` makes the connection of one.
///
/// # Errors
/// It could not be made.
pub fn outcome(
    probe: &Probe,
    proxy: Owner,
    connect: impl Fn(&Probe) -> Result<Started, NotStarted>,
) -> Result<Outcome, NotStarted> {
    let valid = Probe {
        caller: Caller::Process(proxy),
        ..probe.clone()
    };
    let (tested, valid) = (connect(probe)?, connect(&valid)?);
    let is_open = matches!(&tested.client, Client::Tcp(stream) if stream.peer_addr().is_ok());
    Ok(match (entry(probe, &tested)?, entry(probe, &valid)?) {
        (Some(entry), _) if is_open => Outcome::Found(Finding::Redirected {
            at: entry.answers_from,
            original: Original::NotAsked,
        }),
        (Some(_), _) => Outcome::Found(Finding::LeftByInterface),
        (None, Some(_)) => Outcome::Found(Finding::Dropped),
        (None, None) => Outcome::NotMade(
            "nothing shows whether it leaves: the proxy's own connection by this interface is not in conntrack either. \
             Look for foreign rules: `nft list ruleset`, `iptables-save`, `ip6tables-save`"
                .to_owned(),
        ),
    })
}

fn entry(probe: &Probe, started: &Started) -> Result<Option<conntrack::Entry>, NotStarted> {
    let Some(local) = started.local else {
        return Ok(None);
    };
    conntrack::entry(local, probe.destination).map_err(|error| match error.errno() {
        Some(Errno::EPERM) => unreadable(&error).into(),
        _ => NotStarted::LeftOut(format!(
            "TCP of sockets bound to interfaces is not probed: this kernel does not show entries of conntrack ({error})"
        )),
    })
}
