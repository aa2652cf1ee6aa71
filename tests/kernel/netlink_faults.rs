//! Netlink exchanges with the real kernel in which one datagram is faulty, at each place in turn: lost, truncated,
//! marked as interrupted, late; or another process changes the ruleset at that moment.

use std::cell::Cell;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::SockProtocol;

use sidetrack::backend::install::{self, Applied, Removed};
use sidetrack::backend::nftables::transaction::{Nftables, NftablesError};
use sidetrack::backend::nftables::{Found, OwnTables};
use sidetrack::backend::{Change, Kernel as _, KernelError, Namespace, RuleBackend};
use sidetrack::facts::Facts;
use sidetrack::linux::netlink::{ATTEMPTS, KernelWire, NetlinkError, Socket, Wire};
use sidetrack::linux::route::{Route, RouteError};
use sidetrack::options::Settings;
use sidetrack::plan::{Plan, Prerequisite};
use sidetrack::ruleset::Layout;
use sidetrack::types::{InboundMode, Port};

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distortion {
    /// The receive buffer was full: the datagram is lost, which the next call reports (netlink(7), ENOBUFS).
    Lost,
    /// The datagram is late.
    Late,
    /// Half of the datagram is missing.
    Truncated,
    /// The kernel marks the datagram: a change interrupted the dump.
    Interrupted,
    /// A signal interrupts the call, twice.
    Signals,
    /// The datagram cannot be sent.
    NotSent,
    /// Another process commits a transaction just before.
    Disturbed,
    /// Another process removes our rules just before.
    Flushed,
}

use Distortion::*;

/// The faulty exchange, counted over all sockets, and its fault.
struct Fault {
    distortion: Distortion,
    /// Exchanges from `first` up to, and without, `end`.
    first: usize,
    end: usize,
    exchanges: AtomicUsize,
}

impl Fault {
    fn hits(&self, exchange: usize) -> bool {
        (self.first..self.end).contains(&exchange)
    }
}

/// A transport with that fault. An exchange begins with the sent datagram.
struct DistortedWire {
    protocol: SockProtocol,
    wire: KernelWire,
    fault: Arc<Fault>,
    exchange: usize,
    /// How often the fault has been met in this exchange.
    met: Cell<u32>,
}

impl DistortedWire {
    fn open(protocol: SockProtocol, fault: &Arc<Fault>) -> Socket {
        Socket::over(Box::new(Self {
            protocol,
            wire: KernelWire::open(protocol).unwrap(),
            fault: fault.clone(),
            exchange: 0,
            met: Cell::new(0),
        }))
    }

    /// Whether the fault is met now, the first `times` times in its exchange.
    fn meets(&self, times: u32) -> bool {
        let meets = self.fault.hits(self.exchange) && self.met.get() < times;
        self.met.update(|met| met + u32::from(meets));
        meets
    }
}

