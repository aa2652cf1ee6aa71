"""What a new connection costs under the rules."""

import contextlib
import os
import statistics
from typing import NamedTuple

import exclusions
import peers
import svg
from lab import Namespace, output, pod_and_peer
from report import Section, Table, at_most
from sample import factor, number

POD, PEER = "10.99.0.2", exclusions.PEER
SERVICE, PROXY_INBOUND = exclusions.SERVICE, 15006

NO_RULES, OURS, ISTIO_NFT, ISTIO_LEGACY = "no rules", "sidetrack", "Istio, iptables-nft", "Istio, iptables-legacy"
COUNTING = "sidetrack, with counters"
CALLS = 1000
# How they are measured, as the page says it.
SHARED_CPU = "Client and server share a CPU, which shows the cost best: nothing waits for another CPU to wake up."
COLUMNS = ("", "p50, no rules = 1", "p50 µs", "p99 µs", "connections/s")


class Place(NamedTuple):
    """A pod with rules, and its neighbour."""

    pod: Namespace
    peer: Namespace


class Costs(NamedTuple):
    """What a connection took, in nanoseconds: medians over the rounds."""

    median: float
    tail: float
    mean: float

    def row(self, name, without):
        rate = f"{1e9 / self.mean:,.0f}"
        return (name, factor(self.median / without.median), number(self.median / 1e3), number(self.tail / 1e3), rate)


def call(bench, count, client, address, *servers):
    """Opens connections to the service at an address. `servers` are pairs of a namespace and a port to listen on.

    Returns how many arrived at each server, and how many nanoseconds each took.
    """
    listening = (str(word) for namespace, port in servers for word in (namespace.path, port))
    program = bench.runner.program("connect")
    arrived, *took = output(program, str(count), client.path, address, str(SERVICE), *listening).splitlines()
    return tuple(map(int, arrived.split())), list(map(int, took))


def place(bench, steps):
    """A pod in which these commands were run."""
    pod, peer = pod_and_peer()
    bench.runner.run(steps, pod)
    # Connections that were reset are forgotten at once: their number does not matter then.
    with pod.entered(), open("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", "w") as seconds:
        seconds.write("1")
    return Place(pod, peer)


def measure_excluded(bench):
    """Connections to an excluded destination go the same way with rules and without: what differs is the rules."""
    places = {(None, NO_RULES): place(bench, ())}
    for length in exclusions.lengths(bench):
        for excluded in exclusions.of_length(length):
            istio = excluded.istio_rules(bench)
            places[excluded, OURS] = place(bench, (excluded.plan(bench).apply,))
            places[excluded, ISTIO_NFT] = place(bench, peers.restore("nft", istio))
            places[excluded, ISTIO_LEGACY] = place(bench, peers.restore("legacy", istio))

    def one(key):
        pod, peer = places[key]
        arrived, took = call(bench, CALLS, pod, PEER, (peer, SERVICE))
        _hold(arrived == (CALLS,), f"{key}: {arrived}")
        return took

    costs = take_turns(places, one, bench.rounds(20))
    without = costs[None, NO_RULES]
    rows = [without.row(NO_RULES, without)]
    lines = {"CIDRs": {}, "ports": {}}
    for (excluded, name), cost in costs.items():
        if excluded:
            rows.append(cost.row(f"{excluded}, {name}", without))
            point = (len(excluded.elements), cost.median / without.median)
            lines[excluded.kind].setdefault(name, []).append(point)
    plots = {
        f"connections-{kind.lower()}": svg.lines(
            f"Time to connect by the number of excluded {kind}", f"excluded {kind}", "no rules = 1", of_kind
        )
        for kind, of_kind in lines.items()
    }
    targets = []
    for kind, of_kind in lines.items():
        (few, least), *_, (many, most) = of_kind[OURS]
        targets.append(at_most(f"a connection past {many:,} {kind}, against {few}", most / least, 1.2, factor))
    return Section(
        "Latency of a new connection",
        "Connections that an app in a pod opens to its neighbour over a veth pair, one after another, to a destination "
        "that is the last of so many excluded: they go the same way without rules. 1,000 in each round; p50 and p99 "
        f"are medians over the rounds. {SHARED_CPU}",
        Table(COLUMNS, rows),
        plots,
        targets,
    )


def measure_redirected(bench):
    """Connections from the neighbour to the pod."""
    costs = _redirected(bench, CALLS, bench.rounds(40))
    return Section(
        "Latency of a redirected connection",
        "Connections from the neighbour to the pod. The default rules redirect them to the proxy's port; without rules "
        f"they arrive at the app's. {SHARED_CPU}",
        Table(COLUMNS, [cost.row(name, costs[NO_RULES]) for name, cost in costs.items()]),
        targets=[
            at_most("a connection with counters, against without", costs[COUNTING].median / costs[OURS].median, 1.01, factor)
        ],
    )


def check(bench):
    """Connections arrive where the rules send them."""
    _redirected(bench, calls=10, rounds=1)


def _redirected(bench, calls, rounds):
    istio = bench.rules(peers.istio_rules)
    places = {
        NO_RULES: place(bench, ()),
        OURS: place(bench, (bench.plan().apply,)),
        COUNTING: place(bench, (bench.plan("counters", counters=True).apply,)),
        ISTIO_NFT: place(bench, peers.restore("nft", istio)),
        ISTIO_LEGACY: place(bench, peers.restore("legacy", istio)),
    }

    def one(name):
        pod, peer = places[name]
        arrived, took = call(bench, calls, peer, POD, (pod, SERVICE), (pod, PROXY_INBOUND))
        _hold(arrived == ((calls, 0) if name == NO_RULES else (0, calls)), f"{name}: {arrived}")
        return took

    return take_turns(places, one, rounds)


@contextlib.contextmanager
def _one_cpu():
    """Client and server on the same CPU: the time that an idle one takes to wake up varies more than the rules cost."""
    all_cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(all_cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cpus)


def take_turns(places, one, rounds):
    """Calls `one` for each place in turn, and ends the places."""
    took = {key: [] for key in places}
    with _one_cpu():
        for _ in range(rounds):
            for key, of_place in took.items():
                of_place.append(one(key))
    for pod, peer in places.values():
        pod.close()
        peer.close()
    return {key: _costs(of_place) for key, of_place in took.items()}


def _costs(rounds):
    return Costs(
        statistics.median(map(statistics.median, rounds)),
        statistics.median(sorted(took)[len(took) * 99 // 100] for took in rounds),
        statistics.median(map(statistics.fmean, rounds)),
    )


def _hold(condition, complaint):
    if not condition:
        raise RuntimeError(f"connections arrived elsewhere: {complaint}")
