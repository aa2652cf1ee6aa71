//! A pod with a proxy and name servers around it, and the way that a lookup takes there.

use std::fs;
use std::io;
use std::net::SocketAddr;

use sidetrack::types::Family;

use crate::common::dns::{FORWARDER, Reply, Resolver, look_up};
use crate::common::{Address, Caller, Envoy, Netns, Owner, Pod, Transport};
use crate::program::{apply, feed};

/// The way that a lookup takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the forwarder.
    Forwarder,
    /// Through Envoy, as any connection would.
    Envoy,
    /// Straight to the name server.
    Direct,
}

/// A lookup, and the way that it takes.
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    what: &'static str,
    transport: Transport,
    caller: Caller,
    server: Address,
    way: Way,
}

/// A lookup in few words.
pub const fn lookup(what: &'static str, transport: Transport, caller: Caller, server: Address, way: Way) -> Lookup {
    Lookup {
        what,
        transport,
        caller,
        server,
        way,
    }
}

/// A pod with a proxy: Envoy and a forwarder, which asks the neighbour. The name servers are all the neighbour's.
///
/// The pod's firewall takes no answer that does not belong to a question: what is translated or sorted into zones on
/// one way only is lost.
pub struct Lab {
    pub pod: Pod,
    _envoy: Envoy,
    _resolvers: [Resolver; 2],
}

const FIREWALL: &str = "table inet firewall {
    chain input {
        type filter hook input priority 0
        udp sport { 53, 15053 } ct state != { established, related } drop
    }
}";

impl Lab {
    pub fn new() -> Self {
        Self::asking(Address::PEER, FORWARDER)
    }

    pub fn asking(upstream: Address, forwarder: [SocketAddr; 2]) -> Self {
        Self::of(Owner::PROXY, upstream, forwarder)
    }

    /// With a proxy that runs as this owner.
    pub fn with_proxy(owner: Owner) -> Self {
        Self::of(owner, Address::PEER, FORWARDER)
    }

    fn of(owner: Owner, upstream: Address, forwarder: [SocketAddr; 2]) -> Self {
        let pod = Pod::new();
        let addresses = [Address::PEER, Address::PEER_SECOND, Address::FAR];
        let addresses = Family::BOTH.map(|family| addresses.map(|address| address.of(family)));
        feed(&pod.netns, "nft", &["-f", "-"], FIREWALL);
        // As container runtimes have it.
        set(&pod.netns, "ip_unprivileged_port_start", "0");
        Self {
            _envoy: Envoy::start(&pod.netns, owner, sidetrack::types::InboundMode::Redirect),
            _resolvers: [
                Resolver::name_server(&pod.peer, Owner::ROOT, addresses.as_flattened()),
                Resolver::forwarder(&pod.netns, owner, &forwarder, upstream),
            ],
            pod,
        }
    }

    pub fn apply(&self, backend: &str, options: &[&str]) -> String {
        apply(&self.pod.netns, backend, &[&["--redirect-dns"], options].concat())
    }

    pub fn look_up(&self, lookup: &Lookup, family: Family) -> io::Result<Reply> {
        let name = format!("{}.example", lookup.what.replace(' ', "-"));
        let server = lookup.server.of(family);
        lookup
            .caller
            .run(&self.pod, || look_up(lookup.transport, None, server, &name))
    }

    /// Every lookup takes its way, in these families.
    #[track_caller]
    pub fn look_all_up(&self, families: &[Family], lookups: &[Lookup]) {
        let mut strays = Vec::new();
        for (family, lookup) in families
            .iter()
            .flat_map(|family| lookups.iter().map(move |lookup| (*family, lookup)))
        {
            let way = self.look_up(lookup, family).map(|reply| way(&reply));
            if way.as_ref().ok() != Some(&lookup.way) {
                strays.push(format!("{family}: {lookup:?}: {way:?}"));
            }
        }
        assert!(strays.is_empty(), "{}", strays.join("\n"));
    }
}

/// The way that a lookup took. The forwarder must have seen who asked, if not always from which port: the kernel changes
/// it where one port asks several servers, all of which are the forwarder.
pub fn way(reply: &Reply) -> Way {
    match reply.forwarded_for {
        Some(client) if client.ip() == reply.local.ip() => Way::Forwarder,
        Some(_) => panic!("the forwarder saw another client: {reply:?}"),
        None if reply.client == reply.local => Way::Direct,
        None => Way::Envoy,
    }
}

/// The addresses of a host in both families, as an option names them.
pub fn both(address: Address) -> String {
    Family::BOTH.map(|family| address.of(family).to_string()).join(",")
}

/// Changes a setting of the namespace's IP, both versions.
pub fn set(netns: &Netns, name: &str, value: &str) {
    let written = netns.run(|| fs::write(format!("/proc/sys/net/ipv4/{name}"), value));
    written.unwrap_or_else(|error| panic!("{name}: {error}"));
}
