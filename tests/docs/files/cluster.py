#!/usr/bin/env python3
"""kubectl, helm and crictl for commands of the documentation: what they would set off on a node happens for real.

Manifests are compared with the schemas of Kubernetes, the installer's container runs `sidetrack node install`, a pod that
starts has its init containers run or the CNI plugin called in the network namespace `pod`. A command that is not known
here fails.
"""

import base64
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

BIN, CONF, CACHE = "/opt/cni/bin", Path("/etc/cni/net.d"), Path("/var/lib/cni/results")
NODE, INSTALLER, IMAGE = "node-1", "sidetrack-node-x7k2p", "registry.example/sidetrack:0.1.0"
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
    if any(Path(folder, each).name == "repair" for each in kustomization.get("components", [])):
        remember("repair", True)
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
    text = sorted(CONF.glob("*.conflist"))[0].read_bytes()
    conflist = json.loads(text)
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
        cache(text, netconf, variables)


def cache(conflist, netconf, variables):
    """What libcni keeps of an attachment, with the bytes of the chain."""
    listed = json.loads(in_pod("ip", "-json", "address", check=True, capture_output=True).stdout)
    addresses = [address for link in listed for address in link["addr_info"] if address["scope"] == "global"]
    kept = {
        "kind": "cniCacheV1",
        "containerId": variables["CNI_CONTAINERID"],
        "ifName": variables["CNI_IFNAME"],
        "networkName": netconf["name"],
        "config": base64.b64encode(conflist).decode(),
        "netns": "/var/run/netns/pod",
        "cniArgs": [pair.split("=") for pair in variables["CNI_ARGS"].split(";")],
        "capabilityArgs": netconf["runtimeConfig"],
        "result": {"ips": [{"address": f"{each['local']}/{each['prefixlen']}"} for each in addresses]},
    }
    (CACHE / f"{netconf['name']}-{variables['CNI_CONTAINERID']}-eth0").write_text(json.dumps(kept))


def sidetrack(arguments, told, places):
    """Runs the program on the node, where these directories are mounted. Ends with its code."""
    variables = {f"SIDETRACK_NODE_{name}": str(place) for name, place in places.items()}
    sys.exit(subprocess.run(["sidetrack", *arguments], env={**os.environ, **told, **variables}).returncode)


def in_installer(arguments):
    told = {name: value for name, value in recall("installer", {}).items() if "HEALTH" not in name}
    netns = "/run/netns" if recall("repair", False) else "/nonexistent"
    places = {"CNI_BIN_DIR": BIN, "CNI_CONF_DIR": CONF, "CNI_CACHE_DIR": CACHE, "NETNS_DIR": netns, "PROC_DIR": "/proc"}
    sidetrack(arguments, told, places)


def in_debug_pod(name, overrides, arguments):
    """The whole node is mounted at /host, and the container sees all its processes."""
    spec = json.loads(overrides)["spec"]
    (container,) = spec["containers"]
    (mount,), (volume,) = container["volumeMounts"], spec["volumes"]
    is_on_node = spec["nodeName"] == NODE and spec["hostPID"] and container["securityContext"]["privileged"]
    is_mounted = (volume["name"], volume["hostPath"]["path"]) == (mount["name"], "/") and mount["mountPath"] == "/host"
    if not (container["name"] == name and is_on_node and is_mounted):
        fail("the pod is not on the node, or sees not all of it")
    told = {each["name"]: each["value"].removeprefix("/host") for each in container["env"]}
    sidetrack(arguments, told, {"CNI_CONF_DIR": CONF, "CNI_CACHE_DIR": CACHE})


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
        case ("rollout", "restart", "daemonset/consul-cni"):
            pass  # as the command of the chart before it
        case ("rollout", "restart", workload) if workload.startswith("statefulset/"):
            start(injected())
        case ("describe", "pod" | "replicaset"):
            print(yaml.safe_dump(recall("pod", injected())))
        case ("get", "pod", _, "-o", "yaml"):
            print(yaml.safe_dump(recall("pod", injected())))
        case ("get", "pods", "-A", "-o", "yaml"):
            print(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": documents("deploy/web.yaml")}))
        case ("sidetrack", *arguments):
            sys.exit(subprocess.run(["kubectl-sidetrack", *arguments]).returncode)
        case ("config", "view", "--minify", "--output", "jsonpath={..namespace}"):
            print("shop", end="")
        case ("get", "pod", name, "--output", "jsonpath={.spec.nodeName}"):
            if name != recall("pod", injected())["metadata"]["name"]:
                sys.exit(f'Error from server (NotFound): pods "{name}" not found')
            print(NODE, end="")
        case ("get", "pods", "--selector", label, "--field-selector", fields, "--output", _):
            running = "status.phase=Running"
            known = (running, f"{running},spec.nodeName={NODE}")
            if label != "app.kubernetes.io/name=sidetrack-node" or fields not in known:
                fail("no such label or node")
            if recall("installer", None):
                print(INSTALLER, NODE, IMAGE)
        case ("exec", installer, "--container", "install", "--", "/sidetrack", *arguments) if installer == INSTALLER:
            in_installer(arguments)
        case ("run", name, "--image", _, "--restart", "Never", "--attach", "--rm", "--quiet", *rest):
            match rest:
                case ("--override-type", "strategic", "--overrides", overrides, "--", *arguments):
                    in_debug_pod(name, overrides, arguments)
                case _:
                    fail("not known here")
        case ("logs", _, "-c", container):
            print((STATE / f"log-{container}").read_text(), end="")
        case ("create", "namespace", _) | ("label", "namespace", _, _):
            pass
        case ("delete", "pod", "--selector", "component=cni"):
            pass  # Consul's own plugin is not there
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
