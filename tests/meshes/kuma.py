#!/usr/bin/env python3
"""Kuma in universal mode: its control plane, and two data planes with Envoy, once redirected by kumactl and once by us.

Usage: kuma.py DIR SIDETRACK ENVOY, where DIR has kuma-cp, kuma-dp and kumactl. Needs root, and iptables for kumactl.
"""

import pathlib
import sys

from lab import APP, USER, Lab, LabError, assign, ip, report, until

PROXY = 5678
CONTROL, SERVER, CLIENT = ("10.88.0.1", "fd88::1"), ("10.88.0.11", "fd88::11"), ("10.88.0.12", "fd88::12")
SERVICE = "demo-server.svc.mesh.local"
CONTROL_PLANE = {
    "KUMA_ENVIRONMENT": "universal", "KUMA_MODE": "zone", "KUMA_STORE_TYPE": "memory",
    "KUMA_DP_SERVER_AUTHN_DP_PROXY_TYPE": "none", "KUMA_DP_SERVER_AUTHN_ZONE_PROXY_TYPE": "none",
    "KUMA_MESH_SERVICE_GENERATION_INTERVAL": "500ms",
}
DATAPLANE = """\
type: Dataplane
mesh: default
name: {name}
labels:
  kuma.io/workload: "{name}"
  kuma.io/service: "{name}"
networking:
  address: {address}
  inbound:
  - port: 8080
    protocol: http
  transparentProxying:
    redirectPortInbound: 15006
    redirectPortOutbound: 15001
"""
FLAGS = ("--kuma-dp-user", str(PROXY), "--redirect-dns")


def main():
    directory, sidetrack, envoy = sys.argv[1:]
    kumactl = f"{directory}/kumactl"
    tools = {
        "kumactl": ((kumactl, "install", "transparent-proxy", *FLAGS), (kumactl, "uninstall", "transparent-proxy")),
        "sidetrack": ((sidetrack, "kuma-init", *FLAGS), (sidetrack, "cleanup")),
    }
    seen = {}
    for tool, (install, uninstall) in tools.items():
        with Lab() as lab:
            try:
                seen[tool] = observe(lab, pathlib.Path(directory), envoy, install, uninstall)
            except LabError as error:
                lab.print_logs()
                sys.exit(f"kuma, redirected by {tool}: {error}")
    return report("kuma", seen)


def observe(lab, directory, envoy, install, uninstall):
    """What is seen in a fresh mesh, by name: what it has to contain, and what it is."""
    control, server, client = network(lab)
    lab.start("control-plane", control, str(directory / "kuma-cp"), "run", env=CONTROL_PLANE | {
        "KUMA_GENERAL_WORK_DIR": str(lab.folder / "control-plane")})
    lab.start("names", control, *APP, "names", CONTROL[0])
    lab.start("app", server, *APP, "serve", user=USER)
    until("the control plane", lambda: lab.fetch(control, "http://127.0.0.1:5681/"), 120)
    for name, namespace, addresses in (("demo-server", server, SERVER), ("demo-client", client, CLIENT)):
        lab.must(namespace, *install)
        data_plane(lab, directory, envoy, name, namespace, addresses[0])
    until("the service", lambda: lab.app(client, "get", SERVICE, "4").startswith("200"), 90)

    seen = {}

    def see(what, wanted, namespace, *words):
        seen[what] = wanted, lab.app(namespace, *words)

    for name, codes in ((SERVICE, "code 0"), ("example.org", "code 0 ")):
        for kind in ("A", "AAAA"):
            for protocol in ("udp", "tcp"):
                see(f"{kind} of {name} by {protocol}", codes, client, "lookup", name, kind, protocol)
    for family, server_address in zip("46", SERVER):
        see(f"the service, IPv{family}", "200", client, "get", SERVICE, family)
        see(f"the server's address, IPv{family}", "200", client, "get", server_address, family)
        see(f"the server calls its own service, IPv{family}", "200", server, "get", SERVICE, family)
        see(f"the server calls its own address, IPv{family}", "200", server, "get", server_address, family)
    lab.must(client, *uninstall)
    see("the service after uninstalling", "Error", client, "get", SERVICE, "4")
    see("the server's address after uninstalling", "200", client, "get", SERVER[0], "4")
    lab.must(client, *install)
    see("the service after installing again", "200", client, "get", SERVICE, "4")
    return seen


def network(lab):
    """The control plane's namespace, with a bridge that the other two are at."""
    etc = [("resolv.conf", f"nameserver {CONTROL[0]}\n"), ("passwd", passwd())]
    control, server, client = (lab.namespace(role, *etc) for role in ("control", "server", "client"))
    ip("-n", control, "link", "add", "br0", "type", "bridge")
    ip("-n", control, "link", "set", "br0", "up")
    assign(control, "br0", CONTROL)
    for name, namespace, addresses in (("server", server, SERVER), ("client", client, CLIENT)):
        ip("-n", namespace, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", control)
        ip("-n", control, "link", "set", name, "master", "br0", "up")
        ip("-n", namespace, "link", "set", "eth0", "up")
        assign(namespace, "eth0", addresses)
        ip("-n", namespace, "route", "add", "default", "via", CONTROL[0])
        ip("-n", namespace, "-6", "route", "add", "default", "via", CONTROL[1])
    return control, server, client


def passwd():
    """Users of this machine, and the proxy's, which kumactl looks up."""
    lines = pathlib.Path("/etc/passwd").read_text().splitlines()
    others = [line for line in lines if line.split(":")[2] != str(PROXY) and line.split(":")[0] != "kuma-dp"]
    return "\n".join([*others, f"kuma-dp:x:{PROXY}:{PROXY}::/:/bin/false"]) + "\n"


def data_plane(lab, directory, envoy, name, namespace, address):
    resource = lab.folder / f"{name}.yaml"
    resource.write_text(DATAPLANE.format(name=name, address=address))
    lab.start(name, namespace, lab.copy(directory / "kuma-dp"), "run", f"--cp-address=https://{CONTROL[0]}:5678",
              f"--dataplane-file={resource}", f"--binary-path={lab.copy(envoy)}", "--dns-enabled", "--concurrency=1",
              user=PROXY, env={"KUMA_CONTROL_PLANE_TLS_SKIP_VERIFY": "true"})


if __name__ == "__main__":
    sys.exit(main())
