//! Raises iptables rules to a ruleset: the inverse of [`lower()`](super::lower()).
//!
//! Every raised rule is verified: it counts only if lowering it again gives the words that were read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::lower::{ANY_UID, CGROUP_ID, specs};
use super::saved;
use super::tables::{Jump, PREFIX, Spec, TableName, Tables, chain_name};
use crate::ruleset::{
    Action, Addresses, BaseHook, Cgroup, Chain, ChainType, ConntrackState, Counts, Elements, FILTER_PREFIX, GidMatch,
    Hook, Installed, Match, Name, Place, PortMatch, Protocol, Rejection, Rule, Ruleset, Set, UidMatch, Unreadable,
    Zone, priority,
};
use crate::types::{CgroupPath, Families, Family, Id, InterfaceName, Mark, Port, Ports, Range, Ranges};

/// Our installed rules in the tables of one family.
///
/// Chains have the same names as in a plan. A list in a rule becomes a set named after the list. The
/// priorities are those of the iptables tables.
pub fn raise(tables: &Tables, family: Family) -> Installed {
    let mut raised = Installed {
        ruleset: nothing(family),
        unreadable: Vec::new(),
    };
    for (kind, name) in [
        (ChainType::Raw, TableName::Raw),
        (ChainType::Mangle, TableName::Mangle),
        (ChainType::Nat, TableName::Nat),
        (ChainType::Filter, TableName::Filter),
    ] {
        let Some(table) = tables.get(name) else {
            continue;
        };
        let mut called: Vec<(String, BaseHook)> = Vec::new();
        for jump in &table.jumps {
            match call(kind, jump) {
                Some(call) if called.iter().all(|(chain, _)| *chain != call.0) => called.push(call),
                _ => {
                    let (chain, position) = (jump.from.clone().into(), jump.position - 1);
                    raised.report(Place::Rule { chain, position }, &jump.spec);
                }
            }
        }
        // In the order of their hooks and priorities; chains that are only jumped to come last.
        let is_called = |chain: &&super::Chain| called.iter().any(|(name, _)| *name == chain.name);
        let in_order = called
            .iter()
            .filter_map(|(name, hook)| Some((table.chain(name)?, Some(*hook))));
        let others = table
            .chains
            .iter()
            .filter(|chain| !is_called(chain))
            .map(|chain| (chain, None));
        for (chain, hook) in in_order.chain(others) {
            let name = Name::from(plan_name(&chain.name));
            let rules = chain.rules.iter().enumerate();
            let rules = rules
                .filter_map(|(position, spec)| raised.rule(&name, position, spec, family))
                .collect();
            raised.ruleset.chains.push(Chain { name, hook, rules });
        }
    }
    raised.ruleset = raised.ruleset.with_record_of_chains();
    let name = TableName::Security;
    for chain in tables.get(name).into_iter().flat_map(|table| &table.chains) {
        raised.unreadable.push(Unreadable {
            place: Place::Hook(plan_name(&chain.name).into()),
            text: format!("in table {}", name.as_str()),
            comment: String::new(),
        });
    }
    raised
}

/// The values of the counters of our rules in the text of `iptables-save -c`, by the names that chains have in a plan.
pub fn counts(text: &str) -> Counts {
    let mut counts = Counts::default();
    let mut rules_in: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        let (packets, line) = saved::counted(line);
        if line.starts_with('*') {
            rules_in.clear();
        } else if let (Some(packets), Some((chain, _))) = (packets, saved::rule(line))
            && chain.starts_with(PREFIX)
        {
            let position = rules_in.entry(chain).or_default();
            counts.set(plan_name(chain).into(), *position, packets);
            *position += 1;
        }
    }
    counts
}

/// The ruleset under construction.
struct Draft {
    matches: Vec<Match>,
    sets: Vec<Set>,
}

