//! As whom connections are made.

use super::plan::Author;
use super::{Owner, choice};
use crate::options::Dialect;
use crate::ruleset::Protocol;
use crate::types::{Gid, Id, Port, Ranges, Uid};

/// Whom applications often run as; others are taken where this one is not captured.
const APPLICATION: u32 = 1000;

impl Author<'_> {
    /// An owner whose traffic is captured.
    pub(super) fn application(&self, protocol: Protocol, port: Port) -> Option<Owner> {
        self.sender(protocol, port, |gid| self.config.outbound.include_gids.contains(gid))
    }

    /// An owner that is neither the proxy nor excluded.
    pub(super) fn sender(&self, protocol: Protocol, port: Port, gid_will_do: impl Fn(Gid) -> bool) -> Option<Owner> {
        let (proxy, outbound) = (&self.config.proxy, &self.config.outbound);
        let of_entries = outbound.exclude_ports_for_uids.iter().map(|entry| &entry.uids);
        let uid_sets: Vec<_> = [&proxy.uids, &outbound.exclude_uids]
            .into_iter()
            .chain(of_entries)
            .collect();
        let uid = choice::number(&[self.usual(self.surroundings.caller.uid)], &uid_sets, |uid| {
            !proxy.uids.contains(uid)
                && !outbound.exclude_uids.contains(uid)
                && !self.is_excluded_for(uid, protocol, port)
        })?;
        let gid_sets = [&proxy.gids, &outbound.include_gids, &outbound.exclude_gids];
        let gid = choice::number(&[self.usual(self.surroundings.caller.gid)], &gid_sets, |gid| {
            !proxy.gids.contains(gid) && gid_will_do(gid) && !outbound.exclude_gids.contains(gid)
        })?;
        Some(Owner { uid, gid, mark: None })
    }

    /// The user of a stand-in application: the caller's own, where that cannot be changed.
    fn usual<I: Id>(&self, caller: I) -> I {
        let application = I::new(APPLICATION).unwrap_or(caller);
        if self.surroundings.may_switch {
            application
        } else {
            caller
        }
    }

    pub(super) fn is_excluded_for(&self, uid: Uid, protocol: Protocol, port: Port) -> bool {
        self.config.outbound.exclude_ports_for_uids.iter().any(|entry| {
            let meant = match protocol {
                Protocol::Tcp => entry.tcp,
                Protocol::Udp => entry.udp,
            };
            meant && entry.ports.contains(port) && entry.uids.contains(uid)
        })
    }

    /// Each of the proxy's users, and each of its groups, alone, with its mark: otherwise like this application.
    pub(super) fn exempt(&self, application: Owner) -> impl Iterator<Item = Owner> {
        let proxy = &self.config.proxy;
        let may_switch = self.surroundings.may_switch;
        let marked = |owner| Owner {
            mark: proxy.mark,
            ..owner
        };
        let (application, caller) = (marked(application), marked(self.surroundings.caller));
        let by_mark_alone = (proxy.uids.is_empty() && proxy.gids.is_empty()).then_some(application);
        let uids = proxy.uids.iter().map(move |range| match range.contains(caller.uid) {
            true if !may_switch => caller,
            _ => Owner {
                uid: range.first(),
                ..application
            },
        });
        let gids = proxy.gids.iter().map(move |range| match range.contains(caller.gid) {
            true if !may_switch => caller,
            _ => Owner {
                gid: range.first(),
                ..application
            },
        });
        uids.chain(gids).chain(by_mark_alone)
    }

    /// The proxy's user and group without its mark and cgroup, if the rules require one and would capture this owner's
    /// traffic to the port.
    pub(super) fn impostor(&self, protocol: Protocol, port: Port) -> Option<Owner> {
        let (proxy, outbound) = (&self.config.proxy, &self.config.outbound);
        let more_is_required = proxy.mark.is_some() || self.config.processes.cgroup.is_some();
        let is_impostor = more_is_required && !(proxy.uids.is_empty() && proxy.gids.is_empty());
        let owner = is_impostor.then(|| {
            self.proxy(
                |uid| !outbound.exclude_uids.contains(uid) && !self.is_excluded_for(uid, protocol, port),
                |gid| outbound.include_gids.contains(gid) && !outbound.exclude_gids.contains(gid),
            )
        });
        owner.flatten().map(|owner| Owner { mark: None, ..owner })
    }

    /// Whom the proxy runs as: with user, group and mark, as far as they are known.
    pub(super) fn proxy(&self, uid_will_do: impl Fn(Uid) -> bool, gid_will_do: impl Fn(Gid) -> bool) -> Option<Owner> {
        let proxy = &self.config.proxy;
        let caller = Owner {
            mark: proxy.mark,
            ..self.surroundings.caller
        };
        let (uids, gids) = match &self.config.dialect {
            Dialect::Sidetrack | Dialect::Kuma(_) => (proxy.uids.clone(), proxy.gids.clone()),
            // The rules for the first user come first and may hide those for others.
            Dialect::Istio(order) => (
                order.uids.first().copied().into_iter().collect(),
                order.gids.first().copied().into_iter().collect(),
            ),
        };
        let by_mark_alone = proxy.uids.is_empty() && proxy.gids.is_empty();
        let is_proxy = by_mark_alone
            || uids.contains(caller.uid)
            || gids.contains(caller.gid) && self.config.dialect == Dialect::Sidetrack;
        if !self.surroundings.may_switch && is_proxy && uid_will_do(caller.uid) && gid_will_do(caller.gid) {
            return Some(caller);
        }
        let uid = choice::number(&[], &[&uids], |uid| uids.contains(uid) && uid_will_do(uid));
        let gid = choice::number(&[], &[&gids], |gid| gids.contains(gid) && gid_will_do(gid));
        if uid.is_none() && gid.is_none() && !by_mark_alone {
            return None;
        }
        // One of them is enough for the rules.
        let other_uid = || choice::number(&[self.usual(caller.uid)], &[&proxy.uids], &uid_will_do);
        let other_gid = || choice::number(&[self.usual(caller.gid)], &[&proxy.gids], &gid_will_do);
        Some(Owner {
            uid: uid.or_else(other_uid)?,
            gid: gid.or_else(other_gid)?,
            mark: proxy.mark,
        })
    }

    /// A member of a set: the caller's own ID, where that cannot be changed and is a member.
    pub(super) fn one_of<I: Id>(&self, caller: I, set: &Ranges<I>, will_do: impl Fn(I) -> bool) -> Option<I> {
        let preferred: &[I] = if self.surroundings.may_switch { &[] } else { &[caller] };
        choice::number(preferred, &[set], |id| set.contains(id) && will_do(id))
    }
}
