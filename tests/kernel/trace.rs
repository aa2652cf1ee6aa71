//! `sidetrack trace`: real connections, each with its line.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sidetrack::types::Family;

use crate::SIDETRACK;
use crate::common::{Address, Caller, Netns, Owner, Pod, Server, To, Transport, call, output_of};
use crate::program::{Run, apply, feed, nft_state, sidetrack, state};

/// Ends a wait that would never end.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running trace with JSON lines.
struct Trace {
    child: Child,
    lines: Receiver<String>,
    /// Whether the kernel deletes its table with the process: since Linux 5.12.
    is_owned: bool,
}

impl Trace {
    /// Starts one; it traces when this returns.
    fn start(netns: &Netns, arguments: &[&str]) -> Self {
        Self::of(netns.command(SIDETRACK).args(["trace", "--json"]).args(arguments))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut log = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut said = String::new();
        while !said.contains("tracing new connections") {
            assert_ne!(log.read_line(&mut said).expect("text"), 0, "{said}");
        }
        let is_owned = said.contains(&format!("table=\"sidetrack-trace-{}\"", child.id()));
        assert_ne!(
            is_owned,
            said.contains("this kernel does not delete the table"),
            "{said}"
        );
        // The pipe stays open and is read, so that writing to it never fails.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let lines = lines(child.stdout.take().expect("a pipe"));
        Self { child, lines, is_owned }
    }

    /// The next line.
    #[track_caller]
    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(TIMEOUT).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().expect("a PID")), signal).expect("a signal");
    }

    /// Ends the trace, and returns the lines that were not taken.
    #[track_caller]
    fn end(mut self) -> Vec<Value> {
        self.signal(Signal::SIGINT);
        let code = self.child.wait().expect("the end").code();
        assert_eq!(code, Some(0));
        self.lines
            .iter()
            .map(|line| serde_json::from_str(&line).expect("JSON"))
            .collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if sender.send(line.expect("text")).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The content of a line, without times, ports of clients and processes.
fn verdict(line: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let packet = &line["packet"];
    format!(
        "{} {} to {}: {} {} {} by {} {}",
        text(&packet["direction"]),
        text(&packet["protocol"]),
        text(&packet["destination"]),
        text(&line["verdict"]["action"]),
        text(&line["end"]["what"]),
        text(&line["end"]["to"]),
        text(&line["rule"]["table"]),
        text(&line["rule"]["comment"]),
    )
}

/// The servers of a pod and its neighbour.
fn servers(pod: &Pod) -> [Server; 3] {
    [
        Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001, 15006]),
        Server::start(&pod.netns, "app", Owner::APP, &[8080, 15020]),
        Server::start(&pod.peer, "peer", Owner::ROOT, &[80, 81]),
    ]
}

/// Connections, with the verdict, landing, direction and comment of the rule in their lines.
const SCRIPT: &[(Caller, To, &str, &str, &str)] = &[
    (
        Caller::App,
        To::Peer(80),
        "redirect delivered LOOPBACK:15001",
        "outbound",
        "outbound, to the proxy",
    ),
    (
        Caller::App,
        To::Peer(81),
        "accept sent PEER:81",
        "outbound",
        "excluded outbound ports",
    ),
    (
        Caller::Proxy,
        To::Peer(80),
        "accept sent PEER:80",
        "outbound",
        "the proxy's own traffic",
    ),
    (
        Caller::App,
        To::Loopback(8080),
        "accept delivered LOOPBACK:8080",
        "outbound",
        "loopback",
    ),
    (
        Caller::Peer,
        To::Pod(8080),
        "redirect delivered POD:15006",
        "inbound",
        "inbound, to the proxy",
    ),
    (
        Caller::Peer,
        To::Pod(15020),
        "accept delivered POD:15020",
        "inbound",
        "the mesh's own ports",
    ),
];
const OPTIONS: &[&str] = &["--exclude-outbound-ports", "81"];

fn endpoint(text: &str, family: Family) -> String {
    let (address, port) = text.split_once(':').expect("an address and a port");
    let address = match address {
        "LOOPBACK" => Address::LOOPBACK,
        "PEER" => Address::PEER,
        "POD" => Address::POD,
        other => panic!("{other}"),
    };
    SocketAddr::new(address.of(family), port.parse().expect("a port")).to_string()
}