impl Wire for DistortedWire {
    fn send(&mut self, datagram: &[u8]) -> nix::Result<()> {
        let sent_again = self.fault.distortion == Signals && self.met.get() == 1;
        if !sent_again {
            self.exchange = self.fault.exchanges.fetch_add(1, Ordering::Relaxed);
            self.met.set(0);
        }
        match self.fault.distortion {
            Signals if self.meets(1) => return Err(Errno::EINTR),
            NotSent if self.meets(1) => return Err(Errno::ENOBUFS),
            Disturbed if self.meets(1) => assert!(nft("add table ip somebody; delete table ip somebody")),
            // It need not be there. After our transaction this would be the last word.
            Flushed if self.protocol == SockProtocol::NetlinkNetFilter && self.meets(1) => {
                let _was_there = nft("flush table inet sidetrack");
            }
            _ => {}
        }
        self.wire.send(datagram)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> nix::Result<usize> {
        if self.fault.distortion == Signals && self.meets(2) {
            return Err(Errno::EINTR);
        }
        let length = self.wire.receive(buffer)?;
        match self.fault.distortion {
            Lost if self.meets(1) => Err(Errno::ENOBUFS),
            Late if self.meets(1) => Err(Errno::EAGAIN),
            Truncated if self.meets(1) => Ok(length / 2),
            Interrupted if is_part_of_a_list(buffer) && self.meets(1) => {
                buffer[6] |= libc::NLM_F_DUMP_INTR as u8;
                Ok(length)
            }
            _ => Ok(length),
        }
    }
}

fn is_part_of_a_list(datagram: &[u8]) -> bool {
    i32::from(datagram[6]) & libc::NLM_F_MULTI != 0
}

fn nft(command: &str) -> bool {
    let output = Command::new("nft").arg(command).output();
    output.expect("nft").status.success()
}

/// The state owned by sidetrack: the table as the kernel lists it, and its prerequisites.
type State = (String, Vec<Prerequisite>);

fn state() -> State {
    let listing = Command::new("nft")
        .args(["-s", "list", "ruleset"])
        .output()
        .expect("nft");
    let listing = String::from_utf8(listing.stdout).unwrap();
    // The order of rules in a chain means something, that of chains and sets does not.
    let lines: Vec<&str> = listing.lines().filter(|line| !["}", ""].contains(line)).collect();
    let mut objects: Vec<String> = Vec::new();
    for line in lines {
        match objects.last_mut() {
            Some(object) if line.starts_with("\t\t") => *object += line,
            _ => objects.push(line.to_owned()),
        }
    }
    objects.sort_unstable();
    (objects.join("\n"), Namespace::default().prerequisites().unwrap())
}

fn plan(options: impl FnOnce(&mut Settings)) -> Plan {
    let mut settings = Settings::default();
    options(&mut settings);
    Plan::new(&settings.config, &Facts::default()).unwrap()
}

fn redirect() -> Plan {
    plan(|settings| settings.config.proxy.inbound_port = Port::new(15007).unwrap())
}

fn tproxy() -> Plan {
    plan(|settings| settings.config.inbound.mode = InboundMode::Tproxy)
}

/// A namespace in which the exchange `first` is faulty.
fn distorted(fault: &Arc<Fault>) -> Namespace {
    let open = |protocol| DistortedWire::open(protocol, fault);
    Namespace::over(
        Some(Route::over(open(SockProtocol::NetlinkRoute))),
        Some(Nftables::over(open(SockProtocol::NetlinkNetFilter))),
    )
}

fn one_table(nftables: &mut Nftables) -> OwnTables<'_> {
    OwnTables::new(nftables, Layout::OneTable)
}

/// What the observation found.
fn found(any: bool) -> Found {
    Found {
        any,
        ..Found::default()
    }
}

fn fault(distortion: Distortion, first: usize, end: usize) -> Arc<Fault> {
    Arc::new(Fault {
        distortion,
        first,
        end,
        exchanges: AtomicUsize::new(0),
    })
}

fn apply(namespace: &mut Namespace, plan: &Plan) -> Result<Applied, KernelError> {
    let observed = namespace.observe()?;
    install::apply_with(namespace, plan, RuleBackend::Nftables, &observed)
}

fn cleanup(namespace: &mut Namespace) -> Result<Removed, KernelError> {
    let observed = namespace.observe()?;
    install::cleanup(namespace, &observed)
}

/// Runs `test` in a thread with a fresh network namespace, which dies with the thread.
fn in_namespace(test: impl FnOnce() + Send) {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root, to make a network namespace");
        let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(status.expect("ip").success());
        test();
    };
    thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Applies `new` over `old` with the distortion at each exchange in turn. Returns the number of failures.
