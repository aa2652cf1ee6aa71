//! Options of netlink sockets, and the network namespace that they stay in.

use std::net::IpAddr;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use sidetrack::linux::netlink::{KernelWire, NetlinkError, Socket, Wire};
use sidetrack::linux::route::Route;

use crate::common::Netns;

/// `RTM_GETADDR`, with a length of a prefix that means nothing there.
fn malformed_request_for_addresses() -> Vec<u8> {
    const NLM_F_REQUEST_DUMP: u16 = 1 | 0x300;
    let mut request = 24_u32.to_ne_bytes().to_vec();
    request.extend(libc::RTM_GETADDR.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([libc::AF_INET as u8, 7, 0, 0, 0, 0, 0, 0]);
    request
}

#[test]
fn errors_carry_the_kernels_message_and_requests_are_checked_strictly() {
    let refused = Netns::new().run(|| {
        let mut socket = Socket::open(SockProtocol::NetlinkRoute).expect("a socket");
        socket.dump(&malformed_request_for_addresses())
    });
    match refused {
        Err(error @ NetlinkError::Refused(_)) => {
            let text = error.to_string();
            let reasons = [
                "EINVAL: Invalid argument, \"",
                "Invalid values in header for address dump request\"",
            ];
            assert!(reasons.iter().all(|reason| text.contains(reason)), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

/// A transport whose first answer is lost.
struct Losing {
    wire: KernelWire,
    lost: bool,
}

impl Wire for Losing {
    fn send(&mut self, datagram: &[u8]) -> nix::Result<()> {
        self.wire.send(datagram)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> nix::Result<usize> {
        if std::mem::replace(&mut self.lost, true) {
            self.wire.receive(buffer)
        } else {
            Err(Errno::ENOBUFS)
        }
    }
}

#[test]
fn socket_stays_in_its_namespace_after_a_failed_exchange() {
    let pods = ["10.99.1.2", "10.99.2.2"].map(|address| {
        let pod = Netns::new();
        pod.ip("link add eth0 type veth peer name far0");
        pod.ip(&format!("address add {address}/24 dev eth0"));
        pod.ip("link set eth0 up");
        pod
    });
    let mut route = pods[0].run(|| {
        let wire = KernelWire::open(SockProtocol::NetlinkRoute).expect("a socket");
        Route::over(Socket::over(Box::new(Losing { wire, lost: false })))
    });
    let addresses = pods[1].run(|| {
        assert!(route.usable_addresses().is_err());
        route.usable_addresses().expect("an answer")
    });
    assert_eq!(addresses, ["10.99.1.2".parse::<IpAddr>().expect("an address")]);
}
