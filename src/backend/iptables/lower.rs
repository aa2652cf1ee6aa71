//! Lowers a ruleset to iptables rules.

use ipnet::IpNet;
use thiserror::Error;

use super::tables::{Chain, Jump, Spec, TableName, Tables, chain_name};
use crate::ruleset::{
    self, Action, Addresses, BaseHook, Cgroup, ChainType, ConntrackState, Elements, GidMatch, Hook, Match, PortMatch,
    Protocol, Rejection, Rule, Ruleset, UidMatch, Zone,
};
use crate::types::{Families, Family, Gid, Mark, Number, Port, Ports, Range, Ranges, Uid};

/// The most ports in a `multiport` match; a range counts as two (iptables-extensions(8)).
const MAX_MULTIPORT_PORTS: usize = 15;

/// The most rules that a ruleset may become: twice the number for the largest annotations of a pod.
pub const MAX_RULES: usize = 65_536;

/// A ruleset whose lists are too long for iptables.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "iptables has no sets: the lists would become more than {MAX_RULES} rules. Shorten the lists, or use the nftables \
     backend, which has sets"
)]
pub struct TooManyRules;

/// The ruleset as iptables rules; rules of a single family are marked as such.
///
/// A base chain becomes a user-defined chain and a jump to it, first in the built-in chain. A rule that matches a set
/// becomes one rule for each address, user and group, and for every 15 ports. A rule that matches several sets jumps
/// from the shortest list to a chain of the next one, so the numbers of rules add up. A rule that returns cannot do so:
/// `RETURN` in a chain of its own goes back to the rule, not to the caller, and `ACCEPT` would skip foreign rules. It
/// becomes one rule for each combination; only ports excluded for some users are such a rule.
/// Timeouts are left out: iptables cannot set them.
///
/// # Errors
/// There would be more than [`MAX_RULES`].
pub fn lower(ruleset: &Ruleset) -> Result<Tables, TooManyRules> {
    let ruleset = &ruleset.without_timeouts();
    let of_both_families = &Ruleset {
        families: Families::Both,
        ..ruleset.clone()
    };
    let mut tables = Tables::default();
    let (mut lists, mut count) = (Lists::default(), 0);
    for chain in &ruleset.chains {
        let name = chain_name(&chain.name);
        let (mut rules, mut nested) = (Vec::new(), Vec::new());
        let tables_of_chain = tables_of(ruleset, chain);
        let ruleset = match is_of_both_families(ruleset, chain) {
            true => of_both_families,
            false => ruleset,
        };
        for rule in &chain.rules {
            lists.lower(ruleset, rule, &mut rules, &mut nested)?;
        }
        for table in tables_of_chain {
            count += rules.len();
            let table = tables.entry(table);
            let rules = rules.clone();
            table.chains.push(Chain {
                name: name.clone(),
                rules,
            });
            for number in &nested {
                let list = &lists.0[*number].chain;
                if table.chain(&list.name).is_none() {
                    count += list.rules.len();
                    table.chains.push(list.clone());
                }
            }
            if count > MAX_RULES {
                return Err(TooManyRules);
            }
        }
        if let Some(base) = chain.hook {
            tables.entry(table(base)).jumps.push(jump(ruleset, base, &chain.name));
        }
    }
    if let (Some(record), Some(table)) = (&ruleset.record, tables.of_record()) {
        let ruleset::Chain { name, rules, .. } = record.chain();
        tables.entry(table).chains.push(Chain {
            name: chain_name(name),
            rules: rules.iter().flat_map(|rule| specs(ruleset, rule)).collect(),
        });
    }
    Ok(tables)
}

/// The chains made from lists. Equal ones are shared.
#[derive(Default)]
struct Lists(Vec<List>);

struct List {
    /// The rule that the chain replaces.
    of: Rule,
    chain: Chain,
    /// The indices of the lists that its rules jump to.
    nested: Vec<usize>,
}

