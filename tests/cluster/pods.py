"""Pods of the suite: servers, clients, and web pods with Envoy in each form of redirection."""

import copy
import json

import yaml

from cluster import APP, ENVOY, ROOT

PORT = 8080
# As Istio's injector marks a pod whose rules the plugin writes.
INJECTED = {"sidecar.istio.io/status": json.dumps({"initContainers": [], "containers": ["istio-proxy"]})}
RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
# Where the proxy's configuration is mounted.
CONFIGURATION = "envoy"


def urls(addresses, port=PORT):
    return [f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}" for address in addresses]


def _container(name, image, user, *words):
    security = {**RESTRICTED, "runAsUser": user, "runAsGroup": user}
    return {"name": name, "image": image, "args": list(words), "securityContext": security}


def pod(name, *containers, annotations=None, labels=None, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {}, "labels": labels or {}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 1,
            "containers": list(containers),
            **spec,
        },
    }


def _application(command, *words):
    container = _container("app", APP, 1000)
    return {**container, "command": ["/app", command, *words]}


def server(name, **options):
    """Answers with the address that a request comes from."""
    probe = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    return pod(name, {**_application("serve", str(PORT)), "readinessProbe": probe}, **options)


def client(name, *addresses, annotations=INJECTED, **options):
    """Asks each URL once and ends. It has no proxy: if it is redirected, its connections are refused."""
    return pod(name, _application("get", *addresses), annotations=annotations, restartPolicy="Never", **options)


def idle(name, annotations=INJECTED, **options):
    return pod(name, _application("pause"), annotations=annotations, **options)


def configuration():
    """The configuration of Envoy for `web`, that of all tests."""
    text = (ROOT / "tests/envoy/sidecar.yaml").read_text()
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIGURATION}, "data": {"envoy.yaml": text}}


def _proxy():
    words = ("-c", "/etc/envoy/envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn")
    return {
        **_container("istio-proxy", ENVOY, 1337, *words),
        "startupProbe": {
            "exec": {"command": ["/app", "get", "http://127.0.0.1:15000/ready"]},
            "timeoutSeconds": 20,
            "periodSeconds": 1,
            "failureThreshold": 300,
        },
        "volumeMounts": [{"name": CONFIGURATION, "mountPath": "/etc/envoy"}],
    }


def init_container():
    """That of the example, with its own security context."""
    example = yaml.safe_load((ROOT / "cni-conf/examples/plain-envoy.yaml").read_text())
    container = copy.deepcopy(example["spec"]["initContainers"][0])
    return {**container, "args": ["apply"]}


def web(name, form, **options):
    """An application with Envoy. Its probes come by Envoy too, as does every request. Forms: plugin, init, native (a
    native sidecar, with the plugin), none (no rules)."""
    slow = {"timeoutSeconds": 10, "failureThreshold": 10}
    application = {
        **_application("serve", str(PORT)),
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1, **slow},
        "livenessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 5, **slow},
    }
    containers, first = [application], []
    if form == "init":
        first.append(init_container())
    if form == "native":
        first.append({**_proxy(), "restartPolicy": "Always"})
    else:
        containers.insert(0, _proxy())
    annotations = INJECTED if form in ("plugin", "native") else {}
    made = pod(name, *containers, annotations={**annotations, **options.pop("annotations", {})}, **options)
    made["spec"]["volumes"] = [{"name": CONFIGURATION, "configMap": {"name": CONFIGURATION}}]
    made["spec"]["initContainers"] = first
    return made


def is_ready(of):
    return any(one["type"] == "Ready" and one["status"] == "True" for one in of["status"].get("conditions", []))


def template(of):
    """A pod as the template of a controller."""
    metadata = {key: value for key, value in of["metadata"].items() if key != "name"}
    return {"metadata": metadata, "spec": of["spec"]}


def controller(kind, name, of, **spec):
    """A controller of apps/v1 that makes such pods."""
    labels = {"app": name}
    of = copy.deepcopy(of)
    of["metadata"]["labels"].update(labels)
    spec = {"selector": {"matchLabels": labels}, "template": template(of), **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
