"""What the account of the installer may do, by the answers of a real API server.

Usage: admission.py KUBE-APISERVER ETCD SIDETRACK [--record]

Run by scripts/test-admission in a network namespace of its own. Each request has the answer that it should get.
"""

import json
import pathlib
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import startup_taint

import pods

HERE = pathlib.Path(__file__).parent
MANIFESTS = HERE.parent.parent / "cni-conf/kubernetes"
SERVER = "https://127.0.0.1:6443"
ADMIN = "the.token.of.the.admin"
MERGE, STRATEGIC, JSON = (
    f"application/{kind}json" for kind in ("merge-patch+", "strategic-merge-patch+", "")
)
OTHER_UID = "d00c432f-6d6e-45f2-badc-4b1742a43bbb"
LABELS = {"labels": {"traffic.sidetrack.dev/bypasses-proxy": "true"}}
# The beginnings of what it answers.
NODE, LABEL, RIGHT = "pod is not on the node of this token", "only the label", "cannot "


def ask(method, path, body=None, kind=JSON, token=ADMIN):
    """The status and the answer."""
    request = urllib.request.Request(f"{SERVER}{path}", method=method)
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", kind)
    data = None if body is None else json.dumps(body).encode()
    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(request, data, context=context) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def create(path, body):
    status, answer = ask("POST", path, body)
    assert status == 201, answer
    return answer


def create_pod(namespace, name, node, account="default"):
    pod = {
        "metadata": {"name": name, "labels": {"app": name}, "annotations": {"sidecar.istio.io/status": "{}"}},
        "spec": {
            "nodeName": node,
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "containers": [{"name": "app", "image": "img:1"}],
        },
    }
    uid = create(f"/api/v1/namespaces/{namespace}/pods", pod)["metadata"]["uid"]
    status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    ask("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": status}, MERGE)
    return uid


def furnish(environment):
    """Two nodes with pods, a budget that allows nothing, the account. Returns UIDs and a token of each kind."""
    for node in ("node-1", "node-2"):
        create("/api/v1/nodes", {"metadata": {"name": node}})
    for namespace in ("sidetrack-system", "shop"):
        create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "default"}})
    files = [f"{component}/{name}" for component in ("restart", "taint") for name in ("role", "rolebinding", "admission")]
    for file in ["base/serviceaccount", *files]:
        apply = ["kubectl", "apply", "--namespace=sidetrack-system", "--validate=false", "-f", MANIFESTS / f"{file}.yaml"]
        subprocess.run(apply, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    create_pod("sidetrack-system", "sidetrack-node-x7k2p", "node-1", "sidetrack-node")
    uids = {name: create_pod("shop", name, "node-1") for name in ("web-0", "web-1", "blocked-0")}
    uids["far-0"] = create_pod("shop", "far-0", "node-2")
    budgets = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets"
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "blocked-0"}}}
    create(budgets, {"metadata": {"name": "blocked"}, "spec": spec})
    status = {"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
    ask("PATCH", f"{budgets}/blocked/status", {"status": status}, MERGE)
    tokens = "/api/v1/namespaces/sidetrack-system/serviceaccounts/sidetrack-node/token"
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "sidetrack-node-x7k2p"}
    token = create(tokens, {"spec": {"boundObjectRef": bound}})["status"]["token"]
    return uids, token, create(tokens, {"spec": {}})["status"]["token"]


