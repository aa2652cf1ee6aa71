//! Random foreign rules from a grammar of what other programs write: the simulator and the kernel agree where each packet
//! lands, wherever the simulator is certain.
//!
//! A few rulesets are tried whenever the tests run, always the same ones. More, and others:
//!
//! ```sh
//! RULESETS=100 PACKETS=300 SEED=7 cargo test --test kernel -- explain::random_foreign --nocapture
//! ```

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::against_kernel::{Chance, setting};
use super::foreign::compare;
use super::foreign_rules::Rules;

/// The default number of rulesets of each backend.
const RULESETS: usize = 4;
/// The names of the chains of each table that rules jump to: only to later ones, so that there are no loops.
const CHAINS: [&str; 3] = ["ONE", "TWO", "THREE"];

fn one_of(words: &'static [&'static str]) -> BoxedStrategy<String> {
    select(words).prop_map(str::to_owned).boxed()
}

/// One of these, as often as `weight` says, or nothing.
fn maybe(weight: f64, of: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Option<String>> {
    if weight == 0.0 {
        Just(None).boxed()
    } else {
        option::weighted(weight, of).boxed()
    }
}

fn port() -> BoxedStrategy<String> {
    one_of(&[
        "53", "80", "443", "3306", "8080", "9090", "15001", "15006", "15008", "15021",
    ])
}

fn ports() -> BoxedStrategy<String> {
    let item = prop_oneof![3 => port(), 1 => Just("8000:8090".to_owned()), 1 => Just("15000:15010".to_owned())];
    vec(item, 1..4).prop_map(|items| items.join(",")).boxed()
}

fn id() -> BoxedStrategy<String> {
    one_of(&["0", "101", "1000", "1337", "1000-1337"])
}

fn not() -> BoxedStrategy<String> {
    prop_oneof![3 => Just(String::new()), 1 => Just("! ".to_owned())].boxed()
}

/// Matches of iptables, of which a rule has one of each kind at most. EXCLUDED and others stand for addresses.
fn matches(hook: Hook) -> BoxedStrategy<String> {
    let transport = prop_oneof![
        2 => Just(String::new()),
        3 => one_of(&["-p tcp", "-p udp", "! -p udp"]),
        3 => (not(), one_of(&["tcp", "udp"]), port()).prop_map(|(not, of, port)| format!("-p {of} {not}--dport {port}")),
        2 => (not(), one_of(&["tcp", "udp"]), ports())
            .prop_map(|(not, of, ports)| format!("-p {of} -m multiport {not}--dports {ports}")),
        1 => Just("-p tcp --tcp-flags SYN,RST,ACK,FIN SYN".to_owned()),
    ];
    let address = (not(), one_of(&["-d LOOPBACK", "-d EXCLUDED", "-s PASSTHROUGH"]));
    let address = maybe(0.3, address.prop_map(|(not, address)| format!("{not}{address}")));
    let kind = (not(), one_of(&["--dst-type LOCAL", "--src-type LOCAL"]));
    let kind = maybe(0.15, kind.prop_map(|(not, kind)| format!("-m addrtype {not}{kind}")));
    let state = (not(), one_of(&["NEW", "ESTABLISHED,RELATED", "INVALID", "NEW,INVALID"]));
    let state = state.prop_map(|(not, states)| format!("-m conntrack {not}--ctstate {states}"));
    let state = maybe(0.2, state);
    let mark = (not(), one_of(&["0x539", "0x539/0xfff", "0x7/0x1"]));
    let mark = maybe(0.15, mark.prop_map(|(not, mark)| format!("-m mark {not}--mark {mark}")));
    let owner = (not(), one_of(&["uid", "gid"]), id());
    let owner = owner.prop_map(|(not, of, id)| format!("-m owner {not}--{of}-owner {id}"));
    let interface = (not(), one_of(&["lo", "eth0", "eth+"]));
    let (of_owner, direction) = if hook.is_of_output() { (0.4, "-o") } else { (0.0, "-i") };
    let interface = interface.prop_map(move |(not, name)| format!("{not}{direction} {name}"));
    let parts = (
        transport,
        address,
        kind,
        state,
        mark,
        maybe(of_owner, owner),
        maybe(0.25, interface),
    );
    let joined = parts.prop_map(|(transport, address, kind, state, mark, owner, interface)| {
        let more = [address, kind, state, mark, owner, interface].into_iter().flatten();
        let parts: Vec<String> = [transport]
            .into_iter()
            .filter(|text| !text.is_empty())
            .chain(more)
            .collect();
        parts.join(" ")
    });
    joined.boxed()
}

/// The built-in chains, by what their rules may do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hook {
    Mangle,
    NatPrerouting,
    NatOutput,
    FilterInput,
    FilterOutput,
}

