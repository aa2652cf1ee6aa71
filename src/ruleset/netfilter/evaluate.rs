//! Evaluates conditions of installed rules for a packet whose properties are all or partly known.

use std::net::IpAddr;

use super::{Entry, Field, Key, Lookup, Match, Span};
use crate::ruleset::{Known, Set, Value, View};
use crate::types::{Family, Id as _, InterfaceName};

/// Whether a condition holds. A planned condition's set is looked up in `sets`.
pub fn holds(sets: &[Set], matcher: &Match, packet: &View) -> Known {
    match matcher {
        Match::Planned(planned) => crate::ruleset::holds(sets, planned, packet),
        Match::Lookup(lookup) => finds(lookup, packet),
        Match::Unreadable(_) => Known::Perhaps,
    }
}

fn finds(lookup: &Lookup, packet: &View) -> Known {
    let values = values(&lookup.keys, packet);
    if values.contains(&Value::Missing) {
        return lookup.if_missing.into();
    }
    let found = lookup
        .elements
        .iter()
        .map(|spans| is_element(&lookup.keys, &values, spans));
    let found = found.fold(Known::No, Known::or);
    if lookup.is_negated { found.negated() } else { found }
}

/// The entry of a map that has the packet's values, if that is known and there is one.
pub fn applicable_entry<'m>(keys: &[Key], entries: &'m [Entry], packet: &View) -> (Known, Option<&'m Entry>) {
    let values = values(keys, packet);
    if values.contains(&Value::Missing) {
        return (Known::No, None);
    }
    for entry in entries {
        match is_element(keys, &values, &entry.spans) {
            Known::No => {}
            known => return (known, Some(entry)),
        }
    }
    (Known::No, None)
}

fn values(keys: &[Key], packet: &View) -> Vec<Value<u128>> {
    keys.iter().map(|key| value(key.field, packet)).collect()
}

fn is_element(keys: &[Key], values: &[Value<u128>], spans: &[Span]) -> Known {
    let parts = keys.iter().zip(values).zip(spans);
    parts.fold(Known::Yes, |all, ((key, value), span)| {
        all.and(is_inside(*key, *value, *span))
    })
}

fn is_inside(key: Key, value: Value<u128>, (first, last): Span) -> Known {
    let is_whole = first == 0 && last >= key.mask;
    match value {
        Value::Is(value) => (first..=last).contains(&(value & key.mask)).into(),
        _ if is_whole => Known::Yes,
        Value::IsNot(value) if key.mask == key.field.largest() && first == last && first == value => Known::No,
        Value::Missing => Known::No,
        Value::IsNot(_) | Value::Unknown => Known::Perhaps,
    }
}

/// The value of a field.
fn value(field: Field, packet: &View) -> Value<u128> {
    let of_family = |family: Family, address: Value<IpAddr>| match packet.family {
        Value::Is(of) if of != family => Value::Missing,
        _ => address.map(|address| match address {
            IpAddr::V4(address) => u32::from(address).into(),
            IpAddr::V6(address) => address.into(),
        }),
    };
    // A packet without an interface has an empty name and the index 0.
    let name = |interface: Value<&InterfaceName>| match interface {
        Value::Missing => Value::Is(0),
        interface => interface.map(name_as_number),
    };
    let index = |interface: Value<&InterfaceName>| match interface {
        Value::Missing => Value::Is(0),
        Value::Is(name) if *name == InterfaceName::loopback() => Value::Is(LOOPBACK_INDEX),
        Value::Is(_) => Value::IsNot(LOOPBACK_INDEX),
        Value::IsNot(_) | Value::Unknown => Value::Unknown,
    };
    match field {
        Field::Family => packet.family.map(|family| match family {
            Family::V4 => 2,
            Family::V6 => 10,
        }),
        Field::Protocol => packet.protocol.map(|protocol| protocol.get().into()),
        Field::InInterface => name(packet.in_interface),
        Field::OutInterface => name(packet.out_interface),
        Field::InIndex => index(packet.in_interface),
        Field::OutIndex => index(packet.out_interface),
        Field::Source(family) => of_family(family, packet.source),
        Field::Destination(family) => of_family(family, packet.destination),
        Field::SourcePort => packet.source_port.map(|port| port.get().into()),
        Field::DestinationPort => packet.destination_port.map(|port| port.get().into()),
        Field::TcpFlags => packet.tcp_flags.map(u128::from),
        Field::Uid => packet.uid.map(|uid| uid.get().into()),
        Field::Gid => packet.gid.map(|gid| gid.get().into()),
        Field::Mark => packet.mark.map(u128::from),
        Field::ConntrackMark => packet.conntrack_mark.map(u128::from),
        Field::ConntrackState => packet.conntrack_state.map(u128::from),
        Field::ConntrackStatus => packet.conntrack_status.map(u128::from),
        Field::ConntrackDirection => packet.conntrack_direction.map(u128::from),
        Field::SourceType => packet.source_type.map(u128::from),
        Field::ReversePath => packet.reverse_path.map(u128::from),
        Field::DestinationType => packet.destination_type.map(u128::from),
    }
}

/// The index of the loopback interface in every network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LOOPBACK_INDEX: u128 = 1;

/// The name of an interface, padded with zeros to 16 bytes, as a number in network byte order.
pub fn name_as_number(name: &InterfaceName) -> u128 {
    let mut padded = [0; 16];
    let bytes = name.as_str().as_bytes();
    let length = bytes.len().min(padded.len());
    padded[..length].copy_from_slice(&bytes[..length]);
    u128::from_be_bytes(padded)
}
