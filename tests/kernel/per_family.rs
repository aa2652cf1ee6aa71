//! A table for each IP family, as on kernels before 5.2: how it comes to be chosen, and what becomes of each table.

use sidetrack::backend::choice::Chosen;
use sidetrack::backend::install::{self, Applied};
use sidetrack::backend::nftables::transaction::Nftables;
use sidetrack::backend::{KernelError, Namespace, RuleBackend};
use sidetrack::linux::netlink::{KernelWire, Socket, Wire};
use sidetrack::types::Backend;

use nix::sys::socket::SockProtocol;

use crate::SIDETRACK;
use crate::cases;
use crate::common::{Netns, output_of};
use crate::faults::injection::traced;
use crate::plans::plan;
use crate::program::{apply, nft_state, sidetrack, state};
use crate::traffic::Lab;

const PER_FAMILY: &str = "nftables-per-family";

/// A transport that imitates a kernel without NAT in tables of these families: chains get a type that no kernel knows.
struct WithoutNat {
    wire: KernelWire,
    families: &'static [i32],
}

impl Wire for WithoutNat {
    fn send(&mut self, datagram: &[u8]) -> nix::Result<()> {
        const NEWCHAIN: u16 = (libc::NFNL_SUBSYS_NFTABLES << 8 | libc::NFT_MSG_NEWCHAIN) as u16;
        const NAT: &[u8] = b"nat\0";
        let mut datagram = datagram.to_vec();
        let mut at = 0;
        while at < datagram.len() {
            let message = &mut datagram[at..];
            let length = u32::from_ne_bytes([message[0], message[1], message[2], message[3]]) as usize;
            let kind = u16::from_ne_bytes([message[4], message[5]]);
            if kind == NEWCHAIN && self.families.contains(&message[16].into()) {
                let message = &mut message[..length];
                if let Some(at) = message.windows(NAT.len()).position(|bytes| bytes == NAT) {
                    message[at..at + 3].copy_from_slice(b"non");
                }
            }
            at += length.next_multiple_of(4);
        }
        self.wire.send(&datagram)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> nix::Result<usize> {
        self.wire.receive(buffer)
    }
}

/// Applies options where tables of these families have no NAT.
pub fn apply_without_nat(
    netns: &Netns,
    families: &'static [i32],
    wanted: Backend,
    options: &[&str],
) -> Result<Chosen<Applied>, KernelError> {
    netns.run(|| {
        let wire = KernelWire::open(SockProtocol::NetlinkNetFilter).expect("a wire");
        let wire = WithoutNat { wire, families };
        let nftables = Nftables::over(Socket::over(Box::new(wire)));
        let mut namespace = Namespace::over(None, Some(nftables));
        let observed = namespace.observe().expect("an observation");
        install::apply(&mut namespace, &plan(options), wanted, &observed)
    })
}

/// As before Linux 5.2.
pub const ONLY_INET: &[i32] = &[libc::NFPROTO_INET];
const ALL: &[i32] = &[libc::NFPROTO_INET, libc::NFPROTO_IPV4, libc::NFPROTO_IPV6];

#[test]
fn kernel_without_nat_in_inet_tables_gets_a_table_for_each_family() {
    for wanted in [Backend::Auto, Backend::Nftables] {
        let lab = Lab::new();
        let case = cases::all().next().expect("a case");
        // The second time they are compared with what is there.
        for _ in 0..2 {
            let chosen = apply_without_nat(&lab.pod.netns, ONLY_INET, wanted, case.args).expect("rules");
            assert_eq!(chosen.backend, RuleBackend::NftablesPerFamily);
            let reason = chosen.fallback.expect("a reason");
            assert!(reason.contains("nft_chain_nat"), "{reason}");
        }
        let wrong: Vec<String> = lab.wrong(case).into_iter().map(|(_, error)| error).collect();
        assert_eq!(wrong, Vec::<String>::new());
        assert_eq!(tables(&lab.pod.netns), ["ip sidetrack", "ip6 sidetrack"]);
    }
}

#[test]
fn kernel_without_nat_in_nf_tables_gets_legacy_iptables_or_an_error() {
    let netns = Netns::new();
    let chosen = apply_without_nat(&netns, ALL, Backend::Auto, &[]).expect("rules");
    assert_eq!(chosen.backend, RuleBackend::IptablesLegacy);
    assert!(state(&netns, "iptables-legacy").contains("SIDETRACK_OUTBOUND"));
    assert_eq!(tables(&netns), Vec::<String>::new());
    let netns = Netns::new();
    for wanted in [Backend::Nftables, Backend::NftablesPerFamily] {
        let error = apply_without_nat(&netns, ALL, wanted, &[])
            .expect_err("no NAT")
            .to_string();
        assert!(
            error.contains("nft_chain_nat") && error.contains("--backend iptables-legacy"),
            "{error}"
        );
    }
    assert_eq!(tables(&netns), Vec::<String>::new());
}

fn tables(netns: &Netns) -> Vec<String> {
    let listing = output_of(netns.command("nft").args(["list", "tables"]));
    listing
        .lines()
        .filter_map(|line| line.strip_prefix("table "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn tables_of_the_other_layout_are_replaced_in_the_same_transaction() {
    let netns = Netns::new();
    let expected = |backend| match backend {
        PER_FAMILY => &["ip sidetrack", "ip6 sidetrack"][..],
        _ => &["inet sidetrack"],
    };
    let mut before: Option<&[&str]> = None;
    for backend in ["nftables", PER_FAMILY, "nftables", PER_FAMILY] {
        let options = ["-v", "-s", "65536", "-e", "trace=sendto"];
        let (run, trace) = traced(&netns, &options, SIDETRACK.as_ref(), &["apply", "--backend", backend]);
        run.succeeded();
        let first = trace.lines().find(|line| line.contains("NFNL_MSG_BATCH_BEGIN"));
        let deleted = first.expect("a transaction").matches("NFT_MSG_DELTABLE").count();
        assert_eq!(deleted, before.map_or(0, <[&str]>::len), "{backend}: {trace}");
        before = Some(expected(backend));
        assert_eq!(tables(&netns), expected(backend), "{backend}");
        let check = sidetrack(&netns, &["check", "--backend", backend]);
        check.succeeded();
    }
    sidetrack(&netns, &["cleanup"]).succeeded();
    assert_eq!(tables(&netns), Vec::<String>::new());
}

#[test]
fn check_and_apply_repair_each_table() {
    let netns = Netns::new();
    let backend = ["--backend", PER_FAMILY];
    apply(&netns, PER_FAMILY, &[]);
    let wanted = nft_state(&netns);
    for command in [
        "insert rule ip sidetrack output accept",
        "flush chain ip6 sidetrack output",
        "delete table ip6 sidetrack",
        "add table ip sidetrack { flags dormant; }",
    ] {
        output_of(netns.command("nft").arg(command));
        let check = sidetrack(&netns, &[&["check"][..], &backend].concat());
        let table = if command.contains("ip6") {
            "ip6 sidetrack"
        } else {
            "ip sidetrack"
        };
        assert_eq!(check.code, Some(3), "{command}: {check:?}");
        let told: Vec<&str> = check
            .stdout
            .lines()
            .filter(|line| line.contains(" sidetrack"))
            .collect();
        assert!(
            !told.is_empty() && told.iter().all(|line| line.contains(table)),
            "{command}: {check:?}"
        );
        let log = apply(&netns, PER_FAMILY, &[]);
        assert!(log.contains("replaced"), "{log}");
        assert_eq!(nft_state(&netns), wanted, "{command}");
        sidetrack(&netns, &[&["check"][..], &backend].concat()).succeeded();
    }
}

#[test]
fn a_table_that_is_not_needed_any_more_goes() {
    let netns = Netns::new();
    apply(&netns, PER_FAMILY, &[]);
    let only_v4 = ["--ip-family", "ipv4"];
    let check = sidetrack(&netns, &[&["check", "--backend", PER_FAMILY][..], &only_v4].concat());
    assert!(
        check.code == Some(3) && check.stdout.contains("ip6 sidetrack"),
        "{check:?}"
    );
    apply(&netns, PER_FAMILY, &only_v4);
    assert_eq!(tables(&netns), ["ip sidetrack"]);
    sidetrack(&netns, &[&["check", "--backend", PER_FAMILY][..], &only_v4].concat()).succeeded();
    // By its record alone.
    sidetrack(&netns, &["check"]).succeeded();
    sidetrack(&netns, &["cleanup"]).succeeded();
    assert_eq!(tables(&netns), Vec::<String>::new());
}
