"""Namespaces with names, and the processes in them: made by `with`, and gone after it."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
APP = (sys.executable, str(HERE / "app.py"))
USER = 1000  # of applications
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ETC_NETNS = pathlib.Path("/etc/netns")


class LabError(Exception):
    """The laboratory failed, or a program of the mesh that it needs."""


class Lab:
    """Namespaces, a folder that everybody can read, and the processes that were started."""

    def __enter__(self):
        self._undo = contextlib.ExitStack()
        self.folder = pathlib.Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="st-mesh-")))
        self.folder.chmod(0o755)
        return self

    def __exit__(self, *_):
        self._undo.close()

    def namespace(self, role, *etc):
        """Make a namespace; `etc` are names and texts of files that replace those of /etc in it."""
        name = f"st-mesh-{role}-{os.getpid()}"
        self._undo.callback(shutil.rmtree, ETC_NETNS / name, ignore_errors=True)
        for file, text in etc:
            (ETC_NETNS / name).mkdir(parents=True, exist_ok=True)
            (ETC_NETNS / name / file).write_text(text)
        ip("netns", "add", name)
        self._undo.callback(subprocess.run, ("ip", "netns", "delete", name), capture_output=True)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def copy(self, program):
        """A copy of a program, which every user can run."""
        copied = self.folder / "bin" / pathlib.Path(program).name
        copied.parent.mkdir(exist_ok=True)
        if not copied.exists():
            shutil.copy(program, copied)
            copied.chmod(0o755)
        return str(copied)

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def print_logs(self):
        for log in sorted(self.folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}", file=sys.stderr)

    def start(self, log, namespace, *argv, user=0, env=None):
        """Start a process that ends with the laboratory."""
        home = self.folder / log
        home.mkdir(exist_ok=True)
        os.chown(home, user, user)
        with open(self.folder / f"{log}.log", "wb") as output:
            process = subprocess.Popen(_argv(namespace, user, argv), env=_env(env, home), cwd=home,
                                       stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        self._undo.callback(_end, process)
        return process

    def run(self, namespace, *argv, user=0, env=None):
        """Run a command, and return what it ended with."""
        return subprocess.run(_argv(namespace, user, argv), env=_env(env, self.folder), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, errors="replace", timeout=120)

    def must(self, namespace, *argv, env=None):
        """Run a command that must succeed."""
        done = self.run(namespace, *argv, env=env)
        if done.returncode:
            raise LabError(f"{' '.join(argv)}: exit {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
        return done.stdout

    def app(self, namespace, *words):
        """What an application's client says, or why it failed."""
        done = self.run(namespace, *APP, *words, user=USER)
        return (done.stdout or done.stderr).strip().splitlines()[-1]

    def fetch(self, namespace, url):
        """The body of a successful response, or nothing."""
        script = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=5).read().decode())"
        return self.run(namespace, sys.executable, "-c", script).stdout


def report(mesh, seen):
    """Print what was seen under each tool's rules, the mesh's own first. 1 if any differs or is not as expected."""
    (reference, expected), *others = seen.items()
    wrong = 0
    for what, (wanted, by_reference) in expected.items():
        by_others = {tool: observations[what][1] for tool, observations in others}
        good = wanted in by_reference and all(got == by_reference for got in by_others.values())
        wrong += not good
        found = ", ".join(f"{tool}: {got!r}" for tool, got in {reference: by_reference, **by_others}.items())
        print(f"{mesh}: {what}: {by_reference if good else f'WRONG: {found}, expected {wanted!r}'}")
    print(f"{mesh}: {len(expected)} observations, {wrong} differ")
    return 1 if wrong else 0


def until(what, condition, seconds):
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {seconds} s")
        time.sleep(.5)


def ip(*argv):
    done = subprocess.run(("ip", *argv), capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"ip {' '.join(argv)}: {done.stderr.strip()}")


def assign(namespace, device, addresses):
    v4, v6 = addresses
    ip("-n", namespace, "address", "add", f"{v4}/24", "dev", device)
    ip("-n", namespace, "address", "add", f"{v6}/64", "dev", device, "nodad")


def _argv(namespace, user, argv):
    as_user = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups") if user else ()
    return ("ip", "netns", "exec", namespace, *as_user, *argv)


def _env(env, home):
    return {"PATH": PATH, "HOME": str(home), "TMPDIR": str(home), **(env or {})}


def _end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