/// Reads the ID of a matched cgroup from the comment. Returns the comment without it.
fn take_cgroup_id<'c>(matches: &mut [Match], comment: &'c str) -> &'c str {
    let cgroup = matches.iter_mut().find_map(|matched| match matched {
        Match::Cgroup(cgroup) => Some(cgroup),
        _ => None,
    });
    let Some((cgroup, (before, id))) = cgroup.zip(comment.rsplit_once(CGROUP_ID)) else {
        return comment;
    };
    cgroup.id = id.parse().ok();
    before
}

impl Installed {
    fn report(&mut self, place: Place, spec: &Spec) {
        // Without terminal control characters.
        let printable = |text: &str| text.replace(char::is_control, "\u{fffd}");
        let (text, comment) = (
            printable(&spec.without_comment().to_string()),
            printable(spec.comment()),
        );
        self.unreadable.push(Unreadable { place, text, comment });
    }

    fn rule(&mut self, chain: &Name, position: usize, spec: &Spec, family: Family) -> Option<Rule> {
        let mut draft = Draft {
            matches: Vec::new(),
            sets: Vec::new(),
        };
        match draft.read(spec, family) {
            Some(rule) => {
                for set in draft.sets {
                    if self.ruleset.set(&set.name).is_none() {
                        self.ruleset.sets.push(set);
                    }
                }
                Some(rule)
            }
            None => {
                let place = Place::Rule {
                    chain: chain.clone(),
                    position,
                };
                self.report(place, spec);
                None
            }
        }
    }
}

fn nothing(family: Family) -> Ruleset {
    Ruleset {
        families: Families::Only(family),
        timeouts: None,
        sets: Vec::new(),
        chains: Vec::new(),
        record: None,
    }
}

/// The chain that an unconditional jump from a built-in chain calls, and its hook.
fn call(kind: ChainType, jump: &Jump) -> Option<(String, BaseHook)> {
    let hook = match jump.from.as_str() {
        "PREROUTING" => Hook::Prerouting,
        "INPUT" => Hook::Input,
        "FORWARD" => Hook::Forward,
        "OUTPUT" => Hook::Output,
        "POSTROUTING" => Hook::Postrouting,
        _ => return None,
    };
    let jump = jump.spec.without_comment();
    let [how, chain] = jump.words() else {
        return None;
    };
    // Chains of type filter are in other tables, too, where the table `filter` does not have their hook.
    let kind = match plan_name(chain).starts_with(FILTER_PREFIX) {
        true => ChainType::Filter,
        false => kind,
    };
    let priority = priority::in_iptables(kind, hook);
    (how == "-j").then(|| (chain.clone(), BaseHook { kind, hook, priority }))
}

impl Draft {
    fn read(&mut self, spec: &Spec, family: Family) -> Option<Rule> {
        let words: Vec<&str> = spec.words().iter().map(String::as_str).collect();
        let mut rest = words.as_slice();
        let action = loop {
            match rest {
                ["-j", target @ ..] => break action(target),
                _ => rest = &rest[self.condition(rest)?..],
            }
        };
        let mut matches = std::mem::take(&mut self.matches);
        let comment = take_cgroup_id(&mut matches, spec.comment());
        let rule = Rule {
            matches,
            action: action?,
            has_counter: false,
            comment: comment.to_owned().into(),
        };
        let sets = self.sets.clone();
        let lowered = specs(
            &Ruleset {
                sets,
                ..nothing(family)
            },
            &rule,
        );
        let same = |one: &Spec| one.words() == spec.words() || one.without_comment().words() == spec.words();
        matches!(lowered.as_slice(), [one] if same(one)).then_some(rule)
    }

