//! Policy routing by mark, as TPROXY needs it: applied, replaced, rolled back and cleaned up.

use serde_json::{Value, json};
use sidetrack::backend::install::{self, Applied, Removed};
use sidetrack::backend::{Change, KernelError, Namespace, RuleBackend};
use sidetrack::facts::Facts;
use sidetrack::options::Settings;
use sidetrack::plan::{Plan, PolicyRouting, Prerequisite};
use sidetrack::ruleset::Action;
use sidetrack::types::{Backend, Families, Family, Mark, RouteTable};

use crate::common::{Netns, Owner, output_of};
use crate::program::{sidetrack, state};

/// A plan without policy routing.
fn redirect() -> Plan {
    Plan::new(&Settings::default().config, &Facts::default()).expect("a plan")
}

/// The same with it.
fn tproxy(mark: u32, table: u32, families: Families) -> Plan {
    let mark = Mark::new(mark).expect("a mark");
    let table = RouteTable::new(table).expect("a table");
    Plan {
        policy_routing: Some(PolicyRouting { mark, table, families }),
        ..redirect()
    }
}

/// The same, with rules that the kernel refuses: a chain that jumps to itself.
fn refused(plan: Plan) -> Plan {
    let mut plan = plan;
    let chain = plan.ruleset.chains.last_mut().expect("a chain");
    chain.rules[0].action = Action::Jump(chain.name.clone());
    plan
}

fn try_apply(netns: &Netns, plan: &Plan) -> Result<Applied, KernelError> {
    netns.run(|| {
        let mut namespace = Namespace::default();
        let observed = namespace.observe()?;
        install::apply_with(&mut namespace, plan, RuleBackend::Nftables, &observed)
    })
}

#[track_caller]
fn apply(netns: &Netns, plan: &Plan) -> Applied {
    try_apply(netns, plan).expect("applied")
}

/// Applies an impossible plan and returns the error. The state must be unchanged.
#[track_caller]
fn refuses(netns: &Netns, plan: &Plan) -> String {
    let before = everything(netns);
    let error = try_apply(netns, plan).expect_err("refused").to_string();
    assert_eq!(everything(netns), before, "{error}");
    error
}

fn cleanup(netns: &Netns) -> Removed {
    netns
        .run(|| {
            let mut namespace = Namespace::default();
            let observed = namespace.observe()?;
            install::cleanup(&mut namespace, &observed)
        })
        .expect("cleaned up")
}

const OPTIONS: [(Family, &str); 2] = [(Family::V4, "-4"), (Family::V6, "-6")];

fn list(netns: &Netns, arguments: &[&str]) -> Vec<Value> {
    let list = output_of(netns.command("ip").arg("-json").args(arguments));
    serde_json::from_str(&list).expect("JSON from ip")
}

/// Runs commands of iproute2, one a line. A batch of its own has no options.
fn ip(netns: &Netns, commands: &str) {
    for command in commands.lines() {
        output_of(netns.command("ip").args(command.split(' ')));
    }
}

/// Rules or routes as ip prints them, each with its family.
type Entries = Vec<(Family, Value)>;

/// The rules that do not come with every namespace.
fn rules(netns: &Netns) -> Entries {
    let of_family = |(family, option)| {
        list(netns, &[option, "rule"])
            .into_iter()
            .map(move |rule| (family, rule))
    };
    let of_kernel = |rule: &Value| [json!(0), json!(32766), json!(32767)].contains(&rule["priority"]);
    let all = OPTIONS.into_iter().flat_map(of_family);
    all.filter(|(_, rule)| !of_kernel(rule)).collect()
}

/// The routes of all tables but the kernel's own.
fn routes(netns: &Netns) -> Entries {
    let of_family = |(family, option)| {
        let routes = list(netns, &[option, "route", "show", "table", "all"]);
        routes.into_iter().map(move |route| (family, route))
    };
    let of_kernel = |route: &Value| matches!(route["table"].as_str(), None | Some("local"));
    let all = OPTIONS.into_iter().flat_map(of_family);
    all.filter(|(_, route)| !of_kernel(route)).collect()
}

