"""Istio on the cluster: control planes, workloads, and what a call of one to another came to."""

import json
import pathlib
import subprocess

from processes import eventually, run

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = HERE.parents[2] / "cni-conf/examples"
SYSTEM = "istio-system"
HUB = "registry.example/istio"
APP, DNS = f"{HUB}/app:test", f"{HUB}/dns:test"
NAME_SERVER = "10.96.0.10"
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


class Mesh:
    """What a person would do with the cluster, by kubectl and Helm."""

    def __init__(self, cluster, helm, charts):
        self.cluster, self._helm, self._charts = cluster, helm, pathlib.Path(charts)
        self.kubectl, self.apply, self.get = cluster.kubectl, cluster.apply, cluster.get

    def _run_helm(self, *words):
        run("env", f"KUBECONFIG={self.cluster.kubeconfig}", self._helm, *map(str, words))

    def chart(self, chart, release, *words, namespace=SYSTEM):
        self._run_helm("upgrade", "--install", release, self._charts / chart, f"--namespace={namespace}", *words)

    def control_plane(self, revision, files=(), *settings):
        """Install or change the control plane of a revision, and wait for it."""
        words = [f"--values={file}" for file in (HERE / "values.yaml", *files)]
        words += [f"--set-string={setting}" for setting in settings]
        self.chart("istio-control/istio-discovery", f"istiod-{revision}", f"--set=revision={revision}", *words)
        self.wait(SYSTEM, f"istiod-{revision}")

    def remove_control_plane(self, revision):
        self._run_helm("uninstall", f"istiod-{revision}", f"--namespace={SYSTEM}")

    def wait(self, namespace, *deployments):
        for deployment in deployments:
            self.kubectl("rollout", "status", f"deployment/{deployment}", f"--namespace={namespace}", "--timeout=300s")

    def restart(self, namespace, *deployments):
        names = [f"deployment/{deployment}" for deployment in deployments]
        self.kubectl("rollout", "restart", *names, f"--namespace={namespace}")
        self.wait(namespace, *deployments)

    def pod(self, namespace, app):
        """The newest running pod of a workload."""
        selection = (f"--namespace={namespace}", f"--selector=app={app}", "--field-selector=status.phase=Running")

        def running():
            pods = self.get("pods", *selection)["items"]
            pods = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
            return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)

        return eventually(f"a pod of {app} runs in {namespace}", running)

    def addresses(self, namespace, app):
        return [entry["ip"] for entry in self.pod(namespace, app)["status"]["podIPs"]]

    def _exec(self, namespace, app):
        name = self.pod(namespace, app)["metadata"]["name"]
        return ("exec", "--stdin", name, f"--namespace={namespace}", "--container=app", "--", "/app")

    def calls(self, namespace, app, server, calls):
        """Let a workload call; `server` is the address of the pod whose Envoy is asked, too."""
        words = [f"{name}={what}" for name, what in calls.items()]
        return json.loads(self.kubectl(*self._exec(namespace, app), "calls", server, *words))

    def call(self, namespace, app, what, server=""):
        return self.calls(namespace, app, server, {"call": what})["call"]

    def answer(self, namespace, app, what):
        return self.call(namespace, app, what)["answer"]

    def load(self, namespace, app, url):
        """Let a workload call without a pause until the load is ended."""
        return Load(("kubectl", f"--kubeconfig={self.cluster.kubeconfig}", *self._exec(namespace, app), "load", url))


class Load:
    """A process that calls until its standard input is closed, and then says how many calls failed."""

    def __init__(self, words):
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def end(self):
        output, _ = self._process.communicate(timeout=120)
        return json.loads(output)


def namespace(name, revision=None, **annotations):
    metadata = {"name": name, "labels": {"istio.io/rev": revision} if revision else {}, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def name_server():
    """The DNS server of the cluster, at the address that the kubelet writes into each pod's /etc/resolv.conf."""
    about = {"name": "kube-dns", "namespace": "kube-system"}
    group = "rbac.authorization.k8s.io"
    role = {"apiGroup": group, "kind": "ClusterRole", "name": "kube-dns"}
    resources = {"resources": ["services", "endpointslices"], "verbs": ["get", "list"]}
    ports = [{"name": protocol.lower(), "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    container = {"name": "dns", "image": DNS, "securityContext": {"runAsUser": 0}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": role["name"]},
         "rules": [{"apiGroups": ["", "discovery.k8s.io"], **resources}]},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role["name"]},
         "roleRef": role, "subjects": [{"kind": "ServiceAccount", **about}]},
        {"apiVersion": "v1", "kind": "Service", "metadata": about,
         "spec": {"clusterIP": NAME_SERVER, "selector": {"app": "kube-dns"}, "ports": ports}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": about, "spec": {
            "selector": {"matchLabels": {"app": "kube-dns"}},
            "template": {"metadata": {"labels": {"app": "kube-dns"}},
                         "spec": {"serviceAccountName": "kube-dns", "containers": [container]}}}},
    ]


def workload(space, name, annotations=None, containers=(), replicas=1):
    """A server with an account and Services of its own, as objects of Kubernetes."""
    about = {"name": name, "namespace": space}
    app = {
        "name": "app",
        "image": APP,
        "args": ["serve"],
        "ports": [{"containerPort": port} for port in (8080, 9090, 3306, 7777)],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 2, "timeoutSeconds": 10},
        "livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 5, "timeoutSeconds": 10},
        "securityContext": {
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    seconds = 2
    if replicas > 1:
        # A rolling update waits until the proxies of callers know which pods are gone.
        seconds = 15
        app["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}
    template = {
        "metadata": {"labels": {"app": name}, "annotations": {**EXCLUDED, **(annotations or {})}},
        "spec": {
            "serviceAccountName": name,
            "terminationGracePeriodSeconds": seconds,
            "containers": [app, *containers],
        },
    }
    ports = [{"name": "http", "port": 8080}, {"name": "tcp-greeting", "port": 3306}]
    service = {"selector": {"app": name}, "ports": ports}
    deployment = {
        "replicas": replicas,
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "selector": {"matchLabels": {"app": name}},
        "template": template,
    }
    headless = {"metadata": {**about, "name": f"{name}-headless"}, "spec": {**service, "clusterIP": "None"}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about},
        {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": service},
        {"apiVersion": "v1", "kind": "Service", **headless},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": about, "spec": deployment},
    ]
