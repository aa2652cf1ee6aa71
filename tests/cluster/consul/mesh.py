"""Consul on the cluster: its server, its control plane, and workloads of its namespaces."""

import json
import pathlib

import yaml

from meshes import mesh
from processes import Failure, eventually, run

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = HERE.parents[2] / "cni-conf/examples"
SYSTEM = "consul"
HUB, TAG = "registry.example/consul", "test"
ANNOTATIONS = "consul.hashicorp.com/"
# Not redirected in either direction, for every workload: a port that greets.
EXCLUDED = {f"{ANNOTATIONS}transparent-proxy-exclude-{direction}-ports": "7777" for direction in ("inbound", "outbound")}
# How the pods of a namespace are redirected, by the control plane's values as users set them. There is one control
# plane: it changes from one to the next, and what is injected meanwhile stays as it is.
CONNECT_INIT, CONSUL_CNI, PLUGIN = "connect-init", "consul-cni", "plugin"
WAYS = {
    CONNECT_INIT: {},
    CONSUL_CNI: {"connectInject": {"cni": {"enabled": True}}},
    PLUGIN: yaml.safe_load((EXAMPLES / "consul-cni.yaml").read_text()),
}
IMAGES = {"global": {
    "name": "consul",
    "image": f"{HUB}/consul:{TAG}",
    "imageK8S": f"{HUB}/control-plane:{TAG}",
    "imageConsulDataplane": f"{HUB}/dataplane:{TAG}",
}}
DATA = "/var/lib/consul"


class Mesh(mesh.Mesh):
    """What a person would do with the cluster by kubectl and helm."""

    def __init__(self, cluster, programs):
        super().__init__(cluster, programs)
        (self._chart,) = pathlib.Path(programs["consul"]).glob("consul-[0-9]*.tgz")
        # The server's user writes there.
        cluster.node.run("mkdir", "--mode=777", DATA)
        self.apply(mesh.namespace(SYSTEM), volume())

    def control_plane(self, values):
        """Install or change the control plane, and wait for it."""
        files = []
        for number, of_file in enumerate((IMAGES, values)):
            file = self.cluster.directory / f"consul-{number}.yaml"
            file.write_text(yaml.safe_dump(of_file))
            files.append(f"--values={file}")
        run(self.programs["helm"], "upgrade", "--install", "consul", self._chart, f"--namespace={SYSTEM}",
            f"--kubeconfig={self.cluster.kubeconfig}", "--timeout=10m", f"--values={HERE}/values.yaml", *files)
        self.kubectl("rollout", "status", "statefulset/consul-server", f"--namespace={SYSTEM}", "--timeout=300s")
        self.wait_for_control_plane(SYSTEM, "consul-webhook-cert-manager", "consul-connect-injector")
        # That of the one before, which has ended, holds for another 90 seconds. Nothing is registered meanwhile.
        self.kubectl("delete", "lease", "consul-controller-lock", f"--namespace={SYSTEM}", "--ignore-not-found")
        # The node's rules for its Service follow later.
        eventually("the control plane's webhooks answer", self._admits)

    def _admits(self):
        try:
            self.kubectl("apply", "--dry-run=server", "--filename=-", stdin=json.dumps(protocol("server")))
        except Failure:
            return False
        return True

    def start_own_plugin(self):
        """As docs/migration.md says: after the quota has refused its pods, they come late otherwise."""
        for action in (("restart",), ("status", "--timeout=300s")):
            self.kubectl("rollout", *action, "daemonset/consul-cni", f"--namespace={SYSTEM}")

    def remove_own_plugin(self):
        """As docs/migration.md says."""
        self.kubectl("delete", "pod", "--selector=component=cni", f"--namespace={SYSTEM}")


def volume():
    """For the server's data."""
    spec = {
        "capacity": {"storage": "10Mi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": DATA},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "consul"}, "spec": spec}


def name_in_consul(space, name):
    """Consul has one namespace for all of Kubernetes'."""
    return f"{name}-{space}"


def _entry(kind, name, **spec):
    return {"apiVersion": "consul.hashicorp.com/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": "outside"}, "spec": spec}


def protocol(service):
    """HTTP, so that servers see who calls."""
    return _entry("ServiceDefaults", service, protocol="http")


def intention(server, client, action):
    """Whether the one may call the other."""
    return _entry("ServiceIntentions", server, destination={"name": server}, sources=[{"name": client, "action": action}])


def workload(space, name, annotations=None, **more):
    """A workload of the mesh. Pods of more than one Service have to say which of them is theirs."""
    wanted = {
        f"{ANNOTATIONS}connect-inject": "true",
        f"{ANNOTATIONS}kubernetes-service": name,
        f"{ANNOTATIONS}connect-service": name_in_consul(space, name),
        **EXCLUDED,
        **(annotations or {}),
    }
    # Before its pods: a change of the protocol closes their connections.
    return [protocol(name_in_consul(space, name)), *mesh.workload(space, name, wanted, **more)]
