//! The frames that leave the pod, as its neighbour receives them.

use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::frame;
use super::sys::{send_frame, set, socket};
use crate::common::{Netns, Pod};

/// The links between pod and neighbour.
pub const LINKS: [&str; 2] = ["eth0", "eth1"];

/// Receives every frame that the pod sends by either link.
pub struct Wire {
    capture: OwnedFd,
    pod: Netns,
    /// A fence has a number, so that one that comes late is not taken for the next.
    fences: u32,
}

impl Wire {
    pub fn new(pod: &Pod) -> Self {
        /// Room for the frames of a whole attack.
        const BUFFER: i32 = 32 << 20;
        let capture = pod.peer.run(|| {
            let every = i32::from((libc::ETH_P_ALL as u16).to_be());
            let capture = socket(libc::AF_PACKET, libc::SOCK_RAW, every).expect("a packet socket");
            set(&capture, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER).expect("a buffer");
            capture
        });
        Self {
            capture,
            pod: pod.netns.clone(),
            fences: 0,
        }
    }

    /// What has left the pod since the last call, in words: each frame that an application could have caused.
    ///
    /// Frames wait in a queue of each CPU until they are received. So a frame of our own from each CPU and by each link
    /// comes last, and those before it are all that there are.
    pub fn escaped(&mut self) -> Vec<String> {
        self.fences += 1;
        let expected = self.send_fences();
        let addresses = self.pod.run(addresses);
        let (mut escaped, mut seen) = (Vec::new(), 0);
        while seen < expected {
            let frame = self.receive();
            match frame::fence(&frame) {
                Some(number) => seen += usize::from(number == self.fences),
                None => escaped.extend(frame::describe(&frame, &addresses)),
            }
        }
        assert_eq!(self.lost(), 0, "frames were lost before they were counted");
        escaped
    }

    fn send_fences(&self) -> usize {
        let number = self.fences;
        self.pod.run(|| {
            let all = sched_getaffinity(Pid::from_raw(0)).expect("the CPUs of this thread");
            let usable: Vec<usize> = (0..CpuSet::count())
                .filter(|cpu| all.is_set(*cpu).unwrap_or(false))
                .collect();
            for cpu in &usable {
                let mut one = CpuSet::new();
                one.set(*cpu).expect("a CPU");
                sched_setaffinity(Pid::from_raw(0), &one).expect("a CPU to run on");
                for link in LINKS {
                    send_frame(index(link), &frame::new_fence(number)).expect("a fence");
                }
            }
            usable.len() * LINKS.len()
        })
    }

    /// The next frame that came over a link.
    #[expect(unsafe_code, reason = "nix does not return the type of a packet")]
    fn receive(&self) -> Vec<u8> {
        const PATIENCE_MILLISECONDS: u16 = 60_000;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let mut waiting = [PollFd::new(self.capture.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut waiting, PATIENCE_MILLISECONDS).expect("poll");
            assert_eq!(ready, 1, "a fence did not arrive");
            // SAFETY: all bytes zero are a valid address. Address and buffer live through the call, which writes no more
            // than their lengths say.
            let (length, from) = unsafe {
                let mut from: libc::sockaddr_ll = std::mem::zeroed();
                let mut from_length = size_of_val(&from) as libc::socklen_t;
                let length = libc::recvfrom(
                    self.capture.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut from_length,
                );
                (length, from)
            };
            let length = usize::try_from(length).unwrap_or_else(|_| panic!("{}", io::Error::last_os_error()));
            let is_of_a_link = from.sll_hatype == libc::ARPHRD_ETHER && from.sll_pkttype != libc::PACKET_OUTGOING;
            if is_of_a_link {
                buffer.truncate(length);
                return buffer;
            }
        }
    }

    #[expect(unsafe_code, reason = "nix does not know this option")]
    fn lost(&self) -> u32 {
        let mut statistics = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: statistics and length live through the call, which writes no more than the length says.
        let result = unsafe {
            libc::getsockopt(
                self.capture.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        statistics.tp_drops
    }
}

/// The IPv6 addresses of the network namespace of the calling thread.
fn addresses() -> Vec<Ipv6Addr> {
    let list = fs::read_to_string("/proc/thread-self/net/if_inet6").expect("addresses");
    let digits = list.lines().filter_map(|line| line.split(' ').next());
    let numbers = digits.filter_map(|digits| u128::from_str_radix(digits, 16).ok());
    numbers.map(Ipv6Addr::from).collect()
}

/// The number of an interface, in the network namespace of the calling thread.
pub fn index(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).expect("an interface")
}

/// Writes a setting below `/proc/sys/net` of a network namespace.
pub fn set_sysctl(netns: &Netns, name: &str, value: &str) {
    let path = format!("/proc/sys/net/{name}");
    netns
        .run(|| fs::write(&path, value))
        .unwrap_or_else(|error| panic!("{path}: {error}"));
}
