//! Connections that are older than the rules, or that connection tracking knows as something else.

use std::io;

use nix::poll::PollFlags;

use crate::common::Address;
use crate::lab::{APP_PORT, MARKER, PORT, STALLED_PORT, Stage, Step};
use crate::sys::{bind, connect, connect_patiently, internet, send, send_to, wait};

/// A TCP connection from before the rules.
pub fn tcp_connection(stage: &Stage) -> io::Result<()> {
    let socket = internet(stage.family, libc::SOCK_STREAM, 0)?;
    connect_patiently(&socket, stage.far(PORT))?;
    stage.after(Step::Rules)?;
    send(&socket, MARKER)
}

/// What a TCP connection from before the rules has left to send when it is closed. Its segments have no owner any more.
pub fn closed_connection(stage: &Stage) -> io::Result<()> {
    stage.after(Step::Tracking)?;
    let socket = internet(stage.family, libc::SOCK_STREAM, 0)?;
    connect_patiently(&socket, stage.near(STALLED_PORT))?;
    // More than the neighbour takes before it reads.
    while send(&socket, &MARKER.repeat(4096)).is_ok() {}
    drop(socket);
    stage.after(Step::Rules)?;
    stage.after(Step::Read).map(drop)
}

/// An exchange over UDP from before the rules, which connection tracking knows as established.
pub fn udp_exchange(stage: &Stage) -> io::Result<()> {
    stage.after(Step::Tracking)?;
    let socket = internet(stage.family, libc::SOCK_DGRAM, 0)?;
    // Near: an answer comes from the address that was asked.
    connect(&socket, stage.near(PORT))?;
    send(&socket, MARKER)?;
    wait(&socket, PollFlags::POLLIN)?;
    stage.after(Step::Rules)?;
    send(&socket, MARKER)
}

/// An answer to a packet from outside, to a host that the application may know.
pub fn answer(stage: &Stage) -> io::Result<()> {
    let socket = internet(stage.family, libc::SOCK_DGRAM, 0)?;
    bind(&socket, (Address::POD.of(stage.family), APP_PORT).into())?;
    stage.after(Step::Packet(stage.family))?;
    wait(&socket, PollFlags::POLLIN)?;
    send_to(&socket, MARKER, stage.far(PORT + 1))
}

/// A redirected connection that connection tracking has lost, so that nothing translates its packets.
pub fn forgotten_connection(stage: &Stage) -> io::Result<()> {
    let socket = internet(stage.family, libc::SOCK_STREAM, 0)?;
    connect_patiently(&socket, stage.far(PORT))?;
    stage.after(Step::Forget)?;
    send(&socket, MARKER)
}
