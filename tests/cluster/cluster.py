"""A cluster of one node, for a while of two, in namespaces that end with it.

    API server, controllers, etcd, the suite          node (a network, mount and PID namespace): kubelet,
    172.31.250.1 fd00:250::1  ---------- eth0 -----   containerd, kube-proxy, pods  172.31.250.2 fd00:250::2

All of it is in the namespaces that scripts/test-cluster has made.
"""

import contextlib
import json
import shutil
import subprocess

import images
import pki
from node import HERE, PODS, PODS_6, SERVER, SERVER_6, SERVICES, SERVICES_6, Node
from processes import Daemon, Failure, eventually, run

ROOT = HERE.parent.parent
APP, ENVOY = "localhost/app:1", "localhost/envoy:1"


class Cluster:
    """The control plane and the node."""

    def __init__(self, directory, cgroup, programs):
        self.directory, self._cgroup, self._programs = directory, cgroup, programs
        self.kubeconfig = directory / "admin.kubeconfig"
        # For people: `node COMMAND`.
        self.commands = directory / "bin"
        self.commands.mkdir()
        (directory / "logs").mkdir()
        # All nodes get the same, also while another run writes its own.
        self._image = shutil.copy(programs["image"], directory)
        pki.create(
            directory / "pki",
            (SERVER, SERVER_6, "127.0.0.1", SERVICES.replace("0.0/16", "0.1"), SERVICES_6.replace("::/112", "::1")),
        )
        self.node = Node(directory, cgroup, programs)
        self.daemons = {name: self._daemon(name, *words) for name, words in self._words().items()}

    def _daemon(self, name, *words):
        directory = self._programs["etcd" if name == "etcd" else "kubernetes"]
        return Daemon((f"{directory}/{name}", *words), self.directory / f"logs/{name}.log")

    def _words(self):
        directory, secrets = self.directory, self.directory / "pki"
        services = f"--service-cluster-ip-range={SERVICES},{SERVICES_6}"

        def account(name):
            path = f"{directory}/{name}.kubeconfig"
            return [f"--{use}kubeconfig={path}" for use in ("", "authentication-", "authorization-")]

        return {
            "etcd": (
                *("--data-dir", directory / "etcd", "--unsafe-no-fsync", "--log-level", "warn"),
                *("--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379"),
                *("--listen-peer-urls", "http://127.0.0.1:2380"),
            ),
            "kube-apiserver": (
                "--etcd-servers=http://127.0.0.1:2379",
                f"--advertise-address={SERVER}",
                f"--client-ca-file={secrets}/ca.crt",
                f"--tls-cert-file={secrets}/apiserver.crt",
                f"--tls-private-key-file={secrets}/apiserver.key",
                f"--kubelet-client-certificate={secrets}/apiserver-kubelet.crt",
                f"--kubelet-client-key={secrets}/apiserver-kubelet.key",
                "--kubelet-preferred-address-types=InternalIP",
                f"--service-account-key-file={secrets}/accounts.pub",
                f"--service-account-signing-key-file={secrets}/accounts.key",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--requestheader-client-ca-file={secrets}/front-proxy-ca.crt",
                f"--proxy-client-cert-file={secrets}/front-proxy.crt",
                f"--proxy-client-key-file={secrets}/front-proxy.key",
                "--requestheader-allowed-names=front-proxy-client",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-username-headers=X-Remote-User",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                services,
            ),
            "kube-controller-manager": (
                *account("kube-controller-manager"),
                "--leader-elect=false",
                "--use-service-account-credentials=true",
                f"--root-ca-file={secrets}/ca.crt",
                f"--service-account-private-key-file={secrets}/accounts.key",
                f"--cluster-signing-cert-file={secrets}/ca.crt",
                f"--cluster-signing-key-file={secrets}/ca.key",
                "--allocate-node-cidrs=true",
                f"--cluster-cidr={PODS},{PODS_6}",
                services,
            ),
            "kube-scheduler": (*account("kube-scheduler"), "--leader-elect=false"),
        }

    def start(self):
        run("ip", "link", "set", "lo", "up")
        self.daemons["etcd"].start()
        # Before the API server, whose address is that of the link to the node.
        self.node.start()
        self.daemons["kube-apiserver"].start()
        self.wait_for_server()
        for name in ("kube-controller-manager", "kube-scheduler"):
            self.daemons[name].start()
        self.kubectl("apply", "-f", HERE / "files/cluster.yaml")
        self._import_images(self.node)
        self.wait_for_node()

    @contextlib.contextmanager
    def second_node(self):
        """Another node, until the block ends."""
        node = Node(self.directory, self._cgroup, self._programs, number=2)
        node.start()
        try:
            self._import_images(node)
            self.wait_for_node(node.name)
            yield node
        finally:
            node.power_off()
            self.kubectl("delete", "node", node.name, "--ignore-not-found")

    def _import_images(self, node):
        architecture = run("dpkg", "--print-architecture").strip()
        envoy = self._programs["envoy"]
        files = {path: path for path in images.libraries(envoy)}
        for name, contents, entry in (
            (APP, {"/app": self._programs["app"]}, ["/app", "pause"]),
            (ENVOY, {**files, "/envoy": envoy, "/app": self._programs["app"]}, ["/envoy"]),
        ):
            archive = self.directory / "image.tar"
            images.write(archive, name, architecture, contents, entry)
            node.import_image(archive, name)
            archive.unlink()
        node.import_image(self._image, f"registry.example/sidetrack:{version()}")

    def wait_for_server(self):
        def answers():
            if not self.daemons["kube-apiserver"].is_running():
                raise Failure(f"the API server ended, see {self.directory}/logs")
            return self.attempt("get", "--raw=/readyz").returncode == 0

        eventually("the API server is ready", answers)

    def wait_for_node(self, name="node1"):
        """Ready, and not as it was before a reboot: the kubelet has told it since."""
        eventually("the node registers", lambda: self.attempt("get", "node", name).returncode == 0)
        self.kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=300s")

    def attempt(self, *words, stdin=None):
        """Run kubectl, whatever its exit code."""
        return subprocess.run(self.command(*words), input=stdin, capture_output=True, text=True)

    def command(self, *words):
        """The words that run kubectl."""
        return (f"{self._programs['kubernetes']}/kubectl", f"--kubeconfig={self.kubeconfig}", *map(str, words))

    def kubectl(self, *words, stdin=None):
        done = self.attempt(*words, stdin=stdin)
        if done.returncode != 0:
            raise Failure(f"kubectl {' '.join(map(str, words))}: exit {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def get(self, *words):
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def apply(self, *objects):
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("apply", "--filename=-", stdin=json.dumps(items))


def version():
    """That of sidetrack, by which its manifests name the image."""
    manifest = (ROOT / "Cargo.toml").read_text()
    return next(line.split('"')[1] for line in manifest.splitlines() if line.startswith("version = "))
