"""How long applying takes as lists of exclusions grow."""

import exclusions
import peers
import svg
from report import Section, Table, at_least, at_most
from sample import Contestant, compete, factor, memory, number, processor_times, walls

OURS, SENDER, NFT = "sidetrack", "a bare sender of the same bytes", "`nft -f`"


def measure(bench):
    lists = [excluded for length in exclusions.lengths(bench) for excluded in exclusions.of_length(length)]
    rows, times = [], {}
    for excluded in lists:
        runs = compete(bench.runner, _contestants(bench, excluded), bench.rounds(15), bench.namespaces)
        times[excluded], busy = walls(runs), processor_times(runs)
        for name, time in times[excluded].items():
            ratios = factor(time.times(times[excluded][OURS])), factor(busy[name].times(busy[OURS]))
            rows.append((f"{excluded}, {name}", *ratios, number(memory(runs[name])), time))
    plots, targets = {}, []
    for kind in ("CIDRs", "ports"):
        of_kind = [excluded for excluded in lists if excluded.kind == kind]
        lines = {name: [(len(one.elements), times[one][name].median) for one in of_kind] for name in times[of_kind[0]]}
        title = f"Time to apply by the number of excluded {kind}"
        plots[f"lists-{kind.lower()}"] = svg.lines(title, f"excluded {kind}", "milliseconds", lines)
        few, many = of_kind[-2:]
        growth = times[many][OURS].times(times[few][OURS])
        longer = len(many.elements) // len(few.elements)
        targets += [
            at_most(f"{many}, against {few}", growth, longer, factor),
            at_least(f"{many}: faster than `nft -f`", times[many][NFT].times(times[many][OURS]), 3),
        ]
    return Section(
        "Long lists",
        "The default plan with so many excluded outbound, IPv4 networks or ports, in a fresh namespace. sidetrack gets "
        "flags; iptables-restore gets Istio's rules, for both families.",
        Table(("", "time, sidetrack = 1", "CPU", "MiB", "ms, median (min–max)"), rows),
        plots,
        targets,
        "Most of what a long list takes is the kernel's time, as the bare sender shows: no program can be faster than "
        "that one.",
    )


def _contestants(bench, excluded):
    plan, istio = excluded.plan(bench), excluded.istio_rules(bench)
    return [
        Contestant(OURS, (plan.apply,)),
        Contestant(SENDER, (bench.send(plan),)),
        Contestant(NFT, (plan.nft,)),
        Contestant("iptables-nft-restore", tuple(peers.restore("nft", istio))),
        Contestant("iptables-legacy-restore", tuple(peers.restore("legacy", istio))),
    ]
