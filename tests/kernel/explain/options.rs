//! Random options, and values of options and packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sidetrack::plan::PASSTHROUGH_V6;
use sidetrack::types::Family;

use crate::common::Address;

pub fn port() -> impl Strategy<Value = u16> {
    let known = [
        1, 22, 53, 80, 443, 3306, 5432, 8080, 8081, 9090, 15001, 15006, 15008, 15020, 15021, 15053, 15090, 65535,
    ];
    prop_oneof![4 => select(known.to_vec()), 1 => 1_u16..]
}

fn ports() -> impl Strategy<Value = String> {
    let range = (port(), 0_u16..40).prop_map(|(first, more)| format!("{first}-{}", first.saturating_add(more)));
    let item = prop_oneof![3 => port().prop_map(|port| port.to_string()), 1 => range];
    prop_oneof![9 => vec(item, 0..5).prop_map(|items| items.join(",")), 1 => Just("*".to_owned())]
}

pub fn id() -> impl Strategy<Value = u32> {
    prop_oneof![4 => select(&[0, 3, 101, 1000, 1001, 1337, 1338, 65534, 4_294_967_294][..]), 1 => 0_u32..3000]
}

fn ids() -> impl Strategy<Value = String> {
    let range = (id(), 0_u32..400)
        .prop_map(|(first, more)| format!("{first}-{}", first.saturating_add(more).min(u32::MAX - 1)));
    let item = prop_oneof![3 => id().prop_map(|id| id.to_string()), 1 => range];
    vec(item, 0..4).prop_map(|items| items.join(","))
}

pub fn address() -> impl Strategy<Value = IpAddr> {
    let known = [
        "10.0.0.5",
        "10.96.0.10",
        "9.9.9.9",
        "192.168.7.7",
        "203.0.113.7",
        "198.18.0.9",
        "169.254.169.254",
        "10.99.0.1",
        "10.99.1.1",
        "2001:db8::5",
        "2001:db8:f::9",
        "2001:db8:5::1",
        "fd00::a",
        "fd00:ec2::254",
        "fd99::1",
        "fd99:1::1",
    ];
    let known: Vec<IpAddr> = known
        .iter()
        .map(|address| address.parse().expect("an address"))
        .collect();
    prop_oneof![
        6 => select(known),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from(bits >> 3 | 1 << 125).into()),
    ]
}

fn cidrs() -> impl Strategy<Value = String> {
    let item = prop_oneof![
        2 => (address(), 0_u8..=128).prop_map(|(address, length)| match address {
            IpAddr::V4(address) => format!("{address}/{}", length / 4),
            IpAddr::V6(address) => format!("{address}/{length}"),
        }),
        2 => address().prop_map(|address| address.to_string()),
        1 => own_address().prop_map(|address| address.to_string()),
    ];
    vec(item, 0..5).prop_map(|items| items.join(","))
}

/// An address of the pod, or of its loopback interface.
pub fn own_address() -> impl Strategy<Value = IpAddr> {
    let pod = [Address::POD, Address::POD_SECOND, Address::LOOPBACK];
    let known: Vec<IpAddr> = pod
        .iter()
        .flat_map(|address| Family::BOTH.map(|family| address.of(family)))
        .collect();
    prop_oneof![
        4 => select(known),
        1 => (0_u32..1 << 24).prop_map(|host| Ipv4Addr::from(0x7f00_0000 | host).into()),
        1 => select(vec![IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 6])]),
        1 => Just(PASSTHROUGH_V6.into()),
    ]
}

pub fn mark() -> impl Strategy<Value = u32> {
    prop_oneof![6 => Just(0), 3 => select(&[1337, 1338, 15006, 15007, 7, 77][..])]
}

/// An option, given as often as `weight` in ten.
fn option(
    weight: u32,
    name: &'static str,
    value: impl Strategy<Value = String> + 'static,
) -> BoxedStrategy<Vec<String>> {
    let given = value.prop_map(move |value| vec![name.to_owned(), value]);
    prop_oneof![weight => given, 10 - weight => Just(Vec::new())].boxed()
}

fn switch(weight: u32, name: &'static str) -> BoxedStrategy<Vec<String>> {
    prop_oneof![weight => Just(vec![name.to_owned()]), 10 - weight => Just(Vec::new())].boxed()
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(words).prop_map(str::to_owned)
}

pub fn options() -> impl Strategy<Value = Vec<String>> {
    let all_or = |items: BoxedStrategy<String>| prop_oneof![2 => items, 1 => Just("*".to_owned())];
    let for_uids = (one_of(&["tcp:", "udp:", ""]), port(), id());
    let for_uids = for_uids.prop_map(|(protocol, port, uid)| format!("{protocol}{port}:{uid}"));
    let proxy = [
        option(2, "--proxy-inbound-port", one_of(&["15006", "16006"])),
        option(2, "--proxy-outbound-port", one_of(&["15001", "16001"])),
        option(
            3,
            "--proxy-uid",
            vec(id(), 1..3).prop_map(|ids| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
        ),
        option(3, "--proxy-gid", ids()),
        option(2, "--mesh-ports", ports()),
        option(2, "--proxy-mark", one_of(&["77", "1338"])),
    ];
    let inbound = [
        option(3, "--include-inbound-ports", all_or(ports().boxed())),
        option(3, "--exclude-inbound-ports", ports()),
        option(3, "--exclude-inbound-cidrs", cidrs()),
        option(3, "--inbound-mode", one_of(&["tproxy"])),
        option(2, "--tproxy-mark", one_of(&["1337", "15006", "7"])),
        option(3, "--inbound-policy", one_of(&["proxy-only"])),
    ];
    let outbound = [
        option(2, "--include-outbound-ports", all_or(ports().boxed())),
        option(3, "--exclude-outbound-ports", ports()),
        option(3, "--include-outbound-cidrs", all_or(cidrs().boxed())),
        option(3, "--exclude-outbound-cidrs", cidrs()),
        option(3, "--exclude-uids", ids()),
        option(2, "--include-gids", all_or(ids().boxed())),
        option(2, "--exclude-gids", ids()),
        option(
            3,
            "--exclude-outbound-ports-for-uids",
            vec(for_uids, 0..3).prop_map(|entries| entries.join(";")),
        ),
    ];
    let rest = [
        option(3, "--outbound-policy", one_of(&["proxy-only"])),
        switch(3, "--allow-dns"),
        switch(4, "--redirect-dns"),
        option(
            10,
            "--dns-servers",
            one_of(&["all", "10.96.0.10,fd00::a", "9.9.9.9,127.0.0.1,::1"]),
        ),
        option(1, "--exclude-interfaces", one_of(&["eth0", "eth1", "lo", "eth1,lo"])),
        option(2, "--reroute-interfaces", one_of(&["eth1", "eth0"])),
        switch(4, "--drop-invalid"),
        option(
            3,
            "--loopback-cidr",
            one_of(&["127.0.0.0/8", "127.0.0.0/24", "127.0.0.1/32"]),
        ),
        option(3, "--ip-family", one_of(&["auto", "ipv4", "ipv6", "dual"])),
    ];
    let all: Vec<_> = proxy.into_iter().chain(inbound).chain(outbound).chain(rest).collect();
    all.prop_map(|given| given.concat())
}
