"""The cluster itself: what is left of one that is killed."""

import json
import pathlib
import signal
import subprocess

from cluster import HERE
from processes import eventually
from suite import ClusterTest


class Lifetime(ClusterTest):
    def test_killed_cluster_leaves_nothing(self):
        """Another one, with a node that runs: no process, mount, namespace, control group, directory."""
        work = self.cluster.directory / "another"
        words = [f"work={work}", *(f"{name}={path}" for name, path in self.programs.items())]
        log = self.cluster.directory / "logs/another.log"
        with log.open("w") as output:
            script = subprocess.Popen(
                (HERE / "run.sh", *words, "--shell", "sleep", "infinity"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.addCleanup(script.kill)
        eventually("the other cluster is ready", lambda: "is ready" in log.read_text())
        enter = next(work.glob("run-*/enter"))
        made = subprocess.run((enter, "kubectl", "get", "nodes", "--output=json"), capture_output=True, check=True)
        self.assertEqual(len(json.loads(made.stdout)["items"]), 1)
        group = f"sidetrack-cluster-{enter.parent.name.removeprefix('run-')}"
        self.assertTrue(self.groups(group))
        self.assertTrue(self.users(work))

        script.send_signal(signal.SIGKILL)
        script.wait()
        eventually("its processes are gone", lambda: not self.users(work))
        eventually("its directory is gone", lambda: not list(work.iterdir()))
        eventually("its control groups are gone", lambda: not self.groups(group))
        # A namespace lives by its processes or by its mounts, of which none is seen here.
        self.assertNotIn(str(work), pathlib.Path("/proc/self/mounts").read_text())

    @staticmethod
    def groups(name):
        """Control groups of that name, of cgroup v2 or of each controller of v1."""
        root = pathlib.Path("/sys/fs/cgroup")
        return [group for group in (root / name, *root.glob(f"*/{name}")) if group.exists()]

    @staticmethod
    def users(work):
        """Processes that name the directory, or that have something mounted from it."""
        found = []
        for process in pathlib.Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    texts = (process / "cmdline").read_bytes() + (process / "mountinfo").read_bytes()
                except OSError:
                    continue
                if f"{work}/run-".encode() in texts:
                    found.append(process.name)
        return found
