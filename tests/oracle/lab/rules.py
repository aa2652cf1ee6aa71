"""Rule files: what the program of a mesh installed, as text that the tool of the backend loads again.

    rules/NAME.rules   of iptables: the output of iptables-save, then that of ip6tables-save, as both variants load it
    rules/NAME.nft     of nftables: the output of nft list ruleset
    rules/NAME.….json  where probes land elsewhere with these rules than the verdicts of the case say

Lines that begin with `#ip` are commands of iproute2 that the program did besides.
"""

import json
import re

from .topology import LabError

COMMAND = "#ip "
LOADERS = {"nftables": "nft", "iptables-nft": "rules", "iptables-legacy": "rules"}  # the suffix of a file, by loader
ROUTED = {4: ("-4", "0.0.0.0/0"), 6: ("-6", "::/0")}


class RecordedRules:
    """Installs what a rule file says."""

    def __init__(self, path, loader):
        self.text, self.loader = path.read_text(), loader

    def __call__(self, topology, case):
        lines = self.text.splitlines()
        for line in lines:
            if line.startswith(COMMAND):
                _checked(topology, ("ip", *line.removeprefix(COMMAND).split()))
        rules = [line for line in lines if not line.startswith("#")]
        if self.loader == "nftables":
            _checked(topology, ("nft", "-f", "-"), "\n".join(rules) + "\n")
            return
        variant = self.loader.removeprefix("iptables-")
        for program, block in zip(("iptables", "ip6tables"), _families(lines), strict=True):
            if block:
                _checked(topology, (f"{program}-{variant}-restore", "--noflush", "--wait", "10"), "\n".join(block) + "\n")


def files(directory, names, loader):
    """The rule files of these cases that the loader takes, by the name of the case; a case need not have one."""
    paths = {name: directory / f"{name}.{LOADERS[loader]}" for name in names}
    return {name: path for name, path in paths.items() if path.exists()}


def landings(path):
    """Where probes land with the rules of this file, as far as they land elsewhere than the verdicts of the case say."""
    other = _landings(path)
    return json.loads(other.read_text()) if other.exists() else {}


def save_landings(path, landings):
    """Write where probes land elsewhere than the verdicts of the case say, if any does."""
    _landings(path).unlink(missing_ok=True)
    if landings:
        _landings(path).write_text(json.dumps(landings, indent=1) + "\n")


def _landings(path):
    return path.parent / f"{path.name}.json"


def installed(topology, loader):
    """The text of a rule file of what is installed in the pod."""
    lines = [f"{COMMAND}-6 address add ::6/128 dev lo"] if "::6/128" in _output(topology, "ip", "-6", "address") else []
    for option, anywhere in ROUTED.values():
        for mark, table in sorted(set(re.findall(r"fwmark (\S+) lookup (\d+)", _output(topology, "ip", option, "rule")))):
            lines.append(f"{COMMAND}{option} rule add fwmark {mark} lookup {table}")
            lines.append(f"{COMMAND}{option} route add local {anywhere} dev lo table {table}")
    if loader == "nftables":
        return "\n".join([*lines, *_output(topology, "nft", "-s", "list", "ruleset").splitlines()]) + "\n"
    variant = loader.removeprefix("iptables-")
    for family, program in (("ipv4", f"iptables-{variant}-save"), ("ipv6", f"ip6tables-{variant}-save")):
        lines += [f"# {family}", *_tables(_output(topology, program))]
    return "\n".join(lines) + "\n"


def _tables(saved):
    """The tables of an output of iptables-save that have rules, sorted by name, without counters, dates and the sentences in comments."""
    tables, table = {}, []
    for line in saved.splitlines():
        if line.startswith("*"):
            table = tables.setdefault(line, [])
        if not line.startswith("#"):
            line = re.sub(r" \[\d+:\d+\]$", " [0:0]", line)
            table.append(re.sub(r'--comment "[^"]*"', '--comment "its purpose"', line))
    return [line for name in sorted(tables) if any(line.startswith("-A") for line in tables[name]) for line in tables[name]]


def _families(lines):
    """The lines of IPv4, and those of IPv6."""
    start, middle = lines.index("# ipv4"), lines.index("# ipv6")
    return lines[start + 1:middle], lines[middle + 1:]


def _output(topology, *argv):
    done = topology.run(*argv)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _checked(topology, argv, stdin=None):
    done = topology.run(*argv, stdin=stdin)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