impl Lists {
    /// Adds the lowered form of a rule to `rules`, and the indices of the chains that it jumps to.
    fn lower(
        &mut self,
        ruleset: &Ruleset,
        rule: &Rule,
        rules: &mut Vec<Spec>,
        nested: &mut Vec<usize>,
    ) -> Result<(), TooManyRules> {
        let length = |matched: &Match| alternatives(ruleset, matched).len();
        let lengths: Vec<usize> = rule.matches.iter().map(length).collect();
        let combinations = lengths.iter().copied().fold(1, usize::saturating_mul);
        let mut sets: Vec<usize> = (0..lengths.len()).filter(|at| lengths[*at] > 1).collect();
        if combinations == 0 || sets.len() < 2 || rule.action == Action::Return {
            if rules.len().saturating_add(combinations) > MAX_RULES {
                return Err(TooManyRules);
            }
            rules.extend(specs(ruleset, rule));
            return Ok(());
        }
        sets.sort_by_key(|at| lengths[*at]);
        let (moved, kept): (Vec<_>, Vec<_>) = (0..lengths.len()).partition(|at| sets[1..].contains(at));
        let part = |places: &[usize]| Rule {
            matches: places.iter().map(|at| rule.matches[*at].clone()).collect(),
            ..rule.clone()
        };
        let (inner, mut outer) = (part(&moved), part(&kept));
        let number = match self.0.iter().position(|list| list.of == inner) {
            Some(number) => number,
            None => {
                let (mut rules, mut nested) = (Vec::new(), Vec::new());
                self.lower(ruleset, &inner, &mut rules, &mut nested)?;
                let name = chain_name(&format!("{LIST_PREFIX}{}", self.0.len() + 1));
                let chain = Chain { name, rules };
                self.0.push(List {
                    of: inner,
                    chain,
                    nested,
                });
                self.0.len() - 1
            }
        };
        nested.push(number);
        nested.extend(&self.0[number].nested);
        outer.action = Action::Jump(format!("{LIST_PREFIX}{}", number + 1).into());
        rules.extend(specs(ruleset, &outer));
        Ok(())
    }
}

/// Every user that a socket can have.
pub(super) const ANY_UID: &str = "0-4294967294";

/// Name prefix of the chains made from lists.
const LIST_PREFIX: &str = "list_";

/// The table of a base chain. The table `filter` has no chains PREROUTING and POSTROUTING.
fn table(base: BaseHook) -> TableName {
    match (base.kind, base.hook) {
        (ChainType::Raw, _) | (ChainType::Filter, Hook::Prerouting) => TableName::Raw,
        (ChainType::Mangle, _) | (ChainType::Filter, Hook::Postrouting) => TableName::Mangle,
        (ChainType::Nat, _) => TableName::Nat,
        (ChainType::Filter, _) => TableName::Filter,
    }
}

/// The tables that need a chain: its own, or those of the base chains that jump to it.
fn tables_of(ruleset: &Ruleset, chain: &ruleset::Chain) -> Vec<TableName> {
    let leads_here = |from: &ruleset::Chain| from.name == chain.name || reaches(ruleset, from, &chain.name);
    let tables = |name: &TableName| {
        let of_table = |base: &ruleset::Chain| base.hook.is_some_and(|hook| table(hook) == *name);
        ruleset.chains.iter().any(|base| of_table(base) && leads_here(base))
    };
    TableName::ALL.into_iter().filter(tables).collect()
}

/// Whether only chains of type filter lead to a chain: they see the packets of both families.
fn is_of_both_families(ruleset: &Ruleset, chain: &ruleset::Chain) -> bool {
    let leads_here = |from: &&ruleset::Chain| from.name == chain.name || reaches(ruleset, from, &chain.name);
    let bases = ruleset.chains.iter().filter(leads_here).filter_map(|from| from.hook);
    bases.into_iter().all(|base| base.kind == ChainType::Filter)
}

fn reaches(ruleset: &Ruleset, from: &ruleset::Chain, name: &str) -> bool {
    from.rules.iter().filter_map(|rule| rule.action.target()).any(|target| {
        target == name
            || ruleset
                .chain(target)
                .is_some_and(|target| reaches(ruleset, target, name))
    })
}

