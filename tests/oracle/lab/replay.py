"""Replay: `sidetrack explain` is asked about the probes that were recorded, and must say where they landed.

The rules are those that the mesh's own program installed, the packets those of the probes. What the program calls
uncertain is counted, not compared. A probe is left out
    whose packet no socket can send, or which is no packet of TCP or UDP;
    whose verdict is about a later packet than the first;
    that is lost in a pod without rules, too, so that nothing shows where it would have landed;
    from outside to ::7 on lo, whose answers are lost where it is redirected.
"""

import json
import re
import socket
from dataclasses import dataclass, field

from .install import Program, last_words
from .matrix import AGENT_UDP, POD_TCP, POD_UDP, WORLD_TCP, WORLD_UDP
from .sockets import FAMILIES, endpoint, family_of
from .topology import ETH0, HOSTS, LINKS, LabError

INTERFACES = {link.peer_device: link for link in LINKS}
LISTENING = {("tcp", "pod"): POD_TCP, ("udp", "pod"): (*POD_UDP, AGENT_UDP), ("tcp", "world"): WORLD_TCP,
             ("udp", "world"): WORLD_UDP}
FOREIGN = frozenset(host for hosts in HOSTS.values() for host in hosts)
LOST = ("timeout", "unreachable", "no such source address", "silence")


@dataclass
class Outcome:
    """How the answers compare with the verdicts."""

    packets: int = 0
    uncertain: int = 0
    unreadable: set = field(default_factory=set)
    wrong: list = field(default_factory=list)  # (probe, verdict, answer)

    def add(self, other):
        self.packets += other.packets
        self.uncertain += other.uncertain
        self.unreadable |= other.unreadable
        self.wrong += other.wrong


def words(probe):
    """The packet of a probe, as `explain` reads it; None if it has no words for it."""
    if probe.kind not in ("tcp", "udp", "synack") or probe.late_mark or (probe.place, probe.dst) == ("near", "::7"):
        return None
    protocol = "udp" if probe.kind == "udp" else "tcp"
    source = probe.src
    if probe.place == "pod":
        packet = f"outbound {protocol} {endpoint(probe.dst, probe.port)} --uid {probe.who[0]} --gid {probe.who[1]}"
        packet += f" --mark {probe.mark}" if probe.mark else ""
    else:
        link = INTERFACES[probe.device] if probe.device else ETH0
        packet = f"inbound {protocol} {endpoint(probe.dst, probe.port)} --interface {link.device}"
        source = source or link.peer(probe.family)
    if source:
        packet += f" --source {endpoint(source, probe.sport) if probe.sport else source}"
    return packet + (" --connection-state invalid" if probe.kind == "synack" else "")


def run(topology, program, probes, expected, untouched):
    """Ask the program, in this pod, about the probes whose landing is known."""
    asked = {}
    for probe in probes:
        packet = words(probe)
        if packet and not (untouched[probe.name] in LOST and expected[probe.name] in LOST):
            asked.setdefault(packet, []).append(probe)
    done = topology.run(program, "explain", "--from-kernel", "--json", "--packets", "-",
                        stdin="".join(f"{packet}\n" for packet in asked))
    if done.returncode:
        raise LabError(f"explain: exit {done.returncode}: {done.stderr.strip()}")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if len(answers) != len(asked):
        raise LabError(f"explain: {len(answers)} answers about {len(asked)} packets")
    outcome = Outcome()
    for (packet, probed), answer in zip(asked.items(), answers):
        outcome.unreadable.update(answer.get("unreadable", ()))
        for probe in probed:
            outcome.packets += 1
            if "error" in answer:
                if expected[probe.name] not in LOST:
                    outcome.wrong.append((f"{probe.name} ({packet})", expected[probe.name], answer["error"]))
            elif not answer["certain"]:
                outcome.uncertain += 1
            elif not agrees(probe, expected[probe.name], answer):
                outcome.wrong.append((f"{probe.name} ({packet})", expected[probe.name],
                                      f"{answer['verdict']} {answer['end']}"))
    return outcome


def check(topology, program, case, is_as_recorded):
    """What is wrong with the answer of `check`, by the flags of the case: the rules have the effect that it plans.

    Where probes land elsewhere than recorded, it must say so.
    """
    if case.config is not None:
        return []  # no front end takes these
    done = Program(program).run(topology, case, "check")
    wanted = (0, "in-sync: by effect: ") if is_as_recorded else (3, "drifted: by effect: ")
    if (done.returncode, done.stdout[:len(wanted[1])]) == wanted:
        return []
    return [(f"check {case.program}", f"exit {wanted[0]}, {wanted[1]}", f"exit {done.returncode}, {last_words(done)}")]


def canonical(text):
    """An address and a port as verdicts have it."""
    address, _, port = text.rpartition(":")
    address = address.strip("[]")
    family = FAMILIES[family_of(address)]
    return endpoint(socket.inet_ntop(family, socket.inet_pton(family, address)), port)


def agrees(probe, verdict, answer):
    """Whether the answer says what the verdict does."""
    what, to = answer["end"]["what"], answer["end"]["to"] and canonical(answer["end"]["to"])
    place = {"delivered": "pod", "sent": "world", "passed-through": "world"}.get(what)
    if probe.kind == "synack":  # a reset shows that it was delivered
        return verdict == ("silence" if place is None else "reset")
    if verdict == "timeout":
        # Or answers are lost: of a local socket that has another host's address, or on the way back through the pod.
        foreign = probe.dst in FOREIGN and to == endpoint(probe.dst, probe.port)
        return place is None or foreign and (place == "pod" or probe.place != "pod")
    port = to and int(to.rpartition(":")[2])
    if verdict == "refused":
        return what == "rejected" or place is not None and port not in LISTENING[probe.kind, place]
    landed = re.match(r"pod:(\d+) local=(\S+)", verdict)
    if landed:
        # A transparent proxy's socket has the address that the packet was sent to.
        if answer["verdict"]["action"] == "tproxy":
            port = answer["verdict"]["port"]
        return place == "pod" and int(landed[1]) == port and landed[2] == to
    landed = re.match(r"(?:near|far) (\S+)", verdict)
    return bool(landed) and place == "world" and landed[1] == to
