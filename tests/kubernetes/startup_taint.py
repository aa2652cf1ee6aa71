"""What the installer's account may do with nodes, asked of a real API server; then the installer itself removes its taint.

A part of admission.py, which starts the server and applies cni-conf/kubernetes/taint.
"""

import json
import pathlib
import subprocess
import tempfile
import time

KEY = "traffic.sidetrack.dev/not-ready"
NODE, OTHER = "/api/v1/nodes/node-1", "/api/v1/nodes/node-2"
MERGE, STRATEGIC, PATCH, APPLY, PLAIN = (
    f"application/{kind}"
    for kind in ("merge-patch+json", "strategic-merge-patch+json", "json-patch+json", "apply-patch+yaml", "json")
)
# The beginnings of what it answers.
WHERE, TAINTS, FIELDS, RIGHT = "not the node of this token", "only the taint", "nothing of a node", "cannot "
FIRST = {"key": "example.com/first", "effect": "NoSchedule"}
LAST = {"key": "example.com/last", "value": "x", "effect": "NoExecute"}
THIRD = {"key": "example.com/third", "effect": "PreferNoSchedule"}
OURS = {"key": KEY, "value": "true", "effect": "NoSchedule"}
EXECUTE = {"key": KEY, "effect": "NoExecute"}
LIST = [FIRST, OURS, LAST]


def removal(*indices, taint=OURS):
    """What the installer sends (src/node/startup_taint/patch.rs)."""
    operations = []
    for index in indices:
        path = f"/spec/taints/{index}"
        operations += [{"op": "test", "path": path, "value": taint}, {"op": "remove", "path": path}]
    return operations


def taints_of(node):
    # The server dates taints that evict.
    return [{k: v for k, v in taint.items() if k != "timeAdded"} for taint in node["spec"].get("taints", [])]


def taint(ask, taints, path=NODE):
    """The admin sets the taints of a node."""
    status, node = ask("PATCH", path, {"spec": {"taints": taints}}, MERGE)
    assert status == 200, node


def requests():
    """What is asked of a node with the taints LIST, and how it is answered: name, method, path, body, kind, status, text."""

    def merge(name, body, expected, says, kind=MERGE):
        return name, "PATCH", NODE, body, kind, expected, says

    def taints(name, *taints):
        return merge(name, {"spec": {"taints": list(taints)}}, 403, TAINTS)

    created = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-3"}}
    applied = "?fieldManager=a&force=true"
    return [
        ("read", "PATCH", NODE, {}, MERGE, 200, KEY),
        ("read another node", "PATCH", OTHER, {}, MERGE, 403, WHERE),
        ("get", "GET", NODE, None, PLAIN, 403, RIGHT),
        ("list", "GET", "/api/v1/nodes", None, PLAIN, 403, RIGHT),
        ("delete", "DELETE", NODE, {}, PLAIN, 403, RIGHT),
        ("the status", "PATCH", f"{NODE}/status", {}, MERGE, 403, RIGHT),
        ("the kubelet", "GET", f"{NODE}/proxy/pods", None, PLAIN, 403, RIGHT),
        ("a new node", "PATCH", f"/api/v1/nodes/node-3{applied}", created, APPLY, 403, RIGHT),
        taints("one more taint", *LIST, {"key": "a", "effect": "NoExecute"}),
        taints("the taint twice", *LIST, EXECUTE),
        taints("another taint removed", OURS, LAST),
        taints("all taints removed"),
        taints("another taint removed with it", LAST),
        taints("another order", LAST, FIRST),
        taints("another effect", FIRST, {**OURS, "effect": "NoExecute"}, LAST),
        taints("another value", FIRST, {**OURS, "value": "false"}, LAST),
        merge("taints by strategy", {"spec": {"taints": [{"$patch": "delete", **OURS}]}}, 403, TAINTS, STRATEGIC),
        merge("a label", {"metadata": {"labels": {"a": "b"}}}, 403, FIELDS),
        merge("labels removed", {"metadata": {"labels": None}}, 403, FIELDS),
        merge("an annotation", {"metadata": {"annotations": {"a": "b"}}}, 403, FIELDS),
        merge("a finalizer", {"metadata": {"finalizers": ["example.com/f"]}}, 403, FIELDS),
        merge("an owner", {"metadata": {"ownerReferences": [owner()]}}, 403, FIELDS),
        merge("schedulable again", {"spec": {"unschedulable": None}}, 403, FIELDS),
        merge("a provider", {"spec": {"providerID": "a://b"}}, 403, FIELDS),
        merge("addresses", {"spec": {"podCIDR": "10.9.0.0/24", "podCIDRs": ["10.9.0.0/24"]}}, 403, FIELDS),
        merge("the status, which stays", {"status": {"addresses": [{"type": "InternalIP", "address": "1.2.3.4"}]}}, 200, KEY),
        merge("a label with the removal", {"metadata": {"labels": {"a": "b"}}, "spec": {"taints": [FIRST, LAST]}}, 403, FIELDS),
        ("another index", "PATCH", NODE, removal(0), PATCH, 422, ""),
        ("no such index", "PATCH", NODE, removal(9), PATCH, 422, ""),
        ("another node", "PATCH", OTHER, removal(1), PATCH, 403, WHERE),
        ("no such node", "PATCH", "/api/v1/nodes/none", {}, MERGE, 404, "not found"),
        ("removal", "PATCH", NODE, removal(1), PATCH, 200, ""),
    ]


