//! The packets of `sidetrack explain`: one by arguments, or many from a file.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::super::{args, bound};
use super::{contents, note};
use crate::linux::accounts::AccountFiles;
use crate::simulate::packet_args::{self, Description, PacketArgs};
use crate::types::InterfaceName;

/// What the command explains.
pub enum Packets {
    /// One packet, with its trace.
    One(Asked),
    /// The packets of a file, each in a line.
    Many(Vec<Asked>),
}

/// A packet as described.
pub struct Asked {
    /// The description.
    pub packet: Description,
    /// The interface that the socket is bound to, if it is.
    pub bound_to: Option<InterfaceName>,
}

const HEADING: &str = "Packet";
const FILE: &str = "packets";

/// The arguments that describe packets.
pub fn arguments() -> impl Iterator<Item = Arg> {
    let one = described();
    let pod_ip = value("pod-ip", "ADDRESSES", "The pod's own addresses").action(ArgAction::Append);
    let many = value(
        FILE,
        "FILE",
        "Explain each packet of this file, one a line; - is standard input",
    );
    let names: Vec<_> = one.iter().map(|argument| argument.get_id().clone()).collect();
    let one = one.map(|argument| match argument.is_positional() {
        true => argument.required_unless_present(FILE),
        false => argument,
    });
    one.into_iter().chain([pod_ip, many.conflicts_with_all(names)])
}

/// The arguments that describe one packet.
fn described() -> [Arg; 11] {
    let word = |name: &'static str, help: &'static str| Arg::new(name).help(help);
    [
        word(
            "DIRECTION",
            "outbound: a process of the pod sends it; inbound: it arrives",
        ),
        word("PROTOCOL", "tcp, udp, icmp, icmpv6, sctp, dccp, udplite, or a number"),
        word(
            "DESTINATION",
            "ADDRESS:PORT, or :PORT of the pod itself; of ICMP and numbers, ADDRESS",
        ),
        value("uid", "UID", "User that sends it [default: 1000]"),
        value("gid", "GID", "Group that sends it [default: as --uid]"),
        value(
            "source",
            "ADDRESS[:PORT]",
            "Its source [default: the pod, or another host]",
        )
        .visible_alias("from"),
        value(
            "interface",
            "NAME",
            "Where it arrives, or leaves for other hosts [default: eth0]",
        ),
        value("mark", "MARK", "Its mark, or that of the socket [default: 0]"),
        value(
            "cgroup",
            "PATH",
            "Cgroup of its process [default: none that rules name]",
        ),
        value(
            "bound-to",
            "NAME",
            "Interface that its socket is bound to (SO_BINDTODEVICE)",
        ),
        value(
            "connection-state",
            "STATE",
            "Its state: new, established, related or invalid [default: new]",
        ),
    ]
}

fn value(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    let argument = Arg::new(name).long(name).value_name(value);
    argument.allow_hyphen_values(true).help_heading(HEADING).help(help)
}

/// Reads the packets. `None` if there are mistakes, which are added to the others.
pub fn read(matches: &ArgMatches, mistakes: &mut Vec<String>) -> Option<Packets> {
    match matches.get_one::<String>(FILE) {
        None => one(matches, mistakes).map(Packets::One),
        Some(path) => {
            let text = note(contents(path).map_err(|error| format!("--{FILE}: {error}")), mistakes)?;
            many(&text, mistakes).map(Packets::Many)
        }
    }
}

/// The packet of arguments.
fn one(matches: &ArgMatches, mistakes: &mut Vec<String>) -> Option<Asked> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let args = PacketArgs {
        direction: text("DIRECTION").unwrap_or_default(),
        protocol: text("PROTOCOL").unwrap_or_default(),
        destination: text("DESTINATION").unwrap_or_default(),
        source: text("source"),
        uid: text("uid"),
        gid: text("gid"),
        mark: text("mark"),
        cgroup: text("cgroup"),
        interface: text("interface").or_else(|| text("bound-to")),
        connection_state: text("connection-state"),
    };
    let bound_to = bound::read(text("bound-to").as_deref(), &args.direction);
    let bound_to = note(bound_to, mistakes);
    match packet_args::parse(&args, &AccountFiles) {
        Ok(packet) => Some(Asked {
            packet,
            bound_to: bound_to?,
        }),
        Err(wrong) => {
            mistakes.extend(wrong.iter().map(ToString::to_string));
            None
        }
    }
}

/// The packets of a file: a line each; empty lines and those that begin with # do not count.
fn many(text: &str, mistakes: &mut Vec<String>) -> Option<Vec<Asked>> {
    let mut command = Command::new("packet")
        .no_binary_name(true)
        .disable_help_flag(true)
        .args(described().map(|argument| {
            let is_needed = argument.is_positional();
            argument.required(is_needed)
        }));
    let mut packets = Vec::new();
    let before = mistakes.len();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut wrong = Vec::new();
        match command.try_get_matches_from_mut(line.split_whitespace()) {
            Ok(matches) => packets.extend(one(&matches, &mut wrong)),
            Err(error) => wrong = args::first_line(&error),
        }
        mistakes.extend(
            wrong
                .iter()
                .map(|mistake| format!("--{FILE}: line {number}: {mistake}")),
        );
    }
    (mistakes.len() == before).then_some(packets)
}
