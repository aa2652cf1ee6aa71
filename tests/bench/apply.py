"""Applying the default plan in a fresh namespace: how long, and at what cost."""

import os
import pathlib
import re
import tempfile

import peers
import svg
from lab import Step, output
from report import Section, Table, at_least, at_most
from sample import Contestant, compete, factor, memory, number, processor_times, walls

OURS = "`sidetrack apply`"
WITHOUT_TIMEOUTS = "`sidetrack apply --close-wait-timeout 0`"
START = "`sidetrack --version`: its start"
NOTHING = "a static program that does nothing"
SENDER = "a bare sender of the same bytes"
NFT = "`nft -f` of the same rules"
ISTIO = "Istio, iptables-nft"


def contestants(bench):
    plan, istio, kuma = bench.plan(), bench.rules(peers.istio_rules), bench.rules(peers.kuma_rules)
    return [
        Contestant(OURS, (plan.apply,)),
        Contestant(WITHOUT_TIMEOUTS, (bench.plan("without-timeouts", close_wait_timeout=[0]).apply,)),
        Contestant(START, (Step((bench.sidetrack, "--version")),)),
        Contestant(NOTHING, (Step((bench.runner.program("nothing"),)),)),
        Contestant(SENDER, (bench.send(plan),)),
        Contestant(NFT, (plan.nft,)),
        Contestant(ISTIO, tuple(peers.istio("nft", istio))),
        Contestant("Istio, iptables-legacy", tuple(peers.istio("legacy", istio))),
        Contestant("Linkerd, iptables-nft", tuple(peers.linkerd("nft"))),
        Contestant("Linkerd, iptables-legacy", tuple(peers.linkerd("legacy"))),
        Contestant("Kuma, iptables-nft", tuple(peers.kuma(kuma))),
    ]


def measure(bench):
    compared = contestants(bench)
    runs = compete(bench.runner, compared, bench.rounds(60), bench.namespaces)
    times, busy = walls(runs), processor_times(runs)
    rows, ratios = [], {}
    for contestant in compared:
        name = contestant.name
        processes, calls = _cost(bench, contestant)
        ratios[name] = times[name].times(times[OURS])
        processor = factor(busy[name].times(busy[OURS]))
        mebibytes = number(memory(runs[name]))
        rows.append((name, factor(ratios[name]), processor, processes, f"{calls:,}", mebibytes, times[name]))
    _, _, _, processes, calls, mebibytes, _ = rows[0]
    size = os.stat(bench.sidetrack).st_size
    return Section(
        "Applying",
        "The default plan, dual-stack, in a fresh network namespace. CPU is processor time, sidetrack = 1. Processes and "
        "system calls are counted by strace, of all programs of a sequence; memory is the resident set of the largest.",
        Table(("", "time, sidetrack = 1", "CPU", "processes", "system calls", "MiB", "ms, median (min–max)"), rows),
        {"apply": svg.bars("Time to apply the default plan, sidetrack = 1", list(ratios.items())[1:])},
        [
            at_least("faster than Istio's 22 programs", ratios[ISTIO], 25),
            at_least("faster than `nft -f` of the same rules", ratios[NFT], 3.5),
            at_most("time of a bare sender of the same bytes", 1 / ratios[SENDER], 1.5, factor),
            at_most("time of a static program that does nothing", 1 / ratios[NOTHING], 2.2, factor),
            at_most("time without timeouts", 1 / ratios[WITHOUT_TIMEOUTS], 1.1, factor),
            at_most("child processes", processes - 1, 0),
            at_most("system calls", int(calls), 60),
            at_most("memory, MiB", float(mebibytes), 2.5),
            at_most("size of the binary, bytes", size, 4 << 20, "{:,}".format),
        ],
        "`nft -f` gets the dry run's script without the two lines that make it replace an older table: with "
        "them it would wait for the kernel's grace period.\n\n"
        "Where sidetrack spends its time, by perf's samples (Linux 6.18, AMD EPYC, virtual): user code 26 %, the transaction "
        "in the kernel 22 %, page faults 18 %, execve and exit 15 %, and other system calls 19 %, most of which read "
        "the namespace before anything is written: the bare sender reads nothing. The programs that do nothing and "
        "that send alone are C of this machine, with glibc. It detects the processor before main by CPUID "
        "instructions, which a virtual machine traps: two fifths of the time of the one that does nothing. sidetrack has "
        "musl, which does not. That the program can be loaded at any address costs 4 %. It stays so: a program that runs as root "
        "on every node should not have its code at a known address.",
        f"applying the default plan is {factor(ratios[ISTIO])} faster than the 22 programs that Istio runs, and "
        f"{factor(ratios[NFT])} faster than `nft -f` of the same rules",
    )


def _cost(bench, contestant):
    """How many processes a sequence starts, and how many system calls they make."""
    namespace = bench.namespaces.fresh()
    processes = calls = 0
    with tempfile.NamedTemporaryFile() as counts, namespace.entered():
        for step in contestant.steps:
            with open(step.stdin) as stdin:
                text = stdin.read()
            output("strace", "-f", "-c", "-U", "calls,name", "-o", counts.name, *step.command, text=text)
            counted = re.findall(r"^ *(\d+) +(\w+)$", pathlib.Path(counts.name).read_text(), re.MULTILINE)
            by_name = {name: int(count) for count, name in counted}
            calls += by_name.pop("total")
            processes += 1 + sum(by_name.get(name, 0) for name in ("clone", "clone3", "fork", "vfork"))
    return processes, calls


def check(bench):
    """Each sequence installs the rules that it claims: the same as sidetrack's, or as many as its text has."""
    listings = {}
    texts = {"Istio": bench.rules(peers.istio_rules), "Kuma": bench.rules(peers.kuma_rules)}
    for contestant in contestants(bench):
        namespace = bench.namespaces.fresh()
        bench.runner.run(contestant.steps, namespace)
        peer, _, variant = contestant.name.partition(", iptables-")
        if variant:
            for family in peers.FAMILIES:
                saved = namespace.output(f"{family}-{variant}-save", "-t", "nat").count("\n-A ")
                wanted = 8 if peer == "Linkerd" else pathlib.Path(texts[peer][family]).read_text().count("\n-A ")
                _hold(saved == wanted, f"{contestant.name}: {saved} rules of {family} instead of {wanted}")
        else:
            listings[contestant.name] = namespace.output("nft", "list", "ruleset")
    for name in (START, NOTHING):
        _hold(listings.pop(name) == "", f"{name} left rules")
    _hold("redirect to :15001" in listings[OURS], "ours are not there")
    _hold("ct timeout" not in listings.pop(WITHOUT_TIMEOUTS), f"{WITHOUT_TIMEOUTS}: there are timeouts")
    for name, listing in listings.items():
        _hold(listing == listings[OURS], f"{name}: other rules than ours")
    bench.namespaces.end()


def _hold(condition, complaint):
    if not condition:
        raise RuntimeError(complaint)
