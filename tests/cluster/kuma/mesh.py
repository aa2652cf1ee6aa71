"""Kuma on the cluster: its control plane, and workloads of its namespaces."""

import json
import pathlib
import subprocess

import yaml
from meshes import mesh
from processes import Failure, eventually

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = HERE.parents[2] / "cni-conf/examples"
SYSTEM = "kuma-system"
HUB, TAG = "registry.example/kuma", "test"
# The image of the drop-in, as docs/kuma-init.md describes it.
SIDETRACK_INIT = f"{HUB}/sidetrack-init:{TAG}"
# Not redirected in either direction, for every workload: a port that greets.
EXCLUDED = {f"traffic.kuma.io/exclude-{direction}-ports": "7777" for direction in ("inbound", "outbound")}
# How the pods of a namespace are redirected, by the control plane's values as users set them. There is one control
# plane: it changes from one to the next, and what is injected meanwhile stays as it is.
KUMA_INIT, IMAGE, PLUGIN = "kuma-init", "image", "plugin"
WAYS = {
    KUMA_INIT: {},
    IMAGE: {"dataPlane": {"initImage": {"registry": HUB, "repository": "sidetrack-init", "tag": TAG}}},
    PLUGIN: yaml.safe_load((EXAMPLES / "kuma-cni.yaml").read_text()),
}


class Mesh(mesh.Mesh):
    """What a person would do with the cluster by kubectl and kumactl."""

    def __init__(self, cluster, programs):
        super().__init__(cluster, programs)
        self._kumactl = pathlib.Path(programs["kuma"], "kumactl")

    def control_plane(self, values):
        """Install or change the control plane, and wait for it."""
        # Helm merges files of values, a later one over an earlier one.
        words = (self._kumactl, "install", "control-plane", f"--registry={HUB}", f"--version={TAG}",
                 f"--values={HERE}/values.yaml", "--values=-")
        done = subprocess.run(words, input=yaml.safe_dump(values), capture_output=True, text=True,
                              env={"KUBECONFIG": str(self.cluster.kubeconfig), "HOME": str(self.cluster.directory)})
        if done.returncode:
            raise Failure(f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stderr}")
        # Client-side apply has no room for the largest definitions.
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=done.stdout)
        self.wait_for_control_plane(SYSTEM, "kuma-control-plane")
        # The node's rules for its Service follow later.
        eventually("the control plane's webhooks answer", self._admits)

    def _admits(self):
        try:
            self.kubectl("apply", "--dry-run=server", "--filename=-", stdin=json.dumps(permission()[1]))
        except Failure:
            return False
        return True


def namespace(name, injected=True):
    return mesh.namespace(name, {"kuma.io/sidecar-injection": "enabled"} if injected else {})


def workload(space, name, annotations=None, **more):
    return mesh.workload(space, name, {**EXCLUDED, **(annotations or {})}, **more)


def permission():
    """An identity for every proxy of the mesh, and its permission to call all others: TLS between them, and nothing else."""
    about = {"name": "suite", "namespace": SYSTEM, "labels": {"kuma.io/mesh": "default"}}
    domain = "default.default.mesh.local"
    bundled = {
        "meshTrustCreation": "Enabled",
        "insecureAllowSelfSigned": True,
        "certificateParameters": {"expiry": "24h"},
        "autogenerate": {"enabled": True},
    }
    identity = {
        "selector": {"dataplane": {"matchLabels": {}}},
        "spiffeID": {"trustDomain": domain, "path": "/ns/{{ .Namespace }}/sa/{{ .ServiceAccount }}"},
        "provider": {"type": "Bundled", "bundled": bundled},
    }
    allow = [{"spiffeID": {"type": "Prefix", "value": f"spiffe://{domain}"}}]
    permission = {"targetRef": {"kind": "Mesh"}, "rules": [{"default": {"allow": allow}}]}
    return [
        {"apiVersion": "kuma.io/v1alpha1", "kind": "MeshIdentity", "metadata": about, "spec": identity},
        {"apiVersion": "kuma.io/v1alpha1", "kind": "MeshTrafficPermission", "metadata": about, "spec": permission},
    ]
