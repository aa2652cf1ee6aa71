"""Pods of each kind, and where their traffic lands."""

import json

import pods
from cluster import APP
from processes import eventually
from suite import ClusterTest

# What the proxy takes as its source towards the application.
FROM_PROXY = {"127.0.0.6", "::6"}


class Pods(ClusterTest):
    def examine(self, form, **options):
        """A web pod whose requests pass its Envoy in and out, in both families."""
        server = self.start_plain_server()
        self.create(pods.configuration(), pods.web("web", form, **options))
        self.wait_until_ready("web")

        # In: the application sees the proxy, whoever asks.
        self.create(pods.client("caller", *pods.urls(self.addresses("web")), annotations={}))
        phase, seen = self.finish("caller")
        self.assertEqual(phase, "Succeeded", seen)
        self.assertEqual(set(seen.split()), FROM_PROXY)

        # Out: the server sees the pod, and the log of Envoy has both connections.
        asked = self.in_namespace("exec", "web", "--container=app", "--", "/app", "get", *server)
        self.assertEqual(asked.split(), self.addresses("web"))

        def logged():
            log = self.in_namespace("logs", "web", "--container=istio-proxy").splitlines()
            records = [json.loads(line) for line in log if line.startswith("{")]
            out = {record["original_destination"] for record in records if record["cluster"] == "outbound"}
            return {url.removeprefix("http://") for url in server} <= out

        eventually("Envoy logs the connections to the server", logged)

    def test_web_pod_with_the_plugin_passes_envoy(self):
        self.examine("plugin")

    def test_web_pod_with_the_init_container_passes_envoy(self):
        self.examine("init")

    def test_web_pod_with_a_native_sidecar_passes_envoy(self):
        self.examine("native")

    def test_web_pod_with_users_of_its_own_passes_envoy(self):
        self.examine("plugin", hostUsers=False)

    def test_pod_without_a_sidecar_is_not_redirected(self):
        self.create(pods.client("plain-client", *self.start_plain_server(), annotations={}))
        self.assert_bypassed("plain-client")

    def test_pod_on_the_host_network_is_not_redirected(self):
        self.create(pods.client("client", *self.start_plain_server(), hostNetwork=True))
        self.assert_bypassed("client")

    def test_pods_of_a_job_are_redirected(self):
        template = pods.template(pods.client("job", self.start_plain_server()[0]))
        template["metadata"]["labels"] = {"app": "job"}
        spec = {"backoffLimit": 1, "completions": 2, "parallelism": 2, "template": template}
        self.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": spec})
        self.in_namespace("wait", "--for=condition=Failed", "job/job", "--timeout=300s")
        # The one that the Job started instead of the first, and ended as the second failed, may not have run.
        ended = [pod["metadata"] for pod in self.pods("app=job") if "deletionTimestamp" not in pod["metadata"]]
        self.assertGreaterEqual(len(ended), 2)
        for metadata in ended:
            self.assert_redirected(metadata["name"])

    def test_pods_of_a_stateful_set_are_redirected_again_after_deletion(self):
        self.start_plain_server()
        web = pods.web("db", "plugin")
        self.create(pods.configuration(), pods.controller("StatefulSet", "db", web, serviceName="db", replicas=2))
        old = []
        for _ in range(2):
            self.wait_for_other_pods("app=db", old, count=2)
            old = self.pods("app=db")
            addresses = self.addresses("db-0") + self.addresses("db-1")
            self.create(pods.client("caller", *pods.urls(addresses), annotations={}))
            phase, seen = self.finish("caller")
            self.assertEqual((phase, set(seen.split())), ("Succeeded", FROM_PROXY), seen)
            self.in_namespace("delete", "pod", "caller", "db-0", "db-1")

    def test_service_leads_to_envoy_in_both_families(self):
        self.create(pods.configuration(), pods.web("web", "plugin", labels={"app": "web"}))
        ports = [{"port": 80, "targetPort": pods.PORT}]
        spec = {"selector": {"app": "web"}, "ports": ports, "ipFamilyPolicy": "RequireDualStack"}
        self.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
        self.wait_until_ready("web")
        addresses = self.cluster.get("service", "web", "--namespace", self.namespace)["spec"]["clusterIPs"]
        urls = pods.urls(addresses, 80)

        def leads_to_the_pod():
            return self.node.attempt(self.programs["app"], "get", *urls).returncode == 0

        eventually("kube-proxy knows the pod", leads_to_the_pod)
        self.create(pods.client("caller", *urls, annotations={}))
        phase, seen = self.finish("caller")
        self.assertEqual((phase, set(seen.split())), ("Succeeded", FROM_PROXY), seen)


class PodSecurity(ClusterTest):
    LEVEL = "pod-security.kubernetes.io/enforce"

    def admitted(self, level, made):
        name = f"level-{level}"
        if self.cluster.attempt("get", "namespace", name).returncode != 0:
            self.create_namespace(name, **{self.LEVEL: level})
        made["metadata"]["namespace"] = name
        return self.cluster.attempt("create", "--dry-run=server", "--filename=-", stdin=json.dumps(made))

    def test_pods_of_the_plugin_pass_restricted_and_init_containers_pass_privileged_alone(self):
        for level in ("restricted", "baseline", "privileged"):
            self.assertEqual(self.admitted(level, pods.web("web", "plugin")).returncode, 0, level)
            refused = self.admitted(level, pods.web("web", "init"))
            reason = "non-default capabilities" if level == "baseline" else "unrestricted capabilities"
            if level == "privileged":
                self.assertEqual(refused.returncode, 0, refused.stderr)
            else:
                self.assertNotEqual(refused.returncode, 0, level)
                self.assertIn("NET_ADMIN", refused.stderr)
                self.assertIn(reason, refused.stderr)

    def test_restricted_pod_of_the_plugin_is_redirected(self):
        """Not only admitted: it also runs."""
        server = self.start_plain_server()
        self.kubectl("label", "namespace", self.namespace, f"{self.LEVEL}=restricted")
        self.create(pods.client("client", *server))
        self.assert_redirected("client")

    def test_installer_is_refused_in_a_namespace_that_is_not_privileged(self):
        self.create_namespace("not-privileged", **{self.LEVEL: "baseline"})
        daemon = self.cluster.get("daemonset", "sidetrack-node", "--namespace", "sidetrack-system")
        made = pods.pod("installer", {"name": "a", "image": APP})
        made["spec"] = {**daemon["spec"]["template"]["spec"], "serviceAccountName": "default"}
        made["metadata"]["namespace"] = "not-privileged"
        refused = self.cluster.attempt("create", "--dry-run=server", "--filename=-", stdin=json.dumps(made))
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("hostPath volumes", refused.stderr)
