//! A pod with a real proxy, and the ways that traffic should take through it.

use sidetrack::types::{Family, InboundMode};

use super::envoy::Accepted;
use super::{Address, Call, Caller, Envoy, Owner, Pod, Server, To, Transport, call};

/// A pod in which proxy and application run.
pub struct Sidecar {
    pub pod: Pod,
    pub envoy: Envoy,
    inbound: InboundMode,
    _servers: [Server; 2],
}

/// A call, and the way that it should take.
#[derive(Clone, Copy, Debug)]
pub struct Journey {
    pub what: &'static str,
    pub transport: Transport,
    pub caller: Caller,
    pub to: To,
    pub route: Route,
}

/// The way from a caller to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Straight there.
    Direct,
    /// Through the proxy, from outside.
    Inbound,
    /// Through the proxy, to the outside.
    Outbound,
    /// Into the proxy, which was dialled itself and must not pass it on: accepted so many times, then dropped.
    Dropped { inbound: u64, outbound: u64 },
}

/// A journey in few words.
pub const fn journey(what: &'static str, transport: Transport, caller: Caller, to: To, route: Route) -> Journey {
    Journey {
        what,
        transport,
        caller,
        to,
        route,
    }
}

/// The port of the application in the pod.
const APP: u16 = 8080;
/// Its other ports; some are those that the mesh serves itself.
const OTHER_PORTS: [u16; 5] = [8081, 15008, 15020, 15021, 15090];
/// The port of the server outside.
const SERVER: u16 = 9090;

/// The inbound call.
pub const PEER_CALLS_APP: Journey = journey(
    "a neighbour calls the app",
    Transport::Tcp,
    Caller::Peer,
    To::Pod(APP),
    Route::Inbound,
);

/// The outbound call.
pub const APP_CALLS_PEER: Journey = journey(
    "the app calls a neighbour",
    Transport::Tcp,
    Caller::App,
    To::Peer(SERVER),
    Route::Outbound,
);

/// The calls that work in every pod with a sidecar proxy.
pub const JOURNEYS: &[Journey] = {
    use Caller::{App, Far, Peer, Process, Root};
    use Route::{Direct, Dropped, Inbound, Outbound};
    use Transport::{Tcp, Udp};
    &[
        PEER_CALLS_APP,
        journey("a host far away calls the app", Tcp, Far, To::Pod(APP), Inbound),
        APP_CALLS_PEER,
        journey("the app calls a host far away", Tcp, App, To::Far(SERVER), Outbound),
        journey(
            "root in the pod calls a neighbour",
            Tcp,
            Root,
            To::Peer(SERVER),
            Outbound,
        ),
        journey(
            "the proxy's user calls a neighbour",
            Tcp,
            Process(1337, 1000),
            To::Peer(SERVER),
            Direct,
        ),
        journey(
            "the proxy's group calls a neighbour",
            Tcp,
            Process(1000, 1337),
            To::Peer(SERVER),
            Direct,
        ),
        journey(
            "the proxy calls the pod's address",
            Tcp,
            Caller::Proxy,
            To::Pod(APP),
            Inbound,
        ),
        journey(
            "the proxy calls loopback",
            Tcp,
            Caller::Proxy,
            To::Loopback(APP),
            Direct,
        ),
        journey("the app calls the pod's address", Tcp, App, To::Pod(APP), Direct),
        journey("the app calls loopback", Tcp, App, To::Loopback(APP), Direct),
        journey("UDP, a neighbour to the app", Udp, Peer, To::Pod(APP), Direct),
        journey("UDP, the app to a neighbour", Udp, App, To::Peer(SERVER), Direct),
        journey(
            "dialling the inbound port",
            Tcp,
            Peer,
            To::Pod(15006),
            Dropped {
                inbound: 1,
                outbound: 0,
            },
        ),
        journey(
            "dialling the outbound port",
            Tcp,
            Peer,
            To::Pod(15001),
            Dropped {
                inbound: 1,
                outbound: 1,
            },
        ),
    ]
};

