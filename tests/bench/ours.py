"""sidetrack's binary, and its rules in the input formats of other programs."""

import json
import pathlib
import re

from lab import Step, output

CNI_VARIABLES = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "bench",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=bench",
}

NETCONF = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "sidetrack",
    "capabilities": {"io.kubernetes.cri.pod-annotations": True},
    "runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"sidecar.istio.io/status": "{}"}},
    "prevResult": {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "sandbox": "/var/run/netns/bench"}],
        "ips": [{"address": "10.99.0.2/24", "gateway": "10.99.0.1", "interface": 0}],
    },
}


def cni_add(sidetrack, folder):
    """A call of the plugin; the variables come on top."""
    return Step((sidetrack,), _written(pathlib.Path(folder) / "netconf.json", json.dumps(NETCONF)))


class Plan:
    """A plan: the command that applies it, and the rules as files for nft and for `send`. Options are lists, or True."""

    def __init__(self, sidetrack, namespace, folder, **options):
        folder = pathlib.Path(folder)
        folder.mkdir()
        flags = [word for option, elements in options.items() for word in _flags(option, elements)]
        self.apply = Step((sidetrack, "apply", *flags))
        script = output(sidetrack, "apply", "--dry-run", *flags)
        self.nft_dry_run = Step(("nft", "-f", _written(folder / "dry-run.nft", script)))
        # Without the commands that replace an older table, for which nft would have to wait.
        script = re.sub(r"(?m)^(delete )?table inet \w+$", "", script)
        self.nft = Step(("nft", "-f", _written(folder / "create.nft", script)))
        trace = str(folder / "trace")
        namespace.output("strace", "-e", "trace=sendto", "-e", "write=all", "-o", trace, *self.apply.command)
        self.transaction = str(folder / "transaction")
        pathlib.Path(self.transaction).write_bytes(_transaction(pathlib.Path(trace).read_text()))


def _flags(option, elements):
    """The kernel takes no argument of more than 128 KiB, so that a long list is given in parts."""
    if elements is True:
        yield f"--{option}"
        return
    for begin in range(0, len(elements), 5000):
        yield f"--{option.replace('_', '-')}"
        yield ",".join(map(str, elements[begin : begin + 5000]))


def _transaction(trace):
    """The bytes that were sent to nf_tables: strace dumps them after the call, 16 a line."""
    _, _, after = trace.partition("NFNL_MSG_BATCH_BEGIN")
    dumped = re.findall(r"^ \| [0-9a-f]+ ((?: {1,2}[0-9a-f]{2})+)  ", after, re.MULTILINE)
    return bytes.fromhex("".join(dumped))


def _written(path, text):
    path.write_text(text)
    return str(path)
