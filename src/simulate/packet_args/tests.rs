use super::*;
use crate::types::NoAccounts;

fn args(direction: &str, protocol: &str, destination: &str) -> PacketArgs {
    PacketArgs {
        direction: direction.to_owned(),
        protocol: protocol.to_owned(),
        destination: destination.to_owned(),
        ..PacketArgs::default()
    }
}

fn pod() -> Pod {
    let eth0 = InterfaceName::parse("eth0").unwrap();
    let addresses = ["10.1.0.7", "2001:db8:1::7"].map(|address| (eth0.clone(), address.parse().unwrap()));
    Pod {
        addresses: addresses.into(),
        local_marks: Vec::new(),
        route_localnet: Vec::new(),
    }
}

fn packet(args: &PacketArgs) -> Packet {
    parse(args, &NoAccounts).unwrap().packet(&pod()).unwrap()
}

#[test]
fn default_values_describe_an_ordinary_pod() {
    let packet = packet(&args("outbound", "tcp", "10.0.0.5:443"));
    assert_eq!(
        (packet.source, packet.mark, packet.tracking),
        ("10.1.0.7".parse().unwrap(), 0, Tracking::New)
    );
    let (uid, gid) = (Uid::new(1000).unwrap(), Gid::new(1000).unwrap());
    assert_eq!(
        packet.origin,
        Origin::Process {
            uid,
            gid,
            cgroup: None,
            interface: InterfaceName::parse("eth0").unwrap()
        }
    );
}

#[test]
fn a_group_goes_with_its_user_and_a_user_alone_has_a_group_of_its_number() {
    let owner = |uid: Option<&str>, gid: Option<&str>| {
        let args = PacketArgs {
            uid: uid.map(str::to_owned),
            gid: gid.map(str::to_owned),
            ..args("outbound", "tcp", "10.0.0.5:443")
        };
        match packet(&args).origin {
            Origin::Process { uid, gid, .. } => (uid.get(), gid.get()),
            Origin::Interface(_) => unreachable!(),
        }
    };
    assert_eq!(owner(Some("1337"), None), (1337, 1337));
    assert_eq!(owner(None, Some("1337")), (1000, 1337));
    assert_eq!(owner(Some("0"), Some("1337")), (0, 1337));
}

#[test]
fn a_port_alone_is_the_pods_in_the_family_of_the_source() {
    let inbound = args("inbound", "tcp", ":8080");
    assert_eq!(packet(&inbound).destination, "10.1.0.7".parse::<IpAddr>().unwrap());
    assert_eq!(packet(&inbound).source, IpAddr::from(DEFAULT_CLIENT_V4));
    let from = PacketArgs {
        source: Some("2001:db8::9".to_owned()),
        ..inbound
    };
    assert_eq!(packet(&from).destination, "2001:db8:1::7".parse::<IpAddr>().unwrap());
}

#[test]
fn a_call_of_the_pod_itself_comes_from_the_address_that_is_called() {
    assert_eq!(
        packet(&args("outbound", "udp", "[2001:db8:1::7]:53")).source,
        "2001:db8:1::7".parse::<IpAddr>().unwrap()
    );
    assert_eq!(
        packet(&args("outbound", "tcp", "127.0.0.9:80")).source,
        IpAddr::from(Ipv4Addr::LOCALHOST)
    );
    assert_eq!(
        packet(&args("outbound", "tcp", "[::1]:80")).source,
        IpAddr::from(Ipv6Addr::LOCALHOST)
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let args = PacketArgs {
        source: Some("here".to_owned()),
        uid: Some("1-5".to_owned()),
        gid: Some("-1".to_owned()),
        mark: Some("0xg".to_owned()),
        interface: Some("eth 0".to_owned()),
        connection_state: Some("open".to_owned()),
        ..args("out", "quic", "10.0.0.5")
    };
    let mistakes = parse(&args, &NoAccounts).unwrap_err();
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let names = [
        "DIRECTION",
        "PROTOCOL",
        "DESTINATION",
        "--source",
        "--uid",
        "--gid",
        "--mark",
        "--interface",
        "--connection-state",
    ];
    assert_eq!(told.len(), names.len(), "{told:#?}");
    for (told, name) in told.iter().zip(names) {
        assert!(told.starts_with(&format!("{name}: ")), "{told}");
    }
}

#[test]
fn contradicting_arguments_are_refused() {
    let inbound = PacketArgs {
        uid: Some("1".to_owned()),
        ..args("inbound", "tcp", ":80")
    };
    let families = PacketArgs {
        source: Some("::1".to_owned()),
        ..args("outbound", "tcp", "10.0.0.5:80")
    };
    for args in [inbound, families] {
        let mistakes = parse(&args, &NoAccounts).unwrap_err();
        assert!(
            matches!(mistakes.as_slice(), [Mistake::Contradiction(_)]),
            "{mistakes:?}"
        );
    }
}

#[test]
fn protocols_without_ports_have_addresses_alone() {
    let echo = packet(&args("outbound", "icmp", "10.0.0.5"));
    assert_eq!(
        (echo.protocol, echo.destination_port, echo.source_port),
        (IpProtocol::ICMP, None, None)
    );
    let gre = packet(&args("outbound", "47", "2001:db8::5"));
    assert_eq!(gre.protocol, IpProtocol::new(47));
    assert_eq!(
        packet(&args("outbound", "sctp", "10.0.0.5:38412")).destination_port,
        Port::new(38412)
    );
    let from_port = PacketArgs {
        source: Some("10.1.0.7:9".to_owned()),
        ..args("outbound", "icmp", "10.0.0.5")
    };
    for args in [
        args("outbound", "icmp", "10.0.0.5:1"),
        args("outbound", "sctp", "10.0.0.5"),
        args("outbound", "icmp", "2001:db8::5"),
        args("outbound", "icmpv6", "10.0.0.5"),
        from_port,
    ] {
        assert_eq!(parse(&args, &NoAccounts).unwrap_err().len(), 1, "{args:?}");
    }
}

#[test]
fn missing_pod_address_is_an_error() {
    let v4_alone = Pod {
        addresses: pod().addresses[..1].to_vec(),
        local_marks: Vec::new(),
        route_localnet: Vec::new(),
    };
    for args in [
        args("outbound", "tcp", "[2001:db8::5]:443"),
        PacketArgs {
            source: Some("2001:db8::9".to_owned()),
            ..args("inbound", "tcp", ":8080")
        },
    ] {
        let mistake = parse(&args, &NoAccounts).unwrap().packet(&v4_alone).unwrap_err();
        assert!(mistake.to_string().contains("--pod-ip"), "{mistake}");
    }
}
