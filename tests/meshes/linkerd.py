#!/usr/bin/env python3
"""Linkerd's proxy in a pod, redirected by Linkerd's own program and by sidetrack, with a neighbour.

Usage: linkerd.py DIR SIDETRACK, where DIR has linkerd2-proxy and linkerd2-proxy-init. Needs root, iptables and openssl.

Each observation has the response, and how many connections the proxy accepted for it by its own metrics: in a loop it
accepts more than one. control.py stands in for the control plane.
"""

import pathlib
import re
import subprocess
import sys

from control import IDENTITY, LOOKUPS
from lab import APP, HERE, USER, Lab, LabError, assign, ip, report, until

PROXY = 2102
POD, NEIGHBOUR = ("10.89.0.2", "fd89::2"), ("10.89.0.3", "fd89::3")
LOOPBACK = ("127.0.0.1", "::1")
ADMIN = 4191
NAME = "web.shop.serviceaccount.identity.linkerd.cluster.local"
# What the chart writes, but for IPv6.
FLAGS = ("--firewall-bin-path", "iptables-nft", "--firewall-save-bin-path", "iptables-nft-save",
         "--incoming-proxy-port", "4143", "--outgoing-proxy-port", "4140", "--proxy-uid", str(PROXY),
         "--inbound-ports-to-ignore", "4190,4191,4567,4568", "--outbound-ports-to-ignore", "4567,4568")
# By the chart's disableIPv6: the address of inbound listeners, and the outbound ones.
LISTEN = {True: ("0.0.0.0", "127.0.0.1:4140"), False: ("[::]", "127.0.0.1:4140,[::1]:4140")}
COUNTER = re.compile(r'^tcp_open_total\{direction="(\w+)",peer="src",target_addr="([^"]*)".*\} (\d+)$', re.MULTILINE)


def main():
    directory, sidetrack = sys.argv[1:]
    return max([compare(pathlib.Path(directory), sidetrack, disable_ipv6) for disable_ipv6 in LISTEN])


def compare(directory, sidetrack, disable_ipv6):
    title = f"linkerd, disableIPv6: {str(disable_ipv6).lower()}"
    flags = (*FLAGS, *(["--ipv6=false"] if disable_ipv6 else []))
    family = [] if disable_ipv6 else ["--ip-family", "auto"]
    tools = {
        "linkerd2-proxy-init": (f"{directory}/linkerd2-proxy-init", *flags),
        "sidetrack linkerd-proxy-init": (sidetrack, "linkerd-proxy-init", *flags),
        "sidetrack apply": (sidetrack, "apply", "--mesh", "linkerd", *family),
    }
    seen = {}
    for tool, install in tools.items():
        with Lab() as lab:
            try:
                seen[tool] = observe(lab, directory / "linkerd2-proxy", install, disable_ipv6)
            except LabError as error:
                lab.print_logs()
                sys.exit(f"{title}, redirected by {tool}: {error}")
    return report(title, seen)


def observe(lab, proxy, install, disable_ipv6):
    """What is seen in a fresh pod, by name: what is expected, and what it is."""
    pod, neighbour = network(lab)
    lab.must(pod, *install)
    for namespace in (pod, neighbour):
        lab.start(f"app-{namespace}", namespace, *APP, "serve", user=USER)
    identity(lab)
    lab.start("control-plane", pod, sys.executable, str(HERE / "control.py"), str(lab.folder / "identity/leaf.der"))
    lab.start("proxy", pod, lab.copy(proxy), user=PROXY, env=environment(lab, disable_ipv6))
    until("the proxy", lambda: lab.fetch(pod, f"http://127.0.0.1:{ADMIN}/ready"), 60)
    for namespace in (pod, neighbour):
        until("the applications", lambda: "200" in lab.app(namespace, "get", LOOPBACK[0], "4"), 30)

    seen = {}

    def see(what, namespace, family, to, client, inbound, outbound):
        before = accepted(lab, pod)
        answer = lab.app(namespace, "get", to, family).replace("::ffff:", "")
        counts = [after - earlier for after, earlier in zip(accepted(lab, pod), before)]
        seen[f"{what}, IPv{family}"] = (
            f"200 from {client} at {to}, proxy accepted {inbound} inbound and {outbound} outbound",
            f"{answer}, proxy accepted {counts[0]} inbound and {counts[1]} outbound")

    for family, own, other, loopback in zip("46", POD, NEIGHBOUR, LOOPBACK):
        redirected = int(family == "4" or not disable_ipv6)
        see("inbound", neighbour, family, own, own if redirected else other, redirected, 0)
        see("outbound", pod, family, other, own, 0, redirected)
        see("the pod calls its own address", pod, family, own, own, 0, 0)
        see("loopback", pod, family, loopback, loopback, 0, 0)
    ready = lab.fetch(neighbour, f"http://{POD[0]}:{ADMIN}/ready")
    seen["the proxy's own port from outside"] = "ready", ready.strip()
    return seen


