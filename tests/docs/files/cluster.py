#!/usr/bin/env python3
"""kubectl, helm and crictl for commands of the documentation: what they would set off on a node happens for real.

Manifests are compared with the schemas of Kubernetes, the installer's container runs `sidetrack node install`, a pod that
starts has its init containers run or the CNI plugin called in the network namespace `pod`. A command that is not known
here fails.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT, STATE = Path(os.environ["ROOT"]), Path(os.environ["WORK"]) / "state"
try:
    import yaml
except ImportError:  # it comes with the validator of scripts/setup
    os.execv(ROOT / ".venv/bin/python", ["python", *sys.argv])

BIN, CONF = "/opt/cni/bin", Path("/etc/cni/net.d")
CHARTS = {
    "istio/istiod": "istio",
    "linkerd/linkerd-control-plane": "linkerd",
    "kuma/kuma": "kuma",
    "hashicorp/consul": "consul",
}


def fail(why):
    sys.exit(f"{Path(sys.argv[0]).name}: tests/docs/files/cluster.py: {why}: {sys.argv[1:]}")


def documents(path):
    return [each for each in yaml.safe_load_all(Path(path).read_text()) if each]


def conforms(path):
    known = recall("conform", [])
    if str(path) in known:
        return
    remember("conform", [*known, str(path)])
    validator = ROOT / ".venv/bin/kubernetes-validate"
    subprocess.run([validator, "--strict", path], check=True, stdout=subprocess.DEVNULL)


def remember(name, value):
    (STATE / name).write_text(json.dumps(value))


def recall(name, default):
    path = STATE / name
    return json.loads(path.read_text()) if path.exists() else default


def in_pod(*command, **options):
    return subprocess.run(["nsenter", "--net=/run/netns/pod", *command], text=True, **options)


def apply_kustomization(folder):
    kustomization = documents(Path(folder) / "kustomization.yaml")[0]
    variables = {}
    for name in kustomization["resources"]:
        path = Path(folder) / name
        if path.is_dir():
            apply_kustomization(path)
        elif "k8s.cni.cncf.io" not in path.read_text():
            conforms(path)
        if path.name == "daemonset.yaml":
            container = documents(path)[0]["spec"]["template"]["spec"]["containers"][0]
            variables = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    for patch in kustomization.get("patches", []):
        documents(Path(folder) / patch["path"])
    if variables:
        install(variables)


def install(variables):
    remember("installer", variables)
    told = {name: value for name, value in variables.items() if "HEALTH" not in name}
    places = {"SIDETRACK_NODE_CNI_BIN_DIR": BIN, "SIDETRACK_NODE_CNI_CONF_DIR": str(CONF)}
    environment = {**os.environ, **told, **places}
    subprocess.run(["sidetrack", "node", "install", "--once"], check=True, env=environment, capture_output=True)


def start(pod):
    """A pod's beginning: a new namespace, the chain of plugins, the init containers."""
    remember("pod", pod)
    in_pod("sidetrack", "cleanup", check=True, capture_output=True)
    add(pod)
    for container in pod["spec"].get("initContainers", []):
        if "sidetrack" in container["image"]:
            program = container.get("command", ["sidetrack"])[0]  # by its name the program knows whose place it takes
            named = ("bash", "-c", 'exec -a "$0" "$(type -P sidetrack)" "$@"', program)
            ran = in_pod(*named, *container["args"], stderr=subprocess.PIPE)
            (STATE / f"log-{container['name']}").write_text(ran.stderr)
            if ran.returncode:
                fail(f"{container['name']} ended with {ran.returncode}: {ran.stderr}")


