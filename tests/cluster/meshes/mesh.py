"""Workloads of a mesh on the cluster, and what a call of one to another came to."""

import json
import subprocess

from processes import Failure, eventually

HUB = "registry.example/meshes"
APP, DNS = f"{HUB}/app:test", f"{HUB}/dns:test"
NAME_SERVER = "10.96.0.10"
# What a caller sees whose connection is closed without an answer, by chance.
CLOSED = ("connection reset", "EOF", "server closed")


class Mesh:
    """What a person would do with the cluster by kubectl."""

    def __init__(self, cluster, programs):
        self.cluster, self.programs = cluster, programs
        self.kubectl, self.apply, self.get = cluster.kubectl, cluster.apply, cluster.get

    def wait(self, namespace, *deployments):
        for deployment in deployments:
            self.kubectl("rollout", "status", f"deployment/{deployment}", f"--namespace={namespace}", "--timeout=300s")

    def wait_for_control_plane(self, namespace, *deployments):
        """Until its pods are ready, and those before them gone: the API server may still call their webhooks, and one
        that ends refuses that some time."""
        self.wait(namespace, *deployments)
        self.wait_for_former_pods(namespace)

    def wait_for_former_pods(self, namespace):
        def have_ended():
            pods = self.get("pods", f"--namespace={namespace}")["items"]
            return not any("deletionTimestamp" in pod["metadata"] for pod in pods)

        eventually(f"the former pods in {namespace} have ended", have_ended)

    def restart(self, namespace, *deployments):
        names = [f"deployment/{deployment}" for deployment in deployments]
        self.kubectl("rollout", "restart", *names, f"--namespace={namespace}")
        self.wait(namespace, *deployments)

    def pod(self, namespace, app, label="app"):
        """The newest running pod of a workload."""
        selection = (f"--namespace={namespace}", f"--selector={label}={app}", "--field-selector=status.phase=Running")

        def running():
            pods = self.get("pods", *selection)["items"]
            pods = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
            return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)

        return eventually(f"a pod of {app} runs in {namespace}", running)

    def addresses(self, namespace, app):
        return [entry["ip"] for entry in self.pod(namespace, app)["status"]["podIPs"]]

    def sidetrack(self, namespace, app, command, *options):
        """Run a command of sidetrack on the node, for the network namespace of a pod."""
        container = self.pod(namespace, app)["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
        tasks = self.cluster.node.run("ctr", "--namespace=k8s.io", "tasks", "list")
        pid = next(line.split()[1] for line in tasks.splitlines() if line.startswith(container))
        words = (self.programs["binary"], command, "--netns", f"/proc/{pid}/ns/net", *options)
        return self.cluster.node.attempt(*words)

    def _exec(self, namespace, app, container="app"):
        name = self.pod(namespace, app)["metadata"]["name"]
        return ("exec", "--stdin", name, f"--namespace={namespace}", f"--container={container}", "--", "/app")

    def calls(self, namespace, app, server, calls):
        """Let a workload call; `server` is the address of the pod whose Envoy is asked, too."""
        words = [f"{name}={what}" for name, what in calls.items()]
        return json.loads(self.kubectl(*self._exec(namespace, app), "calls", server, *words))

    def call(self, namespace, app, what, server=""):
        return self.calls(namespace, app, server, {"call": what})["call"]

    def answer(self, namespace, app, what):
        return self.call(namespace, app, what)["answer"]

    def _start(self, *words):
        return subprocess.Popen(self.cluster.command(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def load(self, namespace, app, url):
        """Let a workload call without a pause until the load is ended."""
        return Load(self._start(*self._exec(namespace, app), "load", url))

    def ask(self, namespace, app, container="app"):
        """A process in a container that answers questions."""
        return Asked(self._start(*self._exec(namespace, app, container), "ask"))


class Started:
    """A process in a container. It ends with the block that uses it."""

    def __init__(self, process):
        self._process = process

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()


class Asked(Started):
    """A process that is asked one question after another."""

    def __call__(self, question):
        self._process.stdin.write(question + "\n")
        answer = self._process.stdout.readline()
        if not answer:
            raise Failure(f"no answer to {question}")
        return json.loads(answer)


class Load(Started):
    """A process that calls until its standard input is closed, and then says which calls failed."""

    def end(self):
        output, _ = self._process.communicate(timeout=120)
        return json.loads(output)


def first_init_container(pod):
    """Its name, its image, and what it ended with."""
    container, status = pod["spec"]["initContainers"][0], pod["status"]["initContainerStatuses"][0]
    return container["name"], container["image"], status["state"].get("terminated", {}).get("exitCode")


def namespace(name, labels=None, **annotations):
    metadata = {"name": name, "labels": labels or {}, "annotations": annotations}
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
        # Before its proxy listens, nobody does. On a busy machine that took 15 s, after which the kubelet restarts it.
        "livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 5, "timeoutSeconds": 10, "failureThreshold": 60},
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
        seconds = 30
        app["lifecycle"] = {"preStop": {"sleep": {"seconds": 15}}}
    template = {
        "metadata": {"labels": {"app": name}, "annotations": annotations or {}},
        "spec": {
            "serviceAccountName": name,
            "terminationGracePeriodSeconds": seconds,
            "containers": [app, *containers],
        },
    }
    ports = [{"name": "http", "port": 8080, "appProtocol": "http"}, {"name": "tcp-greeting", "port": 3306}]
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