def requests(uids):
    """What is asked, and how it should be answered: name, method, path, body, kind, status, what the answer says."""

    def status(name, pod, body, expected, says="", kind=MERGE):
        return name, "PATCH", f"/pods/{pod}/status", body, kind, expected, says

    def eviction(name, pod, preconditions, expected, says="", version="policy/v1"):
        body = {"apiVersion": version, "kind": "Eviction", "metadata": {"namespace": "shop", "name": pod}}
        if preconditions:
            body["deleteOptions"] = {"preconditions": preconditions}
        return name, "POST", f"/pods/{pod}/eviction", body, JSON, expected, says

    def event(name, host, expected, says=""):
        about = {"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "web-1"}
        source = {"component": "sidetrack-node", "host": host}
        body = {"metadata": {"generateName": "sidetrack-"}, "involvedObject": about, "source": source, "reason": "A"}
        return name, "POST", "/events", body, JSON, expected, says

    def labelled(uid):
        return {"metadata": {"uid": uid, **LABELS}}

    image = {"spec": {"containers": [{"name": "app", "image": "evil:1"}]}}
    condition = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    uid = {"uid": uids["web-0"]}
    return [
        status("label", "web-0", labelled(uids["web-0"]), 200),
        status("label again", "web-0", labelled(uids["web-0"]), 200),
        status("other-uid", "web-0", labelled(OTHER_UID), 422, "field is immutable"),
        status("label", "far-0", labelled(uids["far-0"]), 403, NODE),
        status("no such pod", "none", labelled(OTHER_UID), 404),
        status("address", "web-0", {"status": {"podIP": "10.0.0.66", "podIPs": [{"ip": "10.0.0.66"}]}}, 403, LABEL),
        status("condition", "web-0", condition, 403, LABEL, STRATEGIC),
        status("annotation", "web-0", {"metadata": {"annotations": {"a": "b"}}}, 403, LABEL),
        status("no annotations", "web-0", {"metadata": {"annotations": None}}, 403, LABEL),
        status("finalizer", "web-0", {"metadata": {"finalizers": ["example.com/f"]}}, 403, LABEL),
        status("another label", "web-0", {"metadata": {"labels": {"x": "y"}}}, 403, LABEL),
        status("a changed label", "web-0", {"metadata": {"labels": {"app": "far-0"}}}, 403, LABEL),
        status("a removed label", "web-0", {"metadata": {"labels": {"app": None}}}, 403, LABEL),
        status("all labels", "web-0", {"metadata": {"labels": None}}, 403, LABEL),
        status("the image, which stays", "web-0", image, 200, "img:1"),
        ("the image", "PATCH", "/pods/web-0", image, STRATEGIC, 403, RIGHT),
        ("the image, tried", "PATCH", "/pods/web-0?dryRun=All", image, STRATEGIC, 403, RIGHT),
        ("read", "GET", "/pods/web-0", None, JSON, 403, RIGHT),
        ("read the status", "GET", "/pods/web-0/status", None, JSON, 403, RIGHT),
        ("list", "GET", "/pods", None, JSON, 403, RIGHT),
        ("delete", "DELETE", "/pods/web-1", {}, JSON, 403, RIGHT),
        ("execute", "POST", "/pods/web-0/exec?command=id&stdout=1", {}, JSON, 403, RIGHT),
        event("an event of its node", "node-1", 201),
        event("an event of another node", "node-2", 403, "node of this token"),
        eviction("no UID", "web-0", None, 403, "UID of the pod"),
        eviction("no UID", "web-0", None, 403, "UID of the pod", "policy/v1beta1"),
        eviction("a version alone", "web-0", {"resourceVersion": "1"}, 403, "UID of the pod"),
        eviction("another UID", "web-0", {"uid": OTHER_UID}, 409),
        eviction("eviction", "blocked-0", {"uid": uids["blocked-0"]}, 429, "DisruptionBudget"),
        eviction("eviction", "far-0", {"uid": uids["far-0"]}, 403, NODE),
        eviction("eviction", "web-0", uid, 201),
    ]


# Which answers are kept for tests of the installer: name and path, and the file.
RECORDED = {
    ("other-uid", "/pods/web-0/status"): "other-uid-422.json",
    ("label", "/pods/far-0/status"): "label-403.json",
    ("eviction", "/pods/blocked-0/eviction"): "eviction-429.json",
    ("eviction", "/pods/far-0/eviction"): "eviction-403.json",
    ("eviction", "/pods/web-0/eviction"): "eviction-201.json",
}


def main(apiserver, etcd, program, record):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        key, public = folder / "sa.key", folder / "sa.pub"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", public], check=True, stderr=subprocess.DEVNULL)
        (folder / "tokens").write_text(f'{ADMIN},admin,admin,"system:masters"\n')
        cluster = {"name": "c", "cluster": {"server": SERVER, "insecure-skip-tls-verify": True}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [cluster],
            "users": [{"name": "a", "user": {"token": ADMIN}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "a"}}],
            "current-context": "c",
        }
        (folder / "config").write_text(json.dumps(config))
        log = (folder / "log").open("w")
        store = [etcd, "--data-dir", folder / "etcd", "--log-level", "error"]
        server = [
            apiserver,
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--cert-dir={folder / 'certificates'}",
            f"--token-auth-file={folder / 'tokens'}",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC",
        ]
        processes = [subprocess.Popen(command, stdout=log, stderr=log) for command in (store, server)]
        try:
            wait_for_server(folder / "log")
            environment = {"KUBECONFIG": folder / "config", "HOME": folder, "PATH": "/usr/bin:/bin"}
            return examine(environment, program, folder / "certificates/apiserver.crt", record)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def wait_for_server(log):
    for _ in range(300):
        try:
            # As JSON it says something once its roles are there.
            if ask("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/edit")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(1)
    sys.exit(f"the API server does not get ready:\n{log.read_text()[-2000:]}")


