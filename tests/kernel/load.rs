//! Load: replacing rules under traffic, killed runs, lists with thousands of elements.

use std::io::{Write as _, stdout};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use sidetrack::backend::RuleBackend;
use sidetrack::backend::nftables::{Nftables, OwnTables};
use sidetrack::facts::Facts;
use sidetrack::options::Settings;
use sidetrack::plan::Plan;
use sidetrack::ruleset::Layout;
use sidetrack::types::{Family, parse_ports};

use crate::common::{Address, Caller, Netns, Owner, Pod, Server, To, Transport, call_from};
use crate::dns::Way::{Direct, Envoy};
use crate::dns::{Lab, both, lookup};
use crate::program::{BACKENDS, apply, feed, sidetrack, state};
use crate::{SIDETRACK, dry_run, readback};

/// Two plans that differ, but not for the connections that are made here.
const PLANS: [&[&str]; 2] = [
    &["--exclude-outbound-ports", "1-3"],
    &["--exclude-inbound-cidrs", "192.0.2.0/24,2001:db8:1::/48"],
];

/// Two plans by which inbound connections get to the proxy in different ways, and tables.
const MODES: [&[&str]; 2] = [
    &["--inbound-mode", "redirect", "--drop-invalid"],
    &["--inbound-mode", "tproxy", "--drop-invalid"],
];

/// The least number of replacements.
const REPLACEMENTS: usize = 40;

/// The least number of connections meanwhile; the variable `CONNECTIONS` overrides it.
fn connections() -> usize {
    let number = std::env::var("CONNECTIONS").ok();
    number.map_or(5000, |number| number.parse().expect("CONNECTIONS is a number"))
}

fn no_connection_slips_through(backend: &str, plans: [&[&str]; 2]) {
    no_connection_slips_through_while(backend, plans, |netns, number| {
        let log = apply(netns, backend, plans[number % 2]);
        assert!(log.contains("replaced"), "{log}");
    });
}

