"""Which pods a real API server admits: by the levels of Pod Security, and by the policy on annotations that exclude
traffic. Parts of admission.py."""

import copy
import subprocess
import time

import yaml

# What `restricted` asks of a container.
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
EXCLUSION = "traffic.sidecar.istio.io/excludeOutboundPorts"
OURS = "traffic.sidetrack.dev/"


def pod(annotations=None, init_containers=()):
    """A pod of a mesh, as its injector leaves it with the plugin, or with these init containers."""
    containers = [
        {"name": name, "image": "img:1", "securityContext": {**RESTRICTED, "runAsUser": user}}
        for name, user in (("app", 1000), ("istio-proxy", 1337))
    ]
    return {
        "metadata": {"name": "p", "annotations": {"sidecar.istio.io/status": "{}", **(annotations or {})}},
        "spec": {
            "containers": containers,
            "initContainers": list(init_containers),
            "automountServiceAccountToken": False,
        },
    }


def examine_levels(ask, examples):
    """Pods with the plugin pass `restricted`; those with an init container pass `privileged` alone."""
    example = yaml.safe_load((examples / "plain-envoy.yaml").read_text())
    init = {**copy.deepcopy(example["spec"]["initContainers"][0]), "image": "img:1"}
    wrong = 0
    for level in ("privileged", "baseline", "restricted"):
        labels = {"pod-security.kubernetes.io/enforce": level}
        status, answer = ask("POST", "/api/v1/namespaces", {"metadata": {"name": level, "labels": labels}})
        assert status == 201, answer
        account = f"/api/v1/namespaces/{level}/serviceaccounts"
        ask("POST", account, {"metadata": {"name": "default"}})
        for form, body, admitted in (
            ("with the plugin", pod(), True),
            ("with an init container", pod(init_containers=[init]), level == "privileged"),
        ):
            status, answer = ask("POST", f"/api/v1/namespaces/{level}/pods?dryRun=All", body)
            text = answer.get("message", "")
            is_right = status == 201 if admitted else status == 403 and "NET_ADMIN" in text
            wrong += not is_right
            print(f"{'ok   ' if is_right else 'WRONG'} a pod {form} at level {level}: {status} {text}")
    return wrong


def examine_exclusions(ask, environment, policy):
    """The policy of cni-conf/kubernetes/annotations."""
    apply = ["kubectl", "apply", "--validate=false", "-f", policy]
    subprocess.run(apply, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    labels = {"traffic.sidetrack.dev/exclusions": "allowed"}
    for name, given in (("team", {}), ("trusted", labels)):
        status, answer = ask("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": given}})
        assert status == 201, answer
        ask("POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
    for _ in range(60):  # a policy takes moments to come into force
        if ask("POST", "/api/v1/namespaces/team/pods?dryRun=All", pod({EXCLUSION: "1"}))[0] == 403:
            break
        time.sleep(0.5)
    wrong = 0
    for annotations, admitted in (
        ({}, True),
        # What Istio's injector writes by itself.
        ({"traffic.sidecar.istio.io/excludeInboundPorts": "15020", EXCLUSION: ""}, True),
        ({"traffic.sidecar.istio.io/includeOutboundIPRanges": "*"}, True),
        ({f"{OURS}redirect": "true", f"{OURS}proxy-uid": "1000659999"}, True),
        ({EXCLUSION: "5432"}, False),
        ({"traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/8"}, False),
        ({"sidecar.istio.io/interceptionMode": "NONE"}, False),
        ({"config.linkerd.io/skip-outbound-ports": "25"}, False),
        ({"traffic.kuma.io/exclude-outbound-ports-for-uids": "tcp:80:1000"}, False),
        ({"consul.hashicorp.com/transparent-proxy-exclude-uids": "1000"}, False),
        ({f"{OURS}redirect": "false"}, False),
        ({f"{OURS}exclude-uids": "1000"}, False),
        ({f"{OURS}include-outbound-cidrs": ""}, False),
    ):
        for namespace, is_admitted in (("team", admitted), ("trusted", True)):
            status, answer = ask("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod(annotations))
            text = answer.get("message", "")
            says = all(name in text for name in annotations) and f"{OURS}exclusions=allowed" in text
            is_right = status == 201 if is_admitted else status == 403 and says
            wrong += not is_right
            print(f"{'ok   ' if is_right else 'WRONG'} {annotations} in {namespace}: {status} {text}")
    return wrong + examine_changes(ask)


def examine_changes(ask):
    """A pod that is there may be changed, except to exclude traffic."""
    status, answer = ask("POST", "/api/v1/namespaces/team/pods", pod())
    assert status == 201, answer
    wrong = 0
    for change, expected in (({"metadata": {"labels": {"a": "b"}}}, 200), ({"metadata": {"annotations": {EXCLUSION: "1"}}}, 403)):
        path, kind = "/api/v1/namespaces/team/pods/p", "application/merge-patch+json"
        status, answer = ask("PATCH", path, change, kind)
        wrong += status != expected
        print(f"{'ok   ' if status == expected else 'WRONG'} a change {change}: {status} {answer.get('message', '')}")
    return wrong