def examine(environment, program, certificate, record):
    uids, token, unbound = furnish(environment)
    wait_for_policies(token, uids)
    wrong = 0
    for name, method, path, body, kind, expected, says in requests(uids):
        status, answer = ask(method, "/api/v1/namespaces/shop" + path, body, kind, token)
        text = json.dumps(answer)
        is_right = status == expected and says in text
        wrong += not is_right
        print(f"{'ok   ' if is_right else 'WRONG'} {name} ({method} {path}): {status} {answer.get('message', '')}")
        if record and (name, path) in RECORDED:
            (HERE / RECORDED[name, path]).write_text(json.dumps(answer, indent=2) + "\n")
    # A token that no node is named in may do nothing at all.
    for name, method, path, body, kind, *_ in requests(uids):
        if path.endswith(("/status", "/eviction", "/events")) and "UID" not in name and method != "GET":
            status, answer = ask(method, "/api/v1/namespaces/shop" + path, body, kind, unbound)
            if status < 400:
                wrong += 1
                print(f"WRONG without a node: {name} ({method} {path}): {status}")
    wrong += startup_taint.examine(ask, token, unbound, HERE if record else None)
    wrong += startup_taint.run_installer(ask, program, token, certificate)
    wrong += pods.examine_levels(ask, MANIFESTS.parent / "examples")
    wrong += pods.examine_exclusions(ask, environment, MANIFESTS / "annotations/admission.yaml")
    print(f"{wrong} wrong")
    return wrong


def wait_for_policies(token, uids):
    """They take moments to come into force."""
    for name, path, body, kind in (
        ("label", "/pods/far-0/status", {"metadata": LABELS}, MERGE),
        ("events", "/events", {"metadata": {"generateName": "a-"}, "involvedObject": {"namespace": "shop"}}, JSON),
        ("evictions", "/pods/far-0/eviction?dryRun=All", {"metadata": {"name": "far-0"}}, JSON),
    ):
        method = "PATCH" if kind == MERGE else "POST"
        if name == "evictions":
            body = {"apiVersion": "policy/v1", "kind": "Eviction", **body}
        for _ in range(60):
            if "ValidatingAdmissionPolicy" in json.dumps(ask(method, "/api/v1/namespaces/shop" + path, body, kind, token)):
                break
            time.sleep(0.5)
        else:
            sys.exit(f"the policy about {name} is not in force")


if __name__ == "__main__":
    apiserver, etcd, program, *options = sys.argv[1:]
    sys.exit(1 if main(apiserver, etcd, program, "--record" in options) else 0)
