"""Install, upgrade and uninstall, by kustomize and by Helm."""

import pods
from cluster import HERE, ROOT
from processes import eventually, run
from suite import SYSTEM, ClusterTest

CHART = ROOT / "cni-conf/helm/sidetrack"


class Install(ClusterTest):
    def assert_removed(self, binary):
        """The file of the network is what it was, to the byte, and nothing else is left, but maybe the binary."""
        conf = self.node.path("etc/cni/net.d")
        plain = (HERE / "files/10-net.conflist").read_bytes()
        self.assertEqual([(file.name, file.read_bytes()) for file in conf.iterdir()], [("10-net.conflist", plain)])
        binaries = {file.name for file in self.node.path("opt/cni/bin").iterdir()}
        self.assertEqual(binaries, {"ptp", "loopback", "portmap", "host-local"} | ({"sidetrack"} if binary else set()))

    def test_kustomize_installs_and_the_documented_steps_uninstall(self):
        server = self.start_plain_server()
        self.assertEqual(self.conflist(), ["ptp", "portmap", "sidetrack"])
        self.create(pods.client("with", *server))
        self.assert_redirected("with")
        self.create(pods.idle("running"))
        self.wait_until_ready("running")

        self.change_installation()
        # The runtime may need the binary to take down pods that it attached with it.
        self.assert_removed(binary=True)
        self.create(pods.client("without", *server))
        self.assert_bypassed("without")
        # A pod that runs keeps its rules.
        asked = self.cluster.attempt("--namespace", self.namespace, "exec", "running", "--", "/app", "get", server[0])
        self.assertIn("connection refused", asked.stderr)

    def helm(self, command, *words):
        common = ("--namespace", SYSTEM, "--kubeconfig", self.cluster.kubeconfig, "--wait", "--timeout=300s")
        return run(self.programs["helm"], command, "sidetrack", *words, *common)

    def test_helm_installs_upgrades_and_uninstalls(self):
        server = self.start_plain_server()
        self.change_installation()
        self.create_namespace(SYSTEM, **{"pod-security.kubernetes.io/enforce": "privileged"})
        self.helm("install", CHART)
        eventually("the entry is there", lambda: self.conflist() == ["ptp", "portmap", "sidetrack"])
        self.create(pods.client("installed", *server))
        self.assert_redirected("installed")

        # With another mode of repair, and what the plugin is to do for pods without a sidecar.
        self.helm("upgrade", CHART, "--set", "repair.mode=in-place", "--set", "plugin.select=always")
        self.wait_for_rollout()
        self.create(pods.client("upgraded", server[1], annotations={}))
        self.assert_redirected("upgraded")

        self.in_namespace("delete", "pods", "--all")
        self.helm("upgrade", CHART, "--set", "uninstallOnExit=true")
        self.wait_for_rollout()
        self.helm("uninstall")
        eventually("the installer has ended", lambda: self.installer_process() is None)
        self.assert_removed(binary=False)
