//! Random options, the same ones in each run.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// An option and its value.
type Given = (&'static str, String);

fn port() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (1_u16..).prop_map(|port| port.to_string()),
        2 => (1_u16.., 0_u16..2000).prop_map(|(first, more)| format!("{first}-{}", first.saturating_add(more))),
        1 => Just("65535".to_owned()),
        1 => Just("15001-15090".to_owned()),
    ]
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (1_u32..3000).prop_map(|id| id.to_string()),
        1 => (0..=u32::MAX - 1).prop_map(|id| id.to_string()),
        2 => (1_u32..3000, 0_u32..5000).prop_map(|(first, more)| format!("{first}-{}", first + more)),
        1 => Just("4294967290-4294967294".to_owned()),
    ]
}

fn cidr() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => (any::<u32>(), 0_u8..=32).prop_map(|(ip, length)| format!("{}/{length}", std::net::Ipv4Addr::from(ip))),
        3 => (any::<u128>(), 0_u8..=128).prop_map(|(ip, length)| format!("{}/{length}", std::net::Ipv6Addr::from(ip))),
        1 => any::<std::net::IpAddr>().prop_map(|ip| ip.to_string()),
        1 => (0_u32..1 << 24).prop_map(|host| std::net::Ipv4Addr::from(0x7f00_0000 | host).to_string()),
        1 => Just("::1".to_owned()),
    ]
}

fn list(item: impl Strategy<Value = String>, most: usize) -> impl Strategy<Value = String> {
    vec(item, 0..most).prop_map(|items| items.join(","))
}

fn option(name: &'static str, value: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Option<Given>> {
    proptest::option::of(value)
        .prop_map(move |value| value.map(|value| (name, value)))
        .boxed()
}

fn policy() -> impl Strategy<Value = String> {
    prop_oneof![Just("allow"), Just("proxy-only")].prop_map(str::to_owned)
}

fn options() -> impl Strategy<Value = Vec<String>> {
    let all_or = |items: BoxedStrategy<String>| prop_oneof![3 => items, 1 => Just("*".to_owned())];
    let for_uids = (prop_oneof![Just("tcp:"), Just("udp:"), Just("")], port(), id())
        .prop_map(|(protocol, ports, uids)| format!("{protocol}{ports}:{uids}"));
    let mesh = prop_oneof![
        Just("istio"),
        Just("kuma"),
        Just("linkerd"),
        Just("consul"),
        Just("none")
    ];
    vec![
        option("--mesh", mesh.prop_map(str::to_owned)),
        option(
            "--proxy-inbound-port",
            (1_u16..=15000).prop_map(|port| port.to_string()),
        ),
        option("--proxy-outbound-port", (15001_u16..).prop_map(|port| port.to_string())),
        option("--proxy-uid", vec(id(), 1..4).prop_map(|ids| ids.join(","))),
        option("--proxy-gid", list(id(), 4)),
        option("--mesh-ports", list(port(), 6)),
        option("--include-inbound-ports", all_or(list(port(), 20).boxed())),
        option("--exclude-inbound-ports", list(port(), 40)),
        option("--exclude-inbound-cidrs", list(cidr(), 8)),
        option("--include-outbound-ports", all_or(list(port(), 20).boxed())),
        option("--exclude-outbound-ports", list(port(), 40)),
        option("--include-outbound-cidrs", all_or(list(cidr(), 8).boxed())),
        option("--exclude-outbound-cidrs", list(cidr(), 8)),
        option("--exclude-uids", list(id(), 8)),
        option("--exclude-gids", list(id(), 8)),
        option(
            "--exclude-outbound-ports-for-uids",
            vec(for_uids, 0..4).prop_map(|entries| entries.join(";")),
        ),
        option("--exclude-interfaces", list("[a-z][a-z0-9_.-]{0,14}", 3)),
        option(
            "--loopback-cidr",
            (8_u8..=32).prop_map(|length| format!("127.0.0.1/{length}")),
        ),
        option("--outbound-policy", policy()),
        option(
            "--proxy-mark",
            prop_oneof![Just("77"), Just("")].prop_map(str::to_owned),
        ),
        option("--reroute-interfaces", list("[a-z][a-z0-9_.-]{0,14}", 3)),
        option("--dns-servers", Just("10.96.0.10,2001:db8::a".to_owned())),
        option("--inbound-policy", policy()),
        option(
            "--ip-family",
            prop_oneof![Just("auto"), Just("ipv4"), Just("ipv6"), Just("dual")].prop_map(str::to_owned),
        ),
    ]
    .prop_flat_map(|given| (Just(given), any::<bool>()))
    .prop_map(|(given, allows_dns)| {
        let given = given
            .into_iter()
            .flatten()
            .flat_map(|(name, value)| [name.to_owned(), value]);
        given.chain(allows_dns.then(|| "--allow-dns".to_owned())).collect()
    })
}

/// Runs `check` on random options, the same ones in each run.
pub fn each(cases: u32, check: impl Fn(&[&str])) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&options(), |options| {
        check(&options.iter().map(String::as_str).collect::<Vec<_>>());
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
