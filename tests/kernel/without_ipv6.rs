//! A kernel booted with `ipv6.disable=1`, as far as rtnetlink(7) shows it: links have no settings of IPv6, nothing of
//! IPv6 can be asked for.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use netlink_packet_core::{NLA_TYPE_MASK, NlaBuffer};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::SockProtocol;

use sidetrack::backend::{Change, Kernel as _, Namespace, RuleBackend, install};
use sidetrack::facts::{Facts, Ipv6};
use sidetrack::linux::netlink::{KernelWire, Socket, Wire};
use sidetrack::linux::route::{Loopback, Route};
use sidetrack::options::Settings;
use sidetrack::plan::{Plan, PlanError};
use sidetrack::types::{Families, Family, InboundMode, IpFamily};

/// The length of `struct nlmsghdr`, and of `struct ifinfomsg` after it.
const HEADERS: [usize; 2] = [16, 16];

/// A transport to such a kernel.
struct KernelWithoutIpv6 {
    wire: KernelWire,
    /// Requests about IPv6.
    refused: Arc<Mutex<Vec<u16>>>,
}

impl Wire for KernelWithoutIpv6 {
    fn send(&mut self, datagram: &[u8]) -> nix::Result<()> {
        let kind = u16::from_ne_bytes([datagram[4], datagram[5]]);
        if i32::from(datagram[HEADERS[0]]) == libc::AF_INET6 {
            self.refused.lock().unwrap().push(kind);
        }
        self.wire.send(datagram)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> nix::Result<usize> {
        let length = self.wire.receive(buffer)?;
        if u16::from_ne_bytes([buffer[4], buffer[5]]) == libc::RTM_NEWLINK {
            rename(
                &mut buffer[HEADERS.iter().sum()..length],
                &[libc::IFLA_AF_SPEC, libc::AF_INET6 as u16],
            );
        }
        Ok(length)
    }
}

/// Makes the attribute at the end of a path, each inside the one before, one of an unknown type.
fn rename(mut attributes: &mut [u8], path: &[u16]) {
    const UNKNOWN: u16 = 250;
    while attributes.len() >= 4 {
        let header = NlaBuffer::new(&attributes[..]);
        let (kind, length) = (header.kind() & NLA_TYPE_MASK, header.length() as usize);
        if kind == path[0] && path.len() > 1 {
            return rename(&mut attributes[4..length], &path[1..]);
        } else if kind == path[0] {
            attributes[2..4].copy_from_slice(&UNKNOWN.to_ne_bytes());
            return;
        }
        attributes = &mut attributes[length.next_multiple_of(4)..];
    }
    panic!("no attribute {path:?}");
}

fn plan(loopback: &Loopback, options: impl FnOnce(&mut Settings)) -> Result<Plan, PlanError> {
    let mut settings = Settings::default();
    options(&mut settings);
    let facts = Facts {
        ipv6: loopback.ipv6,
        addresses: loopback.addresses,
        resolvers: Vec::new(),
        proxy_cgroup: None,
    };
    Plan::new(&settings.config, &facts)
}

#[test]
fn kernel_without_ipv6_gets_no_ipv6_requests() {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root, to make a network namespace");
        // The kernel of this machine has IPv6; without it there are no such addresses.
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        assert!(
            Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()
                .unwrap()
                .success()
        );
        let refused = Arc::new(Mutex::default());
        let wire = KernelWithoutIpv6 {
            wire: KernelWire::open(SockProtocol::NetlinkRoute).unwrap(),
            refused: Arc::clone(&refused),
        };
        let route = Route::over(Socket::over(Box::new(wire)));
        let mut namespace = Namespace::over(Some(route), None);
        let observed = namespace.observe().unwrap();
        assert_eq!(observed.loopback.ipv6, Ipv6::Absent);

        for mode in [InboundMode::Redirect, InboundMode::Tproxy] {
            let plan = plan(&observed.loopback, |settings| settings.config.inbound.mode = mode).unwrap();
            assert_eq!(plan.ruleset.families, Families::Only(Family::V4));
            let applied = install::apply_with(&mut namespace, &plan, RuleBackend::Nftables, &observed).unwrap();
            assert_ne!(applied.change, Change::Unchanged);
        }
        let observed = namespace.observe().unwrap();
        install::cleanup(&mut namespace, &observed).unwrap();
        assert_eq!(namespace.prerequisites().unwrap(), []);
        assert_eq!(*refused.lock().unwrap(), Vec::<u16>::new());

        for family in [IpFamily::Ipv6, IpFamily::Dual] {
            let error = plan(&observed.loopback, |settings| {
                settings.config.general.ip_family = family
            })
            .unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("ipv6.disable=1") && error.contains("--ip-family ipv4"),
                "{error}"
            );
        }
    };
    thread::spawn(inside).join().unwrap();
}
