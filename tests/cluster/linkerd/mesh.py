"""Linkerd on the cluster: its control plane, workloads of its namespaces, and what their proxies have accepted."""

import base64
import pathlib
import re
import subprocess
import urllib.request

import yaml
from meshes import mesh
from processes import Failure

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = HERE.parents[2] / "cni-conf/examples"
SYSTEM = "linkerd"
HUB, TAG = "registry.example/linkerd", "test"
CONTROL_PLANE = ("linkerd-identity", "linkerd-destination", "linkerd-proxy-injector")
CONTROL_PLANE_PODS = [(name, "linkerd.io/proxy-deployment") for name in CONTROL_PLANE]
# That of the proxy, with sidetrack in the place of Linkerd's program, as docs/linkerd-proxy-init.md describes it.
SIDETRACK_PROXY = f"{HUB}/proxy-sidetrack"
# Not redirected in either direction, for every workload: a port that greets.
EXCLUDED = {f"config.linkerd.io/skip-{direction}-ports": "7777" for direction in ("inbound", "outbound")}
# How the pods of a namespace are redirected, by the control plane's values as users set them. There is one control
# plane, whose own pods are redirected in the same way: it changes from one to the next, and what is injected meanwhile
# stays as it is.
LINKERD_INIT, IMAGE, PLUGIN = "linkerd-init", "image", "plugin"
WAYS = {
    LINKERD_INIT: {},
    IMAGE: {"proxy": {"image": {"name": SIDETRACK_PROXY}}},
    PLUGIN: yaml.safe_load((EXAMPLES / "linkerd-cni.yaml").read_text()),
}
ADMIN = 4191
# The application's probes, which the proxy takes like any other request.
PROBED = 9999
ACCEPTED = re.compile(r'^tcp_open_total\{direction="(\w+)",peer="src",target_addr="[^"]*:(\d+)".*\} (\d+)$', re.MULTILINE)


class Mesh(mesh.Mesh):
    """What a person would do with the cluster by kubectl and linkerd."""

    def __init__(self, cluster, programs):
        super().__init__(cluster, programs)
        self._linkerd = pathlib.Path(programs["linkerd"], "linkerd")
        # Of the first installation: later ones keep its certificates.
        self._identity = None

    def _install(self, *words):
        words = (self._linkerd, "install", "--ignore-cluster", *words)
        done = subprocess.run(words, capture_output=True, text=True, env={"HOME": str(self.cluster.directory)})
        if done.returncode:
            raise Failure(f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stderr}")
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=done.stdout)

    def control_plane(self, values):
        """Install or change the control plane, and wait for it."""
        if self._identity is None:
            self._install("--crds", "--set=installGatewayAPI=true")
        file = self.cluster.directory / "linkerd.yaml"
        file.write_text(yaml.safe_dump({
            "controllerImage": f"{HUB}/controller", "linkerdVersion": TAG, "disableHeartBeat": True,
            **values, "proxy": {"image": {"name": f"{HUB}/proxy"}, **values.get("proxy", {})},
        }))
        self._install(f"--values={HERE}/values.yaml", f"--values={file}", *(self._identity or ()))
        self._identity = self._identity or self._keep_identity()
        self.wait_for_control_plane(SYSTEM, *CONTROL_PLANE)

    def _keep_identity(self):
        roots = self.get("configmap", "linkerd-identity-trust-roots", f"--namespace={SYSTEM}")["data"]["ca-bundle.crt"]
        issuer = self.get("secret", "linkerd-identity-issuer", f"--namespace={SYSTEM}")["data"]
        words = []
        for name, text in {
            "trust-anchors": roots,
            "issuer-certificate": base64.b64decode(issuer["crt.pem"]).decode(),
            "issuer-key": base64.b64decode(issuer["key.pem"]).decode(),
        }.items():
            file = self.cluster.directory / f"linkerd-{name}.pem"
            file.write_text(text)
            words.append(f"--identity-{name}-file={file}")
        return words

    def accepted(self, namespace, app):
        """How many connections the proxy of a workload has accepted, inbound and outbound."""
        url = f"http://{self.addresses(namespace, app)[0]}:{ADMIN}/metrics"
        with urllib.request.urlopen(url, timeout=60) as answer:
            text = answer.read().decode()
        counts = {"inbound": 0, "outbound": 0}
        for direction, port, count in ACCEPTED.findall(text):
            if int(port) not in (PROBED, ADMIN):
                counts[direction] += int(count)
        return counts


def namespace(name, injected=True):
    return mesh.namespace(name, **({"linkerd.io/inject": "enabled"} if injected else {}))


def workload(space, name, annotations=None, **more):
    objects = mesh.workload(space, name, {**EXCLUDED, **(annotations or {})}, **more)
    app = objects[-1]["spec"]["template"]["spec"]["containers"][0]
    # So that the kubelet's connections are not counted with those of the tests.
    app["readinessProbe"]["httpGet"]["port"] = app["livenessProbe"]["tcpSocket"]["port"] = PROBED
    return objects