impl Sidecar {
    /// Starts the proxy, then the application, in a pod whose rules are in place, as the containers of a pod start.
    pub fn start(pod: Pod) -> Self {
        Self::start_as(Owner::PROXY, InboundMode::Redirect, pod)
    }

    /// The same for a proxy that runs as this owner, and that inbound connections reach like this.
    pub fn start_as(owner: Owner, inbound: InboundMode, pod: Pod) -> Self {
        let envoy = Envoy::start(&pod.netns, owner, inbound);
        let app = Server::start(&pod.netns, "app", Owner::APP, &[&[APP], &OTHER_PORTS[..]].concat());
        let server = Server::start(&pod.peer, "server", Owner::ROOT, &[SERVER]);
        Self {
            pod,
            envoy,
            inbound,
            _servers: [app, server],
        }
    }

    /// Ends proxy and application, as they end when a pod's containers are restarted.
    pub fn stop(self) -> Pod {
        self.pod
    }

    /// Makes these journeys, over IPv4 and IPv6; each must take its way.
    #[track_caller]
    pub fn travel_all(&self, journeys: &[Journey]) {
        let strays = Family::BOTH.into_iter().flat_map(|family| {
            let stray = move |journey: &Journey| {
                let error = self.travel(journey, family).err()?;
                Some(format!("{family}: {} ({:?}): {error}", journey.what, journey.route))
            };
            journeys.iter().filter_map(stray)
        });
        let strays: Vec<_> = strays.collect();
        assert!(strays.is_empty(), "{}", strays.join("\n"));
    }

    /// Makes the journey. Returns what the server saw, or in which respect the way was another one.
    pub fn travel(&self, journey: &Journey, family: Family) -> Result<String, String> {
        let before = self.envoy.accepted();
        let call = call(&self.pod, journey.transport, journey.caller, journey.to, family);
        // Each connection leaves a line. Envoy may close one that it drops before it counts it, but logs it later.
        let mut access_log = Vec::new();
        if matches!(journey.route, Route::Dropped { .. }) {
            access_log.push(self.envoy.next_access());
        }
        let accepted = self.envoy.accepted().since(before);
        while (access_log.len() as u64) < accepted.total() {
            access_log.push(self.envoy.next_access());
        }

        let expected = match journey.route {
            Route::Direct => Accepted {
                inbound: 0,
                outbound: 0,
            },
            Route::Inbound => Accepted {
                inbound: 1,
                outbound: 0,
            },
            Route::Outbound => Accepted {
                inbound: 0,
                outbound: 1,
            },
            Route::Dropped { inbound, outbound } => Accepted { inbound, outbound },
        };
        if accepted != expected {
            return Err(format!("Envoy took {accepted}"));
        }
        let wanted = journey.to.address(family);
        for access in access_log {
            let passed_on = access.passed_on_to.is_none_or(|to| Some(to) == wanted);
            if Some(access.original_destination) != wanted || !passed_on {
                return Err(format!("Envoy logged {access:?}"));
            }
        }
        self.check_arrival(&call.map_err(|error| error.to_string())?, journey, family)
    }

    fn check_arrival(&self, call: &Call, journey: &Journey, family: Family) -> Result<String, String> {
        let dropped = matches!(journey.route, Route::Dropped { .. });
        let Some(arrival) = &call.arrival else {
            return if dropped {
                Ok("dropped".to_owned())
            } else {
                Err("no answer".to_owned())
            };
        };
        let server = if journey.to.is_pod() { "app" } else { "server" };
        let from_caller = match journey.route {
            Route::Direct => arrival.client == call.local,
            Route::Inbound => match self.inbound {
                InboundMode::Redirect => arrival.client.ip() == Address::PASSTHROUGH.of(family),
                InboundMode::Tproxy => arrival.client.ip() == call.local.ip(),
            },
            Route::Outbound => arrival.client.ip() == Address::POD.of(family),
            Route::Dropped { .. } => false,
        };
        let seen = format!("{} saw {}", arrival.server, arrival.client.ip());
        if from_caller && arrival.server == server {
            Ok(seen)
        } else {
            Err(format!("{seen}: {call:?}"))
        }
    }
}