/// All state that these tests check: policy routing, rules and addresses.
fn everything(netns: &Netns) -> (Entries, Entries, String) {
    (rules(netns), routes(netns), state(netns, "nftables"))
}

fn rule(family: Family, mark: &str, table: &str) -> (Family, Value) {
    let rule = json!({ "priority": 15006, "src": "all", "fwmark": mark, "table": table, "protocol": "137" });
    (family, rule)
}

fn route(family: Family, table: &str) -> (Family, Value) {
    let mut route = json!({
        "type": "local", "dst": "default", "dev": "lo", "table": table, "protocol": "137", "scope": "host", "flags": []
    });
    if family == Family::V6 {
        route["metric"] = json!(1024);
        route["pref"] = json!("medium");
        route.as_object_mut().expect("a route").remove("scope");
    }
    (family, route)
}

#[test]
fn each_family_gets_a_rule_and_a_route() {
    for families in [Families::Both, Families::Only(Family::V4), Families::Only(Family::V6)] {
        let netns = Netns::new();
        assert_eq!(apply(&netns, &tproxy(1337, 133, families)).change, Change::Created);
        let expected: Vec<_> = families.iter().map(|family| rule(family, "0x539", "133")).collect();
        assert_eq!(rules(&netns), expected);
        let expected: Vec<_> = families.iter().map(|family| route(family, "133")).collect();
        assert_eq!(routes(&netns), expected);
    }
}

#[test]
fn commands_of_a_dry_run_equal_apply() {
    let (by_hand, applied) = (Netns::new(), Netns::new());
    let script = sidetrack(&by_hand, &["apply", "--dry-run", "--inbound-mode", "tproxy"]).succeeded();
    let commands: Vec<&str> = script
        .stdout
        .lines()
        .filter_map(|line| line.split_once(": ip "))
        .map(|(_, command)| command)
        .collect();
    ip(&by_hand, &commands.join("\n"));
    sidetrack(&applied, &["apply", "--inbound-mode", "tproxy"]).succeeded();
    assert_eq!(rules(&by_hand), rules(&applied));
    assert_eq!(routes(&by_hand), routes(&applied));
    assert_eq!(apply(&by_hand, &tproxy(1337, 133, Families::Both)).added, []);
}

#[test]
fn only_marked_packets_are_delivered_locally() {
    let netns = Netns::new();
    apply(&netns, &tproxy(1337, 133, Families::Both));
    for far in ["198.51.100.7", "2001:db8::7"] {
        let marked = list(&netns, &["route", "get", far, "mark", "1337"]);
        assert_eq!((&marked[0]["type"], &marked[0]["dev"]), (&json!("local"), &json!("lo")));
        for mark in [&["mark", "1336"][..], &[]] {
            let other = netns.command("ip").args(["route", "get", far]).args(mark).output();
            assert!(!other.expect("ip").status.success(), "{far} {mark:?}");
        }
    }
}

#[test]
fn largest_mark_and_table_are_accepted() {
    let netns = Netns::new();
    apply(&netns, &tproxy(u32::MAX, u32::MAX, Families::Both));
    let families = [Family::V4, Family::V6];
    assert_eq!(
        rules(&netns),
        families.map(|family| rule(family, "0xffffffff", "4294967295"))
    );
    assert_eq!(routes(&netns), families.map(|family| route(family, "4294967295")));
    cleanup(&netns);
    assert_eq!((rules(&netns), routes(&netns)), (vec![], vec![]));
}

#[test]
fn rerun_adds_no_duplicates() {
    let netns = Netns::new();
    let plan = tproxy(1337, 133, Families::Both);
    apply(&netns, &plan);
    let before = everything(&netns);
    for _ in 0..3 {
        let applied = apply(&netns, &plan);
        assert_eq!((applied.change, applied.added), (Change::Unchanged, vec![]));
        assert_eq!(everything(&netns), before);
    }
}

