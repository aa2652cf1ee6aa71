"""What happens to a node, and that no pod that starts meanwhile or later lacks its rules."""

import os
import signal
import threading

import pods
from churn import churn
from cluster import HERE
from processes import eventually, run
from suite import SYSTEM, ClusterTest


class Node(ClusterTest):
    def test_rolling_updates_leave_no_pod_without_rules(self):
        with churn(self) as running:
            for number in range(2):
                annotation = f'{{"spec": {{"template": {{"metadata": {{"annotations": {{"run": "{number}"}}}}}}}}}}'
                self.kubectl("--namespace", SYSTEM, "patch", "daemonset/sidetrack-node", "--patch", annotation)
                self.wait_for_rollout()
                running.wait_for(5)

    def test_killed_installers_leave_no_pod_without_rules(self):
        with churn(self) as running:
            for _ in range(3):
                process = eventually("the installer runs", self.installer_process)
                os.kill(process, signal.SIGKILL)
                running.wait_for(5)

    def test_restarted_containerd_attaches_with_the_plugin(self):
        with churn(self) as running:
            self.node.daemons["containerd"].restart()
            running.wait_for(5)

    def test_restarted_kubelet_starts_redirected_pods(self):
        with churn(self) as running:
            self.node.daemons["kubelet"].restart()
            running.wait_for(5)

    def test_pods_have_rules_after_a_reboot(self):
        """Namespaces and processes are gone, files are not: the plugin is there before any pod."""
        self.create(pods.configuration(), pods.controller("Deployment", "web", pods.web("web", "plugin"), replicas=3))
        self.in_namespace("rollout", "status", "deployment/web", "--timeout=300s")
        before = {pod["metadata"]["name"]: pod["status"]["podIPs"] for pod in self.pods("app=web")}
        self.node.reboot()

        def are_back():
            found = self.pods("app=web")
            containers = [one for pod in found for one in pod["status"].get("containerStatuses", [])]
            restarted = all(one["restartCount"] for one in containers)
            return restarted and [pods.is_ready(pod) for pod in found] == [True] * len(before)

        eventually("all pods are ready after the reboot", are_back)
        addresses = [entry["ip"] for pod in self.pods("app=web") for entry in pod["status"]["podIPs"]]
        self.create(pods.client("caller", *pods.urls(addresses), annotations={}))
        phase, seen = self.finish("caller")
        self.assertEqual((phase, set(seen.split())), ("Succeeded", {"127.0.0.6", "::6"}), seen)
        # The DaemonSet may still be shown as it was before; an installer that has not observed pods yet counts none.
        eventually("the installer counts the pods", lambda: self.count("redirected") >= len(before))
        self.assertEqual(self.count("lacking", "missed", "suspected", "drifted"), 0)

    def test_installer_works_while_the_api_server_is_down(self):
        """It repairs the node; pods of a StatefulSet or Job need the server, so what starts is a container again."""
        self.start_plain_server()
        self.create(pods.configuration(), pods.web("web", "plugin"))
        self.wait_until_ready("web")
        server = self.cluster.daemons["kube-apiserver"]
        server.stop()
        try:
            conflist = self.node.path("etc/cni/net.d/10-net.conflist")
            conflist.write_bytes((HERE / "files/10-net.conflist").read_bytes())
            eventually("the entry is back", lambda: "sidetrack" in self.conflist())
            binary = self.node.path("opt/cni/bin/sidetrack")
            binary.unlink()
            eventually("the binary is back", binary.exists)
        finally:
            server.start()
            self.cluster.wait_for_server()
        self.create(pods.client("client", *self.start_plain_server("after")))
        self.assert_redirected("client")

    def test_conflist_that_another_tool_rewrites_is_repaired(self):
        """As an agent does that renders its file again every few seconds. A pod of a gap is found and counted."""
        server = self.start_plain_server()
        directory = self.node.path("etc/cni/net.d")
        ended = threading.Event()

        def rewrite():
            while not ended.wait(5):
                run("cp", HERE / "files/10-net.conflist", directory / ".new")
                os.rename(directory / ".new", directory / "10-net.conflist")

        writer = threading.Thread(target=rewrite)
        writer.start()
        try:
            names = [f"client-{number}" for number in range(12)]
            for name in names:
                self.create(pods.client(name, server[0]))
            ends = [self.finish(name)[0] for name in names]
            eventually("the installer reports contention", lambda: self.metrics()["sidetrack_node_contended"] == 1)
        finally:
            ended.set()
            writer.join()
        eventually("the entry is back", lambda: "sidetrack" in self.conflist())
        eventually("contention ends", lambda: self.metrics()["sidetrack_node_contended"] == 0)
        print(f"{ends.count('Failed')} of {len(ends)} pods were redirected ", end="", flush=True)

    def test_full_disk_keeps_the_installation(self):
        """Where nothing can be written any more, what is installed stays, and the installer says what fails."""
        path = "/etc/cni/net.d"
        self.node.run("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", path)
        try:
            self.node.run("cp", self.node.path("etc/cni/net.d/10-net.conflist"), path)
            self.node.attempt("sh", "-c", f"head -c 100000 /dev/zero >{path}/zz-full")
            self.kubectl("--namespace", SYSTEM, "rollout", "restart", "daemonset/sidetrack-node")
            self.wait_for_rollout()
            # In place: the disk is full all the time.
            plain = HERE / "files/10-net.conflist"
            rewrite = f"dd if={plain} conv=notrunc status=none of=$0 && truncate --size={plain.stat().st_size} $0"
            self.node.run("sh", "-c", rewrite, f"{path}/10-net.conflist")

            def fails():
                values = self.metrics()
                return values["sidetrack_node_ready"] == 0 and values["sidetrack_node_failures_total"] > 0

            eventually("the installer reports the failure", fails)
            text = self.node.run("cat", f"{path}/10-net.conflist")
            self.assertEqual(text, plain.read_text())
            log = self.kubectl("--namespace", SYSTEM, "logs", "daemonset/sidetrack-node")
            self.assertIn("No space left on device", log)
            self.node.run("rm", f"{path}/zz-full")
            eventually("the entry is there", lambda: '"sidetrack"' in self.node.run("cat", f"{path}/10-net.conflist"))
        finally:
            self.node.run("umount", path)
            self.kubectl("--namespace", SYSTEM, "rollout", "restart", "daemonset/sidetrack-node")
            self.wait_for_rollout()