/// Every connection of [`SCRIPT`] has exactly its line.
fn each_connection_has_its_line(backend: &str) {
    let pod = Pod::new();
    apply(&pod.netns, backend, OPTIONS);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    for family in Family::BOTH {
        for (caller, to, end, direction, comment) in SCRIPT {
            let call = call(&pod, Transport::Tcp, *caller, *to, family).expect("a call");
            let line = trace.next();
            let (what, address) = end.rsplit_once(' ').expect("an address");
            let table = match (backend, family) {
                ("nftables", _) => "inet sidetrack",
                (_, Family::V4) => "ip nat",
                (_, Family::V6) => "ip6 nat",
            };
            let expected = format!(
                "{direction} tcp to {}: {what} {} by {table} {comment}",
                to.address(family).expect("an address"),
                endpoint(address, family),
            );
            assert_eq!(verdict(&line), expected, "{line:#}");
            assert_eq!(line["packet"]["source"], call.local.to_string());
            assert_eq!(line["doubt"], Value::Null, "{line:#}");
        }
    }
    assert_eq!(trace.end(), [Value::Null; 0]);
}

#[test]
fn each_connection_has_its_line_with_nftables() {
    each_connection_has_its_line("nftables");
}

#[test]
fn each_connection_has_its_line_with_iptables_nft() {
    each_connection_has_its_line("iptables-nft");
}

#[test]
fn tproxy_and_dns_have_their_lines() {
    let pod = Pod::new();
    let options = ["--inbound-mode", "tproxy", "--redirect-dns", "--dns-servers", "all"];
    apply(&pod.netns, "nftables", &options);
    let _proxy = Server::start_transparent(&pod.netns, "proxy", &[15006]);
    let _dns = Server::start(&pod.netns, "dns", Owner::PROXY, &[15053]);
    let trace = Trace::start(&pod.netns, &[]);
    call(&pod, Transport::Tcp, Caller::Peer, To::Pod(8080), Family::V4).expect("a call");
    let line = trace.next();
    assert_eq!(line["verdict"]["action"], "tproxy", "{line:#}");
    assert_eq!(line["verdict"]["port"], 15006);
    assert_eq!(line["end"]["to"], endpoint("POD:8080", Family::V4));
    // Its answer comes from an address that the client does not expect, so this call fails.
    let _failed = call(&pod, Transport::Udp, Caller::App, To::Far(53), Family::V4);
    let line = trace.next();
    assert_eq!(line["packet"]["protocol"], "udp", "{line:#}");
    assert_eq!(line["verdict"]["action"], "redirect");
    assert_eq!(line["verdict"]["port"], 15053);
    assert_eq!(trace.end(), [Value::Null; 0]);
}

/// The rules that Istio's own program writes for `-i '*' -b '*' -d 15090`.
#[test]
fn rules_of_istio_are_named() {
    let pod = Pod::new();
    feed(
        &pod.netns,
        "iptables-nft-restore",
        &["--noflush"],
        "*nat\n-N ISTIO_INBOUND\n-N ISTIO_REDIRECT\n-N ISTIO_IN_REDIRECT\n-N ISTIO_OUTPUT\n\
         -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN\n-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n\
         -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006\n-A PREROUTING -p tcp -j ISTIO_INBOUND\n\
         -A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN\n-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT\n\
         -A OUTPUT -j ISTIO_OUTPUT\n-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN\n\
         -A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN\n\
         -A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN\n\
         -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN\n-A ISTIO_OUTPUT -j ISTIO_REDIRECT\nCOMMIT\n",
    );
    let _servers = [
        Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001, 15006]),
        Server::start(&pod.netns, "app", Owner::APP, &[15090]),
        Server::start(&pod.peer, "peer", Owner::ROOT, &[80]),
    ];
    let trace = Trace::start(&pod.netns, &[]);
    for (caller, to, action, chain, number) in [
        (Caller::App, To::Peer(80), "redirect", "ISTIO_REDIRECT", 1),
        (Caller::Proxy, To::Peer(80), "accept", "ISTIO_OUTPUT", 3),
        (Caller::Peer, To::Pod(8080), "redirect", "ISTIO_IN_REDIRECT", 1),
        (Caller::Peer, To::Pod(15090), "accept", "ISTIO_INBOUND", 2),
    ] {
        call(&pod, Transport::Tcp, caller, to, Family::V4).expect("a call");
        let line = trace.next();
        assert_eq!(line["verdict"]["action"], action, "{line:#}");
        assert_eq!(line["rule"]["table"], "ip nat", "{line:#}");
        assert_eq!(line["rule"]["chain"], chain, "{line:#}");
        assert_eq!(line["rule"]["number"], number, "{line:#}");
        assert_eq!(line["doubt"], Value::Null, "{line:#}");
    }
    assert_eq!(trace.end(), [Value::Null; 0]);
}

