"""A CNI ADD from its beginning to its end, alone and for many pods at once."""

import ours
import peers
from report import Section, Table
from sample import Sample, factor

PODS = 100
OURS, ISTIO = "sidetrack's CNI ADD", "Istio's 22 programs"


def measure(bench):
    add = (ours.cni_add(bench.sidetrack, bench.folder),)
    istio = tuple(peers.istio("nft", bench.rules(peers.istio_rules)))

    def job(name):
        namespace = bench.namespaces.fresh()
        if name == OURS:
            return add, None, {**ours.CNI_VARIABLES, "CNI_NETNS": namespace.path}
        return istio, namespace, {"XTABLES_LOCKFILE": namespace.path}  # as Istio's plugin has it

    rows = []
    for pods, rounds in ((1, 30), (PODS, 5)):
        took = {OURS: [], ISTIO: []}
        for _ in range(bench.rounds(rounds)):
            for name, of_name in took.items():
                runs = bench.runner.together([job(name) for _ in range(pods)])
                of_name.append(max(run.begin + run.wall for run in runs) - min(run.begin for run in runs))
            bench.namespaces.end()
        samples = {name: Sample(tuple(of_name)) for name, of_name in took.items()}
        what = "one pod" if pods == 1 else f"{pods} pods at once"
        rows += [(f"{what}, {name}", factor(sample.times(samples[OURS])), sample) for name, sample in samples.items()]
    return Section(
        "As a CNI plugin",
        "An ADD as a container runtime calls it: NetConf with prevResult and annotations on standard input, variables, "
        "a path to the pod's namespace. Of Istio's plugin, what it has iptables do in the namespace: its own start, "
        "its requests to the API server and its mount namespaces come on top. Many pods: until the last one is done.",
        Table(("", "time, sidetrack = 1", "ms, median (min–max)"), rows),
    )


def check(bench):
    """An ADD installs what applying does."""
    namespace, applied = bench.namespaces.fresh(), bench.namespaces.fresh()
    variables = {**ours.CNI_VARIABLES, "CNI_NETNS": namespace.path}
    bench.runner.run((ours.cni_add(bench.sidetrack, bench.folder),), None, variables)
    bench.runner.run((bench.plan().apply,), applied)
    listings = [one.output("nft", "list", "ruleset") for one in (namespace, applied)]
    if not listings[0] or listings[0] != listings[1]:
        raise RuntimeError("a CNI ADD installs other rules than `sidetrack apply`")
    bench.namespaces.end()
