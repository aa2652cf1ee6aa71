//! Connections whose client has closed its sending half, and whose answer takes longer than the kernel's connection
//! tracking waits for it.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::sys::socket::SockProtocol;
use sidetrack::backend::install::{self, HalfClosed, NoTimeouts};
use sidetrack::backend::nftables::Nftables;
use sidetrack::backend::{Change, Namespace, RuleBackend};
use sidetrack::facts::Facts;
use sidetrack::linux::netlink::{KernelWire, Socket, Wire};
use sidetrack::options::Settings;
use sidetrack::plan::Plan;
use sidetrack::types::{Family, InboundMode};

use crate::SIDETRACK;
use crate::common::service::{Serve, Service, Sockets};
use crate::common::{Caller, Netns, Owner, Pod, Sidecar, To, output_of, socket};
use crate::program::{Run, apply, sidetrack, state};

/// Timeouts that `sidetrack` leaves to the kernel expire after a second.
const SHORT: &str = "1";
/// How long the server takes for its answer: longer than that, even if the kernel runs its timers late.
const WORK: Duration = Duration::from_secs(3);
/// How much it answers.
const ANSWER: [u8; 1000] = [b'x'; 1000];

const CLOSE_WAIT: &str = "net/netfilter/nf_conntrack_tcp_timeout_close_wait";
const LAST_ACK: &str = "net/netfilter/nf_conntrack_tcp_timeout_last_ack";

fn setting(netns: &Netns, name: &str) -> String {
    let path = format!("/proc/sys/{name}");
    netns.run(|| fs::read_to_string(path).expect("a setting").trim().to_owned())
}

fn set(netns: &Netns, name: &str, value: &str) {
    let path = format!("/proc/sys/{name}");
    netns.run(|| fs::write(path, value).expect("a setting"));
}

/// Answers once the client has closed its half of the connection, after some time.
struct Late(u16);

impl Serve for Late {
    fn bind(&self) -> io::Result<Sockets> {
        let listener = |family| socket::listener(socket::any(family, self.0));
        let tcp = Family::BOTH.into_iter().map(listener).collect::<io::Result<_>>()?;
        Ok(Sockets { tcp, udp: Vec::new() })
    }

    fn serve_connection(&self, mut stream: TcpStream, _: SocketAddr) -> io::Result<()> {
        thread::spawn(move || {
            io::copy(&mut stream, &mut io::sink())?;
            thread::sleep(WORK);
            stream.write_all(&ANSWER)
        });
        Ok(())
    }

    fn serve_datagram(&self, _: &UdpSocket) -> io::Result<()> {
        Ok(())
    }
}

/// Asks, and closes its half of the connection.
fn ask(source: Option<SocketAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = socket::stream(source, to)?;
    stream.set_read_timeout(Some(3 * WORK))?;
    stream.write_all(b"a question")?;
    stream.shutdown(Shutdown::Write)?;
    Ok(stream)
}

/// How much of the answer comes, until nothing more does.
fn answered(mut stream: TcpStream) -> usize {
    let mut answer = Vec::new();
    // Errors are ignored: only the received bytes count.
    let _end = stream.read_to_end(&mut answer);
    answer.len()
}

const APP: u16 = 8443;
const SERVER: u16 = 9443;

/// Through the proxy in each direction, and the proxy's calls of the pod itself.
const WAYS: [(Caller, To); 4] = [
    (Caller::Peer, To::Pod(APP)),
    (Caller::Far, To::Pod(APP)),
    (Caller::App, To::Peer(SERVER)),
    (Caller::Proxy, To::Pod(APP)),
];

/// The ways on which less than the whole answer comes.
fn broken(sidecar: &Sidecar) -> Vec<String> {
    let pod = &sidecar.pod;
    let _servers = [
        Service::start(&pod.netns, Owner::APP, Late(APP)),
        Service::start(&pod.peer, Owner::ROOT, Late(SERVER)),
    ];
    let before = sidecar.envoy.accepted();
    let ways = Family::BOTH
        .into_iter()
        .flat_map(|family| WAYS.map(|way| (family, way)));
    let broken: Vec<String> = thread::scope(|scope| {
        let calls: Vec<_> = ways
            .map(|(family, (caller, to))| {
                let address = to.address(family).expect("an address");
                let call = move || caller.run(pod, || Ok(answered(ask(caller.source(family), address)?)));
                (family, caller, to, scope.spawn(call))
            })
            .collect();
        let outcomes = calls.into_iter().map(|(family, caller, to, call)| {
            let came = call.join().expect("a call").expect("a connection");
            (came != ANSWER.len()).then(|| format!("{family}: {caller:?} to {to:?}: {came} bytes"))
        });
        outcomes.flatten().collect()
    });
    let through = sidecar.envoy.accepted().since(before);
    assert_eq!(
        (through.inbound, through.outbound),
        (6, 2),
        "all of them go through Envoy"
    );
    broken
}

