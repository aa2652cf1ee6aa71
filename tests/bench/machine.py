"""What was measured on."""

import os
import pathlib
import platform
import re
import subprocess

from report import Table


def load():
    return os.getloadavg()[0]


def facts(sidetrack, load_before, seconds, quick):
    """The machine and the programs, as a table."""
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    rows = [
        ("kernel", platform.release()),
        ("processor", f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores{_virtual()}"),
        ("load average, before and after", f"{load_before:.1f}, {load():.1f}"),
        ("sidetrack", _first_line(sidetrack, "--version")),
        ("nft", _first_line("nft", "--version")),
        ("iptables", _first_line("iptables-nft", "--version")),
        ("C compiler", _first_line("cc", "--version")),
        ("took", f"{seconds / 60:.1f} minutes{', a quick run: a tenth of the rounds' if quick else ''}"),
    ]
    return Table(("Measured on", ""), rows)


def _virtual():
    return ", virtual" if " hypervisor" in pathlib.Path("/proc/cpuinfo").read_text() else ""


def _first_line(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