impl Hook {
    fn is_of_output(self) -> bool {
        matches!(self, Self::NatOutput | Self::FilterOutput)
    }
}

/// Targets that need no protocol, then those that need TCP or UDP.
fn target(hook: Hook, chains: &'static [&'static str]) -> BoxedStrategy<String> {
    let ports = one_of(&["9090", "15001", "15006", "8081"]);
    let redirect = ports.prop_map(|port| format!("-p tcp -j REDIRECT --to-ports {port}"));
    let dnat = Just("-p tcp -j DNAT --to-destination LOOPBACK_ENDPOINT".to_owned());
    let end = one_of(&["-j RETURN", "-j ACCEPT"]);
    let own = match hook {
        Hook::NatOutput => prop_oneof![4 => redirect, 1 => dnat].boxed(),
        Hook::NatPrerouting => redirect.boxed(),
        Hook::Mangle => one_of(&[
            "-j MARK --set-xmark 0x539/0xffffffff",
            "-j CONNMARK --save-mark",
            "-j MARK --set-xmark 0x1/0x3",
        ]),
        Hook::FilterInput | Hook::FilterOutput => one_of(&["-j DROP", "-j REJECT"]),
    };
    if chains.is_empty() {
        prop_oneof![3 => own, 2 => end].boxed()
    } else {
        let jump = (one_of(&["-j", "-j", "-g"]), one_of(chains)).prop_map(|(how, chain)| format!("{how} {chain}"));
        prop_oneof![3 => own, 2 => end, 2 => jump].boxed()
    }
}

/// A rule of a chain. A target that names a protocol is the whole of it.
fn rule(chain: String, hook: Hook, later: &'static [&'static str]) -> BoxedStrategy<String> {
    let parts = (matches(hook), target(hook, later));
    let line = parts.prop_map(move |(matches, target)| {
        let (tcp, target) = match target.strip_prefix("-p tcp ") {
            Some(rest) => (true, rest.to_owned()),
            None => (false, target),
        };
        let matches = match (tcp, matches.contains("-p ")) {
            (true, false) => format!("-p tcp {matches}"),
            (true, true) if !matches.contains("! -p") => matches,
            (true, true) => matches.replace("! -p udp", "-p tcp"),
            (false, _) => matches,
        };
        format!("-A {chain} {matches} {target}\n")
    });
    line.boxed()
}

