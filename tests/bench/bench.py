"""Shared by all measurements: the programs, the plans and rules to compare, and the number of rounds."""

import hashlib
import pathlib

import peers
from lab import Namespaces, Runner
from ours import Plan


class Bench:
    """The programs and folders of a run."""

    def __init__(self, sidetrack, programs, folder, quick):
        self.sidetrack = sidetrack
        self.folder = pathlib.Path(folder)
        self.quick = quick
        self.runner = Runner(programs, folder)
        self.namespaces = Namespaces()
        self._plans = {}

    def rounds(self, full):
        """How many rounds to make of something that takes `full` of them in a full run."""
        return max(3, full // 10) if self.quick else full

    def plan(self, name="default", **options):
        """A plan of sidetrack, built once for each name."""
        if name not in self._plans:
            self._plans[name] = Plan(self.sidetrack, self.namespaces.fresh(), self.folder / f"plan-{name}", **options)
        return self._plans[name]

    def rules(self, of, **arguments):
        """Rules of a peer as files for iptables-restore, by family."""
        files = {}
        for family in peers.FAMILIES:
            text = of(family, **arguments)
            path = self.folder / f"rules-{hashlib.sha256(text.encode()).hexdigest()}"
            path.write_text(text)
            files[family] = str(path)
        return files

    def send(self, plan):
        """The bare sender of a plan's bytes."""
        return peers.Step((self.runner.program("send"), plan.transaction))