#[test]
fn rerun_restores_lost_routing() {
    let netns = Netns::new();
    let plan = tproxy(1337, 133, Families::Both);
    apply(&netns, &plan);
    let before = everything(&netns);
    for loss in [
        "-4 rule del priority 15006",
        "-6 rule del priority 15006",
        "-4 route flush table 133",
        "-6 route flush table 133",
        // This also removes the routes of IPv4 and the addresses of IPv6.
        "link set lo down\nlink set lo up",
    ] {
        ip(&netns, loss);
        let applied = apply(&netns, &plan);
        assert_eq!(applied.change, Change::Unchanged, "{loss}");
        assert!(!applied.added.is_empty(), "{loss}");
        assert_eq!(everything(&netns), before, "{loss}");
    }
}

#[test]
fn policy_routing_is_removed_without_tproxy_and_restored_with_it() {
    let netns = Netns::new();
    apply(&netns, &redirect());
    let without = everything(&netns);
    apply(&netns, &tproxy(1337, 133, Families::Both));
    let with = everything(&netns);
    apply(&netns, &redirect());
    assert_eq!(everything(&netns), without);
    apply(&netns, &tproxy(1337, 133, Families::Both));
    assert_eq!(everything(&netns), with);
}

#[test]
fn changed_mark_table_or_family_replaces_the_old_one() {
    let netns = Netns::new();
    for (mark, table, families) in [
        (1337, 133, Families::Both),
        (7, 133, Families::Both),
        (7, 300, Families::Both),
        (8, 301, Families::Only(Family::V6)),
        (9, 302, Families::Only(Family::V4)),
        (1337, 133, Families::Both),
    ] {
        let plan = tproxy(mark, table, families);
        let fresh = Netns::new();
        apply(&fresh, &plan);
        apply(&netns, &plan);
        assert_eq!(everything(&netns), everything(&fresh), "{mark} {table} {families:?}");
    }
}

/// Foreign state: the rules that Istio adds, rules and routes similar to sidetrack's, and others in the same tables.
const FOREIGN: &str = "\
-4 rule add fwmark 1337 lookup 133
-6 rule add fwmark 1337 lookup 133
-4 rule add fwmark 1337 lookup 133 priority 15006 protocol static
-6 rule add fwmark 1337 lookup 133 priority 15006 protocol static
-4 rule add from 10.0.0.1 lookup 200
-4 rule add fwmark 1337/0xffff lookup 134 protocol 137 priority 15006
-4 rule add fwmark 1337 lookup 133 protocol 137 priority 15007
-6 rule add fwmark 1337 prohibit protocol 137 priority 15006
-4 route add local default dev lo table 133
-6 route add local default dev lo table 133
-4 route add local 10.1.0.0/16 dev lo table 133 protocol 137
-6 route add local fd00::/16 dev lo table 133 protocol 137
-4 route add blackhole default table 134 protocol 137
";

#[test]
fn foreign_routing_stays_even_if_equal() {
    let netns = Netns::new();
    ip(&netns, FOREIGN);
    let untouched = everything(&netns);
    apply(&netns, &tproxy(1337, 133, Families::Both));
    assert_eq!(
        rules(&netns).len(),
        untouched.0.len() + 2,
        "owned ones are beside foreign ones"
    );
    assert_eq!(routes(&netns), untouched.1, "one route will do");
    apply(&netns, &tproxy(1337, 135, Families::Both));
    let removed = cleanup(&netns);
    assert_eq!(removed.policy_routing.len(), 4);
    assert_eq!(everything(&netns), untouched);
}

#[test]
fn failed_apply_removes_only_what_it_added() {
    let plan = tproxy(1337, 133, Families::Both);
    let netns = Netns::new();
    let error = refuses(&netns, &refused(plan.clone()));
    assert!(error.contains("the kernel refused"), "{error}");
    ip(&netns, "-6 route add local default dev lo table 133");
    refuses(&netns, &refused(plan.clone()));
    apply(&netns, &plan);
    refuses(&netns, &refused(plan));
    refuses(&netns, &refused(tproxy(7, 134, Families::Both)));
}