fn table(name: &'static str, hooks: &'static [(&'static str, Hook)], drops: bool) -> BoxedStrategy<String> {
    let mut rules: Vec<BoxedStrategy<String>> = Vec::new();
    for (chain, hook) in hooks {
        if matches!(hook, Hook::FilterInput | Hook::FilterOutput) {
            // The simulator follows a connection's packets in one direction.
            let answers = format!(
                "-A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
                 -A {chain} -p tcp --tcp-flags RST RST -j ACCEPT\n"
            );
            rules.push(Just(answers).boxed());
        }
        let names: Vec<String> = CHAINS.iter().map(|own| format!("{own}-{chain}")).collect();
        let names: &'static [&'static str] = names.into_iter().map(|name| &*name.leak()).collect::<Vec<_>>().leak();
        rules.push(
            vec(rule((*chain).to_owned(), *hook, names), 0..4)
                .prop_map(|rules| rules.concat())
                .boxed(),
        );
        for (at, own) in names.iter().enumerate() {
            rules.push(
                vec(rule((*own).to_owned(), *hook, &names[at + 1..]), 0..3)
                    .prop_map(|rules| rules.concat())
                    .boxed(),
            );
        }
    }
    let policies = if drops {
        &["ACCEPT", "ACCEPT", "DROP"][..]
    } else {
        &["ACCEPT"][..]
    };
    let policies = vec(select(policies), hooks.len());
    let text = (rules, policies).prop_map(move |(rules, policies)| {
        let chain = |((chain, _), policy): (&(&str, Hook), &str)| {
            let own: String = CHAINS.iter().map(|own| format!(":{own}-{chain} - [0:0]\n")).collect();
            format!(":{chain} {policy} [0:0]\n{own}")
        };
        let chains: String = hooks.iter().zip(policies).map(chain).collect();
        format!("*{name}\n{chains}{}COMMIT\n", rules.concat())
    });
    text.boxed()
}

/// Text for iptables-restore.
fn iptables() -> impl Strategy<Value = String> {
    let tables = (
        maybe(0.5, table("mangle", &[("PREROUTING", Hook::Mangle)], false)),
        table(
            "nat",
            &[("PREROUTING", Hook::NatPrerouting), ("OUTPUT", Hook::NatOutput)],
            false,
        ),
        maybe(
            0.6,
            table(
                "filter",
                &[("INPUT", Hook::FilterInput), ("OUTPUT", Hook::FilterOutput)],
                true,
            ),
        ),
    );
    tables.prop_map(|(mangle, nat, filter)| {
        [mangle, Some(nat), filter]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .concat()
    })
}

/// Matches of nft.
fn nft_matches(output: bool) -> BoxedStrategy<String> {
    let transport = prop_oneof![
        2 => Just(String::new()),
        1 => one_of(&["meta l4proto tcp", "meta l4proto udp", "meta l4proto { tcp, udp }"]),
        3 => (one_of(&["", "!= "]), one_of(&["tcp", "udp", "th"]), ports()).prop_map(|(not, of, ports)| {
            format!("{of} dport {not}{{ {} }}", ports.replace(':', "-"))
        }),
    ];
    let address = one_of(&[
        "ip daddr 127.0.0.1",
        "ip6 daddr ::1",
        "ip daddr != 10.0.0.0/9",
        "ip6 daddr 2001:db8::/33",
        "fib daddr type local",
        "fib saddr type != local",
    ]);
    let state = one_of(&[
        "ct state new",
        "ct state established,related",
        "ct state != invalid",
        "ct direction original",
    ]);
    let mark = one_of(&["meta mark 0x539", "meta mark & 0xf == 7", "meta mark != 0x539"]);
    let owner = (one_of(&["meta skuid", "meta skgid"]), one_of(&["", "!= "]), id());
    let owner = owner.prop_map(|(of, not, id)| format!("{of} {not}{id}"));
    let name = if output { "oifname" } else { "iifname" };
    let interface = one_of(&["\"lo\"", "\"eth0\"", "!= \"eth1\"", "{ \"lo\", \"eth1\" }"]);
    let interface = interface.prop_map(move |value| format!("{name} {value}"));
    let parts = (
        transport,
        maybe(0.3, address),
        maybe(0.2, state),
        maybe(0.15, mark),
        maybe(if output { 0.4 } else { 0.0 }, owner),
        maybe(0.25, interface),
    );
    let joined = parts.prop_map(|(transport, address, state, mark, owner, interface)| {
        let more = [address, state, mark, owner, interface].into_iter().flatten();
        [transport].into_iter().chain(more).collect::<Vec<_>>().join(" ")
    });
    joined.boxed()
}

/// A base chain of nft, which lets answers pass where it may drop: the simulator follows a connection's packets in one
/// direction. And the chains that it jumps to.
fn nft_chain(
    name: &'static str,
    base: &'static str,
    own: &'static [&'static str],
    output: bool,
) -> BoxedStrategy<String> {
    let chains: Vec<String> = CHAINS.iter().map(|chain| format!("{name}-{chain}")).collect();
    let chains: &'static [&'static str] = chains.into_iter().map(|name| &*name.leak()).collect::<Vec<_>>().leak();
    let actions = |later: &'static [&'static str]| {
        let end = one_of(&["return", "accept"]);
        if later.is_empty() {
            return prop_oneof![3 => one_of(own), 2 => end].boxed();
        }
        let jump = (one_of(&["jump", "goto"]), one_of(later)).prop_map(|(how, chain)| format!("{how} {chain}"));
        let map = (port(), one_of(later)).prop_map(|(port, chain)| {
            format!("th dport vmap {{ {port} : jump {chain}, 8443 : accept, 9443 : return }}")
        });
        prop_oneof![4 => one_of(own), 2 => end, 2 => jump, 1 => map].boxed()
    };
    let mut bodies = Vec::new();
    for at in 0..=chains.len() {
        let line = (nft_matches(output), actions(&chains[at..]))
            .prop_map(|(matches, action)| format!("{matches} counter {action}\n"));
        bodies.push(vec(line, 0..4).prop_map(|lines| lines.concat()));
    }
    let text = bodies.prop_map(move |bodies| {
        let more: Vec<String> = chains
            .iter()
            .zip(&bodies[1..])
            .rev()
            .map(|(name, body)| format!("chain {name} {{\n{body}}}\n"))
            .collect();
        format!("{}chain {name} {{ {base}\n{}}}\n", more.concat(), bodies[0])
    });
    text.boxed()
}

