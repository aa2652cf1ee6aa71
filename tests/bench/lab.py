"""Network namespaces, and commands that are run in them under measurement."""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import socket
import struct
import subprocess
import time
from typing import NamedTuple

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Namespace:
    """A network namespace with its loopback interface up. It has no name and ends with its last handle."""

    def __init__(self):
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _checked(_libc.unshare(CLONE_NEWNET))
            self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            with socket.socket() as any_socket:
                request = struct.pack("16sh22x", b"lo", IFF_UP)
                fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)
        finally:
            _checked(_libc.setns(before, CLONE_NEWNET))
            os.close(before)

    @property
    def path(self):
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def close(self):
        os.close(self._fd)

    @contextlib.contextmanager
    def entered(self):
        """The calling process is inside."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _checked(_libc.setns(self._fd, CLONE_NEWNET))
        try:
            yield
        finally:
            _checked(_libc.setns(before, CLONE_NEWNET))
            os.close(before)

    def output(self, *command, text=""):
        """What a command prints that is run inside, with `text` as its standard input."""
        with self.entered():
            return output(*command, text=text)


class Namespaces:
    """Fresh namespaces, which all end together: the kernel is busy for a while when one goes."""

    def __init__(self):
        self._living = []

    def fresh(self):
        self._living.append(Namespace())
        return self._living[-1]

    def end(self):
        for namespace in self._living:
            namespace.close()
        self._living.clear()
        time.sleep(1)


def leave_the_host():
    """Puts this process into a network namespace of its own: nothing that follows touches the machine's."""
    _checked(_libc.unshare(CLONE_NEWNET))


def output(*command, text=""):
    """What a command prints. It must succeed."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stderr}")
    return done.stdout


def pod_and_peer():
    """A pod (10.99.0.2) and its neighbour (10.99.0.1) at the other end of its only link."""
    pod, peer = Namespace(), Namespace()
    pod.output("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", peer.path)
    for namespace, address in ((pod, "10.99.0.2/24"), (peer, "10.99.0.1/24")):
        namespace.output("ip", "-batch", "-", text=f"link set eth0 up\naddr add {address} dev eth0\n")
    return pod, peer


class Step(NamedTuple):
    """One command of a sequence."""

    command: tuple
    stdin: str = "/dev/null"


class Run(NamedTuple):
    """What a sequence took. Times in milliseconds, memory in KiB (the largest process)."""

    begin: float
    wall: float
    processor: float
    memory: int


class Runner:
    """Runs sequences of commands with the programs of this folder."""

    def __init__(self, programs, folder):
        self.programs = programs
        self._folder = pathlib.Path(folder)
        self._written = {}

    def program(self, name):
        return str(self.programs / name)

    def run(self, steps, namespace, environment=None):
        """Runs a sequence in a namespace, or in this one where it is None."""
        return self.together([(steps, namespace, environment)])[0]

    def together(self, jobs):
        """Runs sequences at the same time, each in its namespace and with additions to its environment."""
        gun, trigger = os.pipe()
        started = []
        for steps, namespace, environment in jobs:
            path = namespace.path if namespace else "-"
            started.append(
                subprocess.Popen(
                    [self.program("run"), path, self._file(tuple(steps))],
                    stdin=gun,
                    stdout=subprocess.PIPE,
                    env={**os.environ, **(environment or {})},
                    text=True,
                )
            )
        os.close(gun)
        if len(jobs) > 1:
            time.sleep(0.2)  # until all are waiting
        os.close(trigger)
        return [_result(process) for process in started]

    def _file(self, steps):
        if steps not in self._written:
            path = self._folder / f"steps-{len(self._written)}"
            lines = ("\t".join((step.stdin, *step.command)) for step in steps)
            path.write_text("".join(line + "\n" for line in lines))
            self._written[steps] = str(path)
        return self._written[steps]


def _result(process):
    printed, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(process.args)} failed, see above")
    begin, end, processor, memory = map(int, printed.split())
    return Run(begin / 1e6, (end - begin) / 1e6, processor / 1e3, memory)
