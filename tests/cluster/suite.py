"""What all tests of the cluster have: sidetrack installed, a namespace of their own, pods that show who redirects them."""

import json
import pathlib
import re
import unittest
import urllib.request

import pods
from cluster import ADDRESS, ROOT
from processes import eventually

HERE = pathlib.Path(__file__).resolve().parent
MANIFESTS = ROOT / "cni-conf/kubernetes"
SYSTEM = "sidetrack-system"
BASE = MANIFESTS / "base"


class ClusterTest(unittest.TestCase):
    """A test that finds sidetrack installed by its base manifests, and leaves nothing behind in its namespace."""

    cluster = None
    longMessage = True

    def setUp(self):
        self.node = self.cluster.node
        self.kubectl = self.cluster.kubectl
        self.install()
        self.namespace = re.sub("[^a-z0-9]+", "-", self._testMethodName.removeprefix("test_"))[:50].strip("-")
        self.create_namespace(self.namespace)

    def install(self):
        self.kubectl("apply", "-k", BASE)
        self.wait_for_rollout()

    def wait_for_rollout(self):
        self.kubectl("--namespace", SYSTEM, "rollout", "status", "daemonset/sidetrack-node", "--timeout=300s")

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

    def installer(self):
        """The pod of the DaemonSet."""
        selector = "app.kubernetes.io/name=sidetrack-node"
        items = self.cluster.get("pods", "--namespace", SYSTEM, "--selector", selector)["items"]
        running = [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]
        self.assertEqual(len(running), 1)
        return running[0]

    def metrics(self):
        """What the installer reports, by name and labels."""
        values = {}
        with urllib.request.urlopen(f"http://{ADDRESS}:15014/metrics", timeout=20) as answer:
            text = answer.read().decode()
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                values[name] = float(value)
        return values

    def conflist(self):
        """The plugins of the node's network configuration."""
        path = self.node.path("etc/cni/net.d/10-net.conflist")
        return [plugin["type"] for plugin in json.loads(path.read_text())["plugins"]]