fn apply_with_each(distortion: Distortion, old: Option<&Plan>, new: &Plan) -> usize {
    let mut failures = 0;
    in_namespace(|| {
        let prepare = || match old {
            Some(old) => drop(apply(&mut Namespace::default(), old).unwrap()),
            None => drop(cleanup(&mut Namespace::default()).unwrap()),
        };
        apply(&mut Namespace::default(), new).unwrap();
        let new_state = state();
        prepare();
        let old_state = state();
        for exchange in 0.. {
            let fault = fault(distortion, exchange, exchange + 1);
            let result = apply(&mut distorted(&fault), new);
            let what = format!(
                "{distortion:?} {exchange} of {}: {result:?}",
                fault.exchanges.load(Ordering::Relaxed)
            );
            if fault.exchanges.load(Ordering::Relaxed) <= exchange {
                result.unwrap();
                break;
            }
            let found = state();
            match result {
                Ok(applied) => {
                    assert!(found == new_state, "{what}\n{found:#?}");
                    assert_ne!(applied.change, Change::Unchanged, "{what}");
                }
                Err(error) => {
                    let is_new = found.0 == new_state.0 && new_state.1.iter().all(|wanted| found.1.contains(wanted));
                    let is_reported = error.may_have_changed_rules() && is_new;
                    assert!(found == old_state || is_reported, "{what}\n{found:#?}");
                    failures += 1;
                    apply(&mut Namespace::default(), new).unwrap();
                    assert!(state() == new_state, "{what}");
                }
            }
            prepare();
            assert!(state() == old_state, "{what}");
        }
    });
    failures
}

const ALL_DISTORTIONS: [Distortion; 8] = [Lost, Late, Truncated, Interrupted, Signals, NotSent, Disturbed, Flushed];

/// The distortions that an apply must survive.
fn may_fail(distortion: Distortion) -> bool {
    match distortion {
        Lost | Late | Truncated | NotSent => true,
        Interrupted | Signals | Disturbed | Flushed => false,
    }
}

#[test]
fn first_apply_survives_or_rolls_back_each_distortion() {
    for distortion in ALL_DISTORTIONS {
        let failures = apply_with_each(distortion, None, &tproxy());
        assert_eq!(failures > 0, may_fail(distortion), "{distortion:?}: {failures}");
    }
}

#[test]
fn replace_survives_or_rolls_back_each_distortion() {
    for distortion in ALL_DISTORTIONS {
        let failures = apply_with_each(distortion, Some(&tproxy()), &redirect());
        assert_eq!(failures > 0, may_fail(distortion), "{distortion:?}: {failures}");
    }
}

#[test]
fn cleanup_survives_each_distortion_or_the_next_one_completes_it() {
    for distortion in ALL_DISTORTIONS {
        in_namespace(|| {
            let untouched = state();
            for exchange in 0.. {
                apply(&mut Namespace::default(), &tproxy()).unwrap();
                let fault = fault(distortion, exchange, exchange + 1);
                let result = cleanup(&mut distorted(&fault));
                let what = format!(
                    "{distortion:?} {exchange} of {}: {result:?}",
                    fault.exchanges.load(Ordering::Relaxed)
                );
                match result {
                    Ok(removed) => {
                        assert!(state() == untouched, "{what}");
                        assert_eq!(removed.rules.len(), 1, "{what}");
                    }
                    Err(_) => {
                        assert!(may_fail(distortion), "{what}");
                        cleanup(&mut Namespace::default()).unwrap();
                        assert!(state() == untouched, "{what}");
                    }
                }
                if fault.exchanges.load(Ordering::Relaxed) <= exchange {
                    break;
                }
            }
        });
    }
}

#[test]
fn lost_acknowledgement_is_resolved_by_reading_back() {
    for distortion in [Lost, Late, Truncated] {
        for (old, expected) in [(None, Change::Created), (Some(tproxy()), Change::Replaced)] {
            in_namespace(|| {
                let (new, mut nftables) = (redirect(), Nftables::open().unwrap());
                if let Some(old) = &old {
                    one_table(&mut nftables).apply(&old.ruleset, &found(false)).unwrap();
                }
                // Created at the first exchange, or replaced after those that read what is there.
                let exchanges = |installed| {
                    let counter = fault(distortion, usize::MAX, usize::MAX);
                    let socket = DistortedWire::open(SockProtocol::NetlinkNetFilter, &counter);
                    let mut nftables = Nftables::over(socket);
                    let ruleset = if installed { &tproxy().ruleset } else { &new.ruleset };
                    one_table(&mut nftables).apply(ruleset, &found(installed)).unwrap();
                    counter.exchanges.load(Ordering::Relaxed)
                };
                let at = if old.is_some() { exchanges(true) } else { 0 };
                let fault = fault(distortion, at, at + 1);
                let mut distorted = Nftables::over(DistortedWire::open(SockProtocol::NetlinkNetFilter, &fault));
                assert_eq!(
                    one_table(&mut distorted)
                        .apply(&new.ruleset, &found(old.is_some()))
                        .unwrap(),
                    expected,
                    "{distortion:?}"
                );
                assert_eq!(one_table(&mut nftables).differences(&new.ruleset).unwrap(), []);
            });
        }
    }
}

