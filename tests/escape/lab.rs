//! A pod with a proxy, an application that attacks, a neighbour that would answer, and what leaves the pod.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use caps::Capability;
use sidetrack::types::Family;

use super::column::PROXY_MARK;
use super::sys::{self, send, send_to};
use super::wire::{LINKS, Wire, set_sysctl};
use crate::common::{Address, Netns, Owner, Pod, Server, cgroup, output_of, segment, socket};

/// What attacks send.
pub const MARKER: &[u8; 16] = b"sidetrack-escape";
/// A port on which the neighbour answers.
pub const PORT: u16 = 9090;
/// A port of the neighbour that accepts nothing until [`Step::Read`].
pub const STALLED_PORT: u16 = 9092;
/// The port of the application in the pod.
pub const APP_PORT: u16 = 7777;
/// The neighbour's address on the link alone.
pub const LINK_LOCAL: &str = "fe80::1";

/// How long frames that must come are waited for.
const LATE: Duration = Duration::from_secs(60);
/// How long the neighbour waits for the rest of a connection.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// What happens while an attack runs, done by root.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The rules come into force.
    Rules,
    /// Connection tracking begins, without any rule that refuses.
    Tracking,
    /// Connection tracking forgets every connection, and takes none up that has begun.
    Forget,
    /// A packet of the neighbour to the application's port.
    Packet(Family),
    /// The neighbour reads what waits for it at [`STALLED_PORT`].
    Read,
    /// The proxy connects from this address to the neighbour.
    ProxyConnects(SocketAddr),
}

/// The next sequence numbers of the proxy's connection, if there is one: of what it sends, and of what it receives.
type Numbers = (u32, u32);

/// What an attack knows, and whom it asks for what happens around it.
pub struct Stage {
    pub family: Family,
    steps: Sender<(Step, SyncSender<Numbers>)>,
}

impl Stage {
    /// A port of a host in another network.
    pub fn far(&self, port: u16) -> SocketAddr {
        (Address::FAR.of(self.family), port).into()
    }

    /// A port of the neighbour.
    pub fn near(&self, port: u16) -> SocketAddr {
        (Address::PEER.of(self.family), port).into()
    }

    /// Waits until a step is done.
    pub fn after(&self, step: Step) -> io::Result<Numbers> {
        let (done, wait) = sync_channel(1);
        self.steps.send((step, done)).map_err(io::Error::other)?;
        wait.recv().map_err(io::Error::other)
    }
}

/// What an attack came to.
#[derive(Debug)]
pub struct Outcome {
    /// The frames that left the pod, in words.
    pub escaped: Vec<String>,
    /// What the application was told.
    pub result: io::Result<()>,
}

/// A pod and what surrounds it.
pub struct Lab {
    pub pod: Pod,
    pub wire: Wire,
    _servers: [Server; 2],
    stalled: [TcpListener; 2],
    /// The cgroup of the proxy, if the rules recognise it by one.
    pub proxy_cgroup: Option<&'static str>,
    /// Connections of the proxy, which stay open.
    connections: Vec<TcpStream>,
}