/// The kernel does not trace these rules. Their effect is seen.
#[test]
fn legacy_iptables_is_reported_as_untraced() {
    let pod = Pod::new();
    apply(&pod.netns, "iptables-legacy", OPTIONS);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    call(&pod, Transport::Tcp, Caller::App, To::Peer(80), Family::V4).expect("a call");
    let line = trace.next();
    assert_eq!(line["verdict"]["action"], "redirect", "{line:#}");
    assert_eq!(line["end"]["to"], "127.0.0.1:15001");
    assert_eq!(line["rule"], Value::Null);
    assert_eq!(line["doubt"], "untraced-rule");
    call(&pod, Transport::Tcp, Caller::App, To::Peer(81), Family::V4).expect("a call");
    let line = trace.next();
    assert_eq!(
        (&line["verdict"]["action"], &line["rule"]),
        (&"accept".into(), &Value::Null)
    );
    trace.end();
    let mut command = pod.netns.command(SIDETRACK);
    let run = Run::of(command.args(["trace", "--duration", "0"])).succeeded();
    assert!(
        run.stderr.contains("does not trace rules of legacy iptables"),
        "{run:?}"
    );
}

#[test]
fn the_owner_of_an_open_socket_is_found() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    let to = To::Peer(80).address(Family::V4).expect("an address");
    let stream = Caller::Process(4321, 4321)
        .run(&pod, || TcpStream::connect(to))
        .expect("a connection");
    // The socket stays open until the line was read.
    let line = trace.next();
    drop(stream);
    let comm = std::fs::read_to_string("/proc/self/comm").expect("a name");
    assert_eq!(line["owner"]["uid"], 4321, "{line:#}");
    assert_eq!(line["owner"]["pid"], std::process::id(), "{line:#}");
    assert_eq!(line["owner"]["process"], comm.trim_end(), "{line:#}");
    trace.end();
}

#[test]
fn the_filter_selects_in_the_kernel() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let _servers = servers(&pod);
    let peer = Address::PEER.of(Family::V4).to_string();
    let port = format!("{peer}/24:80");
    for (filter, expected) in [
        (&["inbound"][..], &["inbound 8080"][..]),
        (&["outbound", "tcp"], &["outbound 80", "outbound 81", "outbound 80"]),
        (&[port.as_str()], &["outbound 80", "outbound 80"]),
        (&[":81"], &["outbound 81"]),
        (&["--uid", "1337"], &["outbound 80"]),
        (&["--source", peer.as_str()], &["inbound 8080"]),
        (&["udp"], &[]),
        (&["fd99::/64"], &[]),
    ] {
        let trace = Trace::start(&pod.netns, filter);
        for (caller, to) in [
            (Caller::App, To::Peer(80)),
            (Caller::App, To::Peer(81)),
            (Caller::Proxy, To::Peer(80)),
            (Caller::Peer, To::Pod(8080)),
        ] {
            call(&pod, Transport::Tcp, caller, to, Family::V4).expect("a call");
        }
        let found = trace.end().into_iter().map(|line| {
            let to: SocketAddr = line["packet"]["destination"]
                .as_str()
                .expect("text")
                .parse()
                .expect("an address");
            format!("{} {}", line["packet"]["direction"].as_str().expect("text"), to.port())
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

/// Makes connections from many threads, and returns how many.
fn burst(pod: &Pod) -> usize {
    const THREADS: usize = 10;
    const CONNECTIONS: usize = 300;
    let to = To::Peer(81).address(Family::V4).expect("an address");
    pod.netns.run(|| {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..CONNECTIONS {
                        drop(TcpStream::connect(to).expect("a connection"));
                    }
                });
            }
        });
    });
    THREADS * CONNECTIONS
}

/// The lines, and the reported losses.
fn counted(lines: &[Value]) -> (usize, u64, u64) {
    let lost = |reason: &str| lines.iter().filter_map(|line| line["lost"][reason].as_u64()).sum();
    let connections = lines.iter().filter(|line| line["packet"].is_object()).count();
    (connections, lost("aboveRate"), lost("discarded"))
}

/// Lines and losses are all connections. Among losses, a retransmitted first packet counts too.
#[track_caller]
fn assert_all_are_reported(pod: &Pod, made: usize, reported: u64) {
    let made = made as u64;
    let retransmitted = retransmitted(pod);
    assert!(
        (made..=made + retransmitted).contains(&reported),
        "{reported} of {made}, and {retransmitted} again"
    );
}

