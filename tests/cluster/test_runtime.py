"""What containerd calls the plugin for."""

import json
import stat

import pods
from processes import eventually
from suite import SYSTEM, ClusterTest

# A plugin that writes down each call, and passes the result of the plugin before it on.
RECORDER = """#!/usr/bin/env python3
import json, os, sys
netconf = json.load(sys.stdin)
with open("/run/cni-commands", "a") as log:
    print(os.environ["CNI_COMMAND"], netconf["cniVersion"], file=log)
if os.environ["CNI_COMMAND"] == "ADD":
    json.dump(netconf["prevResult"], sys.stdout)
if os.environ["CNI_COMMAND"] == "VERSION":
    json.dump({"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}, sys.stdout)
"""


class Runtime(ClusterTest):
    def test_commands_that_containerd_calls(self):
        recorder = self.node.path("opt/cni/bin/recorder")
        recorder.write_text(RECORDER)
        recorder.chmod(recorder.stat().st_mode | stat.S_IXUSR)
        path = self.node.path("etc/cni/net.d/10-net.conflist")
        before = path.read_text()
        self.addCleanup(recorder.unlink)
        self.addCleanup(path.write_text, before)
        conflist = json.loads(before)
        conflist["plugins"].insert(-1, {"type": "recorder"})
        path.write_text(json.dumps(conflist))

        server = self.start_plain_server()
        for name in ("client", "after-restart"):
            self.create(pods.client(name, *server))
            self.assert_redirected(name)
            self.in_namespace("delete", "pod", name)
            self.node.daemons["containerd"].restart()

        def commands():
            return {tuple(line.split()) for line in self.node.run("cat", "/run/cni-commands").splitlines()}

        def has_called():
            return {"ADD", "DEL", "STATUS"} <= {command for command, _ in commands()}

        eventually("ADD, DEL and STATUS are called", has_called)
        # No CHECK, and no GC even as it starts: another one is to be told in docs/compatibility.md.
        self.assertEqual(commands(), {(command, "1.1.0") for command in ("ADD", "DEL", "STATUS")})

    def select_nodes(self, labels):
        """Change the labels of nodes on which the installer runs."""
        patch = json.dumps({"spec": {"template": {"spec": {"nodeSelector": labels}}}})
        self.kubectl("--namespace", SYSTEM, "patch", "daemonset/sidetrack-node", "--patch", patch)

    def test_missing_plugin_keeps_pods_from_starting(self):
        """Rather than let them start without rules. The installer brings it back, and the pod starts."""
        server = self.start_plain_server()
        binary = self.node.path("opt/cni/bin/sidetrack")
        # The kubelet would replace one that is only stopped, before the pod has failed on a busy node.
        self.select_nodes({"nobody": "here"})
        try:
            eventually("the installer has ended", lambda: self.installer_process() is None)
            binary.rename(binary.with_name("moved"))
            self.create(pods.client("client", *server))

            def fails():
                items = self.cluster.get("events", "--namespace", self.namespace)["items"]
                # By ADD, or by STATUS if the kubelet has asked for it first.
                reasons = ("FailedCreatePodSandBox", "NetworkNotReady")
                messages = [item["message"] for item in items if item["reason"] in reasons]
                return [message for message in messages if "find plugin" in message]

            message = eventually("the pod does not start", fails)[0]
            self.assertIn('failed to find plugin "sidetrack"', message)
        finally:
            self.select_nodes({"nobody": None})
            binary.with_name("moved").unlink(missing_ok=True)
        self.assert_redirected("client")