impl Lab {
    pub fn new() -> Self {
        let pod = Pod::new();
        for link in LINKS {
            // Reports of groups come at once instead of some time later.
            set_sysctl(
                &pod.netns,
                &format!("ipv4/conf/{link}/igmpv3_unsolicited_report_interval"),
                "1",
            );
            set_sysctl(
                &pod.netns,
                &format!("ipv6/conf/{link}/mldv2_unsolicited_report_interval"),
                "1",
            );
        }
        // As container runtimes set it: any user may send echo requests.
        set_sysctl(&pod.netns, "ipv4/ping_group_range", "0 2147483647");
        pod.peer.ip(&format!("addr add {LINK_LOCAL}/64 dev eth0 nodad"));
        know_neighbours(&pod);
        let servers = [
            Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001, 15006]),
            Server::start(&pod.peer, "server", Owner::ROOT, &[53, 443, PORT]),
        ];
        let listener = |family| socket::listener(socket::any(family, STALLED_PORT)).expect("a listener");
        let stalled = pod.peer.run(|| Family::BOTH.map(listener));
        let wire = Wire::new(&pod);
        Self {
            pod,
            wire,
            _servers: servers,
            stalled,
            proxy_cgroup: None,
            connections: Vec::new(),
        }
    }

    /// Runs an attack in the pod as `assume` says. `rules` brings the rules into force.
    pub fn run(
        &mut self,
        family: Family,
        assume: impl FnOnce() -> io::Result<()> + Send,
        attack: impl FnOnce(&Stage) -> io::Result<()> + Send,
        rules: impl Fn(&Pod),
    ) -> Outcome {
        let netns = self.pod.netns.clone();
        self.run_in(&netns, family, assume, attack, rules)
    }

    /// Runs an attack in a network namespace.
    pub fn run_in(
        &mut self,
        netns: &Netns,
        family: Family,
        assume: impl FnOnce() -> io::Result<()> + Send,
        attack: impl FnOnce(&Stage) -> io::Result<()> + Send,
        rules: impl Fn(&Pod),
    ) -> Outcome {
        let (steps, requests) = channel();
        let stage = Stage { family, steps };
        self.wire.escaped();
        let result = thread::scope(|scope| {
            let running = scope.spawn(move || {
                netns.enter()?;
                // An attack without its rights would seem to be held.
                assume().expect("the rights of the attacker");
                let result = attack(&stage);
                drop(stage);
                result
            });
            self.serve(&requests, rules);
            running.join().expect("an attack that ends")
        });
        let escaped = self.wire.escaped();
        Outcome { escaped, result }
    }

    /// What leaves the pod later, as reports of groups do, which a timer of the kernel sends.
    pub fn late_frames(&mut self) -> Vec<String> {
        let end = Instant::now() + LATE;
        loop {
            let escaped = self.wire.escaped();
            if !escaped.is_empty() || Instant::now() > end {
                return escaped;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn read_what_waits(&self) {
        for listener in &self.stalled {
            listener.set_nonblocking(true).expect("a listener");
            while let Ok((mut stream, _)) = listener.accept() {
                stream.set_nonblocking(false).expect("a connection");
                stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a connection");
                // It ends with the data, or with the silence of a connection that was cut.
                let _ = io::copy(&mut stream, &mut io::sink());
            }
        }
    }

    /// The next sequence numbers of the proxy's latest connection.
    pub fn numbers(&self) -> Numbers {
        let connection = self.connections.last().expect("a connection of the proxy");
        let sequence = || segment::sequence_numbers(connection);
        self.pod.netns.run(sequence).expect("sequence numbers")
    }

    fn serve(&mut self, requests: &Receiver<(Step, SyncSender<Numbers>)>, rules: impl Fn(&Pod)) {
        while let Ok((step, done)) = requests.recv() {
            let mut numbers = (0, 0);
            match step {
                Step::Rules => rules(&self.pod),
                Step::Tracking => track(&self.pod),
                Step::Forget => forget_connections(&self.pod),
                Step::Packet(family) => packet_to_application(&self.pod, family),
                Step::Read => {
                    // What comes of that counts.
                    self.read_what_waits();
                    let _ = done.send(numbers);
                    continue;
                }
                Step::ProxyConnects(from) => {
                    let connection =
                        proxy_connects(&self.pod, self.proxy_cgroup, from).expect("a connection of the proxy");
                    self.connections.push(connection);
                    numbers = self.numbers();
                }
            }
            self.wire.escaped();
            // An attack that has panicked waits for nothing.
            let _ = done.send(numbers);
        }
    }
}

/// Makes packets leave without a question for the neighbour's address, after which they would leave some time later.
fn know_neighbours(pod: &Pod) {
    let known = |link: &str, addresses: &[String]| {
        let shown = output_of(pod.peer.command("ip").args(["-oneline", "link", "show", "dev", link]));
        let hardware = shown
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .nth(1)
            .expect("an address of a link")
            .to_owned();
        let lines = addresses
            .iter()
            .map(|address| format!("neigh replace {address} lladdr {hardware} dev {link} nud permanent\n"));
        lines.collect::<String>()
    };
    let words = |address: Address| address.both().map(|address| address.to_string()).to_vec();
    let first = [words(Address::PEER), vec![LINK_LOCAL.to_owned()]].concat();
    pod.netns
        .ip(&[known("eth0", &first), known("eth1", &words(Address::PEER_SECOND))].concat());
}

fn track(pod: &Pod) {
    let rules = "add table inet others; add chain inet others track { type filter hook output priority 0; }; \
                 add rule inet others track ct state new accept";
    output_of(pod.netns.command("nft").arg(rules));
}

/// Deletes every entry (ctnetlink, `IPCTNL_MSG_CT_DELETE` without attributes).
fn forget_connections(pod: &Pod) {
    const DELETE: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8 | 2;
    const LENGTH: u32 = 20;
    set_sysctl(&pod.netns, "netfilter/nf_conntrack_tcp_loose", "0");
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    let mut request = LENGTH.to_ne_bytes().to_vec();
    request.extend(DELETE.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.resize(LENGTH as usize, 0);
    pod.netns.run(|| {
        let netlink = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER).expect("netlink");
        send(&netlink, &request).expect("a request");
        let mut answer = [0; 256];
        let length = nix::unistd::read(&netlink, &mut answer).expect("an answer");
        let code = i32::from_ne_bytes(answer[16..20].try_into().expect("a number"));
        assert!(
            length >= 20 && code == 0,
            "conntrack forgets nothing: {}",
            io::Error::from_raw_os_error(-code)
        );
    });
}

fn packet_to_application(pod: &Pod, family: Family) {
    let from = (Address::FAR.of(family), PORT + 1).into();
    let to = (Address::POD.of(family), APP_PORT).into();
    pod.peer.run(|| {
        let socket = sys::internet(family, libc::SOCK_DGRAM, 0).expect("a socket");
        sys::bind(&socket, from).expect("an address");
        send_to(&socket, b"?", to).expect("a packet");
    });
}

fn proxy_connects(pod: &Pod, cgroup: Option<&str>, from: SocketAddr) -> io::Result<TcpStream> {
    let family = if from.is_ipv4() { Family::V4 } else { Family::V6 };
    pod.netns.run(|| {
        cgroup.map_or(Ok(()), cgroup::enter)?;
        Owner::PROXY.assume_with(Capability::CAP_NET_ADMIN)?;
        let socket = sys::internet(family, libc::SOCK_STREAM, 0)?;
        sys::set(&socket, libc::SOL_SOCKET, libc::SO_MARK, PROXY_MARK)?;
        sys::bind(&socket, from)?;
        sys::connect_patiently(&socket, (Address::FAR.of(family), PORT).into())?;
        Ok(socket.into())
    })
}