def owner():
    return {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "d00c432f-6d6e-45f2-badc-4b1742a43bbb"}


# Which answers are kept for tests of the installer.
RECORDED = {
    "read": "node-200.json",
    "another node": "taint-403.json",
    "another index": "taint-422.json",
    "removal": "node-untainted-200.json",
}


class Count:
    wrong = 0

    def __call__(self, is_right, name, text):
        self.wrong += not is_right
        print(f"{'ok   ' if is_right else 'WRONG'} node: {name}: {text}")


def examine(ask, token, unbound, folder):
    """Returns how many answers are wrong. Keeps answers in the folder, if there is one."""
    count = Count()
    kept = {"metadata": {"labels": {"kept": "yes"}, "annotations": {"kept": "yes"}}, "spec": {"unschedulable": True}}
    for path in (NODE, OTHER):
        taint(ask, LIST, path)
        ask("PATCH", path, kept, MERGE)
    wait_for_policy(ask, token)
    before = ask("GET", NODE)[1]
    for name, method, path, body, kind, expected, says in requests():
        # A token that no node is named in may do nothing.
        status, answer = ask(method, path, body, kind, unbound)
        if path != "/api/v1/nodes/none" and status != 422:
            count(status == 403, f"{name}, without a node", f"{status} {answer.get('message', '')}")
        status, answer = ask(method, path, body, kind, token)
        count(status == expected and says in json.dumps(answer), name, f"{status} {answer.get('message', '')}")
        after = ask("GET", NODE)[1]
        if name != "removal":
            count(after == before, f"{name}: the node stays", f"resourceVersion {after['metadata']['resourceVersion']}")
        if folder and name in RECORDED:
            (folder / RECORDED[name]).write_text(json.dumps(answer, indent=2) + "\n")
    count(taints_of(after) == [FIRST, LAST], "the others stay in their order", taints_of(after))

    # Another one adds a taint in between: before ours it is refused, after ours it stays.
    taint(ask, [THIRD, *LIST])
    count(ask("PATCH", NODE, removal(1), PATCH, token)[0] == 422, "a taint came before it", "refused")
    count(ask("PATCH", NODE, removal(2), PATCH, token)[0] == 200, "a taint came before it, again", "removed")
    taint(ask, [OURS, EXECUTE, FIRST])
    both = removal(1, taint=ask("GET", NODE)[1]["spec"]["taints"][1]) + removal(0)
    status, answer = ask("PATCH", NODE, both, PATCH, token)
    count(status == 200 and taints_of(answer) == [FIRST], "both effects", answer.get("message", "removed"))
    taint(ask, [OURS])
    status, answer = ask("PATCH", NODE, removal(0), PATCH, token)
    count(status == 200 and taints_of(answer) == [], "the only taint", answer.get("message", "removed"))
    return count.wrong


def run_installer(ask, program, token, certificate):
    """The program removes the taint once it is ready, and again when it comes back. Returns how much is wrong."""
    count = Count()
    taint(ask, LIST)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in ("bin", "conf", "account", "cache"):
            (folder / name).mkdir()
        (folder / "account/token").write_text(token)
        (folder / "account/ca.crt").write_bytes(certificate.read_bytes())
        environment = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": "6443",
            "SIDETRACK_NODE_SERVICE_ACCOUNT_DIR": str(folder / "account"),
            "SIDETRACK_NODE_STARTUP_TAINT": KEY,
            "SIDETRACK_NODE_NODE_NAME": "node-1",
        }
        places = {"cni-bin-dir": "bin", "cni-conf-dir": "conf", "cni-cache-dir": "cache", "socket": "log.sock"}
        options = [f"--{name}={folder / place}" for name, place in places.items()]
        log = (folder / "log").open("w")
        installer = subprocess.Popen([program, "node", "install", *options], env=environment, stderr=log)
        try:
            time.sleep(3)
            count(taints_of(ask("GET", NODE)[1]) == LIST, "installer", "leaves the taint while it is not ready")
            plugins = {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp"}]}
            (folder / "conf/10-pods.conflist").write_text(json.dumps(plugins))
            count(eventually_untainted(ask), "installer", "removes the taint once it is ready")
            taint(ask, [THIRD, *LIST])
            count(eventually_untainted(ask, [THIRD, FIRST, LAST]), "installer", "removes the taint when it comes back")
        finally:
            installer.terminate()
            installer.wait()
        text = (folder / "log").read_text()
        count(text.count("startup taint removed") == 2, "installer", text)
    return count.wrong


def eventually_untainted(ask, expected=(FIRST, LAST)):
    for _ in range(200):
        if taints_of(ask("GET", NODE)[1]) == list(expected):
            return True
        time.sleep(0.5)
    return False


def wait_for_policy(ask, token):
    """It takes moments to come into force."""
    for _ in range(60):
        if "ValidatingAdmissionPolicy" in json.dumps(ask("PATCH", OTHER, {}, MERGE, token)):
            return
        time.sleep(0.5)
    raise SystemExit("the policy about nodes is not in force")
