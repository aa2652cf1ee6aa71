"""Applying over existing rules: the same ones, and others; and connections that bypass the proxy meanwhile."""

import pathlib
import re
import tempfile
import threading

import peers
from connections import PEER, call, place
from exclusions import SERVICE
from report import Section, Table, at_most
from sample import Contestant, compete, factor, walls

FIRST = "`sidetrack apply`, the first time"
SAME = "… the same again"
OTHER = "… other options"
DRY_RUN = "`nft -f` of the dry run, other options"


def measure(bench):
    plan, other = bench.plan(), _other(bench)
    compared = [
        Contestant(FIRST, (plan.apply,)),
        Contestant(SAME, (plan.apply,), prepare=(plan.apply,)),
        Contestant(OTHER, (other.apply,), prepare=(plan.apply,)),
        Contestant(DRY_RUN, (other.nft_dry_run,), prepare=(plan.nft,)),
    ]
    times = walls(compete(bench.runner, compared, bench.rounds(60), bench.namespaces))
    sent = {contestant.name: _sent(bench, contestant) for contestant in compared}
    rows = [(name, factor(times[name].times(times[FIRST])), *sent[name], times[name]) for name in times]
    return Section(
        "Applying again",
        "In a namespace where the default plan is. What is sent to nf_tables, strace shows.",
        Table(("", "time, first = 1", "transactions", "rules sent", "ms, median (min–max)"), rows),
        targets=[
            at_most("transactions when nothing changes", sent[SAME][0], 0),
            at_most("replacing, against the first time", times[OTHER].times(times[FIRST]), 1, factor),
        ],
        notes="To replace rules is to delete old ones. They are out of force, and the new ones in force, when the "
        "transaction is answered, which takes no longer than the first time. But a process that closes a netfilter socket "
        "then, or exits, waits until the kernel has freed what was deleted (`nft_rcv_nl_event` in "
        "net/netfilter/nf_tables_api.c), after an RCU grace period: milliseconds, which no program can avoid.",
    )


def _other(bench):
    return bench.plan("other", exclude_outbound_ports=(3306, 6379), exclude_inbound_ports=(9090,))


def _sent(bench, contestant):
    """How many transactions and rules a contestant sends to nf_tables."""
    namespace = bench.namespaces.fresh()
    bench.runner.run(contestant.prepare, namespace)
    (step,) = contestant.steps
    with tempfile.NamedTemporaryFile() as trace:
        namespace.output("strace", "-v", "-e", "trace=sendto,sendmsg", "-o", trace.name, *step.command)
        text = pathlib.Path(trace.name).read_text()
    return len(re.findall("NFNL_MSG_BATCH_BEGIN", text)), len(re.findall("NFT_MSG_NEWRULE", text))


def measure_leaks(bench):
    """Connections of an app while its rules are replaced without a pause."""
    plan, other = bench.plan(), _other(bench)
    ways = {
        "`sidetrack apply`": (50_000, [plan.apply], [other.apply, plan.apply]),
        "`nft -f` of the dry run": (20_000, [plan.nft], [other.nft_dry_run, plan.nft_dry_run]),
        "rule by rule, as Linkerd does": (20_000, peers.linkerd("nft"), peers.linkerd("nft", flush=True)),
    }
    rows = []
    for name, (count, install, replace) in ways.items():
        connections = bench.rounds(count)
        replaced, arrived = _under_load(bench, connections, install, replace)
        rows.append((name, f"{connections:,}", f"{replaced:,}", f"{arrived:,}"))
    return Section(
        "Connections that bypass the proxy during a replacement",
        "Connections that an app opens to its neighbour, one after another, while the rules are replaced without a "
        "pause. All should be redirected to the proxy's port.",
        Table(("", "connections", "replacements", "past the proxy"), rows),
        targets=[at_most("connections past the proxy", int(rows[0][3].replace(",", "")), 0)],
        summary=f"{rows[0][3]} of {rows[0][1]} connections got past the proxy while the rules were replaced "
        f"{rows[0][2]} times",
    )


def _under_load(bench, connections, install, replace):
    """How often the rules were replaced meanwhile, and how many connections arrived at the service itself."""
    pod, peer = place(bench, install)
    over, replaced = threading.Event(), 0
    proxy_ports = (15001, 4140)
    result = []

    def calls():
        servers = ((peer, SERVICE), *((pod, port) for port in proxy_ports))
        result.append(call(bench, connections, pod, PEER, *servers)[0])
        over.set()

    thread = threading.Thread(target=calls)
    thread.start()
    while not over.is_set():
        bench.runner.run(replace, pod)
        replaced += 1
    thread.join()
    for namespace in (pod, peer):
        namespace.close()
    if sum(result[0]) != connections:
        raise RuntimeError(f"of {connections} connections, {result[0]} arrived")
    return replaced, result[0][0]
