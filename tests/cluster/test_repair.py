"""Pods that started before the plugin: repaired where they are, or labelled and evicted with the rights that the
component `restart` gives."""

import pods
from processes import eventually
from suite import SYSTEM, ClusterTest

LABEL = "traffic.sidetrack.dev/bypasses-proxy"
MANY = 30


class Repair(ClusterTest):
    def setUp(self):
        super().setUp()
        self.change_installation()
        self.server = self.start_plain_server()

    def ask(self, name):
        """Whether a running pod without a proxy reaches the server past it."""
        words = ("--namespace", self.namespace, "exec", name, "--", "/app", "get", *self.server)
        asked = self.cluster.attempt(*words)
        if asked.returncode != 0:
            self.assertIn("connection refused", asked.stderr)
        return asked.returncode == 0

    def is_labelled(self, name):
        return self.pod(name)["metadata"]["labels"].get(LABEL) == "true"

    def events(self, reason):
        """The messages of events, by the name of their pod."""
        items = self.cluster.get("events", "--namespace", self.namespace)["items"]
        return {item["involvedObject"]["name"]: item["message"] for item in items if item["reason"] == reason}

    def test_pods_that_started_before_are_reported(self):
        self.create(pods.idle("early"))
        self.wait_until_ready("early")
        self.install()
        eventually("the pod is counted", lambda: self.count("missed") == 1)
        self.assertTrue(self.ask("early"))

    def test_pods_that_started_before_are_repaired_in_place(self):
        self.create(pods.configuration(), pods.web("web", "plugin"), pods.idle("early"))
        self.wait_until_ready("web", "early")
        self.assertTrue(self.ask("early"))
        self.kustomize("repair")
        eventually("both pods have rules", lambda: self.count("in-sync") == 2)
        self.assertFalse(self.ask("early"))
        self.create(pods.client("caller", *pods.urls(self.addresses("web")), annotations={}))
        phase, seen = self.finish("caller")
        self.assertEqual((phase, set(seen.split())), ("Succeeded", {"127.0.0.6", "::6"}), seen)

    def test_many_pods_are_repaired_in_place_while_as_many_start(self):
        names = ("early", "late")
        early, late = (pods.controller("Deployment", name, pods.idle(name), replicas=MANY) for name in names)
        self.create(early)
        self.in_namespace("rollout", "status", "deployment/early", "--timeout=300s")
        self.create(late)
        self.kustomize("repair")
        self.in_namespace("rollout", "status", "deployment/late", "--timeout=300s")
        eventually("all pods have rules", lambda: self.count("in-sync") == 2 * MANY)
        for pod in self.pods("app in (early, late)"):
            self.assertFalse(self.ask(pod["metadata"]["name"]))

    def test_pods_that_started_before_are_labelled_and_evicted(self):
        """By the account's own rights, within its admission policies. A budget holds, and so does a pod without a
        controller."""
        self.create(
            pods.controller("Deployment", "web", pods.idle("web"), replicas=2),
            pods.controller("Deployment", "guarded", pods.idle("guarded"), replicas=1),
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": {"name": "guarded"},
                "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}},
            },
            pods.idle("bare"),
        )
        for name in ("web", "guarded"):
            self.in_namespace("rollout", "status", f"deployment/{name}", "--timeout=300s")
        self.wait_until_ready("bare")
        old = {pod["metadata"]["name"] for pod in self.pods("app=web")}
        guarded = self.pods("app=guarded")[0]["metadata"]["name"]
        self.kustomize("repair", "restart")
        interval = ("daemonset/sidetrack-node", "SIDETRACK_NODE_EVICTION_INTERVAL=1s")
        self.kubectl("--namespace", SYSTEM, "set", "env", *interval)
        self.wait_for_rollout()

        def are_replaced():
            new = [pod for pod in self.pods("app=web") if pod["metadata"]["name"] not in old]
            return len(new) == 2 and len(self.pods("app=web")) == 2

        eventually("the pods of the Deployment are replaced", are_replaced)
        self.in_namespace("rollout", "status", "deployment/web", "--timeout=300s")
        for pod in self.pods("app=web"):
            self.assertFalse(self.ask(pod["metadata"]["name"]))
            self.assertNotIn(LABEL, pod["metadata"]["labels"])
        # Written after the eviction.
        eventually("evictions have their events", lambda: len(self.events("EvictedForRedirection")) >= len(old))
        self.assertEqual(set(self.events("EvictedForRedirection")), old)

        blocked = eventually("the budget is respected", lambda: self.events("EvictionBlocked"))
        self.assertEqual(set(blocked), {guarded})
        self.assertIn("disruption budget", blocked[guarded])
        for name in (guarded, "bare"):
            eventually(f"{name} has its label", lambda name=name: self.is_labelled(name))
            self.assertTrue(self.ask(name))
        told = eventually("the other pod has its event", lambda: self.events("BypassesProxy").get("bare"))
        self.assertIn("controller", told)

        # Without the budget the pod is evicted, too, when its turn comes.
        self.in_namespace("delete", "poddisruptionbudget", "guarded")
        eventually("it is evicted", lambda: guarded in self.events("EvictedForRedirection"))
