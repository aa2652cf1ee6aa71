"""Outbound exclusions of growing length, as flags of sidetrack and as Istio's rules."""

from typing import NamedTuple

import peers

PEER, SERVICE = "10.99.0.1", 8080


class Exclusions(NamedTuple):
    """A list that no two elements of can be merged in. The neighbour's address or the service's port is the last."""

    kind: str
    elements: tuple

    def __str__(self):
        return f"{len(self.elements):,} {self.kind}"

    def plan(self, bench):
        option = "exclude_outbound_cidrs" if self.kind == "CIDRs" else "exclude_outbound_ports"
        return bench.plan(str(self), **{option: self.elements})

    def istio_rules(self, bench):
        return bench.rules(peers.istio_rules, **{self.kind.lower(): self.elements})


def lengths(bench):
    return (10, 100, 1000) if bench.quick else (10, 100, 1000, 10_000)


def of_length(length):
    """The lists of this length."""
    others = range(length - 1)
    networks = (f"100.{64 + i // 16384}.{i // 64 % 256}.{i % 64 * 4}/31" for i in others)
    ports = (20_001 + 2 * i for i in others)
    return Exclusions("CIDRs", (*networks, f"{PEER}/32")), Exclusions("ports", (*ports, SERVICE))