    /// Reads the first condition. Returns the number of words it takes.
    fn condition(&mut self, words: &[&str]) -> Option<usize> {
        let (matched, length) = match words {
            ["-s", network, ..] => (Match::Source(self.addresses(network)?), 2),
            ["-d", network, ..] => (Match::Destination(self.addresses(network)?), 2),
            ["-i", name, ..] => (Match::InInterface(InterfaceName::parse(name).ok()?), 2),
            ["-o", name, ..] => (Match::OutInterface(InterfaceName::parse(name).ok()?), 2),
            ["-p", "ipv6-icmp", "-m", "icmp6", "--icmpv6-type", number, ..] => {
                (Match::Icmpv6Type(number.parse().ok()?), 6)
            }
            ["-p", name, ..] => (Match::Protocol(protocol(name)?), 2),
            ["-m", "tcp" | "udp", "--sport", port, ..] => {
                let ports = PortMatch::Port(Port::parse(port).ok()?);
                (Match::SourcePort(self.take_protocol()?, ports), 4)
            }
            ["-m", "tcp" | "udp", "--dport", port, ..] => {
                let ports = PortMatch::Port(Port::parse(port).ok()?);
                (Match::DestinationPort(self.take_protocol()?, ports), 4)
            }
            ["-m", "multiport", "--sports", list, ..] => {
                let ports = PortMatch::Set(self.ports(list)?);
                (Match::SourcePort(self.take_protocol()?, ports), 4)
            }
            ["-m", "multiport", "--dports", list, ..] => {
                let ports = PortMatch::Set(self.ports(list)?);
                (Match::DestinationPort(self.take_protocol()?, ports), 4)
            }
            ["-m", "owner", "--uid-owner", id, ..] if *id == ANY_UID => (Match::HasOwner, 4),
            ["-m", "owner", "--uid-owner", id, ..] => {
                let uids = ids(id)?;
                let matched = match uids.only() {
                    Some(uid) => UidMatch::Uid(uid),
                    None => UidMatch::Set(self.set(format!("uids_{id}"), Elements::Uids(uids))),
                };
                (Match::Uid(matched), 4)
            }
            ["-m", "owner", "--gid-owner", id, ..] => {
                let gids = ids(id)?;
                let matched = match gids.only() {
                    Some(gid) => GidMatch::Gid(gid),
                    None => GidMatch::Set(self.set(format!("gids_{id}"), Elements::Gids(gids))),
                };
                (Match::Gid(matched), 4)
            }
            ["-m", "cgroup", "--path", path, ..] => {
                let path = CgroupPath::parse(path).ok()?;
                let cgroup = Cgroup {
                    level: path.level(),
                    path: Some(path),
                    id: None,
                };
                (Match::Cgroup(cgroup), 4)
            }
            ["-m", "mark", "--mark", mark, ..] => (Match::Mark(Mark::parse(mark).ok()?), 4),
            ["-m", "mark", "!", "--mark", mark, ..] => (Match::MarkIsNot(Mark::parse(mark).ok()?), 5),
            ["-m", "connmark", "--mark", mark, ..] => (Match::ConntrackMark(Mark::parse(mark).ok()?), 4),
            ["-m", "conntrack", "--ctstate", "INVALID", ..] => (Match::ConntrackState(ConntrackState::Invalid), 4),
            ["-m", "conntrack", "--ctstate", "NEW", ..] => (Match::ConntrackState(ConntrackState::New), 4),
            ["-m", "conntrack", "--ctstate", "RELATED", ..] => (Match::ConntrackState(ConntrackState::Related), 4),
            ["-m", "conntrack", "--ctstate", "DNAT", ..] => (Match::DestinationTranslated, 4),
            ["-m", "conntrack", "--ctdir", "REPLY", ..] => (Match::Reply, 4),
            ["-m", "addrtype", "--src-type", "LOCAL", ..] => (Match::SourceIsLocal, 4),
            ["-m", "rpfilter", "--invert", ..] => (Match::NoReversePath, 3),
            ["-m", "addrtype", "--dst-type", "LOCAL", ..] => (Match::DestinationIsLocal, 4),
            ["-m", "tcp", "!", "--tcp-flags", "FIN,SYN,RST,ACK", "SYN", ..] => {
                self.take_protocol()?;
                (Match::TcpNotSyn, 6)
            }
            ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", ..] => {
                (Match::ConntrackState(ConntrackState::Established), 4)
            }
            ["-m", "comment", "--comment", _, ..] => return Some(4),
            _ => return None,
        };
        self.matches.push(matched);
        Some(length)
    }

    /// Takes the protocol that was read before the port match it belongs to.
    fn take_protocol(&mut self) -> Option<Protocol> {
        let at = self
            .matches
            .iter()
            .rposition(|matched| matches!(matched, Match::Protocol(_)))?;
        match self.matches.remove(at) {
            Match::Protocol(protocol) => Some(protocol),
            _ => None,
        }
    }

    fn set(&mut self, name: String, elements: Elements) -> Name {
        let name = Name::from(name);
        self.sets.push(Set {
            name: name.clone(),
            elements,
        });
        name
    }

    fn addresses(&mut self, network: &str) -> Option<Addresses> {
        let network: IpNet = network.parse().ok()?;
        if network.prefix_len() == network.max_prefix_len() {
            return Some(Addresses::Ip(network.addr()));
        }
        let (family, elements) = match network {
            IpNet::V4(net) => (Family::V4, Elements::Ipv4(vec![net])),
            IpNet::V6(net) => (Family::V6, Elements::Ipv6(vec![net])),
        };
        Some(Addresses::Set(family, self.set(network.to_string(), elements)))
    }

    fn ports(&mut self, list: &str) -> Option<Name> {
        let port = |text: &str| Port::parse(text).ok();
        let range = |item: &str| {
            let (first, last) = item.split_once(':').unwrap_or((item, item));
            Range::new(port(first)?, port(last)?)
        };
        let ports: Ports = list.split(',').map(range).collect::<Option<_>>()?;
        Some(self.set(format!("ports_{ports}"), Elements::Ports(ports)))
    }
}

