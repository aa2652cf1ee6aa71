use super::*;
use crate::options::VirtualNetwork;
use crate::plan::Plan;
use crate::types::{
    DnsServers, Gid, Id as _, InterfaceName, MeshName, NoAccounts, Policy, Uid, parse_cidrs, parse_ids, parse_ports,
};

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Settings::default().config;
    change(&mut config);
    config
}

fn comments_of(config: &Config) -> Vec<String> {
    let record = record(config, &Facts::default());
    record.comments().map(str::to_owned).collect()
}

fn read_text(text: &str) -> Result<Recorded, Unusable> {
    read(&Record::new([text.to_owned()]))
}

/// A text with the right digest.
fn sealed(words: &str) -> String {
    format!("sidetrack {VERSION} {:016x}: {words}", digest([words]))
}

#[test]
fn record_has_only_options_that_differ_from_defaults() {
    let comments = comments_of(&config(|config| {
        config.outbound.exclude_ports = parse_ports("443,8443").unwrap();
        config.general.drop_invalid = true;
    }));
    let words = "--exclude-outbound-ports=443,8443 --drop-invalid";
    assert_eq!(comments, [sealed(words)]);
    assert_eq!(
        comments_of(&Settings::default().config),
        ["sidetrack 1 cbf29ce484222325:"]
    );
}

#[test]
fn defaults_of_another_mesh_are_not_recorded() {
    for mesh in [MeshName::Linkerd, MeshName::Kuma, MeshName::Consul, MeshName::None] {
        let layer = Layer {
            mesh: Some(mesh),
            ..Layer::default()
        };
        let config = mesh::settings(layer).unwrap().config;
        assert_eq!(comments_of(&config), [sealed(&format!("--mesh={mesh}"))]);
    }
}

#[test]
fn included_ports_are_recorded_without_the_destinations_that_they_replace() {
    let layer = Layer {
        include_outbound_ports: Some(parse_ports("443").unwrap()),
        ..Layer::default()
    };
    let config = mesh::settings(layer).unwrap().config;
    assert_eq!(comments_of(&config), [sealed("--include-outbound-ports=443")]);
    let everything = self::config(|config| config.outbound.include_ports = parse_ports("443").unwrap());
    let words = "--include-outbound-ports=443 --include-outbound-cidrs=*";
    assert_eq!(comments_of(&everything), [sealed(words)]);
}

#[test]
fn known_name_servers_are_recorded_in_place_of_the_file() {
    let redirected = config(|config| config.dns.redirect = true);
    let allowed = config(|config| {
        config.outbound.policy = Policy::ProxyOnly;
        config.outbound.allow_dns = true;
    });
    let of = |config: &Config, resolvers: &[&str]| {
        let facts = Facts {
            resolvers: resolvers.iter().map(|text| text.parse().unwrap()).collect(),
            ..Facts::default()
        };
        (record(config, &facts), facts)
    };
    for (config, resolvers, words) in [
        (
            &redirected,
            &["10.96.0.10", "fd00::a"][..],
            "--redirect-dns --dns-servers=10.96.0.10,fd00::a",
        ),
        (&redirected, &[], "--redirect-dns no-name-servers"),
        (
            &allowed,
            &["10.96.0.10"],
            "--outbound-policy=proxy-only --allow-dns --dns-servers=10.96.0.10",
        ),
        (
            &allowed,
            &[],
            "--outbound-policy=proxy-only --allow-dns no-name-servers",
        ),
    ] {
        let (record, facts) = of(config, resolvers);
        assert_eq!(record.comments().collect::<Vec<_>>(), [sealed(words)]);
        let recorded = read(&record).unwrap();
        // Whatever the file has by now.
        let later = Facts {
            resolvers: recorded.resolvers.unwrap_or_else(|| vec!["192.0.2.1".parse().unwrap()]),
            ..Facts::default()
        };
        assert_eq!(
            Plan::new(&recorded.config, &later).unwrap(),
            Plan::new(config, &facts).unwrap()
        );
    }
}

