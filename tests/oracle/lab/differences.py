"""Where our rules differ from the referee's on purpose, as a case lists it.

    reason    why
    probes    names of probes, with `*` for any text
    recorded  where the referee's rules take them; likewise

Under our rules, these probes land as in a pod without rules. That is compared like everything else, so that a
difference which no longer occurs is one from what is expected.
"""

import re

from .topology import LabError


def _matches(pattern, text):
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None


def expected(case, recorded, untouched):
    """The verdicts that our rules should have, from those of the referee and those of a pod without rules."""
    probes = dict(recorded)
    for difference in case.differences:
        for pattern in difference["probes"]:
            names = [name for name, verdict in recorded.items() if verdict != untouched[name]
                     and _matches(pattern, name) and _matches(difference["recorded"], verdict)]
            if not names:
                raise LabError(f"{case.name}: under the referee's rules no probe could differ: {pattern}")
            probes |= {name: untouched[name] for name in names}
    return probes