/// Makes connections while rules are replaced, again and again; `replace` gets the number of the replacement.
fn no_connection_slips_through_while(backend: &str, plans: [&[&str]; 2], replace: impl Fn(&Netns, usize)) {
    let pod = Pod::new();
    let _servers = [
        Server::start_transparent(&pod.netns, "proxy", &[15001, 15006]),
        Server::start(&pod.netns, "app", Owner::APP, &[8080]),
        Server::start(&pod.peer, "peer", Owner::ROOT, &[9090]),
    ];
    apply(&pod.netns, backend, plans[0]);
    let (made, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let connect = |caller: Caller, to: To| {
        let connect = || {
            // Each has a port of its own: who uses one twice within a minute meets what is left of the connection
            // before.
            let ports = (10_000..u16::MAX).flat_map(|port| Family::BOTH.map(|family| (family, port)));
            for (family, port) in ports.cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let source = caller.source(family).map(|source| (source.ip(), port).into());
                let to = to.address(family).expect("an address");
                let call = call_from(Transport::Tcp, source, to)?;
                let arrival = call.arrival.expect("an answer");
                assert_eq!(arrival.server, "proxy", "connection {}", made.load(Ordering::Relaxed));
                made.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        caller.run(&pod, connect).expect("every connection is answered");
    };
    let replacements = thread::scope(|scope| {
        let callers = [(Caller::App, To::Peer(9090)), (Caller::Peer, To::Pod(8080))];
        let callers = callers.map(|(caller, to)| scope.spawn(move || connect(caller, to)));
        let mut replacements = 0;
        let enough = |replacements| replacements >= REPLACEMENTS && made.load(Ordering::Relaxed) >= connections();
        while !enough(replacements) && callers.iter().all(|caller| !caller.is_finished()) {
            replacements += 1;
            replace(&pod.netns, replacements);
        }
        done.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.join().expect("every connection is captured");
        }
        replacements
    });
    let made = made.into_inner();
    assert!(made >= connections() && replacements >= REPLACEMENTS);
    let told = writeln!(
        stdout(),
        "{backend}: 0 of {made} connections passed the proxy while rules were replaced {replacements} times"
    );
    told.expect("standard output");
}

#[test]
fn no_connection_bypasses_the_proxy_while_nftables_rules_are_replaced() {
    no_connection_slips_through("nftables", PLANS);
}

#[test]
fn no_connection_bypasses_the_proxy_while_nftables_rules_move_between_one_table_and_two() {
    no_connection_slips_through_while("nftables", PLANS, |netns, number| {
        let backend = ["nftables", "nftables-per-family"][number % 2];
        apply(netns, backend, PLANS[number % 3 % 2]);
    });
}

#[test]
fn no_connection_bypasses_the_proxy_while_iptables_nft_rules_are_replaced() {
    no_connection_slips_through("iptables-nft", PLANS);
}

#[test]
fn no_connection_bypasses_the_proxy_while_iptables_legacy_rules_are_replaced() {
    no_connection_slips_through("iptables-legacy", PLANS);
}

#[test]
fn no_connection_bypasses_the_proxy_while_redirect_and_tproxy_alternate() {
    for backend in BACKENDS {
        no_connection_slips_through(backend, MODES);
    }
}

/// As if other processes changed the ruleset too often to compare it.
#[test]
fn no_connection_bypasses_the_proxy_while_nftables_rules_are_replaced_unread() {
    let ruleset = |number: u16| {
        let mut config = Settings::default().config;
        config.outbound.exclude_ports = parse_ports(&number.to_string()).expect("a port");
        Plan::new(&config, &Facts::default()).expect("a plan").ruleset
    };
    let rulesets = [ruleset(1), ruleset(2)];
    no_connection_slips_through_while("nftables", PLANS, |netns, number| {
        let renew = || OwnTables::new(&mut Nftables::open()?, Layout::OneTable).renew(&rulesets[number % 2], &[]);
        netns.run(renew).expect("renewed");
    });
}

/// How often an apply is killed at least.
const KILLS: u32 = 60;

/// Killed at any point, the pod has the old rules or the new.
#[test]
fn killed_apply_leaves_the_old_or_the_new_rules() {
    let wanted = PLANS.map(|plan| {
        let netns = Netns::new();
        apply(&netns, "nftables", plan);
        state(&netns, "nftables")
    });
    let netns = Netns::new();
    let begun = Instant::now();
    apply(&netns, "nftables", PLANS[0]);
    let duration = begun.elapsed();
    let mut seen = [0; 2];
    // Ever later, until some were killed before the new rules and some after them.
    let mut number = 0;
    while number < KILLS || seen.contains(&0) {
        assert!(number < 20 * KILLS, "{seen:?}");
        let plan = PLANS[(number as usize + 1) % 2];
        let mut child = netns
            .command(SIDETRACK)
            .arg("apply")
            .args(plan)
            .spawn()
            .expect("sidetrack");
        // From immediately to well after its end.
        thread::sleep(duration * 3 * number / KILLS);
        child.kill().expect("it may be killed");
        child.wait().expect("its end");
        let state = state(&netns, "nftables");
        let which = wanted.iter().position(|wanted| *wanted == state);
        seen[which.unwrap_or_else(|| panic!("neither: {state}"))] += 1;
        number += 1;
    }
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

/// Lists as long as some clusters have them; more than one socket buffer holds, and more than one attribute.
#[test]
fn lists_of_thousands_work_on_each_backend() {
    let ports = joined((1..4000).map(|number| (10_000 + 2 * number).to_string()));
    let v4 = (0..5000_u32).map(|number| format!("{}/30", Ipv4Addr::from(0x0a00_0000 + 16 * number)));
    let v6 = (0..5000_u128).map(|number| format!("{}/96", Ipv6Addr::from((0xfd00 << 112) + (number << 33))));
    let cidrs = joined(v4.chain(v6));
    let uids = joined((0..3000).map(|number| format!("{}-{}", 100_000 + 10 * number, 100_005 + 10 * number)));
    let path = std::env::temp_dir().join(format!("sidetrack-{}-thousands.yaml", std::process::id()));
    let text = format!("exclude-inbound-ports: {ports}\nexclude-outbound-cidrs: \"{cidrs}\"\nexclude-uids: {uids}\n");
    std::fs::write(&path, text).expect("a file");
    let options = ["--config", path.to_str().expect("text")];
    for backend in BACKENDS {
        let netns = Netns::new();
        let log = apply(&netns, backend, &options);
        assert!(log.contains("redirected now"), "{log}");
        let log = apply(&netns, backend, &options);
        assert!(log.contains("already redirected this way"), "{backend}: {log}");
        let state = state(&netns, backend);
        for last in ["17998", "10.1.56.112", "fd00::270e:0:0"] {
            assert!(state.contains(last), "{backend}: {last} is missing");
        }
        sidetrack(&netns, &["cleanup"]).succeeded();
    }
    std::fs::remove_file(path).expect("the file");
}

/// Hosts and pairs of them: as many addresses as intervals would have ends, or fewer.
fn many_addresses() -> String {
    let v4 = (0..300_u32).map(|number| format!("{}/31", Ipv4Addr::from(0x6440_0000 + 4 * number)));
    let v6 = (0..300_u128).map(|number| Ipv6Addr::from((0xfd77 << 112) + 2 * number).to_string());
    joined(v4.chain(v6).chain([both(Address::PEER)]))
}

#[test]
fn many_single_addresses_give_an_equivalent_hash_set() {
    let lab = Lab::new();
    let netns = &lab.pod.netns;
    let addresses = many_addresses();
    let options = ["--exclude-outbound-cidrs", &addresses];
    apply(netns, "nftables", &options);
    let whole = state(netns, "nftables");
    assert!(
        whole.contains(r#""size": 601"#) && whole.contains(r#""size": 301"#),
        "{whole}"
    );
    let calls = [
        lookup(
            "an address of the list",
            Transport::Tcp,
            Caller::App,
            Address::PEER,
            Direct,
        ),
        lookup("any other", Transport::Tcp, Caller::App, Address::FAR, Envoy),
    ];
    lab.look_all_up(&Family::BOTH, &calls);

    let log = apply(netns, "nftables", &options);
    assert!(log.contains("already redirected this way"), "{log}");
    let check = [&["check"], &options[..]].concat();
    sidetrack(netns, &check).succeeded();
    let without = "delete element inet sidetrack exclude_outbound_v4 { 100.64.0.5 }\n";
    feed(netns, "nft", &["-f", "-"], without);
    let report = sidetrack(netns, &check);
    assert!(
        report.code == Some(3) && report.stdout.contains("100.64.0.5"),
        "{report:?}"
    );
    let log = apply(netns, "nftables", &options);
    assert!(log.contains("replaced"), "{log}");
    assert_eq!(state(netns, "nftables"), whole);
}

#[test]
fn many_single_addresses_match_the_dry_run_and_are_read_back() {
    let addresses = many_addresses();
    let options = ["--exclude-outbound-cidrs", &addresses];
    let (applied, loaded) = (Netns::new(), Netns::new());
    apply(&applied, "nftables", &options);
    dry_run::load(&loaded, "nftables", &options);
    assert_eq!(state(&applied, "nftables"), state(&loaded, "nftables"));
    readback::what_is_installed_is_read_back(RuleBackend::Nftables, [("", &options[..])].into_iter());
}
