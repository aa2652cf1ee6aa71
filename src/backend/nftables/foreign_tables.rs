//! Foreign tables: their chains, and the base chains that come before sidetrack's.

use nix::errno::Errno;

use super::installed::{self, TableMessages};
use super::transaction::{Nftables, NftablesError, malformed, retry_interrupted};
use super::{Listing, Message, encode, request};
use crate::drift::{BaseChain, Place};
use crate::facts::InstalledChain;
use crate::linux::netlink::NetlinkError;
use crate::ruleset::TableFamily;
use crate::ruleset::netfilter::Netfilter;
use crate::types::Family;

/// A foreign table whose rules may keep a redirected connection from its server: its family and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignTable(u8, String);

impl Nftables {
    /// The base chains of other tables that come before `ours`, and their rules that can catch a packet.
    ///
    /// # Errors
    /// Reading failed.
    pub fn in_front(&mut self, ours: &[Place]) -> Result<Vec<BaseChain>, NftablesError> {
        retry_interrupted(|| self.read_in_front(ours))
    }

    /// The chains of all tables, owned and foreign, and the foreign tables that have a chain at the hook input, or one
    /// that translates destinations.
    ///
    /// # Errors
    /// Reading failed.
    pub fn chains(&mut self) -> Result<(Vec<InstalledChain>, Vec<ForeignTable>), NftablesError> {
        let messages = retry_interrupted(|| self.all_chains())?;
        let mut tables: Vec<ForeignTable> = Vec::new();
        for chain in messages.iter().filter(|chain| chain.is_at_input_or_translates()) {
            let Some(table) = chain.table().map(|name| ForeignTable(chain.family, name)) else {
                continue;
            };
            let is_own = TableFamily::of_own_table(&table_name(table.0, &table.1)).is_some();
            if !is_own && !tables.contains(&table) {
                tables.push(table);
            }
        }
        Ok((messages.iter().filter_map(installed_chain).collect(), tables))
    }

    /// The contents of these tables, each with its title (`FAMILY NAME`).
    ///
    /// # Errors
    /// Reading failed.
    pub fn contents(&mut self, tables: &[ForeignTable]) -> Result<Vec<(String, Listing)>, NftablesError> {
        let mut contents = Vec::new();
        for ForeignTable(family, name) in tables {
            let mut messages = self.all_chains()?;
            messages.retain(|chain| chain.family == *family && chain.table().as_deref() == Some(name));
            messages.extend(self.dump(request::rules_of_family(*family, name))?);
            contents.push((table_name(*family, name), Listing::of(&messages).map_err(malformed)?));
        }
        Ok(contents)
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

    /// All tables that packets pass.
    ///
    /// # Errors
    /// Reading failed.
    pub fn netfilter(&mut self) -> Result<Netfilter, NftablesError> {
        retry_interrupted(|| self.read_netfilter())
    }

    fn read_netfilter(&mut self) -> Result<Netfilter, NftablesError> {
        let generation = self.generation()?;
        let chains = self.all_chains()?;
        let mut rules = Netfilter::default();
        for table in self.dump(request::tables_of_all_families())? {
            let (family, Some(name)) = (table.family, table.table()) else {
                continue;
            };
            let in_table = |chain: &&Message| (chain.family, chain.table().as_deref()) == (family, Some(&name));
            let mut messages = vec![table];
            messages.extend(chains.iter().filter(in_table).cloned());
            messages.extend(self.dump(request::rules_of_family(family, &name))?);
            messages.extend(self.sets(family, &name)?);
            let title = table_name(family, &name);
            let listed = TableMessages {
                family,
                name,
                title,
                messages,
            };
            let decoded = installed::table(&listed).map_err(malformed)?;
            rules.tables.extend(decoded.table);
            rules.unreadable.extend(decoded.unread);
        }
        if self.generation()? != generation {
            return Err(NetlinkError::Interrupted.into());
        }
        Ok(rules)
    }

    pub(super) fn all_chains(&mut self) -> Result<Vec<Message>, NftablesError> {
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
                libc::NFPROTO_INET => None,
                _ => continue,
            };
            let table = table_name(family, &name);
            if TableFamily::of_own_table(&table).is_some() {
                continue;
            }
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
pub(super) fn table_name(family: u8, name: &str) -> String {
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
