"""Processes of a cluster: started in the namespaces where they belong, ended by their own IDs, logs in a directory."""

import os
import pathlib
import signal
import subprocess
import time

TIMEOUT = 300  # seconds: on a busy machine, everything may take long


class Failure(Exception):
    """Something of the cluster did not work."""


def eventually(what, attempt, timeout=TIMEOUT):
    """Call `attempt` until it returns something true, and return that."""
    end = time.monotonic() + timeout
    while True:
        result = attempt()
        if result:
            return result
        if time.monotonic() > end:
            raise Failure(f"not within {timeout} s: {what}")
        time.sleep(0.2)


def run(*words, stdin=None):
    """What a command prints."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def has_ended(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Daemon:
    """A process in the background; with a `prefix` that enters namespaces, the process there."""

    def __init__(self, words, log, prefix=()):
        self._words, self._log, self._prefix = words, log, prefix
        self.pid = None

    def start(self):
        with self._log.open("a") as log:
            entering = subprocess.Popen((*self._prefix, *self._words), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._started = entering
        self.pid = entering.pid
        if self._prefix:
            children = pathlib.Path(f"/proc/{entering.pid}/task/{entering.pid}/children")

            def child():
                if entering.poll() is not None:
                    raise Failure(f"{self._words[0]} ended at once, see {self._log}")
                return children.read_text().split()

            self.pid = int(eventually(f"{self._words[0]} starts", child)[0])
        return self

    def kill(self, number):
        os.kill(self.pid, number)

    def stop(self, number=signal.SIGKILL):
        """End it and wait for that: some programs take a minute to end."""
        self.kill(number)
        self._started.wait()

    def restart(self, number=signal.SIGKILL):
        self.stop(number)
        self.start()

    def is_running(self):
        return self._started.poll() is None