fn sidecar(backend: &str, mode: InboundMode, options: &[&str]) -> Sidecar {
    let pod = Pod::new();
    set(&pod.netns, CLOSE_WAIT, SHORT);
    let mode_text = mode.to_string();
    apply(
        &pod.netns,
        backend,
        &[&["--inbound-mode", &mode_text], options].concat(),
    );
    Sidecar::start_as(Owner::PROXY, mode, pod)
}

fn late_answers_arrive(backend: &str) {
    for mode in [InboundMode::Redirect, InboundMode::Tproxy] {
        let broken = broken(&sidecar(backend, mode, &[]));
        assert!(broken.is_empty(), "{mode}: {}", broken.join("\n"));
    }
}

#[test]
fn late_answers_to_half_closed_connections_arrive_with_nftables() {
    late_answers_arrive("nftables");
}

#[test]
fn late_answers_to_half_closed_connections_arrive_with_iptables_nft() {
    late_answers_arrive("iptables-nft");
}

#[test]
fn late_answers_to_half_closed_connections_arrive_with_iptables_legacy() {
    late_answers_arrive("iptables-legacy");
}

#[test]
fn late_answers_are_lost_without_a_timeout() {
    let sidecar = sidecar("nftables", InboundMode::Redirect, &["--close-wait-timeout", "0"]);
    assert!(!state(&sidecar.pod.netns, "nftables").contains("ct timeout"));
    assert_eq!(broken(&sidecar).len(), 8);
}

/// Whether an answer arrives although the network was down when the server sent it and closed its half too.
fn survives_an_outage(backend: &str, options: &[&str]) -> bool {
    const PROXY: u16 = 15006;
    let pod = Pod::new();
    set(&pod.netns, LAST_ACK, SHORT);
    apply(&pod.netns, backend, options);
    let _proxy = Service::start(&pod.netns, Owner::PROXY, Late(PROXY));
    let nft = |command: &str| output_of(pod.peer.command("nft").arg(command));
    let to = To::Pod(APP).address(Family::V4).expect("an address");
    let stream = pod.peer.run(|| ask(None, to)).expect("a connection");
    // Until the client knows that its end was received.
    thread::sleep(WORK / 3);
    nft("add table ip cut; add chain ip cut in { type filter hook prerouting priority -500; policy drop; }");
    // The answer is sent in the middle of it; the last time, more than a second before it is sent again.
    thread::sleep(2 * WORK);
    nft("delete table ip cut");
    answered(stream) == ANSWER.len()
}

#[test]
fn answer_survives_an_outage_after_both_halves_closed() {
    assert!(survives_an_outage("nftables", &[]));
    assert!(!survives_an_outage("nftables", &["--close-wait-timeout", "0"]));
}

fn listed_rules(netns: &Netns) -> String {
    output_of(netns.command("nft").args(["list", "ruleset"]))
}

#[test]
fn changed_timeout_replaces_the_old_one() {
    let pod = Pod::new();
    for (timeout, listed) in [
        ("1h", Some("close_wait : 3600")),
        ("7200", Some("close_wait : 7200")),
        ("0", None),
    ] {
        let options = ["--close-wait-timeout", timeout];
        apply(&pod.netns, "nftables", &options);
        let rules = listed_rules(&pod.netns);
        assert_eq!(listed.is_some(), rules.contains("ct timeout set"), "{rules}");
        assert!(listed.is_none_or(|listed| rules.contains(listed)), "{rules}");
        let again = apply(&pod.netns, "nftables", &options);
        assert!(again.contains("already redirected this way"), "{again}");
        sidetrack(&pod.netns, &[&["check"], &options[..]].concat()).succeeded();
    }
}

