//! Reads a plan from JSON: the saved output of a dry run.
//!
//! The text is untrusted, so everything is checked: a member that is missing, unknown, or of another type
//! than the schema says is an error, and so are rules that could not be installed.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Map, Value};
use thiserror::Error;

use super::VERSION;
use crate::plan::{LoopbackRoute, Plan, PolicyRouting};
use crate::ruleset::{
    self, Action, Addresses, BaseHook, Cgroup, Chain, ChainType, ConntrackState, Elements, GidMatch, Hook, Match, Name,
    PortMatch, Protocol, Record, Rule, Ruleset, Set, TABLE, Timeouts, UidMatch, Unsound, Zone,
};
use crate::types::{
    CgroupPath, Families, Family, Id, InterfaceName, Mark, Number, Port, Range, Ranges, RouteTable, Timeout,
};

/// The text is not a saved plan.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// An unsupported schema version.
    #[error("not a plan of version {VERSION}, which is what `sidetrack apply --dry-run --output json` prints")]
    Version,
    /// Invalid parts.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Wrong(Vec<Wrong>),
    /// Rules that cannot be installed.
    #[error("its rules could not be installed: {0}")]
    Unsound(#[from] Unsound),
}

/// An invalid part of a saved plan.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path}: not {expected}")]
pub struct Wrong {
    /// The path of the part, such as `chains[1].rules[0].action`.
    pub path: String,
    /// The expected value.
    pub expected: &'static str,
}

/// Reads what [`document`](super::document) writes.
///
/// # Errors
/// All violations of the schema; or the first reason why the rules cannot be installed.
pub fn read(text: &str) -> Result<Plan, ReadError> {
    let value: Value = serde_json::from_str(text).map_err(|error| ReadError::Syntax(error.to_string()))?;
    if value.get("version").and_then(Value::as_u64) != Some(VERSION.into()) {
        return Err(ReadError::Version);
    }
    let mut wrong = Vec::new();
    let plan = Part {
        value: &value,
        path: String::new(),
    }
    .plan(&mut wrong);
    match plan {
        Some(plan) if wrong.is_empty() => {
            ruleset::check(&plan.ruleset, &[])?;
            Ok(plan)
        }
        _ => Err(ReadError::Wrong(wrong)),
    }
}

/// The member that plans of earlier versions of sidetrack do not have.
const RECORD: &str = "record";

/// The most mistakes that are reported.
const MAX_REPORTED_MISTAKES: usize = 20;

/// A part of the document, and its path.
struct Part<'v> {
    value: &'v Value,
    path: String,
}

/// The mistakes so far. Reading continues after a mistake, so that all are found.
type Mistakes = Vec<Wrong>;

impl<'v> Part<'v> {
    fn refuse<T>(&self, expected: &'static str, wrong: &mut Mistakes) -> Option<T> {
        let path = if self.path.is_empty() {
            "the plan".to_owned()
        } else {
            self.path.clone()
        };
        if wrong.len() < MAX_REPORTED_MISTAKES {
            wrong.push(Wrong { path, expected });
        }
        None
    }

    fn expect<T>(&self, found: Option<T>, expected: &'static str, wrong: &mut Mistakes) -> Option<T> {
        found.or_else(|| self.refuse(expected, wrong))
    }

    /// The members of an object, exactly these, in this order.
    fn members<const N: usize>(&self, names: [&str; N], wrong: &mut Mistakes) -> Option<[Part<'v>; N]> {
        self.members_or_null(names, [], wrong)
    }

    /// The members of an object, in this order. An optional one that is missing reads as null.
    fn members_or_null<const N: usize, const M: usize>(
        &self,
        names: [&str; N],
        optional: [&str; M],
        wrong: &mut Mistakes,
    ) -> Option<[Part<'v>; N]> {
        let object = self.expect(self.value.as_object(), "an object", wrong)?;
        let is_known = |name: &str| names.contains(&name) || optional.contains(&name);
        if let Some(unknown) = object.keys().find(|name| !is_known(name)) {
            self.member(unknown, &Value::Null)
                .refuse::<()>("a member that the schema knows", wrong);
        }
        let mut required = names.iter().filter(|name| !optional.contains(name));
        if let Some(missing) = required.find(|name| !object.contains_key(**name)) {
            return self.member(missing, &Value::Null).refuse("there", wrong);
        }
        Some(names.map(|name| self.member(name, object.get(name).unwrap_or(&Value::Null))))
    }

