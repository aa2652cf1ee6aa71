"""Contestants that take turns, and their samples."""

import random
import statistics
from typing import NamedTuple


class Contestant(NamedTuple):
    """A sequence of commands. `prepare` is run first in its namespace, unmeasured."""

    name: str
    steps: tuple
    prepare: tuple = ()


class Sample(NamedTuple):
    """What one contestant took in each round."""

    values: tuple

    @property
    def median(self):
        return statistics.median(self.values)

    def times(self, other):
        """How many times as long as `other` it took, by the medians. They took turns, so that drift hits both."""
        return self.median / other.median

    def __str__(self):
        low, high = min(self.values), max(self.values)
        return f"{number(self.median)} ({number(low)}–{number(high)})"


def number(value):
    """With three significant digits, at most two of them decimals."""
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


def factor(value):
    return f"{number(value)}×"


def compete(runner, contestants, rounds, namespaces):
    """Lets the contestants take turns, each in a fresh namespace, and returns their runs by name.

    The first round warms caches up, and does not count. Each round has an order of its own: who comes after a contestant
    that takes long finds less in the caches.
    """
    runs = {contestant.name: [] for contestant in contestants}
    order, chance = list(contestants), random.Random(0)
    for turn in range(rounds + 1):
        chance.shuffle(order)
        for contestant in order:
            namespace = namespaces.fresh()
            if contestant.prepare:
                runner.run(contestant.prepare, namespace)
            run = runner.run(contestant.steps, namespace)
            if turn > 0:
                runs[contestant.name].append(run)
    namespaces.end()
    return runs


def walls(runs):
    """The elapsed times of each contestant's runs."""
    return {name: Sample(tuple(run.wall for run in of_one)) for name, of_one in runs.items()}


def processor_times(runs):
    """The processor times of each contestant's runs."""
    return {name: Sample(tuple(run.processor for run in of_one)) for name, of_one in runs.items()}


def memory(runs):
    """The largest process of a contestant's runs, in MiB."""
    return max(run.memory for run in runs) / 1024
