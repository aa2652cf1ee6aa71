"""A trial: a case that nobody recorded, put to the mesh's own program and to ours, each in a fresh pod."""

from dataclasses import dataclass, field

from . import known
from .install import last_words
from .measure import probe
from .topology import Topology

# What a rerun must leave as it is; nft prints handles, so that rules which were replaced by equal ones differ, too.
STATE = (("nft", "-a", "list", "ruleset"), ("ip", "address", "show", "dev", "lo"),
         ("ip", "-4", "rule"), ("ip", "-6", "rule"),
         ("ip", "-4", "route", "show", "table", "all"), ("ip", "-6", "route", "show", "table", "all"))
LEGACY = (("/proc/net/ip_tables_names", "iptables-legacy-save"), ("/proc/net/ip6_tables_names", "ip6tables-legacy-save"))


@dataclass
class Outcome:
    """What came of a trial."""

    codes: tuple  # exit codes: of the mesh's program, of ours
    probes: int = 0
    known: str = ""  # the documented difference that explains why one of them refused
    wrong: list = field(default_factory=list)  # what is different, in words


def run(case, referee, ours):
    """Compare both. What differs counts only if it differs again."""
    outcome = _run(case, referee, ours)
    return _run(case, referee, ours) if outcome.wrong else outcome


def _run(case, referee, ours):
    with Topology(case.families, case.resolv_conf) as pod:
        theirs = referee.run(pod, case)
        expected = None if theirs.returncode else probe(pod, case)
    with Topology(case.families, case.resolv_conf) as pod:
        before = _state(pod)
        done = ours.run(pod, case)
        outcome = Outcome((theirs.returncode, done.returncode))
        if done.returncode:
            if _state(pod) != before:
                outcome.wrong.append("ours failed, and changed something")
        elif expected:
            measured = probe(pod, case)
            outcome.probes = len(measured.probes)
            outcome.wrong += [f"{what}\n        theirs  {wanted or '(nothing)'}\n        ours    {got or '(nothing)'}"
                              for what, wanted, got in expected.differences(measured)]
        if not done.returncode:
            outcome.wrong += _rerun(pod, case, ours)
    if theirs.returncode != done.returncode:
        outcome.known = known.why(case, theirs, done)
        if not outcome.known:
            outcome.wrong.append(f"exit codes {theirs.returncode} and {done.returncode}\n        theirs  "
                                 f"{_indented(theirs)}\n        ours    {_indented(done)}")
    return outcome


def _rerun(pod, case, ours):
    """What is wrong after another run of ours, and with what `check` says."""
    applied = _state(pod)
    checked = ours.run(pod, case, "check")
    if checked.returncode or not checked.stdout.startswith("in-sync"):
        yield f"check: exit {checked.returncode}: {_indented(checked)}"
    again = ours.run(pod, case)
    if again.returncode:
        yield f"a rerun: exit {again.returncode}: {_indented(again)}"
    if _state(pod) != applied:
        yield "a rerun changed something"


def _state(pod):
    legacy = [program for names, program in LEGACY if pod.run("cat", names).stdout.strip()]
    commands = STATE + tuple((program,) for program in legacy)
    # Counters of packets and the time of day are no state.
    return [[line.split(" [")[0] if line.startswith(":") else line
             for line in pod.run(*command).stdout.splitlines() if not line.startswith("#")] for command in commands]


def _indented(done):
    return "\n                ".join(last_words(done).splitlines()[-4:])