fn jump(ruleset: &Ruleset, base: BaseHook, chain: &str) -> Jump {
    let from = match base.hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Input => "INPUT",
        Hook::Forward => "FORWARD",
        Hook::Output => "OUTPUT",
        Hook::Postrouting => "POSTROUTING",
    };
    let family = match ruleset.families {
        Families::Only(family) => Some(family),
        Families::Both => None,
    };
    Jump {
        from: from.to_owned(),
        position: 1,
        spec: Spec::new(family, words(["-j", &chain_name(chain)])),
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// The position of a part of a rule. `iptables-save` prints these first, in this order, then the extensions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Source,
    Destination,
    InInterface,
    OutInterface,
    Protocol,
    Extension,
}

/// The words of one match.
type Part = (Place, Vec<String>);

/// The rules that one rule becomes: one for each combination of the alternatives that its matches have.
pub(super) fn specs(ruleset: &Ruleset, rule: &Rule) -> Vec<Spec> {
    let families: Vec<Family> = ruleset
        .families
        .iter()
        .filter(|family| rule.can_match(*family))
        .collect();
    let mut combinations: Vec<Vec<Part>> = vec![Vec::new()];
    for matched in &rule.matches {
        let alternatives = alternatives(ruleset, matched);
        combinations = combinations
            .iter()
            .flat_map(|begun| alternatives.iter().map(|more| [begun.as_slice(), more].concat()))
            .collect();
    }
    let comment = with_cgroup(rule);
    targets(&rule.action, &families)
        .iter()
        .flat_map(|(family, target)| {
            let spec = |parts: &Vec<Part>| Spec::new(*family, spec_words(parts, &comment, target));
            combinations.iter().map(spec)
        })
        .collect()
}

/// Between the comment of a rule and the ID of its cgroup.
pub(super) const CGROUP_ID: &str = ", cgroup ID ";

/// The comment of a rule. iptables has a cgroup by its path, so that one that was removed and created again would look the
/// same, whose processes the rule does not match.
fn with_cgroup(rule: &Rule) -> String {
    let id = |matched: &Match| match matched {
        Match::Cgroup(cgroup) => cgroup.id,
        _ => None,
    };
    match rule.matches.iter().find_map(id) {
        Some(id) => format!("{}{CGROUP_ID}{id}", rule.comment),
        None => rule.comment.to_string(),
    }
}

fn spec_words(parts: &[Part], comment: &str, target: &[String]) -> Vec<String> {
    let mut parts = parts.to_vec();
    parts.sort_by_key(|(place, _)| *place);
    parts.dedup(); // The protocol may be a match by itself and part of a port match.
    let comment = words(["-m", "comment", "--comment", comment]);
    let parts = parts.into_iter().flat_map(|(_, words)| words);
    parts.chain(comment).chain(target.iter().cloned()).collect()
}

/// The words of an action for the families of a rule; once for both if they are the same.
fn targets(action: &Action, families: &[Family]) -> Vec<(Option<Family>, Vec<String>)> {
    const ALL_BITS: &str = "0xffffffff";
    let marked = |mark: &Mark| format!("{}/{ALL_BITS}", hexadecimal(*mark));
    let of_any_family = match action {
        Action::Return => words(["-j", "RETURN"]),
        Action::Jump(chain) => words(["-j", &chain_name(chain)]),
        Action::Accept => words(["-j", "ACCEPT"]),
        Action::Drop => words(["-j", "DROP"]),
        Action::Reject(Rejection::TcpReset) => words(["-j", "REJECT", "--reject-with", "tcp-reset"]),
        Action::Reject(Rejection::AdminProhibited) => {
            let error = |family| match family {
                Family::V4 => "icmp-admin-prohibited",
                Family::V6 => "icmp6-adm-prohibited",
            };
            let target = |family| words(["-j", "REJECT", "--reject-with", error(family)]);
            return families.iter().map(|family| (Some(*family), target(*family))).collect();
        }
        Action::Redirect(port) => words(["-j", "REDIRECT", "--to-ports", &port.to_string()]),
        Action::Tproxy { port, mark } => {
            let target = |family| {
                let any = match family {
                    Family::V4 => "0.0.0.0",
                    Family::V6 => "::",
                };
                let (port, mark) = (port.to_string(), marked(mark));
                words([
                    "-j",
                    "TPROXY",
                    "--on-port",
                    &port,
                    "--on-ip",
                    any,
                    "--tproxy-mark",
                    &mark,
                ])
            };
            return families.iter().map(|family| (Some(*family), target(*family))).collect();
        }
        Action::SetMark(mark) => words(["-j", "MARK", "--set-xmark", &marked(mark)]),
        Action::SaveMark => words([
            "-j",
            "CONNMARK",
            "--save-mark",
            "--nfmask",
            ALL_BITS,
            "--ctmask",
            ALL_BITS,
        ]),
        Action::RestoreMark => words([
            "-j",
            "CONNMARK",
            "--restore-mark",
            "--nfmask",
            ALL_BITS,
            "--ctmask",
            ALL_BITS,
        ]),
        Action::SetZone(Zone(zone)) => words(["-j", "CT", "--zone", &zone.to_string()]),
        // The target CT takes the name of a timeout policy that another program has to create (iptables-extensions(8)).
        Action::SetTimeouts => return Vec::new(),
    };
    let family = match families {
        [] => return Vec::new(),
        [only] => Some(*only),
        _ => None,
    };
    vec![(family, of_any_family)]
}

