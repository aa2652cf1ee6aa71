"""The results, as tables for the terminal and for the page."""

import re
import textwrap
from dataclasses import dataclass, field
from typing import NamedTuple

from sample import factor


class Table(NamedTuple):
    """The first column is text, the others are numbers."""

    heading: tuple
    rows: list

    def markdown(self):
        rule = ["---"] + ["---:"] * (len(self.heading) - 1)
        rows = (self.heading, rule, *self.rows)
        return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)

    def text(self):
        rows = [[re.sub(r"[`*]", "", str(cell)) for cell in row] for row in (self.heading, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        justified = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
        return "".join("  ".join(row).rstrip() + "\n" for row in justified)


class Target(NamedTuple):
    """A target, its measurement, and whether it was reached."""

    what: str
    aim: str
    measured: str
    reached: bool


def at_most(what, measured, bound, write=str):
    return Target(what, f"at most {write(bound)}", write(measured), measured <= bound)


def at_least(what, measured, bound):
    return Target(what, f"at least {factor(bound)}", factor(measured), measured >= bound)


@dataclass
class Section:
    """A part of the page."""

    title: str
    about: str
    table: Table
    plots: dict = field(default_factory=dict)
    targets: list = field(default_factory=list)
    notes: str = ""
    summary: str = ""

    def markdown(self):
        parts = [f"## {self.title}\n", self.about + "\n", self.table.markdown()]
        parts += [f"![{name}](bench/{name}.svg)\n" for name in self.plots]
        if self.notes:
            parts.append(self.notes + "\n")
        return "\n".join(parts)

    def text(self):
        return f"\n{self.title}\n\n{self.table.text()}"


def summary(sections):
    """One paragraph for the README."""
    found = "; ".join(section.summary for section in sections if section.summary)
    text = f"In the run that [docs/bench.md](docs/bench.md) shows: {found}."
    return textwrap.fill(text, 120, break_on_hyphens=False, break_long_words=False)


def targets(sections):
    rows = [
        (target.what, target.aim, target.measured, "reached" if target.reached else "**not reached**")
        for section in sections
        for target in section.targets
    ]
    return Table(("", "aim", "measured", ""), rows)
