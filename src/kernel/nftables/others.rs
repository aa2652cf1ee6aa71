//! The tables of others: what there is, and what of it comes before ours.

use netlink_packet_netfilter::nftables::{ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterProtoFamily};

use super::{Nftables, NftablesError, nf_tables, undisturbed};
use crate::drift::{BaseChain, Place};
use crate::facts::InstalledChain;
use crate::render::netlink;
use crate::render::netlink::listing::Listing;
use crate::ruleset::{Family, TABLE};

impl Nftables {
    /// The base chains of other tables that come before `ours`, and what could catch a packet there.
    ///
    /// # Errors
    /// They could not be read.
    pub fn in_front(&mut self, ours: &[Place]) -> Result<Vec<BaseChain>, NftablesError> {
        undisturbed(|| self.read_in_front(ours))
    }

    /// The chains of all tables, ours and others'.
    ///
    /// # Errors
    /// They could not be read.
    pub fn chains(&mut self) -> Result<Vec<InstalledChain>, NftablesError> {
        let messages = undisturbed(|| self.all_chains())?;
        Ok(messages.iter().filter_map(installed_chain).collect())
    }

    fn all_chains(&mut self) -> Result<Vec<NetfilterMessage>, NftablesError> {
        let request = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
        self.dump(NetfilterProtoFamily::Unspec, request)
    }

    fn read_in_front(&mut self, ours: &[Place]) -> Result<Vec<BaseChain>, NftablesError> {
        let mut tables: Vec<(NetfilterProtoFamily, String, Vec<NetfilterMessage>)> = Vec::new();
        for message in self.all_chains()? {
            let Some(name) = table_of_chain(&message) else {
                continue;
            };
            let family = message.header.family;
            match tables.iter_mut().find(|(of, table, _)| (*of, table) == (family, &name)) {
                Some((_, _, chains)) => chains.push(message),
                None => tables.push((family, name, vec![message])),
            }
        }
        let mut found = Vec::new();
        for (family, name, mut messages) in tables {
            let of_family = match family {
                NetfilterProtoFamily::IPv4 => Some(Family::V4),
                NetfilterProtoFamily::IPv6 => Some(Family::V6),
                NetfilterProtoFamily::Inet if name != TABLE => None,
                _ => continue,
            };
            let table = table_name(family, &name);
            let read = |messages: &[NetfilterMessage]| {
                let listing = Listing::of(messages.iter().filter_map(nf_tables));
                let mut chains = netlink::base_chains(&table, of_family, &listing);
                chains.retain(|chain| chain.place.is_before_the_last_of(ours));
                chains
            };
            // Rules are read only where they may matter.
            if !read(&messages).is_empty() {
                let attributes = vec![RuleAttribute::Table(name)];
                messages.extend(self.dump(family, NfTablesMessage::GetRule(RuleMessage { attributes }))?);
                found.extend(read(&messages));
            }
        }
        Ok(found)
    }
}

fn table_of_chain(message: &NetfilterMessage) -> Option<String> {
    let NfTablesMessage::NewChain(chain) = nf_tables(message)? else {
        return None;
    };
    chain.attributes.iter().find_map(|attribute| match attribute {
        ChainAttribute::Table(name) => Some(name.clone()),
        _ => None,
    })
}

/// A table as a person would write it.
fn table_name(family: NetfilterProtoFamily, name: &str) -> String {
    let family = match family {
        NetfilterProtoFamily::Inet => "inet",
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        NetfilterProtoFamily::ARP => "arp",
        NetfilterProtoFamily::Bridge => "bridge",
        NetfilterProtoFamily::NetDev => "netdev",
        _ => "other",
    };
    format!("{family} {name}")
}

fn installed_chain(message: &NetfilterMessage) -> Option<InstalledChain> {
    let NfTablesMessage::NewChain(chain) = nf_tables(message)? else {
        return None;
    };
    let name = chain.attributes.iter().find_map(|attribute| match attribute {
        ChainAttribute::Name(name) => Some(name.clone()),
        _ => None,
    });
    Some(InstalledChain {
        table: table_name(message.header.family, &table_of_chain(message)?),
        chain: name?,
    })
}
