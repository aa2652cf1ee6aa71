"""What all tests of the cluster have: sidetrack installed, a namespace of their own, and pods that show whether they
are redirected."""

import contextlib
import json
import pathlib
import re
import shutil
import tempfile
import unittest
import urllib.request

import pods
from cluster import ROOT
from processes import eventually

MANIFESTS = ROOT / "cni-conf/kubernetes"
SYSTEM = "sidetrack-system"
BASE = MANIFESTS / "base"


def wait_for_rollout(cluster):
    cluster.kubectl("--namespace", SYSTEM, "rollout", "status", "daemonset/sidetrack-node", "--timeout=300s")


def install(cluster):
    cluster.kubectl("apply", "-k", BASE)
    wait_for_rollout(cluster)


def uninstall(cluster):
    """As docs/operations.md says."""
    if cluster.attempt("--namespace", SYSTEM, "get", "daemonset/sidetrack-node").returncode == 0:
        last = ("daemonset/sidetrack-node", "SIDETRACK_NODE_UNINSTALL_ON_EXIT=true")
        cluster.kubectl("--namespace", SYSTEM, "set", "env", *last)
        wait_for_rollout(cluster)
    cluster.kubectl("delete", "-k", BASE, "--ignore-not-found")


class ClusterTest(unittest.TestCase):
    """A test that finds sidetrack installed by its base manifests, and leaves nothing behind in its namespace."""

    cluster = None
    programs = None
    is_installed = False

    def setUp(self):
        self.node = self.cluster.node
        self.kubectl = self.cluster.kubectl
        if not ClusterTest.is_installed:
            self.install()
            ClusterTest.is_installed = True
        self.namespace = re.sub("[^a-z0-9]+", "-", self._testMethodName.removeprefix("test_"))[:50].strip("-")
        self.create_namespace(self.namespace)

    def install(self):
        install(self.cluster)

    def shortDescription(self):
        """Nothing: the names of tests say enough."""

    def change_installation(self):
        """Start without sidetrack; after the test, the next one installs it again."""
        self.uninstall()
        ClusterTest.is_installed = False
        self.addCleanup(self.uninstall)

    def uninstall(self):
        uninstall(self.cluster)

    def kustomize(self, *components):
        """Install the base with these components."""
        with tempfile.TemporaryDirectory(dir=self.cluster.directory) as directory:
            shutil.copytree(MANIFESTS, f"{directory}/kubernetes")
            kustomization = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": ["kubernetes/base"],
                "components": [f"kubernetes/{component}" for component in components],
            }
            pathlib.Path(directory, "kustomization.yaml").write_text(json.dumps(kustomization))
            self.kubectl("apply", "-k", directory)
        self.wait_for_rollout()

    def wait_for_rollout(self):
        wait_for_rollout(self.cluster)

    def create_namespace(self, name, **labels):
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self.addCleanup(self.kubectl, "delete", "namespace", name, "--wait=false")
        account = ("get", "serviceaccount", "default", "--namespace", name)
        eventually("the namespace has its account", lambda: self.cluster.attempt(*account).returncode == 0)

    def create(self, *objects):
        """Create objects in the namespace of the test."""
        for item in objects:
            item["metadata"].setdefault("namespace", self.namespace)
        self.cluster.apply(*objects)

    def in_namespace(self, *words):
        return self.kubectl("--namespace", self.namespace, *words)

    def pod(self, name):
        return self.cluster.get("pod", name, "--namespace", self.namespace)

    def pods(self, selector):
        return self.cluster.get("pods", "--namespace", self.namespace, "--selector", selector)["items"]

    def wait_for_other_pods(self, selector, old, count):
        """Until there are `count` pods, all ready, none of them one of the pods `old`. A rollout may still be shown as
        complete right after its pods have ended."""
        old = {pod["metadata"]["uid"] for pod in old}

        def are_ready():
            found = self.pods(selector)
            is_other = all(pod["metadata"]["uid"] not in old for pod in found)
            return is_other and len(found) == count and all(pods.is_ready(pod) for pod in found)

        eventually(f"{count} pods with {selector} are ready", are_ready)

    def wait_until_ready(self, *names):
        names = [f"pod/{name}" for name in names]
        self.in_namespace("wait", "--for=condition=Ready", *names, "--timeout=300s")

    def addresses(self, name):
        """The IPv4 and the IPv6 address of a pod."""
        return [entry["ip"] for entry in self.pod(name)["status"]["podIPs"]]

    def start_plain_server(self, name="plain"):
        """A pod without a proxy, and its URLs, one for each family."""
        self.create(pods.server(name))
        self.wait_until_ready(name)
        return pods.urls(self.addresses(name))

    def finish(self, name):
        """Wait for the end of a pod: its phase and the log of its first container."""

        def phase():
            found = self.pod(name)["status"].get("phase")
            return found if found in ("Succeeded", "Failed") else None

        found = eventually(f"pod {name} ends", phase)
        return found, self.in_namespace("logs", name)

    def assert_redirected(self, name):
        """That a client without a proxy was refused: nothing listens where its connection was redirected to."""
        phase, log = self.finish(name)
        self.assertEqual(phase, "Failed", f"{name} reached the server without its proxy: {log}")
        self.assertIn("connection refused", log)

    def assert_bypassed(self, name):
        phase, log = self.finish(name)
        self.assertEqual(phase, "Succeeded", f"{name} did not reach the server: {log}")

    def installer_process(self):
        """The process of the installer, if it runs."""
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if words[:3] == [b"/sidetrack", b"node", b"install"]:
                        return int(entry.name)
        return None

    def metrics(self):
        """What the installer reports, by name and labels. One that was killed, or a busy node, responds late."""

        def text():
            with contextlib.suppress(OSError):
                url = f"http://{self.node.addresses[0]}:15014/metrics"
                with urllib.request.urlopen(url, timeout=20) as response:
                    return response.read().decode()
            return None

        values = {}
        for line in eventually("the installer serves metrics", text).splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                values[name] = float(value)
        return values

    def count(self, *states):
        """How many pods the installer counts in these states."""
        values = self.metrics()
        return sum(values.get(f'sidetrack_node_pods{{state="{state}"}}', 0) for state in states)

    def conflist(self, node=None):
        """The plugins of a node's network configuration."""
        path = (node or self.node).path("etc/cni/net.d/10-net.conflist")
        return [plugin["type"] for plugin in json.loads(path.read_text())["plugins"]]
