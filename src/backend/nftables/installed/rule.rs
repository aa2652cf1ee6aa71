//! Decodes the expressions of a rule into statements.

use std::net::IpAddr;

use super::super::decode::{address, comment, nested, number, text};
use super::super::expression;
use super::super::listing::{self, Expression};
use super::super::uapi::*;
use super::Context;
use super::conditions::{Undecodable, compare, element_spans, masked, range, swapped};
use super::registers::{Loaded, Part, Registers, conntrack_field, meta_field, network_fields, transport_fields};
use crate::backend::xtables::{self, Extension};
use crate::ruleset::netfilter::{Action, Choice, Entry, Field, Key, Lookup, MarkChange, Match, Rule, Span, Statement};
use crate::ruleset::{self, Zone};
use crate::types::{Family, Port};

/// Decodes a rule. What is not known becomes an unreadable statement.
pub fn decode(listed: &listing::Rule, context: &Context) -> Rule {
    let mut decoder = Decoder {
        context,
        family: context.family,
        registers: Registers::default(),
        unknown: "a value".to_owned(),
        statements: Vec::new(),
        comment: comment(&listed.user_data),
    };
    for expression in &listed.expressions {
        decoder.expression(expression);
    }
    Rule {
        statements: decoder.statements,
        comment: decoder.comment.into(),
    }
}

struct Decoder<'c> {
    context: &'c Context,
    /// The family of the packets that the rule has matched so far, if it is known.
    family: Option<Family>,
    registers: Registers,
    /// The last expression that loaded something unknown.
    unknown: String,
    statements: Vec<Statement>,
    comment: String,
}