fn hexadecimal(mark: Mark) -> String {
    format!("{:#x}", mark.get())
}

/// The alternatives that a match becomes; none if its set is missing or of another type.
fn alternatives(ruleset: &Ruleset, matched: &Match) -> Vec<Vec<Part>> {
    let part = |place, words| vec![(place, words)];
    match matched {
        // Only the program of that family gets the rule.
        Match::Family(_) => vec![Vec::new()],
        Match::Protocol(protocol) => vec![vec![transport(*protocol)]],
        Match::InInterface(name) => vec![part(Place::InInterface, words(["-i", name.as_str()]))],
        Match::OutInterface(name) => vec![part(Place::OutInterface, words(["-o", name.as_str()]))],
        Match::Source(addresses) => networks(ruleset, addresses, Place::Source, "-s"),
        Match::Destination(addresses) => networks(ruleset, addresses, Place::Destination, "-d"),
        Match::SourcePort(protocol, from) => ports(ruleset, *protocol, from, "--sport"),
        Match::DestinationPort(protocol, to) => ports(ruleset, *protocol, to, "--dport"),
        Match::Uid(uids) => owners("--uid-owner", &users(ruleset, uids)),
        Match::Gid(gids) => owners("--gid-owner", &groups(ruleset, gids)),
        Match::Cgroup(Cgroup { path, .. }) => match path {
            Some(path) => extension(words(["-m", "cgroup", "--path", path.as_str()])),
            // Read from nftables, so that no plan has it.
            None => Vec::new(),
        },
        Match::Mark(mark) => extension(words(["-m", "mark", "--mark", &hexadecimal(*mark)])),
        Match::MarkIsNot(mark) => extension(words(["-m", "mark", "!", "--mark", &hexadecimal(*mark)])),
        Match::ConntrackMark(mark) => extension(words(["-m", "connmark", "--mark", &hexadecimal(*mark)])),
        Match::ConntrackState(state) => {
            let states = match state {
                ConntrackState::Invalid => "INVALID",
                ConntrackState::New => "NEW",
                ConntrackState::Related => "RELATED",
                ConntrackState::Established => "RELATED,ESTABLISHED",
            };
            extension(words(["-m", "conntrack", "--ctstate", states]))
        }
        Match::Reply => extension(words(["-m", "conntrack", "--ctdir", "REPLY"])),
        Match::DestinationTranslated => extension(words(["-m", "conntrack", "--ctstate", "DNAT"])),
        Match::SourceIsLocal => extension(words(["-m", "addrtype", "--src-type", "LOCAL"])),
        Match::NoReversePath => extension(words(["-m", "rpfilter", "--invert"])),
        Match::DestinationIsLocal => extension(words(["-m", "addrtype", "--dst-type", "LOCAL"])),
        Match::HasOwner => extension(words(["-m", "owner", "--uid-owner", ANY_UID])),
        Match::TcpNotSyn => {
            let not_syn = words(["-m", "tcp", "!", "--tcp-flags", "FIN,SYN,RST,ACK", "SYN"]);
            vec![vec![transport(Protocol::Tcp), (Place::Extension, not_syn)]]
        }
        Match::Icmpv6Type(number) => {
            let kind = words(["-m", "icmp6", "--icmpv6-type", &number.to_string()]);
            vec![vec![
                (Place::Protocol, words(["-p", "ipv6-icmp"])),
                (Place::Extension, kind),
            ]]
        }
    }
}

