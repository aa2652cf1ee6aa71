//! Connections from before the rules, and the rest of closed ones.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use sidetrack::types::Family;

use crate::common::{Address, Caller, Pod, To, socket};
use crate::program::{BACKENDS, apply};

const PORT: u16 = 9090;
const LOCKED: &[&str] = &["--outbound-policy", "proxy-only"];

/// A connection of a process in the pod to the neighbour: both ends.
fn connect(pod: &Pod, caller: Caller, family: Family) -> (TcpStream, TcpStream) {
    let listener = pod.peer.run(|| socket::listener(socket::any(family, PORT))).unwrap();
    let to = To::Peer(PORT).address(family).unwrap();
    let ours = caller.run(pod, || socket::stream(None, to)).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    for stream in [&ours, &theirs] {
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    (ours, theirs)
}

#[test]
fn connections_that_the_application_opened_before_the_rules_end() {
    for backend in BACKENDS {
        for family in Family::BOTH {
            for server_speaks_first in [false, true] {
                let pod = Pod::new();
                let (mut ours, mut theirs) = connect(&pod, Caller::App, family);
                apply(&pod.netns, backend, LOCKED);
                if server_speaks_first {
                    let _ = theirs.write_all(b"server");
                }
                let sent = ours.write_all(b"secret");
                let heard = theirs.read(&mut [0; 6]);
                assert!(
                    heard.as_ref().is_err() || heard.as_ref().is_ok_and(|length| *length == 0),
                    "{backend}, {family}, {server_speaks_first}: {sent:?}, {heard:?}"
                );
            }
        }
    }
}

/// What is left to send has no owner once the socket is closed.
#[test]
fn the_rest_of_a_connection_that_the_proxy_closed_arrives() {
    for backend in BACKENDS {
        for family in Family::BOTH {
            let pod = Pod::new();
            apply(&pod.netns, backend, LOCKED);
            let (mut ours, mut theirs) = connect(&pod, Caller::Proxy, family);
            theirs.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            ours.set_nonblocking(true).unwrap();
            let mut sent = 0;
            while let Ok(length) = ours.write(&[7; 65_536]) {
                sent += length;
            }
            drop(ours);
            let mut received = 0;
            let mut buffer = vec![0; 65_536];
            loop {
                match theirs.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => received += length,
                    Err(error) => panic!("{backend}, {family}: {error} after {received} of {sent} bytes"),
                }
            }
            assert_eq!(received, sent, "{backend}, {family}");
        }
    }
}

/// A forged source address would make the pod's answer leave as a reply.
#[test]
fn packets_with_a_source_address_of_another_host_are_rejected() {
    let family = Family::V6;
    for backend in BACKENDS {
        let pod = Pod::new();
        apply(&pod.netns, backend, LOCKED);
        let receiver = pod.netns.run(|| socket::receiver(socket::any(family, 8080))).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let forged = SocketAddr::from((Address::PEER.of(family), 7777));
        let to = To::Pod(8080).address(family).unwrap();
        let sent = Caller::App.run(&pod, || {
            let sender = socket::foreign_sender(forged)?;
            sender.send_to(b"forged", to)
        });
        assert!(sent.is_err(), "{backend}: {sent:?}");
        assert!(receiver.recv_from(&mut [0; 16]).is_err(), "{backend}");
    }
}
