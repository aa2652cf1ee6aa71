//! What NET_ADMIN allows.

use std::io;
use std::process::{Command, Stdio};

use crate::attacks::plain;
use crate::lab::{MARKER, PORT, Stage};
use crate::sys::{bind_to_device, internet, send_to};

/// Whoever may write rules may remove them.
pub fn remove_rules(stage: &Stage) -> io::Result<()> {
    let programs = [
        "nft flush ruleset",
        "iptables-legacy -t filter -F",
        "iptables-legacy -t mangle -F",
        "ip6tables-legacy -t filter -F",
        "ip6tables-legacy -t mangle -F",
    ];
    for program in programs {
        let mut words = program.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).stdout(Stdio::null()).stderr(Stdio::null());
        // Without this backend there is nothing to remove.
        let _ = command.status()?;
    }
    plain::udp(stage)
}

/// By a device of its own on top of eth0.
pub fn own_device(stage: &Stage) -> io::Result<()> {
    let lines = "link add link eth0 name own0 type macvlan mode private\nlink set own0 up\n\
                 addr add 10.99.2.2/24 dev own0\naddr add fd99:2::2/64 dev own0 nodad\n\
                 neigh add 10.99.2.1 lladdr 02:00:00:00:00:09 dev own0\nneigh add fd99:2::1 lladdr 02:00:00:00:00:09 dev own0\n";
    for line in lines.lines() {
        let mut command = Command::new("ip");
        let output = command.args(line.trim().split(' ')).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
    }
    let socket = internet(stage.family, libc::SOCK_DGRAM, 0)?;
    bind_to_device(&socket, "own0")?;
    let to = if stage.far(0).is_ipv4() {
        "10.99.2.1"
    } else {
        "fd99:2::1"
    };
    let to: std::net::IpAddr = to.parse().expect("an address");
    send_to(&socket, MARKER, (to, PORT).into())
}