impl Decoder<'_> {
    fn expression(&mut self, expression: &Expression) {
        let name = expression.0.replace(char::is_control, "\u{fffd}");
        match name.as_str() {
            "counter" | "last" => {}
            "log" | "dup" | "flow_offload" => self.act(Action::Nothing(name)),
            "limit" | "quota" | "connlimit" => self.matches(Match::Unreadable(name)),
            // These load a value that is not known here.
            "exthdr" | "numgen" | "hash" | "rt" | "osf" | "xfrm" | "tunnel" | "inner" => {
                self.registers.clear();
                self.unknown = name;
            }
            "notrack" => self.act(Action::Untrack),
            "reject" => self.act(Action::Reject),
            "queue" => self.act(Action::Queue),
            _ => {
                if self.known(expression).is_none() {
                    self.undecodable(expression, name);
                }
            }
        }
    }

    /// Adds an expression that cannot be decoded: as a match if that is all it can be.
    fn undecodable(&mut self, (kind, _): &Expression, name: String) {
        match kind.as_str() {
            "meta" | "ct" | "payload" | "fib" | "socket" | "bitwise" | "byteorder" => {
                self.registers.clear();
                self.unknown = name;
            }
            "cmp" | "range" | "match" => self.matches(Match::Unreadable(name)),
            _ => self.act(Action::Unreadable(name)),
        }
    }

    fn act(&mut self, action: Action) {
        self.statements.push(Statement::Action(action));
    }

    fn matches(&mut self, matcher: Match) {
        self.statements.push(Statement::Match(matcher));
    }

    fn known(&mut self, expression: &Expression) -> Option<()> {
        let (name, attributes) = expression;
        let number = |attribute: u16| number(attributes, attribute);
        let is_given = |attribute: u16| attributes.contains_key(&attribute);
        let data = |attribute: u16| nested(attributes.get(&attribute)?, NFTA_DATA_VALUE);
        match name.as_str() {
            "meta" if is_given(NFTA_META_SREG) => self.set_meta(number(NFTA_META_KEY)?, number(NFTA_META_SREG)?)?,
            "meta" => {
                let loaded = match number(NFTA_META_KEY)? {
                    NFT_META_MARK => whole_mark(false),
                    NFT_META_PROTOCOL => Loaded::Ethertype,
                    key => {
                        let (field, is_host_order) = meta_field(key)?;
                        Loaded::Fields(vec![Part::whole(field, is_host_order)])
                    }
                };
                self.registers.load(number(NFTA_META_DREG)?, loaded);
            }
            "ct" if is_given(NFTA_CT_SREG) => self.set_conntrack(number(NFTA_CT_KEY)?, number(NFTA_CT_SREG)?)?,
            "ct" => {
                let loaded = match number(NFTA_CT_KEY)? {
                    NFT_CT_MARK => whole_mark(true),
                    key => {
                        let (field, is_host_order) = conntrack_field(key)?;
                        // nf_tables does not know the states that iptables adds.
                        let mask = if field == Field::ConntrackState {
                            0xff
                        } else {
                            field.largest()
                        };
                        let part = Part::whole(field, is_host_order);
                        Loaded::Fields(vec![Part { mask, ..part }])
                    }
                };
                self.registers.load(number(NFTA_CT_DREG)?, loaded);
            }
            "fib" => {
                let field = match (number(NFTA_FIB_RESULT)?, number(NFTA_FIB_FLAGS)?) {
                    (NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_SADDR) => Field::SourceType,
                    (NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR) => Field::DestinationType,
                    (NFT_FIB_RESULT_OIF, expression::REVERSE_PATH) => Field::ReversePath,
                    _ => return None,
                };
                let loaded = Loaded::Fields(vec![Part::whole(field, true)]);
                self.registers.load(number(NFTA_FIB_DREG)?, loaded);
            }
            "socket" if number(NFTA_SOCKET_KEY)? == NFT_SOCKET_CGROUPV2 => {
                let loaded = Loaded::Cgroup(number(NFTA_SOCKET_LEVEL)?);
                self.registers.load(number(NFTA_SOCKET_DREG)?, loaded);
            }
            "payload" => {
                let (offset, length) = (number(NFTA_PAYLOAD_OFFSET)?, number(NFTA_PAYLOAD_LEN)?);
                let fields = match number(NFTA_PAYLOAD_BASE)? {
                    NFT_PAYLOAD_NETWORK_HEADER => self.family.and_then(|family| network_fields(family, offset, length)),
                    NFT_PAYLOAD_TRANSPORT_HEADER => transport_fields(offset, length),
                    _ => None,
                };
                if is_given(NFTA_PAYLOAD_SREG) {
                    self.act(match fields {
                        None => Action::Nothing("payload set".to_owned()),
                        Some(_) => Action::Unreadable("payload set".to_owned()),
                    });
                } else {
                    self.registers.load(number(NFTA_PAYLOAD_DREG)?, Loaded::Fields(fields?));
                }
            }
            "bitwise" => {
                let (mask, xor) = (data(NFTA_BITWISE_MASK)?, data(NFTA_BITWISE_XOR)?);
                let loaded = self.registers.get(number(NFTA_BITWISE_SREG)?)?;
                let is_mask_and_xor = number(NFTA_BITWISE_OP)? == 0;
                let loaded = masked(loaded, &mask, &xor).filter(|_| is_mask_and_xor)?;
                self.registers.load(number(NFTA_BITWISE_DREG)?, loaded);
            }
            "byteorder" => {
                let loaded = swapped(self.registers.get(number(NFTA_BYTEORDER_SREG)?)?)?;
                self.registers.load(number(NFTA_BYTEORDER_DREG)?, loaded);
            }
            "cmp" => {
                let (loaded, operator) = (self.registers.get(number(NFTA_CMP_SREG)?), number(NFTA_CMP_OP)?);
                let compared = data(NFTA_CMP_DATA)?;
                match (loaded, operator) {
                    (Some(Loaded::Cgroup(level)), NFT_CMP_EQ) => {
                        let cgroup = ruleset::Match::Cgroup(ruleset::Cgroup {
                            path: None,
                            level: *level,
                            id: Some(u64::from_ne_bytes(*compared.as_array()?)),
                        });
                        self.matches(Match::Planned(cgroup));
                    }
                    _ => self.lookups(compare(loaded, operator, &compared)),
                }
            }
            "range" => {
                let bounds = (data(NFTA_RANGE_FROM_DATA)?, data(NFTA_RANGE_TO_DATA)?);
                let lookup = range(self.registers.get(number(NFTA_RANGE_SREG)?), &bounds.0, &bounds.1);
                let is_inverted = number(NFTA_RANGE_OP)? != 0;
                self.lookups(lookup.map(|lookup| vec![lookup.negated_if(is_inverted)]));
            }
            "lookup" => {
                let set = text(attributes.get(&NFTA_LOOKUP_SET)?)?;
                let (source, target) = (number(NFTA_LOOKUP_SREG)?, number(NFTA_LOOKUP_DREG)?);
                let is_inverted = number(NFTA_LOOKUP_FLAGS)? & NFT_LOOKUP_F_INV != 0;
                self.look_up(&set, source, target, is_inverted);
            }
            "immediate" => match nested(attributes.get(&NFTA_IMMEDIATE_DATA)?, NFTA_DATA_VERDICT) {
                None => {
                    let bytes = data(NFTA_IMMEDIATE_DATA)?;
                    self.registers.load(number(NFTA_IMMEDIATE_DREG)?, Loaded::Bytes(bytes));
                }
                Some(verdict) => self.act(decode_verdict(&verdict)?),
            },
            "objref" => {
                let is_harmless = matches!(
                    number(NFTA_OBJREF_IMM_TYPE)?,
                    NFT_OBJECT_COUNTER | NFT_OBJECT_CT_HELPER | NFT_OBJECT_CT_TIMEOUT | NFT_OBJECT_CT_EXPECT
                );
                match is_harmless {
                    true => self.act(Action::Nothing("object".to_owned())),
                    false => self.matches(Match::Unreadable("object".to_owned())),
                }
            }
            "dynset" => {
                const EXPRESSION: u16 = 7;
                const EXPRESSIONS: u16 = 10;
                match is_given(EXPRESSION) || is_given(EXPRESSIONS) {
                    true => self.matches(Match::Unreadable("dynset".to_owned())),
                    false => self.act(Action::Nothing("dynset".to_owned())),
                }
            }
            "redir" => {
                let port = self.port(number(NFTA_REDIR_REG_PROTO_MIN)?, number(NFTA_REDIR_REG_PROTO_MAX)?)?;
                let port = random(port, number(NFTA_REDIR_FLAGS)?);
                self.act(xtables::redirect(port));
            }
            "masq" => {
                let port = self.port(number(NFTA_MASQ_REG_PROTO_MIN)?, number(NFTA_MASQ_REG_PROTO_MAX)?)?;
                let port = random(port, number(NFTA_MASQ_FLAGS)?);
                self.act(Action::Snat(Choice::Any, port));
            }
            "nat" => {
                let flags = number(NFTA_NAT_FLAGS)?;
                let address = self.address(number(NFTA_NAT_REG_ADDR_MIN)?, number(NFTA_NAT_REG_ADDR_MAX)?);
                let port = self.port(number(NFTA_NAT_REG_PROTO_MIN)?, number(NFTA_NAT_REG_PROTO_MAX)?)?;
                let port = random(port, flags);
                let address = if flags & NF_NAT_RANGE_NETMAP == 0 {
                    address
                } else {
                    Choice::Any
                };
                self.act(match number(NFTA_NAT_TYPE)? {
                    0 => Action::Snat(address, port),
                    _ => Action::Dnat(address, port),
                });
            }
            "tproxy" => {
                const UNCHANGED: MarkChange = MarkChange {
                    of_connection: false,
                    keep: u32::MAX,
                    copy: 0,
                    xor: 0,
                };
                let port = number(NFTA_TPROXY_REG_PORT)?;
                let port = self.port(port, port)?;
                self.act(Action::Tproxy {
                    port,
                    mark: UNCHANGED,
                    is_final: false,
                });
            }
            "match" | "target" => {
                let name = text(attributes.get(&NFTA_EXTENSION_NAME)?)?;
                let extension = Extension {
                    name: &name,
                    revision: number(NFTA_EXTENSION_REV)?,
                    data: attributes
                        .get(&NFTA_EXTENSION_INFO)
                        .map(Vec::as_slice)
                        .unwrap_or_default(),
                    family: self.family?,
                };
                self.extension(expression.0 == "target", &extension);
            }
            _ => return None,
        }
        Some(())
    }

    fn extension(&mut self, is_target: bool, extension: &Extension) {
        if is_target {
            self.act(xtables::target(extension));
            return;
        }
        match xtables::matches(extension) {
            xtables::Decoded::Comment(comment) => self.comment = comment,
            xtables::Decoded::Matches(matches) => {
                self.statements.extend(matches.into_iter().map(Statement::Match));
            }
        }
    }

    /// Adds conditions, or one that cannot be decoded.
    fn lookups(&mut self, lookups: Result<Vec<Lookup>, Undecodable>) {
        match lookups {
            Ok(lookups) => {
                for lookup in lookups {
                    self.note_family(&lookup);
                    self.matches(Match::Lookup(lookup));
                }
            }
            Err(Undecodable) => self.matches(Match::Unreadable(self.unknown.clone())),
        }
    }

    fn note_family(&mut self, lookup: &Lookup) {
        let is_family = lookup.keys == [Key::whole(Field::Family)] && !lookup.is_negated;
        if let ([spans], true) = (lookup.elements.as_slice(), is_family) {
            let is = |number: u8| *spans == [(number.into(), number.into())];
            self.family = match (is(NFPROTO_IPV4), is(NFPROTO_IPV6)) {
                (true, _) => Some(Family::V4),
                (_, true) => Some(Family::V6),
                _ => self.family,
            };
        }
    }

    fn look_up(&mut self, set: &str, source: u32, target: u32, is_inverted: bool) {
        let Some(found) = self.context.sets.get(set) else {
            self.act(Action::Unreadable(format!("set {set}")));
            return;
        };
        if target != 0 {
            self.registers.load(target, Loaded::Unknown(format!("map {set}")));
            return;
        }
        let elements = found.elements();
        let verdicts = elements.iter().map(|element| nested(&element.data, NFTA_DATA_VERDICT));
        let verdicts = verdicts
            .collect::<Option<Vec<_>>>()
            .filter(|verdicts| !verdicts.is_empty());
        let parts = self
            .registers
            .key(source, found.key_length)
            .map_err(|name| name.unwrap_or_else(|| self.unknown.clone()));
        let decoded = parts.and_then(|parts| {
            let keys: Vec<Key> = parts.iter().map(|(_, part)| part.key()).collect();
            let spans = elements.iter().map(|element| element_spans(&parts, element));
            let spans: Option<Vec<Vec<Span>>> = spans.collect();
            Ok((keys, spans.ok_or_else(|| format!("set {set}"))?))
        });
        let (keys, spans) = match (decoded, &verdicts) {
            (Ok(decoded), _) => decoded,
            // Whether it has a verdict for the packet, and which one, is unknown.
            (Err(unknown), Some(_)) => return self.act(Action::Unreadable(format!("{unknown} vmap"))),
            (Err(unknown), None) => return self.matches(Match::Unreadable(unknown)),
        };
        match verdicts {
            Some(verdicts) => {
                let entries = spans.into_iter().zip(verdicts).map(|(spans, verdict)| Entry {
                    spans,
                    action: decode_verdict(&verdict).unwrap_or_else(|| Action::Unreadable("verdict".to_owned())),
                });
                let action = Action::Map(keys, entries.collect());
                self.act(action);
            }
            None => self.matches(Match::Lookup(Lookup {
                keys,
                elements: spans,
                is_negated: is_inverted,
                if_missing: false,
            })),
        }
    }

    fn set_meta(&mut self, key: u32, source: u32) -> Option<()> {
        match key {
            NFT_META_MARK => self.set_mark(false, source),
            NFT_META_PRIORITY | NFT_META_NFTRACE => self.act(Action::Nothing("meta set".to_owned())),
            _ => self.act(Action::Unreadable("meta set".to_owned())),
        }
        Some(())
    }

    fn set_conntrack(&mut self, key: u32, source: u32) -> Option<()> {
        match (key, self.registers.get(source)) {
            (NFT_CT_MARK, _) => self.set_mark(true, source),
            (NFT_CT_ZONE, Some(Loaded::Bytes(bytes))) => {
                let zone = u16::from_ne_bytes(*bytes.first_chunk()?);
                self.act(Action::Planned(ruleset::Action::SetZone(Zone(zone))));
            }
            _ => self.act(Action::Nothing("ct set".to_owned())),
        }
        Some(())
    }

    fn set_mark(&mut self, of_connection: bool, source: u32) {
        let change = match self.registers.get(source) {
            Some(Loaded::Bytes(bytes)) => bytes.as_array().map(|bytes| (0, 0, u32::from_ne_bytes(*bytes))),
            Some(Loaded::Mark {
                of_connection: of,
                mask,
                xor,
            }) => Some(match *of == of_connection {
                true => (*mask, 0, *xor),
                false => (0, *mask, *xor),
            }),
            _ => None,
        };
        self.act(match change {
            Some((keep, copy, xor)) => Action::Mark(MarkChange {
                of_connection,
                keep,
                copy,
                xor,
            }),
            None => Action::Unreadable("mark set".to_owned()),
        });
    }

    fn port(&self, first: u32, last: u32) -> Option<Choice<Port>> {
        let port = |register: u32| match self.registers.get(register) {
            Some(Loaded::Bytes(bytes)) => Some(u16::from_be_bytes(*bytes.first_chunk()?)),
            _ => None,
        };
        if first == 0 {
            return Some(Choice::Keep);
        }
        let last = if last == 0 { first } else { last };
        let range = port(first).zip(port(last));
        Some(range.map_or(Choice::Any, |range| xtables::chosen_port(Some(range))))
    }

    fn address(&self, first: u32, last: u32) -> Choice<IpAddr> {
        let address = |register: u32| match self.registers.get(register) {
            Some(Loaded::Bytes(bytes)) => address(bytes),
            _ => None,
        };
        if first == 0 {
            return Choice::Keep;
        }
        let last = if last == 0 { first } else { last };
        let range = address(first).zip(address(last));
        range.map_or(Choice::Any, |range| xtables::chosen_address(Some(range)))
    }
}