    fn member<'m>(&self, name: &str, value: &'m Value) -> Part<'m> {
        let separator = if self.path.is_empty() { "" } else { "." };
        Part {
            value,
            path: format!("{}{separator}{name}", self.path),
        }
    }

    /// All items of a list, or `None` if one of them is invalid.
    fn items<T>(&self, wrong: &mut Mistakes, item: impl Fn(Part<'v>, &mut Mistakes) -> Option<T>) -> Option<Vec<T>> {
        let list = self.expect(self.value.as_array(), "a list", wrong)?;
        let parts = list.iter().enumerate().map(|(index, value)| Part {
            value,
            path: format!("{}[{index}]", self.path),
        });
        let items: Vec<Option<T>> = parts.map(|part| item(part, wrong)).collect();
        items.into_iter().collect()
    }

    fn text(&self, wrong: &mut Mistakes) -> Option<&'v str> {
        let text = self.value.as_str().filter(|text| !text.chars().any(char::is_control));
        self.expect(text, "a text without control characters", wrong)
    }

    fn parse<T>(
        &self,
        expected: &'static str,
        wrong: &mut Mistakes,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.expect(self.value.as_str().and_then(parse), expected, wrong)
    }

    fn number<T>(
        &self,
        expected: &'static str,
        wrong: &mut Mistakes,
        number: impl FnOnce(u32) -> Option<T>,
    ) -> Option<T> {
        let found = self.value.as_u64().and_then(|found| u32::try_from(found).ok());
        self.expect(found.and_then(number), expected, wrong)
    }

    fn word<T: Copy>(&self, known: &[(&str, T)], expected: &'static str, wrong: &mut Mistakes) -> Option<T> {
        self.parse(expected, wrong, |text| {
            known.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    fn name(&self, wrong: &mut Mistakes) -> Option<Name> {
        self.text(wrong).map(|name| Name::from(name.to_owned()))
    }

    fn plan(&self, wrong: &mut Mistakes) -> Option<Plan> {
        let names = [
            "version",
            "families",
            "policyRouting",
            "loopbackAddresses",
            "loopbackRoutes",
            "table",
            "timeouts",
            "sets",
            "chains",
        ];
        let [
            _,
            families,
            routing,
            addresses,
            loopback_routes,
            table,
            timeouts,
            sets,
            chains,
        ] = self.members_or_null(names, ["loopbackRoutes", RECORD], wrong)?;
        let families = families.families(wrong);
        let policy_routing = match routing.value {
            Value::Null => Some(None),
            _ => routing.routing(wrong).map(Some),
        };
        let loopback_addresses = addresses.items(wrong, |address, wrong| {
            address.parse("an IPv6 address with the prefix length 128", wrong, |text| {
                text.strip_suffix("/128")?.parse::<Ipv6Addr>().ok()
            })
        });
        let loopback_routes = match loopback_routes.value {
            Value::Null => Some(Vec::new()),
            _ => loopback_routes.items(wrong, |route, wrong| route.loopback_route(wrong)),
        };
        table.word(&[(TABLE, ())], "the table name of sidetrack", wrong);
        let timeouts = match timeouts.value {
            Value::Null => Some(None),
            _ => timeouts.timeouts(wrong).map(Some),
        };
        let sets = sets.items(wrong, |set, wrong| set.set(wrong));
        let chains = chains.items(wrong, |chain, wrong| chain.chain(wrong));
        let record = match self.value.get(RECORD) {
            None => Some(None),
            Some(comments) => self.member(RECORD, comments).record(wrong),
        };
        Some(Plan {
            ruleset: Ruleset {
                families: families?,
                timeouts: timeouts?,
                sets: sets?,
                chains: chains?,
                record: record?,
            },
            loopback_addresses: loopback_addresses?,
            policy_routing: policy_routing?,
            loopback_routes: loopback_routes?,
        })
    }

    fn record(&self, wrong: &mut Mistakes) -> Option<Option<Record>> {
        let comments = self.items(wrong, |comment, wrong| comment.text(wrong).map(str::to_owned))?;
        Some((!comments.is_empty()).then(|| Record::new(comments)))
    }

    fn family(&self, wrong: &mut Mistakes) -> Option<Family> {
        self.word(&[("ipv4", Family::V4), ("ipv6", Family::V6)], "ipv4 or ipv6", wrong)
    }

    fn families(&self, wrong: &mut Mistakes) -> Option<Families> {
        let found = self.items(wrong, |family, wrong| family.family(wrong))?;
        let families = match found.as_slice() {
            [only] => Some(Families::Only(*only)),
            [Family::V4, Family::V6] => Some(Families::Both),
            _ => None,
        };
        self.expect(families, "a list of ipv4, ipv6 or both", wrong)
    }

    fn mark(&self, wrong: &mut Mistakes) -> Option<Mark> {
        self.number("a mark from 1 to 4294967295", wrong, Mark::new)
    }

    fn port(&self, wrong: &mut Mistakes) -> Option<Port> {
        self.number("a port from 1 to 65535", wrong, |number| {
            Port::new(u16::try_from(number).ok()?)
        })
    }

    fn routing(&self, wrong: &mut Mistakes) -> Option<PolicyRouting> {
        let [mark, table, families] = self.members(["mark", "table", "families"], wrong)?;
        let mark = mark.mark(wrong);
        let table = table.number(
            "a routing table that --tproxy-route-table accepts",
            wrong,
            RouteTable::new,
        );
        let families = families.families(wrong);
        Some(PolicyRouting {
            mark: mark?,
            table: table?,
            families: families?,
        })
    }

    fn loopback_route(&self, wrong: &mut Mistakes) -> Option<LoopbackRoute> {
        let [family, interface] = self.members(["family", "interface"], wrong)?;
        let (family, interface) = (family.family(wrong), interface.interface(wrong));
        Some(LoopbackRoute {
            family: family?,
            interface: interface?,
        })
    }

    fn timeouts(&self, wrong: &mut Mistakes) -> Option<Timeouts> {
        let seconds =
            |part: Part, wrong: &mut Mistakes| part.number("seconds, 1 or more, up to 20 days", wrong, Timeout::new);
        let [close_wait, last_ack] = self.members(["closeWait", "lastAck"], wrong)?;
        let (close_wait, last_ack) = (seconds(close_wait, wrong), seconds(last_ack, wrong));
        Some(Timeouts {
            close_wait: close_wait?,
            last_ack: last_ack?,
        })
    }

    fn set(&self, wrong: &mut Mistakes) -> Option<Set> {
        const KINDS: [&str; 5] = ["ipv4-addresses", "ipv6-addresses", "ports", "uids", "gids"];
        let [name, kind, elements] = self.members(["name", "type", "elements"], wrong)?;
        let name = name.name(wrong);
        let kind = kind.word(&KINDS.map(|kind| (kind, kind)), "a type of set", wrong);
        let elements = match kind? {
            "ipv4-addresses" => elements
                .networks(wrong, Ipv4Net::trunc, Ipv4Net::aggregate)
                .map(Elements::Ipv4),
            "ipv6-addresses" => elements
                .networks(wrong, Ipv6Net::trunc, Ipv6Net::aggregate)
                .map(Elements::Ipv6),
            "ports" => elements
                .ranges(wrong, |text| Port::parse(text).ok())
                .map(Elements::Ports),
            "uids" => elements.ranges(wrong, id).map(Elements::Uids),
            _ => elements.ranges(wrong, id).map(Elements::Gids),
        };
        Some(Set {
            name: name?,
            elements: elements?,
        })
    }

    /// Networks, merged and sorted as in any plan.
    fn networks<N>(&self, wrong: &mut Mistakes, trunc: fn(&N) -> N, aggregate: fn(&Vec<N>) -> Vec<N>) -> Option<Vec<N>>
    where
        N: std::str::FromStr + ToString + PartialEq,
    {
        let network = |part: Part, wrong: &mut Mistakes| {
            part.parse("a network", wrong, |text| {
                text.parse()
                    .ok()
                    .filter(|net| trunc(net) == *net && net.to_string() == text)
            })
        };
        let networks = self.items(wrong, network)?;
        let canonical = aggregate(&networks) == networks;
        self.expect(
            canonical.then_some(networks),
            "a list of networks in order, none of which can be merged",
            wrong,
        )
    }

    fn ranges<N: Number>(&self, wrong: &mut Mistakes, number: fn(&str) -> Option<N>) -> Option<Ranges<N>> {
        let range = |part: Part, wrong: &mut Mistakes| {
            part.parse("a number or a range", wrong, |text| {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                Range::new(number(first)?, number(last)?).filter(|range| range.to_string() == text)
            })
        };
        let ranges = self.items(wrong, range)?;
        let count = ranges.len();
        let merged: Ranges<N> = ranges.into_iter().collect();
        let canonical = merged.len() == count;
        self.expect(
            canonical.then_some(merged),
            "a list of ranges, none of which can be merged",
            wrong,
        )
    }

    fn chain(&self, wrong: &mut Mistakes) -> Option<Chain> {
        let [name, hook, rules] = self.members(["name", "hook", "rules"], wrong)?;
        let name = name.name(wrong);
        let hook = match hook.value {
            Value::Null => Some(None),
            _ => hook.base_hook(wrong).map(Some),
        };
        let rules = rules.items(wrong, |rule, wrong| rule.rule(wrong));
        Some(Chain {
            name: name?,
            hook: hook?,
            rules: rules?,
        })
    }

    fn base_hook(&self, wrong: &mut Mistakes) -> Option<BaseHook> {
        let [kind, hook, priority] = self.members(["type", "hook", "priority"], wrong)?;
        let kinds = [
            ("raw", ChainType::Raw),
            ("mangle", ChainType::Mangle),
            ("nat", ChainType::Nat),
        ];
        let kind = kind.word(&kinds, "raw, mangle or nat", wrong);
        let hooks = [("prerouting", Hook::Prerouting), ("output", Hook::Output)];
        let hook = hook.word(&hooks, "prerouting or output", wrong);
        let number = priority.value.as_i64().and_then(|number| i32::try_from(number).ok());
        let priority = priority.expect(number, "a priority", wrong);
        Some(BaseHook {
            kind: kind?,
            hook: hook?,
            priority: priority?,
        })
    }

    fn rule(&self, wrong: &mut Mistakes) -> Option<Rule> {
        // The nft text is for people; it follows from the other members.
        let [comment, matches, action, nft] = self.members(["comment", "matches", "action", "nft"], wrong)?;
        nft.text(wrong);
        let comment = comment.text(wrong);
        let matches = matches.items(wrong, |matched, wrong| matched.matched(wrong));
        let action = action.action(wrong);
        Some(Rule {
            matches: matches?,
            action: action?,
            comment: comment?.to_owned().into(),
        })
    }

    fn matched(&self, wrong: &mut Mistakes) -> Option<Match> {
        const EXPECTED: &str = "a match that the schema knows";
        let object = self.expect(self.value.as_object(), EXPECTED, wrong)?;
        let names: Vec<&str> = object.keys().map(String::as_str).collect();
        let part = |name: &str| self.member(name, object.get(name).unwrap_or(&Value::Null));
        let protocol = |wrong: &mut Mistakes| {
            part("protocol").word(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)], "tcp or udp", wrong)
        };
        Some(match names.as_slice() {
            ["family"] => Match::Family(part("family").family(wrong)?),
            ["protocol"] => Match::Protocol(protocol(wrong)?),
            ["inInterface"] => Match::InInterface(part("inInterface").interface(wrong)?),
            ["outInterface"] => Match::OutInterface(part("outInterface").interface(wrong)?),
            ["source"] => Match::Source(part("source").addresses(wrong)?),
            ["destination"] => Match::Destination(part("destination").addresses(wrong)?),
            ["protocol", "sourcePort"] => Match::SourcePort(protocol(wrong)?, part("sourcePort").ports(wrong)?),
            ["protocol", "destinationPort"] => {
                Match::DestinationPort(protocol(wrong)?, part("destinationPort").ports(wrong)?)
            }
            ["uid"] => Match::Uid(match part("uid").in_set(wrong) {
                Some(set) => UidMatch::Set(set?),
                None => UidMatch::Uid(part("uid").number("a UID, or a set", wrong, Id::new)?),
            }),
            ["gid"] => Match::Gid(match part("gid").in_set(wrong) {
                Some(set) => GidMatch::Set(set?),
                None => GidMatch::Gid(part("gid").number("a GID, or a set", wrong, Id::new)?),
            }),
            ["cgroup"] => {
                let [path, level, id] = part("cgroup").members(["path", "level", "id"], wrong)?;
                let exactly = |text: &str| CgroupPath::parse(text).ok().filter(|path| path.as_str() == text);
                let path = match path.value.is_null() {
                    true => None,
                    false => Some(path.parse("the path of a cgroup", wrong, exactly)?),
                };
                let id = match id.value.is_null() {
                    true => None,
                    false => Some(id.expect(id.value.as_u64(), "the ID of a cgroup", wrong)?),
                };
                let level = level.number("the level of a cgroup", wrong, Some)?;
                Match::Cgroup(Cgroup { path, level, id })
            }
            ["mark"] => match part("mark") {
                mark if mark.value.is_object() => {
                    let [not] = mark.members(["not"], wrong)?;
                    Match::MarkIsNot(not.mark(wrong)?)
                }
                mark => Match::Mark(mark.mark(wrong)?),
            },
            ["conntrackMark"] => Match::ConntrackMark(part("conntrackMark").mark(wrong)?),
            ["conntrackState"] => Match::ConntrackState(part("conntrackState").state(wrong)?),
            _ => return self.refuse(EXPECTED, wrong),
        })
    }

    fn interface(&self, wrong: &mut Mistakes) -> Option<InterfaceName> {
        // Exactly: no surrounding blanks, which are allowed in options.
        let exactly = |text: &str| InterfaceName::parse(text).ok().filter(|name| name.as_str() == text);
        self.parse("the name of an interface", wrong, exactly)
    }

    fn addresses(&self, wrong: &mut Mistakes) -> Option<Addresses> {
        if self.value.is_object() {
            let [set, family] = self.members(["set", "family"], wrong)?;
            let (set, family) = (set.name(wrong), family.family(wrong));
            return Some(Addresses::Set(family?, set?));
        }
        let address = |text: &str| text.parse::<IpAddr>().ok();
        self.parse("an address, or a set and its family", wrong, address)
            .map(Addresses::Ip)
    }

    fn ports(&self, wrong: &mut Mistakes) -> Option<PortMatch> {
        Some(match self.in_set(wrong) {
            Some(set) => PortMatch::Set(set?),
            None => PortMatch::Port(self.port(wrong)?),
        })
    }

    /// The name of the set, if the part names one; `Some(None)` if the name is invalid.
    fn in_set(&self, wrong: &mut Mistakes) -> Option<Option<Name>> {
        self.value.is_object().then(|| {
            let [set] = self.members(["set"], wrong)?;
            set.name(wrong)
        })
    }

    fn state(&self, wrong: &mut Mistakes) -> Option<ConntrackState> {
        let states = self.items(wrong, |state, wrong| state.text(wrong))?;
        let state = match states.as_slice() {
            ["invalid"] => Some(ConntrackState::Invalid),
            ["established", "related"] => Some(ConntrackState::Established),
            _ => None,
        };
        self.expect(state, r#"["invalid"] or ["established", "related"]"#, wrong)
    }

    fn action(&self, wrong: &mut Mistakes) -> Option<Action> {
        const EXPECTED: &str = "an action that the schema knows";
        let word = |text: &str| match text {
            "return" => Some(Action::Return),
            "accept" => Some(Action::Accept),
            "drop" => Some(Action::Drop),
            "saveMark" => Some(Action::SaveMark),
            "restoreMark" => Some(Action::RestoreMark),
            "setTimeouts" => Some(Action::SetTimeouts),
            _ => None,
        };
        let only = |object: &'v Map<String, Value>| object.iter().next().filter(|_| object.len() == 1);
        let Some((name, value)) = self.value.as_object().and_then(only) else {
            return self.parse(EXPECTED, wrong, word);
        };
        let part = self.member(name, value);
        Some(match name.as_str() {
            "jump" => Action::Jump(part.name(wrong)?),
            "redirect" => Action::Redirect(part.port(wrong)?),
            "tproxy" => {
                let [port, mark] = part.members(["port", "mark"], wrong)?;
                let (port, mark) = (port.port(wrong), mark.mark(wrong));
                Action::Tproxy {
                    port: port?,
                    mark: mark?,
                }
            }
            "setMark" => Action::SetMark(part.mark(wrong)?),
            "setZone" => {
                let zone = part.number("a zone from 0 to 65535", wrong, |zone| u16::try_from(zone).ok());
                Action::SetZone(Zone(zone?))
            }
            _ => return self.refuse(EXPECTED, wrong),
        })
    }
}

fn id<I: Id>(text: &str) -> Option<I> {
    text.parse().ok().and_then(I::new)
}