def add(pod):
    conflist = json.loads(sorted(CONF.glob("*.conflist"))[0].read_text())
    for plugin in (each for each in conflist["plugins"] if each["type"] == "sidetrack"):
        annotations = pod["metadata"].get("annotations", {})
        netconf = {
            **plugin,
            "name": conflist["name"],
            "cniVersion": conflist["cniVersion"],
            "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
            "prevResult": {"cniVersion": conflist["cniVersion"], "ips": []},
        }
        names = f"K8S_POD_NAMESPACE={pod['metadata'].get('namespace', 'default')};K8S_POD_NAME={pod['metadata']['name']}"
        variables = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "0f1e",
            "CNI_NETNS": "/run/netns/pod",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": BIN,
            "CNI_ARGS": names,
        }
        ran = subprocess.run(
            [f"{BIN}/sidetrack"], input=json.dumps(netconf), text=True, env={**os.environ, **variables}, capture_output=True
        )
        (STATE / "log-plugin").write_text(ran.stderr)
        if ran.returncode:
            fail(f"ADD ended with {ran.returncode}: {ran.stdout}")


def injected():
    """The pod as injected by the mesh that was last installed."""
    return documents(ROOT / f"tests/docs/files/pods/{recall('mesh', 'istio')}.yaml")[0]


def kubectl(*words):
    if words[:1] == ("-n",) or words[:1] == ("--namespace",):
        words = words[2:]
    match words:
        case ("apply", "-k", folder):
            apply_kustomization(folder)
        case ("apply", "-f", path):
            conforms(path)
            for document in documents(path):
                if document["kind"] == "Pod":
                    start(document)
        case ("set", "env", "daemonset/sidetrack-node", *pairs):
            told = dict(pair.split("=", 1) for pair in pairs)
            install({**recall("installer", None), **told})
        case ("rollout", "status", "daemonset/sidetrack-node"):
            if not recall("installer", None):
                fail("there is no such DaemonSet")
        case ("rollout", "restart", workload) if workload.startswith("deployment/"):
            start(injected())
        case ("describe", "pod" | "replicaset"):
            print(yaml.safe_dump(recall("pod", injected())))
        case ("get", "pod", _, "-o", "yaml"):
            print(yaml.safe_dump(recall("pod", injected())))
        case ("get", "pods", "-A", "-o", "yaml"):
            print(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": documents("deploy/web.yaml")}))
        case ("logs", _, "-c", container):
            print((STATE / f"log-{container}").read_text(), end="")
        case ("create", "namespace", _) | ("label", "namespace", _, _):
            pass
        case ("delete", "-k", folder):
            documents(Path(folder) / "kustomization.yaml")
            (STATE / "installer").unlink()
        case _:
            fail("not known here")


def helm(*words):
    match words:
        case ("template", _):
            print(Path("deploy/web.yaml").read_text())
        case ("uninstall", "istio-cni", "--namespace", _) | ("install", "istio-cni", "istio/cni", "--namespace", _):
            pass  # Istio's own plugin is not there
        case ("install", "sidetrack", "cni-conf/helm/sidetrack", "--namespace", _, *_):
            # Tests of the chart compare what it renders with this.
            apply_kustomization("cni-conf/kubernetes/base")
        case ("upgrade", _, chart, *options) if chart in CHARTS:
            mesh = CHARTS[chart]
            pairs = [each for each in options if each != "--reuse-values"]
            flags = dict(zip(pairs[::2], pairs[1::2], strict=True))
            if unknown := flags.keys() - {"--namespace", "--values", "--set"}:
                fail(f"unknown flags {unknown}")
            values = documents(flags["--values"])[0] if "--values" in flags else {}
            if "proxy_init" in values.get("global", {}):
                mesh = "istio-init-container"
            remember("mesh", mesh)
        case _:
            fail("not known here")


def crictl(*words):
    match words:
        case ("inspectp", "--output", "go-template", "--template", "{{.info.pid}}", _):
            print(os.environ["POD_PID"])
        case ("pods", "--state", "ready", "--namespace", _, "--name", name, "--quiet"):
            print(f"sandbox-of-{name}")
        case _:
            fail("not known here")


{"kubectl": kubectl, "helm": helm, "crictl": crictl}[Path(sys.argv[0]).name](*sys.argv[1:])