#[test]
fn rules_of_other_programs_are_read_back() {
    let ids = |config: &mut Config| {
        config.proxy.uids = parse_ids("7,3-4", &NoAccounts).unwrap();
        config.proxy.gids = parse_ids("9", &NoAccounts).unwrap();
    };
    let istio = config(|config| {
        ids(config);
        config.dialect = Dialect::Istio(OwnerOrder {
            uids: [7, 3, 4].map(|id| Uid::new(id).unwrap()).to_vec(),
            gids: vec![Gid::new(9).unwrap()],
        });
    });
    assert_eq!(
        comments_of(&istio),
        [sealed(
            "rules-as=istio-iptables uid-order=7,3,4 --proxy-uid=3-4,7 --proxy-gid=9"
        )]
    );
    let network = |interface, cidr: &str| VirtualNetwork {
        interface: InterfaceName::parse(interface).unwrap(),
        cidr: cidr.parse().unwrap(),
    };
    let kuma = config(|config| {
        config.dialect = Dialect::Kuma(KumaRules {
            redirects_dns_over_tcp: true,
            splits_conntrack_zones: false,
            networks: vec![network("docker0", "172.17.0.0/16"), network("docker0", "fd00::/64")],
        });
    });
    for config in [istio, kuma] {
        assert_eq!(read(&record(&config, &Facts::default())).unwrap().config, config);
    }
}

/// Sidetrack writes no such record, and there is no plan for it.
#[test]
fn a_policy_in_a_record_of_rules_of_other_programs_is_damage() {
    let words = "rules-as=istio-iptables --proxy-uid=7 --proxy-gid=7";
    let read = |words: &str| read(&Record::new([sealed(words)]));
    assert!(read(words).is_ok());
    let damaged = read(&format!("{words} --outbound-policy=proxy-only"));
    assert!(matches!(damaged, Err(Unusable::Damaged(_))), "{damaged:?}");
}

#[test]
fn comments_are_filled_to_the_last_byte() {
    let head = "sidetrack 1 0123456789abcdef:";
    let word = |length: usize| format!("--x={}", "a".repeat(length - 4));
    let room = MAX_COMMENT_LENGTH - head.len() - 1;
    let fits = word(room);
    let lengths = |words: &[&str]| -> Vec<usize> {
        let comments = comments(head, words.iter().copied());
        comments.iter().map(String::len).collect()
    };
    assert_eq!(lengths(&[&fits]), [MAX_COMMENT_LENGTH]);
    assert_eq!(lengths(&[&word(room + 1)]), [head.len(), room + 1]);
    assert_eq!(lengths(&[&fits, &word(MAX_COMMENT_LENGTH)]), [MAX_COMMENT_LENGTH; 2]);
}

#[test]
fn long_lists_are_cut_after_an_element_and_read_back() {
    let cidrs: Vec<String> = (0..60).map(|number| format!("10.{number}.0.0/17")).collect();
    let config = config(|config| {
        config.outbound.exclude_cidrs = parse_cidrs(&cidrs.join(",")).unwrap();
        config.outbound.exclude_ports = parse_ports("1,3,5,7,9").unwrap();
    });
    let comments = comments_of(&config);
    assert!(comments.len() > 5, "{comments:?}");
    assert!(comments.iter().all(|comment| comment.len() <= MAX_COMMENT_LENGTH));
    let recorded = read(&record(&config, &Facts::default())).unwrap();
    assert_eq!(recorded.config, config);
    assert_eq!(recorded.words[0], "--exclude-outbound-ports=1,3,5,7,9");
}

