"""What the lock costs beside the redirection alone: for each connection, and for each packet."""

import connections
from connections import CALLS, PEER, SERVICE, SHARED_CPU, Costs
from lab import output
from report import Section, Table, at_most
from sample import factor, number

PROXY_OUTBOUND = 15001
ALLOW, LOCKED = "`allow`", "`proxy-only`"
COLUMNS = ("", "p50, `allow` = 1", "p50 µs", "p99 µs", "in a second")
# The most that the lock may add at the median.
AIM = 1.03


def _places(bench):
    return {
        ALLOW: connections.place(bench, (bench.plan().apply,)),
        LOCKED: connections.place(bench, (bench.plan("locked", outbound_policy=["proxy-only"]).apply,)),
    }


def measure(bench):
    """Connections of the app that are redirected to the proxy, and round trips of a byte over one of them."""
    rows, targets = [], []
    for what, one in (("a connection", _connect), ("a round trip", _round_trip)):
        places = _places(bench)
        costs = connections.take_turns(places, lambda name: one(bench, places[name]), bench.rounds(100))
        allowed = costs[ALLOW]
        rows += [_row(f"{what}, {name}", cost, allowed) for name, cost in costs.items()]
        measured = costs[LOCKED].median / allowed.median
        targets.append(at_most(f"{what} under `proxy-only`, against `allow`", measured, AIM, factor))
    return Section(
        "Cost of the lock",
        "Outbound connections of an app, redirected to the proxy's port, without `--outbound-policy proxy-only` and with "
        "it: 1,000 connections in each round, then 1,000 round trips of a byte over one connection. The rules see every "
        f"packet of both directions twice, since they pass the loopback interface. {SHARED_CPU}",
        Table(COLUMNS, rows),
        targets=targets,
    )


def check(bench):
    """Connections arrive at the proxy under both policies, and bytes come back."""
    for place in _places(bench).values():
        _connect(bench, place, 10)
        _round_trip(bench, place, 10)


def _connect(bench, place, calls=CALLS):
    arrived, took = connections.call(
        bench, calls, place.pod, PEER, (place.peer, SERVICE), (place.pod, PROXY_OUTBOUND)
    )
    if arrived != (0, calls):
        raise RuntimeError(f"connections arrived elsewhere: {arrived}")
    return took


def _round_trip(bench, place, trips=CALLS):
    pod = place.pod.path
    program = bench.runner.program("roundtrip")
    return [int(line) for line in output(program, str(trips), pod, PEER, str(SERVICE), pod, str(PROXY_OUTBOUND)).split()]


def _row(name, cost: Costs, allowed):
    rate = f"{1e9 / cost.mean:,.0f}"
    return (name, factor(cost.median / allowed.median), number(cost.median / 1e3), number(cost.tail / 1e3), rate)
