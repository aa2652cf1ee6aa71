//! Foreign tables: their chains, and the base chains that come before sidetrack's.

use nix::errno::Errno;

use super::blocked::{self, Arrival};
use super::transaction::{Nftables, NftablesError, malformed, retry_interrupted};
use super::{Listing, Message, encode, request};
use crate::drift::{BaseChain, Place};
use crate::facts::InstalledChain;
use crate::ruleset::TABLE;
use crate::types::Family;

/// A table that has an input chain with policy drop: its family and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed(u8, String);

impl Nftables {
    /// The base chains of other tables that come before `ours`, and their rules that can catch a packet.
    ///
    /// # Errors
    /// Reading failed.
    pub fn in_front(&mut self, ours: &[Place]) -> Result<Vec<BaseChain>, NftablesError> {
        retry_interrupted(|| self.read_in_front(ours))
    }

    /// The chains of all tables, owned and foreign.
    ///
    /// # Errors
    /// Reading failed.
    pub fn chains(&mut self) -> Result<(Vec<InstalledChain>, Vec<Closed>), NftablesError> {
        let messages = retry_interrupted(|| self.all_chains())?;
        let closed = messages.iter().filter(|chain| chain.drops_input());
        let closed = closed.filter_map(|chain| Some(Closed(chain.family, chain.table()?)));
        Ok((messages.iter().filter_map(installed_chain).collect(), closed.collect()))
    }

    /// The chains of these tables that drop redirected connections by policy.
    ///
    /// # Errors
    /// Reading failed.
    pub fn blocking(&mut self, closed: &[Closed], arrival: Arrival) -> Result<Vec<InstalledChain>, NftablesError> {
        let mut found: Vec<InstalledChain> = Vec::new();
        for Closed(family, name) in closed {
            let mut messages = self.all_chains()?;
            messages.retain(|chain| chain.family == *family && chain.table().as_deref() == Some(name));
            messages.extend(self.dump(request::rules_of_family(*family, name))?);
            let listing = Listing::of(&messages).map_err(malformed)?;
            let table = table_name(*family, name);
            let chains = blocked::blocking(&listing, arrival).into_iter();
            found.extend(chains.map(|chain| InstalledChain {
                table: table.clone(),
                chain,
            }));
        }
        found.dedup();
        Ok(found)
    }

    /// Removes the foreign tables with these names (`FAMILY NAME`) and their contents. Returns those that existed.
    ///
    /// # Errors
    /// Removing failed or is not permitted; or [`NftablesError::Unanswered`].
    pub fn remove_foreign_tables(&mut self, titles: &[String]) -> Result<Vec<String>, NftablesError> {
        let mut removed = Vec::new();
        for table in retry_interrupted(|| self.dump(request::tables_of_all_families()))? {
            let (family, Some(name)) = (table.family, table.table()) else {
                continue;
            };
            let title = table_name(family, &name);
            if !titles.contains(&title) {
                continue;
            }
            match self.commit(&[encode::remove_foreign_table(family, &name, &title)], None) {
                Ok(()) => removed.push(title),
                Err(error) if error.errno() == Some(Errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Removes the tables with these names (`FAMILY NAME`) that hold nothing but base chains without effect, as
    /// iptables-nft leaves them behind. If the ruleset changes meanwhile, nothing is removed. Returns the removed ones.
    ///
    /// # Errors
    /// The kernel did not answer, or does not permit reading.
    pub fn remove_empty_tables(&mut self, titles: &[String]) -> Result<Vec<String>, NftablesError> {
        let generation = self.generation()?;
        let tables = self.dump(request::tables_of_all_families())?;
        let chains = self.all_chains()?;
        let (mut steps, mut removed) = (Vec::new(), Vec::new());
        for table in &tables {
            let (family, Some(name)) = (table.family, table.table()) else {
                continue;
            };
            let title = table_name(family, &name);
            let inside = chains
                .iter()
                .filter(|chain| (chain.family, chain.table().as_deref()) == (family, Some(&name)));
            let (count, empty) = inside.fold((0, true), |(count, empty), chain| {
                (count + 1, empty && chain.is_empty_base_chain())
            });
            if titles.contains(&title) && empty && table.objects() == Some(count) {
                steps.push(encode::remove_foreign_table(family, &name, &title));
                removed.push(title);
            }
        }
        if steps.is_empty() {
            return Ok(removed);
        }
        match self.commit(&steps, Some(generation)) {
            Ok(()) => Ok(removed),
            Err(error) if error.is_stale_generation() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn all_chains(&mut self) -> Result<Vec<Message>, NftablesError> {
        self.dump(request::chains_of_all_families())
    }

    fn read_in_front(&mut self, ours: &[Place]) -> Result<Vec<BaseChain>, NftablesError> {
        let mut tables: Vec<(u8, String, Vec<Message>)> = Vec::new();
        for message in self.all_chains()? {
            let (Some(name), Some(_)) = (message.table(), message.chain()) else {
                continue;
            };
            let family = message.family;
            match tables.iter_mut().find(|(of, table, _)| (*of, table) == (family, &name)) {
                Some((_, _, chains)) => chains.push(message),
                None => tables.push((family, name, vec![message])),
            }
        }
        let mut found = Vec::new();
        for (family, name, mut messages) in tables {
            let of_family = match i32::from(family) {
                libc::NFPROTO_IPV4 => Some(Family::V4),
                libc::NFPROTO_IPV6 => Some(Family::V6),
                libc::NFPROTO_INET if name != TABLE => None,
                _ => continue,
            };
            let table = table_name(family, &name);
            let read = |messages: &[Message]| {
                let listing = Listing::of(messages).map_err(malformed)?;
                let mut chains = super::base_chains(&table, of_family, &listing);
                chains.retain(|chain| chain.place.is_before_last_of(ours));
                Ok::<_, NftablesError>(chains)
            };
            // Rules are read only if they may matter.
            if !read(&messages)?.is_empty() {
                messages.extend(self.dump(request::rules_of_family(family, &name))?);
                found.extend(read(&messages)?);
            }
        }
        Ok(found)
    }
}

/// A table as a person writes it.
fn table_name(family: u8, name: &str) -> String {
    let family = match i32::from(family) {
        libc::NFPROTO_INET => "inet",
        libc::NFPROTO_IPV4 => "ip",
        libc::NFPROTO_IPV6 => "ip6",
        libc::NFPROTO_ARP => "arp",
        libc::NFPROTO_BRIDGE => "bridge",
        libc::NFPROTO_NETDEV => "netdev",
        _ => "other",
    };
    format!("{family} {name}")
}

fn installed_chain(message: &Message) -> Option<InstalledChain> {
    Some(InstalledChain {
        table: table_name(message.family, &message.table()?),
        chain: message.chain()?,
    })
}