/// All datagrams from the transaction on are lost.
#[test]
fn unverifiable_transaction_is_reported_and_keeps_prerequisites() {
    in_namespace(|| {
        let counter = fault(Lost, usize::MAX, usize::MAX);
        apply(&mut distorted(&counter), &tproxy()).unwrap();
        cleanup(&mut Namespace::default()).unwrap();
        let last = counter.exchanges.load(Ordering::Relaxed) - 1;
        let error = apply(&mut distorted(&fault(Lost, last, usize::MAX)), &tproxy()).unwrap_err();
        assert!(error.may_have_changed_rules(), "{error}");
        assert!(error.to_string().contains("Run sidetrack again"), "{error}");
        assert_eq!(state().1.len(), Prerequisite::of(&tproxy()).len());
        let again = apply(&mut Namespace::default(), &tproxy()).unwrap();
        assert_eq!(
            again.change,
            Change::Unchanged,
            "the rules were in force, with what they need"
        );
        assert_eq!(again.added, []);
    });
}

#[test]
fn constantly_interrupted_apply_replaces_without_reading() {
    in_namespace(|| {
        apply(&mut Namespace::default(), &redirect()).unwrap();
        let wanted = state();
        for old in [None, Some(tproxy())] {
            cleanup(&mut Namespace::default()).unwrap();
            if let Some(old) = &old {
                apply(&mut Namespace::default(), old).unwrap();
            }
            let fault = fault(Disturbed, 0, usize::MAX);
            let applied = apply(&mut distorted(&fault), &redirect()).unwrap();
            let change = if old.is_some() {
                Change::Replaced
            } else {
                Change::Created
            };
            assert_eq!(applied.change, change);
            assert_eq!(state(), wanted);
        }
    });
}

#[test]
fn constantly_interrupted_read_fails_with_advice() {
    in_namespace(|| {
        apply(&mut Namespace::default(), &tproxy()).unwrap();
        let before = state();
        let open = |distortion, protocol| {
            let fault = fault(distortion, 0, usize::MAX);
            (DistortedWire::open(protocol, &fault), fault)
        };
        for distortion in [Disturbed, Interrupted] {
            let (socket, fault) = open(distortion, SockProtocol::NetlinkNetFilter);
            let error = one_table(&mut Nftables::over(socket))
                .differences(&redirect().ruleset)
                .unwrap_err();
            assert!(matches!(error, NftablesError::Busy), "{error}");
            assert!(error.to_string().contains("Try again"), "{error}");
            let exchanges = fault.exchanges.load(Ordering::Relaxed);
            assert!(exchanges <= 16 * ATTEMPTS as usize, "{exchanges}");
        }
        let (socket, _) = open(Interrupted, SockProtocol::NetlinkNetFilter);
        assert!(matches!(Nftables::over(socket).chains(), Err(NftablesError::Busy)));
        let (socket, _) = open(Interrupted, SockProtocol::NetlinkRoute);
        let error = Route::over(socket).loopback().unwrap_err();
        assert!(
            matches!(error, RouteError::Netlink(NetlinkError::Interrupted)),
            "{error}"
        );
        assert!(error.to_string().contains("Try again"), "{error}");
        assert_eq!(state(), before);
    });
}