fn whole_mark(of_connection: bool) -> Loaded {
    Loaded::Mark {
        of_connection,
        mask: u32::MAX,
        xor: 0,
    }
}

fn random(port: Choice<Port>, flags: u32) -> Choice<Port> {
    if flags & NF_NAT_RANGE_PROTO_RANDOM_ALL == 0 {
        port
    } else {
        Choice::Any
    }
}

/// The action of a verdict.
fn decode_verdict(verdict: &[u8]) -> Option<Action> {
    use ruleset::Action as Planned;
    let code = u32::from_be_bytes(*nested(verdict, NFTA_VERDICT_CODE)?.as_array()?);
    let chain = nested(verdict, NFTA_VERDICT_CHAIN).and_then(|name| text(&name));
    Some(match (code, chain) {
        (NF_ACCEPT, _) => Action::Planned(Planned::Accept),
        (NF_DROP, _) => Action::Planned(Planned::Drop),
        (NFT_RETURN, _) => Action::Planned(Planned::Return),
        (NFT_JUMP, Some(chain)) => Action::Planned(Planned::Jump(chain.into())),
        (NFT_GOTO, Some(chain)) => Action::Goto(chain.into()),
        (NFT_CONTINUE, _) => Action::Nothing("continue".to_owned()),
        (code, _) if code & NF_VERDICT_MASK == NF_QUEUE => Action::Queue,
        _ => return None,
    })
}