#[test]
fn routing_table_in_use_is_an_error() {
    for (family, foreign) in [
        ("IPv4", "-4 route add blackhole default table 133"),
        ("IPv6", "-6 route add blackhole default table 133"),
    ] {
        let netns = Netns::new();
        ip(&netns, foreign);
        let error = refuses(&netns, &tproxy(1337, 133, Families::Both));
        assert!(error.contains("table 133") && error.contains(family), "{error}");
        assert!(error.contains("--tproxy-route-table"), "{error}");
        apply(&netns, &tproxy(1337, 134, Families::Both));
    }
}

#[test]
fn ipv6_that_is_switched_off_is_an_error() {
    let netns = Netns::new();
    netns
        .run(|| std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "1"))
        .expect("a sysctl");
    let error = refuses(&netns, &tproxy(1337, 133, Families::Both));
    assert!(
        error.contains("IPv6 route") && error.contains("net.ipv6.conf.lo.disable_ipv6"),
        "{error}"
    );
    let error = refuses(&netns, &redirect());
    assert!(error.contains("address ::6"), "{error}");
}

#[test]
fn a_loopback_interface_that_is_down_is_an_error() {
    let netns = Netns::new();
    ip(&netns, "link set lo down");
    // IPv4 does not mind.
    let error = refuses(&netns, &tproxy(1337, 133, Families::Only(Family::V6)));
    assert!(error.contains("ip link set lo up"), "{error}");
}

#[test]
fn missing_privilege_is_reported_with_advice() {
    let netns = Netns::new();
    let plan = tproxy(1337, 133, Families::Both);
    let error = netns.run(|| {
        Owner::APP.assume().expect("another user");
        let mut namespace = Namespace::default();
        let observed = namespace.observe().expect("looking needs no privilege");
        install::apply(&mut namespace, &plan, Backend::Nftables, &observed).expect_err("not permitted")
    });
    assert!(
        error.advice().is_some_and(|advice| advice.contains("CAP_NET_ADMIN")),
        "{error}"
    );
}

#[test]
fn cleanup_removes_leftovers_of_an_interrupted_apply() {
    for left in [
        "-4 rule add fwmark 1337 lookup 133 priority 15006 protocol 137",
        "-6 rule add fwmark 1337 lookup 133 priority 15006 protocol 137",
        "-4 rule add fwmark 7 lookup 1000 priority 15006 protocol 137\n-4 route add local default dev lo table 1000 protocol 137",
        "-4 route add local default dev lo table 133 protocol 137",
        "-6 route add local default dev lo table 133 protocol 137",
    ] {
        let netns = Netns::new();
        let untouched = everything(&netns);
        ip(&netns, left);
        sidetrack(&netns, &["cleanup"]).succeeded();
        assert_eq!(everything(&netns), untouched, "{left}");
        assert_eq!(cleanup(&netns), Removed::default(), "{left}");
    }
}

#[test]
fn cleanup_removes_everything_and_reports_it() {
    let netns = Netns::new();
    let untouched = everything(&netns);
    let plan = tproxy(1337, 133, Families::Both);
    apply(&netns, &plan);
    let removed = cleanup(&netns);
    let is_routing = |what: &Prerequisite| !matches!(what, Prerequisite::Address(_));
    let added: Vec<_> = Prerequisite::of(&plan).into_iter().filter(is_routing).collect();
    assert_eq!(removed.policy_routing.len(), added.len());
    assert!(
        added.iter().all(|what| removed.policy_routing.contains(what)),
        "{removed:?}"
    );
    assert_eq!(everything(&netns), untouched);
}

#[test]
fn routes_are_not_read_without_tproxy() {
    let netns = Netns::new();
    let asked = |arguments: &[&str]| {
        let mut command = netns.command("strace");
        command
            .args(["-qq", "-e", "trace=sendto", crate::SIDETRACK])
            .args(arguments);
        let output = command.output().expect("strace");
        let calls = String::from_utf8(output.stderr).expect("text");
        (
            calls.matches("RTM_GETRULE").count(),
            calls.matches("RTM_GETROUTE").count(),
        )
    };
    assert_eq!(asked(&["apply"]), (1, 0));
    apply(&netns, &tproxy(1337, 133, Families::Both));
    assert_eq!(asked(&["apply"]), (1, 1));
    // With rules, routes of bound interfaces may be there.
    assert_eq!(asked(&["cleanup"]), (2, 2));
}