/// How many first packets the kernel has retransmitted (`TCPSynRetrans`, net/ipv4/proc.c).
fn retransmitted(pod: &Pod) -> u64 {
    let statistics = pod
        .netns
        .run(|| std::fs::read_to_string("/proc/thread-self/net/netstat"));
    let statistics = statistics.expect("statistics");
    let mut lines = statistics.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == "TCPSynRetrans").expect("the counter");
    value.parse().expect("a number")
}

#[test]
fn no_connection_of_a_burst_is_lost_without_a_report() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", OPTIONS);
    let _servers = servers(&pod);
    for (rate, exceeds) in [("1000000", false), ("100", true)] {
        let trace = Trace::start(&pod.netns, &["--rate", rate]);
        let made = burst(&pod);
        let (lines, above_rate, discarded) = counted(&trace.end());
        assert_eq!(above_rate > 0, exceeds, "{above_rate}");
        assert_all_are_reported(&pod, made, lines as u64 + above_rate + discarded);
    }
}

/// A trace that is stopped cannot read, so that the kernel discards messages.
#[test]
fn discarded_messages_are_reported() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", OPTIONS);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &["--rate", "1000000"]);
    trace.signal(Signal::SIGSTOP);
    let made: usize = (0..4).map(|_| burst(&pod)).sum();
    trace.signal(Signal::SIGCONT);
    let ended = trace.end();
    let (lines, above_rate, discarded) = counted(&ended);
    assert!(discarded > 0, "{lines} of {made}: the buffer did not fill");
    assert_all_are_reported(&pod, made, lines as u64 + above_rate + discarded);
    // The verdict of each other line is right, or in doubt.
    for line in ended
        .iter()
        .filter(|line| line["packet"].is_object() && line["doubt"].is_null())
    {
        assert_eq!(line["rule"]["comment"], "excluded outbound ports", "{line:#}");
    }
}

#[test]
fn a_killed_trace_leaves_nothing_behind() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let before = nft_state(&pod.netns);
    let mut trace = Trace::start(&pod.netns, &[]);
    assert_ne!(nft_state(&pod.netns), before);
    trace.signal(Signal::SIGKILL);
    trace.child.wait().expect("the end");
    if trace.is_owned {
        becomes(&pod.netns, &before);
    } else {
        assert_ne!(nft_state(&pod.netns), before);
    }
    // On older kernels, the next trace replaces the table, and removes it.
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut trace = Trace::start(&pod.netns, &[]);
        trace.signal(signal);
        assert_eq!(trace.child.wait().expect("the end").code(), Some(0));
        becomes(&pod.netns, &before);
    }
}