#[test]
fn lists_that_do_not_fit_are_named_and_their_digest_is_kept() {
    let excluding = |count: usize| {
        let cidrs: Vec<String> = (0..count)
            .map(|number| format!("10.{}.{}.0/25", number / 256, number % 256))
            .collect();
        config(|config| {
            config.outbound.exclude_cidrs = parse_cidrs(&cidrs.join(",")).unwrap();
            config.outbound.exclude_ports = parse_ports("443").unwrap();
        })
    };
    let (one, other) = (comments_of(&excluding(2000)), comments_of(&excluding(2001)));
    let words = |comments: &[String]| comments[0].split_once(": ").unwrap().1.to_owned();
    assert_eq!(
        (one.len(), words(&one)),
        (
            1,
            "--exclude-outbound-ports=443 omitted=exclude-outbound-cidrs".to_owned()
        )
    );
    assert_eq!(words(&one), words(&other));
    assert_ne!(one, other);
    let unusable = read(&record(&excluding(2000), &Facts::default())).unwrap_err();
    assert_eq!(unusable, Unusable::Incomplete(vec!["exclude-outbound-cidrs"]));
    assert_eq!(
        unusable.to_string(),
        "--exclude-outbound-cidrs is too long to be recorded"
    );
    // The longest list that fits, and one element more.
    let most = (1..2000)
        .find(|count| read(&record(&excluding(*count), &Facts::default())).is_err())
        .unwrap()
        - 1;
    assert_eq!(comments_of(&excluding(most)).len(), MAX_COMMENTS);
    assert_eq!(
        read(&record(&excluding(most), &Facts::default())).unwrap().config,
        excluding(most)
    );
}

#[test]
fn only_what_is_too_long_is_left_out() {
    let ports: Vec<String> = (0..900).map(|number| (1000 + 2 * number).to_string()).collect();
    let config = config(|config| {
        config.outbound.exclude_ports = parse_ports(&ports.join(",")).unwrap();
        config.inbound.exclude_ports = parse_ports(&ports.join(",")).unwrap();
        config.dns.servers = DnsServers::All;
    });
    let comments = comments_of(&config);
    assert!(
        comments[0].ends_with(": --dns-servers=all omitted=exclude-outbound-ports,exclude-inbound-ports"),
        "{comments:?}"
    );
}

#[test]
fn texts_of_other_origin_are_refused_with_the_reason() {
    let damaged = |reason: &str| Unusable::Damaged(reason.to_owned());
    let origin = "it does not begin as one of sidetrack";
    let changed = sealed("--exclude-outbound-ports=443").replace("443", "444");
    for (text, unusable) in [
        (String::new(), damaged(origin)),
        ("hello".to_owned(), damaged(origin)),
        ("sidetrack 1 xyz: --drop-invalid".to_owned(), damaged(origin)),
        (changed, damaged("its digest is not that of its options")),
        ("sidetrack 2 anything at all: x".to_owned(), Unusable::Version(2)),
        ("sidetrack 2: x".to_owned(), Unusable::Version(2)),
        (
            sealed("--no-such-option=1"),
            Unusable::Unknown("--no-such-option".to_owned()),
        ),
        (sealed("--backend=nftables"), Unusable::Unknown("--backend".to_owned())),
        (sealed("--dry-run"), Unusable::Unknown("--dry-run".to_owned())),
        (sealed("rules-as=other"), Unusable::Unknown("rules-as=other".to_owned())),
        (
            sealed("--proxy-uid=root"),
            damaged("the value of --proxy-uid is not valid"),
        ),
        (
            sealed("--drop-invalid --drop-invalid"),
            damaged("\"--drop-invalid\" is there twice"),
        ),
        (
            sealed("rules-as=istio-iptables --proxy-uid=1-4000000000"),
            damaged("the value of uid-order is not valid"),
        ),
        (
            "x".repeat(MAX_COMMENT_LENGTH + 1),
            damaged("it is longer than any that sidetrack writes"),
        ),
    ] {
        assert_eq!(read_text(&text), Err(unusable), "{text}");
    }
    let contradiction = read_text(&sealed("--proxy-inbound-port=15001"))
        .unwrap_err()
        .to_string();
    assert!(contradiction.contains("both are 15001"), "{contradiction}");
    let many = Record::new(vec!["sidetrack 1 cbf29ce484222325:".to_owned(); MAX_COMMENTS + 1]);
    assert_eq!(read(&many), Err(damaged("it is longer than any that sidetrack writes")));
}
