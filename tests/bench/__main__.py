"""Compares sidetrack with the programs that it replaces. See scripts/bench."""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import apply
import cni
import connections
import half_closed
import lists
import locked
import machine
import reapply
import report
from bench import Bench
from lab import leave_the_host

HERE = pathlib.Path(__file__).resolve().parent


def main():
    options = _options()
    leave_the_host()
    with tempfile.TemporaryDirectory(prefix="sidetrack-bench-") as folder:
        os.environ["XTABLES_LOCKFILE"] = f"{folder}/xtables.lock"
        programs = _compiled(pathlib.Path(folder))
        # As installed: a copy has other pages than the linker's output, which is not what a node runs.
        options.sidetrack = shutil.copy(options.sidetrack, folder)
        bench = Bench(options.sidetrack, programs, folder, options.quick)
        apply.check(bench)
        cni.check(bench)
        connections.check(bench)
        locked.check(bench)
        if options.check:
            print("all that is compared installs its rules")
            return
        _measure(bench, options)


def _measure(bench, options):
    begin, load = time.monotonic(), machine.load()
    sections = []
    for measure in MEASUREMENTS:
        sections.append(measure(bench))
        print(sections[-1].text(), flush=True)
    targets = report.targets(sections)
    print(f"\nAims\n\n{targets.text()}")
    facts = machine.facts(options.sidetrack, load, time.monotonic() - begin, bench.quick)
    if options.output:
        _write_page(options.output, targets, facts, sections)
        if not bench.quick:
            _write_summary(options.output.absolute().parent / "README.md", sections)


def _write_page(docs, targets, facts, sections):
    folder = docs / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for name, plot in section.plots.items():
            (folder / f"{name}.svg").write_text(plot)
    introduction = (HERE / "introduction.md").read_text()
    parts = [introduction, facts.markdown(), "## Aims\n", targets.markdown()]
    (docs / "bench.md").write_text("\n".join(parts + [section.markdown() for section in sections]))


def _write_summary(readme, sections):
    summary = f"<!-- bench -->\n{report.summary(sections)}\n<!-- /bench -->"
    readme.write_text(re.sub("(?s)<!-- bench -->.*<!-- /bench -->", lambda _: summary, readme.read_text()))


def _compiled(folder):
    programs = folder / "programs"
    programs.mkdir()
    for source in HERE.glob("*.c"):
        flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")
        subprocess.run(["cc", *flags, "-o", programs / source.stem, source], check=True)
    return programs


def _options():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("sidetrack", type=os.path.abspath, help="the static binary")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds, and shorter lists")
    parser.add_argument("--check", action="store_true", help="only see that all that is compared installs its rules")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="write bench.md and its plots into this folder, and what a full run comes to into the README beside it",
    )
    return parser.parse_args()


MEASUREMENTS = (
    apply.measure,
    reapply.measure,
    reapply.measure_leaks,
    lists.measure,
    connections.measure_excluded,
    connections.measure_redirected,
    locked.measure,
    half_closed.measure,
    cni.measure,
)

if __name__ == "__main__":
    sys.exit(main())