/// Waits until the ruleset is this again: the kernel deletes tables of closed sockets on a thread of its own.
#[track_caller]
fn becomes(netns: &Netns, before: &str) {
    let begun = Instant::now();
    while nft_state(netns) != before {
        assert!(begun.elapsed() < TIMEOUT, "{}", nft_state(netns));
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_trace_changes_neither_check_nor_other_rules() {
    for backend in ["nftables", "iptables-nft"] {
        let pod = Pod::new();
        feed(
            &pod.netns,
            "nft",
            &["-f", "-"],
            "table inet foreign {\nchain in { type filter hook input priority 0; tcp dport 22 drop; }\n}",
        );
        apply(&pod.netns, backend, &[]);
        let foreign = |pod: &Pod| output_of(pod.netns.command("nft").args(["list", "table", "inet", "foreign"]));
        let before = (foreign(&pod), state(&pod.netns, backend));
        let ruleset = nft_state(&pod.netns);
        let trace = Trace::start(&pod.netns, &[]);
        // Older kernels have one table for all traces.
        let other = trace.is_owned.then(|| Trace::start(&pod.netns, &["inbound"]));
        sidetrack(&pod.netns, &["check", "--backend", backend]).succeeded();
        let log = apply(&pod.netns, backend, &[]);
        assert!(log.contains("already redirected this way"), "{log}");
        assert_eq!(foreign(&pod), before.0);
        trace.end();
        other.map(Trace::end);
        becomes(&pod.netns, &ruleset);
        assert_eq!((foreign(&pod), state(&pod.netns, backend)), before);
    }
}

#[test]
fn a_trace_ignores_packets_that_another_one_marked() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    if !trace.is_owned {
        return; // Older kernels have one table for all traces.
    }
    let inbound = Trace::start(&pod.netns, &["inbound"]);
    call(&pod, Transport::Tcp, Caller::App, To::Peer(80), Family::V4).expect("a call");
    assert_eq!(trace.end().len(), 1);
    assert_eq!(inbound.end(), [Value::Null; 0]);
}

#[test]
fn rules_that_change_meanwhile_are_named() {
    let pod = Pod::new();
    apply(&pod.netns, "nftables", &[]);
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    for (options, action, comment) in [
        (&[][..], "redirect", "outbound, to the proxy"),
        (OPTIONS, "accept", "excluded outbound ports"),
        (&[], "redirect", "outbound, to the proxy"),
    ] {
        apply(&pod.netns, "nftables", options);
        call(&pod, Transport::Tcp, Caller::App, To::Peer(81), Family::V4).expect("a call");
        let line = trace.next();
        assert_eq!(line["verdict"]["action"], action, "{line:#}");
        assert_eq!(line["rule"]["comment"], comment, "{line:#}");
    }
    sidetrack(&pod.netns, &["cleanup"]).succeeded();
    call(&pod, Transport::Tcp, Caller::App, To::Peer(81), Family::V4).expect("a call");
    let line = trace.next();
    assert_eq!(
        (&line["verdict"]["action"], &line["rule"]),
        (&"accept".into(), &Value::Null)
    );
    trace.end();
}

/// A namespace that does not track connections does not begin to because of a trace.
#[test]
fn a_trace_does_not_enable_connection_tracking() {
    let pod = Pod::new();
    let _servers = servers(&pod);
    let trace = Trace::start(&pod.netns, &[]);
    call(&pod, Transport::Tcp, Caller::App, To::Peer(80), Family::V4).expect("a call");
    let line = trace.next();
    assert_eq!(line["verdict"]["action"], "accept", "{line:#}");
    assert_eq!(line["doubt"], Value::Null, "{line:#}");
    let connections = pod
        .netns
        .run(|| std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack"));
    let connections = connections.unwrap_or_default();
    let found = connections
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().next());
    assert!(matches!(found, None | Some("00000000")), "{connections}");
    trace.end();
}

#[test]
fn a_trace_ends_by_count_by_duration_and_without_a_reader() {
    let pod = Pod::new();
    let _servers = servers(&pod);
    let mut trace = Trace::start(&pod.netns, &["--count", "2"]);
    for _ in 0..3 {
        let _made = call(&pod, Transport::Tcp, Caller::App, To::Peer(80), Family::V4);
    }
    assert_eq!(trace.child.wait().expect("the end").code(), Some(0));
    assert_eq!(trace.lines.iter().count(), 2);
    let run = Run::of(pod.netns.command(SIDETRACK).args(["trace", "--duration", "10ms"])).succeeded();
    assert_eq!(run.stdout, "");
    let mut command = pod.netns.command(SIDETRACK);
    let mut child = command
        .args(["trace"])
        .stdout(crate::program::closed_pipe())
        .stderr(File::create("/dev/null").expect("a file"))
        .spawn()
        .expect("the program");
    while child.try_wait().expect("a state").is_none() {
        let _made = call(&pod, Transport::Tcp, Caller::App, To::Peer(80), Family::V4);
    }
    assert_eq!(child.wait().expect("the end").code(), Some(0));
}

/// The thread that traces is the one inside the network namespace.
#[test]
fn only_capabilities_that_tracing_needs_are_kept() {
    const NEEDED: u64 = 1 << 12 | 1 << 19 | 1 << 2; // CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH
    let (node, pod) = (Netns::new(), Pod::new());
    let path = pod.netns.path();
    for (netns, arguments) in [
        (&pod.netns, &[][..]),
        (&node, &["--netns", path.to_str().expect("text")]),
    ] {
        let trace = Trace::start(netns, arguments);
        let process = format!("/proc/{}", trace.child.id());
        let threads = std::fs::read_dir(format!("{process}/task")).expect("threads");
        let status = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status"));
        let statuses: Vec<String> = threads
            .map(|thread| status(thread.expect("a thread")).expect("text"))
            .collect();
        let permitted = statuses.iter().filter_map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        });
        assert_eq!(permitted.filter(|set| *set == NEEDED).count(), 1, "{statuses:#?}");
        trace.end();
    }
}

#[test]
fn a_trace_needs_rights_and_valid_arguments() {
    let pod = Pod::new();
    let mut command = pod.netns.command_of(Owner::APP, SIDETRACK);
    Run::of(command.arg("trace")).failed(1, &["CAP_NET_ADMIN"]);
    sidetrack(&pod.netns, &["trace", "sideways", "--rate", "0"]).failed(2, &["FILTER", "--rate"]);
    sidetrack(&pod.netns, &["trace", "--netns", "no-such"]).failed(1, &["/run/netns/no-such"]);
    assert!(!nft_state(&pod.netns).contains("sidetrack"));
}
