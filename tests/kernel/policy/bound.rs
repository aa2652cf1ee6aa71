//! Sockets that are bound to an interface send by it even to loopback addresses.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use sidetrack::types::Family;

use crate::common::{Caller, Pod, To, socket as sockets};
use crate::program::{BACKENDS, apply};

/// Counts the frames with IP that arrive at the neighbour while something is done.
fn frames(pod: &Pod, work: impl FnOnce()) -> usize {
    let capture = pod
        .peer
        .run(|| {
            let all = SockProtocol::EthAll;
            let capture = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, all)?;
            setsockopt(&capture, sockopt::ReceiveTimeout, &TimeVal::milliseconds(300))?;
            Ok::<_, io::Error>(capture)
        })
        .unwrap();
    work();
    let mut count = 0;
    let mut packet = [0; 2048];
    while let Ok(length) = recv(capture.as_raw_fd(), &mut packet, MsgFlags::empty()) {
        let is_tcp_or_udp = match packet[..length].first().map(|first| first >> 4) {
            Some(4) => matches!(packet[9], 6 | 17),
            Some(6) => matches!(packet[6], 6 | 17),
            _ => false,
        };
        count += usize::from(is_tcp_or_udp);
    }
    count
}

fn bound_calls(pod: &Pod) {
    for family in Family::BOTH {
        for to in [To::Peer(9090), To::Loopback(9090), To::Pod(9090)] {
            let to = to.address(family).unwrap();
            let _ = Caller::App.run(pod, || {
                let sender = sockets::bound_sender("eth0", to)?;
                sender.send(b"secret")
            });
            let _ = Caller::App.run(pod, || sockets::bound_stream("eth0", to, Duration::from_millis(300)));
        }
    }
}

#[test]
fn nothing_of_a_socket_that_is_bound_to_an_interface_leaves() {
    let pod = Pod::new();
    assert_ne!(frames(&pod, || bound_calls(&pod)), 0, "without rules");
    for backend in BACKENDS {
        let pod = Pod::new();
        apply(&pod.netns, backend, &["--outbound-policy", "proxy-only"]);
        assert_eq!(frames(&pod, || bound_calls(&pod)), 0, "{backend}");
    }
}