/// Text for nft.
fn nft() -> impl Strategy<Value = String> {
    const NAT: &[&str] = &[
        "meta l4proto tcp redirect to :15001",
        "meta l4proto tcp redirect to :9090",
        "meta l4proto tcp redirect to :15006",
    ];
    const FILTER: &[&str] = &["drop", "reject"];
    const MANGLE: &[&str] = &[
        "meta mark set 0x539",
        "ct mark set meta mark",
        "meta mark set ct mark",
        "meta mark set meta mark | 0x7",
    ];
    let chains = (
        nft_chain("nat-in", "type nat hook prerouting priority -100;", NAT, false),
        nft_chain("nat-out", "type nat hook output priority -100;", NAT, true),
        maybe(
            0.5,
            nft_chain("mangle-in", "type filter hook prerouting priority -150;", MANGLE, false),
        ),
        maybe(
            0.4,
            nft_chain(
                "input",
                "type filter hook input priority 0; policy accept; ct state established,related accept; tcp flags & rst != 0 accept;",
                FILTER,
                false,
            ),
        ),
        maybe(
            0.3,
            nft_chain(
                "output",
                "type filter hook output priority 0; policy drop; ct state established,related accept; tcp flags & rst != 0 accept;",
                FILTER,
                true,
            ),
        ),
    );
    chains.prop_map(|(nat_in, nat_out, mangle, input, output)| {
        let chains = [Some(nat_in), Some(nat_out), mangle, input, output];
        format!(
            "table inet theirs {{\n{}}}\n",
            chains.into_iter().flatten().collect::<Vec<_>>().concat()
        )
    })
}

/// Compares some rulesets. Returns how many packets there were, and how many the simulator was certain about.
fn agree(variant: &str, ruleset: impl Fn(&mut Chance) -> Rules) -> (usize, usize) {
    let mut chance = Chance::new(setting("SEED", 1));
    let (mut all, mut certain) = (0, 0);
    for number in 0..setting("RULESETS", RULESETS) {
        let rules = ruleset(&mut chance);
        let (sent, sure, differing) = compare(&mut chance, &rules, variant);
        assert!(
            differing.is_empty(),
            "{variant} {number}: {} of {sent} differ, with\n{}{}\n{}",
            differing.len(),
            rules.nft,
            rules.iptables,
            differing[..differing.len().min(5)].join("\n")
        );
        (all, certain) = (all + sent, certain + sure);
    }
    (all, certain)
}

fn of_iptables(chance: &mut Chance) -> Rules {
    Rules {
        name: "random iptables",
        nft: "",
        iptables: chance.one(iptables()).leak(),
        ipv6: true,
        ip: "",
    }
}

#[test]
fn simulator_and_kernel_agree_about_random_foreign_rules() {
    let of_nft = |chance: &mut Chance| Rules {
        name: "random nft",
        nft: chance.one(nft()).leak(),
        iptables: "",
        ipv6: true,
        ip: "",
    };
    let tried = [
        agree("nft", of_nft),
        agree("nft", of_iptables),
        agree("legacy", of_iptables),
    ];
    let all: usize = tried.iter().map(|(all, _)| all).sum();
    let certain: usize = tried.iter().map(|(_, certain)| certain).sum();
    println!("{certain} of {all} certain");
    assert!(certain * 100 >= all * 95, "only {certain} of {all} are certain");
}