fn extension(words: Vec<String>) -> Vec<Vec<Part>> {
    vec![vec![(Place::Extension, words)]]
}

fn transport(protocol: Protocol) -> Part {
    (Place::Protocol, words(["-p", protocol_name(protocol)]))
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn networks(ruleset: &Ruleset, addresses: &Addresses, place: Place, option: &str) -> Vec<Vec<Part>> {
    let networks = match addresses {
        Addresses::Ip(address) => vec![IpNet::from(*address)],
        Addresses::Set(_, name) => elements(ruleset, name).and_then(Elements::networks).unwrap_or_default(),
    };
    let part = |network: IpNet| match network.prefix_len() {
        0 => Vec::new(), // A match of every address is not printed.
        _ => vec![(place, words([option, &network.to_string()]))],
    };
    networks.into_iter().map(part).collect()
}

fn ports(ruleset: &Ruleset, protocol: Protocol, ports: &PortMatch, option: &str) -> Vec<Vec<Part>> {
    let extensions: Vec<Vec<String>> = match ports {
        PortMatch::Port(port) => vec![words(["-m", protocol_name(protocol), option, &port.to_string()])],
        PortMatch::Set(name) => match elements(ruleset, name) {
            Some(Elements::Ports(ports)) => multiport(ports)
                .iter()
                .map(|ports| words(["-m", "multiport", &format!("{option}s"), ports]))
                .collect(),
            Some(Elements::Ipv4(_) | Elements::Ipv6(_) | Elements::Uids(_) | Elements::Gids(_)) | None => Vec::new(),
        },
    };
    extensions
        .into_iter()
        .map(|words| vec![transport(protocol), (Place::Extension, words)])
        .collect()
}

/// The ports, split into lists that fit a `multiport` match.
fn multiport(ports: &Ports) -> Vec<String> {
    let mut lists: Vec<(usize, String)> = Vec::new();
    for range in ports {
        let (size, text) = port_range(range);
        match lists.last_mut() {
            Some((filled, list)) if *filled + size <= MAX_MULTIPORT_PORTS => {
                *filled += size;
                list.push(',');
                list.push_str(&text);
            }
            _ => lists.push((size, text)),
        }
    }
    lists.into_iter().map(|(_, list)| list).collect()
}

fn port_range(range: &Range<Port>) -> (usize, String) {
    if range.first() == range.last() {
        (1, range.first().to_string())
    } else {
        (2, format!("{}:{}", range.first(), range.last()))
    }
}

fn owners<N: Number>(option: &str, ranges: &Ranges<N>) -> Vec<Vec<Part>> {
    ranges
        .iter()
        .map(|range| vec![(Place::Extension, words(["-m", "owner", option, &range.to_string()]))])
        .collect()
}

fn users(ruleset: &Ruleset, uids: &UidMatch) -> Ranges<Uid> {
    match uids {
        UidMatch::Uid(uid) => [*uid].into_iter().collect(),
        UidMatch::Set(name) => match elements(ruleset, name) {
            Some(Elements::Uids(uids)) => uids.clone(),
            Some(Elements::Ipv4(_) | Elements::Ipv6(_) | Elements::Ports(_) | Elements::Gids(_)) | None => {
                Ranges::default()
            }
        },
    }
}

fn groups(ruleset: &Ruleset, gids: &GidMatch) -> Ranges<Gid> {
    match gids {
        GidMatch::Gid(gid) => [*gid].into_iter().collect(),
        GidMatch::Set(name) => match elements(ruleset, name) {
            Some(Elements::Gids(gids)) => gids.clone(),
            Some(Elements::Ipv4(_) | Elements::Ipv6(_) | Elements::Ports(_) | Elements::Uids(_)) | None => {
                Ranges::default()
            }
        },
    }
}

fn elements<'r>(ruleset: &'r Ruleset, name: &str) -> Option<&'r Elements> {
    ruleset.set(name).map(|set| &set.elements)
}