def network(lab):
    pod, neighbour = lab.namespace("pod"), lab.namespace("neighbour")
    ip("-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", neighbour)
    for namespace, addresses in ((pod, POD), (neighbour, NEIGHBOUR)):
        ip("-n", namespace, "link", "set", "eth0", "up")
        assign(namespace, "eth0", addresses)
    return pod, neighbour


def accepted(lab, pod):
    """How many connections the proxy has accepted, inbound and outbound, without those to its own port."""
    counts = {"inbound": 0, "outbound": 0}
    for direction, target, count in COUNTER.findall(lab.fetch(pod, f"http://127.0.0.1:{ADMIN}/metrics")):
        if not target.endswith(f":{ADMIN}"):
            counts[direction] += int(count)
    return counts.values()


def identity(lab):
    """A trust anchor, and the key and certificate of the proxy: it listens only after it has an identity."""
    folder = lab.folder / "identity"
    folder.mkdir()
    (folder / "extensions").write_text(f"subjectAltName=DNS:{NAME}\nextendedKeyUsage=serverAuth,clientAuth\n")
    (folder / "token").write_text("token")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    for command in (
        f"req -x509 {key} -days 2 -subj /CN=anchor -keyout anchor.key -out anchor.pem",
        f"req {key} -subj /CN={NAME} -keyout key.pem -outform DER -out csr.der",
        "x509 -req -inform DER -in csr.der -CA anchor.pem -CAkey anchor.key -days 2 -extfile extensions -outform DER"
        " -out leaf.der",
        "pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.p8",
    ):
        done = subprocess.run(("openssl", *command.split()), cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"openssl {command}: {done.stderr}")
    (folder / "key.p8").chmod(0o644)


def environment(lab, disable_ipv6):
    """The proxy's environment as the injector writes it, but for the control plane's address."""
    inbound, outbound = LISTEN[disable_ipv6]
    folder = lab.folder / "identity"
    variables = {
        "LOG": "info",
        "INBOUND_LISTEN_ADDR": f"{inbound}:4143",
        "OUTBOUND_LISTEN_ADDRS": outbound,
        "ADMIN_LISTEN_ADDR": f"{inbound}:{ADMIN}",
        "INBOUND_IPS": ",".join(POD),
        "INBOUND_DEFAULT_POLICY": "all-unauthenticated",
        "POLICY_WORKLOAD": "shop:web-0",
        "POLICY_SVC_ADDR": f"127.0.0.1:{LOOKUPS}",
        "DESTINATION_SVC_ADDR": f"127.0.0.1:{LOOKUPS}",
        "IDENTITY_SVC_ADDR": f"127.0.0.1:{IDENTITY}",
        "IDENTITY_DIR": str(folder),
        "IDENTITY_TOKEN_FILE": str(folder / "token"),
        "IDENTITY_LOCAL_NAME": NAME,
        "IDENTITY_TRUST_ANCHORS": (folder / "anchor.pem").read_text(),
    }
    return {f"LINKERD2_PROXY_{name}": value for name, value in variables.items()}


if __name__ == "__main__":
    sys.exit(main())