#[test]
fn check_reports_missing_or_changed_timeouts() {
    let pod = Pod::new();
    for (applied, told) in [
        (
            "1h",
            "object half_closed in inet sidetrack: expected ct timeout, close_wait : 432000, last_ack : 300, found ct timeout, close_wait : 3600, last_ack : 300",
        ),
        ("0", "missing: object half_closed in inet sidetrack"),
    ] {
        apply(&pod.netns, "nftables", &["--close-wait-timeout", applied]);
        let check = sidetrack(&pod.netns, &["check", "--close-wait-timeout", "120h"]);
        assert_eq!(check.code, Some(3), "{check:?}");
        assert!(check.stdout.contains(told), "{check:?}");
    }
}

/// A transport that imitates a kernel without ct timeout objects.
struct WithoutTimeouts(KernelWire);

impl Wire for WithoutTimeouts {
    fn send(&mut self, datagram: &[u8]) -> nix::Result<()> {
        const NEWOBJ: u16 = (libc::NFNL_SUBSYS_NFTABLES << 8 | libc::NFT_MSG_NEWOBJ) as u16;
        /// An attribute of the type of the object: its length, its number, and the type.
        const TIMEOUT: [u8; 8] = [8, 0, 3, 0, 0, 0, 0, 7];
        let mut datagram = datagram.to_vec();
        let mut at = 0;
        while at < datagram.len() {
            let header = &datagram[at..];
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            if u16::from_ne_bytes([header[4], header[5]]) == NEWOBJ {
                let message = &mut datagram[at..at + length];
                let place = message.windows(TIMEOUT.len()).position(|bytes| bytes == TIMEOUT);
                message[place.expect("the type of the object") + 7] = 99;
            }
            at += length.next_multiple_of(4);
        }
        self.0.send(&datagram)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> nix::Result<usize> {
        self.0.receive(buffer)
    }
}

#[test]
fn kernel_without_ct_timeout_objects_gets_raised_sysctls() {
    let pod = Pod::new();
    let plan = Plan::new(&Settings::default().config, &Facts::default()).expect("a plan");
    pod.netns.run(|| {
        let wire = WithoutTimeouts(KernelWire::open(SockProtocol::NetlinkNetFilter).expect("a wire"));
        let nftables = Nftables::over(Socket::over(Box::new(wire)));
        let mut namespace = Namespace::over(None, Some(nftables));
        for change in [Change::Created, Change::Unchanged] {
            let observed = namespace.observe().expect("an observation");
            let applied = install::apply_with(&mut namespace, &plan, RuleBackend::Nftables, &observed);
            let applied = applied.expect("rules");
            let why = NoTimeouts::InKernel;
            assert_eq!(
                (applied.change, applied.half_closed),
                (change, HalfClosed::BySettings { why })
            );
        }
        let mut nftables = namespace.rules(RuleBackend::Nftables).expect("nftables");
        assert_eq!(nftables.differences(&plan.ruleset).expect("an answer"), []);
    });
    assert!(!state(&pod.netns, "nftables").contains("ct timeout"));
    assert_eq!(
        [CLOSE_WAIT, LAST_ACK].map(|name| setting(&pod.netns, name)),
        ["432000", "300"]
    );
    // On a kernel with ct timeout objects, check reports them missing.
    assert_eq!(sidetrack(&pod.netns, &["check"]).code, Some(3));
}

#[test]
fn iptables_raises_sysctls_and_lowers_none() {
    for backend in ["iptables-nft", "iptables-legacy"] {
        let pod = Pod::new();
        set(&pod.netns, LAST_ACK, "77777");
        apply(&pod.netns, backend, &["--close-wait-timeout", "1h"]);
        assert_eq!(
            [CLOSE_WAIT, LAST_ACK].map(|name| setting(&pod.netns, name)),
            ["3600", "77777"]
        );
        sidetrack(&pod.netns, &["check", "--backend", backend]).succeeded();
    }
}

#[test]
fn unwritable_timeout_sysctls_are_warned_of() {
    let pod = Pod::new();
    let script = format!("mount -o bind,ro /proc/sys /proc/sys && exec {SIDETRACK} apply --backend iptables-nft");
    let mut command = pod.netns.command("unshare");
    let run = Run::of(command.args(["--mount", "sh", "-c", &script])).succeeded();
    assert!(run.stderr.contains("--close-wait-timeout has no effect"), "{run:?}");
    assert!(run.stderr.contains("/proc/sys is read-only"), "{run:?}");
}