fn action(words: &[&str]) -> Option<Action> {
    let mark = |text: &str| Mark::parse(text.strip_suffix("/0xffffffff")?).ok();
    let port = |text: &str| Port::parse(text).ok();
    Some(match words {
        ["RETURN"] => Action::Return,
        ["ACCEPT"] => Action::Accept,
        ["DROP"] => Action::Drop,
        ["REJECT", "--reject-with", "tcp-reset"] => Action::Reject(Rejection::TcpReset),
        [
            "REJECT",
            "--reject-with",
            "icmp-admin-prohibited" | "icmp6-adm-prohibited",
        ] => Action::Reject(Rejection::AdminProhibited),
        ["REDIRECT", "--to-ports", to] => Action::Redirect(port(to)?),
        ["TPROXY", "--on-port", on, "--on-ip", any, "--tproxy-mark", with] => {
            any.parse::<IpAddr>().ok().filter(IpAddr::is_unspecified)?;
            Action::Tproxy {
                port: port(on)?,
                mark: mark(with)?,
            }
        }
        ["MARK", "--set-xmark", with] => Action::SetMark(mark(with)?),
        ["CONNMARK", "--save-mark", ..] => Action::SaveMark,
        ["CONNMARK", "--restore-mark", ..] => Action::RestoreMark,
        ["CT", "--zone", zone] => Action::SetZone(Zone(zone.parse().ok()?)),
        [chain] if chain.starts_with(PREFIX) => Action::Jump(plan_name(chain).into()),
        _ => return None,
    })
}

/// The name of a chain in a plan; its own name if no plan has such a chain.
fn plan_name(chain: &str) -> String {
    let name = chain.strip_prefix(PREFIX).unwrap_or(chain).to_ascii_lowercase();
    if chain_name(&name) == chain {
        name
    } else {
        chain.to_owned()
    }
}

fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

fn ids<I: Id>(text: &str) -> Option<Ranges<I>> {
    let id = |text: &str| I::new(text.parse().ok()?);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Range::new(id(first)?, id(last)?).map(|range| [range].into_iter().collect())
}
