//! Reads a plan from JSON: the saved output of a dry run.
//!
//! The text is untrusted, so everything is checked: a member that is missing, unknown, or of another type
//! than the schema says is an error, and so are rules that could not be installed.

mod rules;

use std::net::Ipv6Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::Value;
use thiserror::Error;

use super::VERSION;
use crate::plan::{Bypass, Direction, LoopbackRoute, Plan, PolicyRouting};
use crate::ruleset::{self, Elements, Name, Record, Ruleset, Set, TABLE, Timeouts, Unsound};
use crate::types::{Families, Family, Id, Mark, Number, Port, Range, Ranges, RouteTable, Timeout};

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

/// The member that only rules with a counter have.
const COUNTER: &str = "counter";
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

    fn word<T: Clone>(&self, known: &[(&str, T)], expected: &'static str, wrong: &mut Mistakes) -> Option<T> {
        self.parse(expected, wrong, |text| {
            known
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| value.clone())
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
            "bypasses",
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
            bypasses,
            table,
            timeouts,
            sets,
            chains,
        ] = self.members_or_null(names, ["loopbackRoutes", "bypasses", RECORD], wrong)?;
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
        let bypasses = match bypasses.value {
            Value::Null => Some(Vec::new()),
            _ => bypasses.items(wrong, |bypass, wrong| bypass.bypass(wrong)),
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
            bypasses: bypasses?,
        })
    }

    fn bypass(&self, wrong: &mut Mistakes) -> Option<Bypass> {
        let names = ["direction", "option", "value", "traffic"];
        let [direction, option, value, traffic] = self.members(names, wrong)?;
        let known = Direction::ALL.map(|direction| (direction.name(), direction));
        let direction = direction.word(&known, "outbound or inbound", wrong);
        let option = option.text(wrong);
        let traffic = traffic.text(wrong);
        let value = match value.value {
            Value::Null => Some(None),
            _ => value.text(wrong).map(Some),
        };
        Some(Bypass {
            direction: direction?,
            option: option?.to_owned(),
            value: value?.map(str::to_owned),
            traffic: traffic?.to_owned(),
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
}

fn id<I: Id>(text: &str) -> Option<I> {
    text.parse().ok().and_then(I::new)
}
