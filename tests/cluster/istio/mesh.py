"""Istio on the cluster: its control planes, and workloads of its namespaces."""

import pathlib

from meshes import mesh
from processes import run

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = HERE.parents[2] / "cni-conf/examples"
SYSTEM = "istio-system"
HUB = "registry.example/istio"
# Not redirected in either direction, for every workload: the control port, by which a caller asks the server's Envoy,
# and a port that greets.
EXCLUDED = {
    "traffic.sidecar.istio.io/excludeInboundPorts": "9999,7777",
    "traffic.sidecar.istio.io/excludeOutboundPorts": "9999,7777",
}
# How the pods of a namespace are redirected, by the values of istiod's chart that users install. Each has a revision of
# the control plane and a namespace of that name.
ISTIO_INIT, IMAGE, PLUGIN = "istio-init", "image", "plugin"
WAYS = {
    ISTIO_INIT: [],
    IMAGE: [EXAMPLES / "istio-init-container.yaml"],
    PLUGIN: [EXAMPLES / "istio-cni.yaml"],
}


class Mesh(mesh.Mesh):
    """What a person would do with the cluster, by kubectl and Helm."""

    def __init__(self, cluster, programs):
        super().__init__(cluster, programs)
        self._helm, self._charts = programs["helm"], pathlib.Path(programs["charts"])

    def _run_helm(self, *words):
        run("env", f"KUBECONFIG={self.cluster.kubeconfig}", self._helm, *map(str, words))

    def chart(self, chart, release, *words, namespace=SYSTEM):
        self._run_helm("upgrade", "--install", release, self._charts / chart, f"--namespace={namespace}", *words)

    def control_plane(self, revision, files=(), *settings):
        """Install or change the control plane of a revision, and wait for it."""
        words = [f"--values={file}" for file in (HERE / "values.yaml", *files)]
        words += [f"--set-string={setting}" for setting in settings]
        self.chart("istio-control/istio-discovery", f"istiod-{revision}", f"--set=revision={revision}", *words)
        self.wait_for_control_plane(SYSTEM, f"istiod-{revision}")

    def remove_control_plane(self, revision):
        self._run_helm("uninstall", f"istiod-{revision}", f"--namespace={SYSTEM}")


def namespace(name, revision=None, **annotations):
    return mesh.namespace(name, {"istio.io/rev": revision} if revision else {}, **annotations)


def workload(space, name, annotations=None, **more):
    return mesh.workload(space, name, {**EXCLUDED, **(annotations or {})}, **more)
