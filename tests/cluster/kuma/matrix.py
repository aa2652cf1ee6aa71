"""The calls that are compared between the ways of redirection: who answers, and which Envoys took part."""

import contextlib
import re

from meshes.matrix import Roles

# Where kuma-dp has put the socket of its Envoy.
ENVOY = "used:/tmp/kuma-dp-*/kuma-envoy-admin.sock"
# Kuma names a server of a headless Service by its pod, and a hash.
HASH = re.compile("_server-[0-9a-f]+_")
# What a caller sees whose connection is closed without an answer, by chance.
CLOSED = {"connection reset": "closed", "EOF": "closed", "server closed": "closed"}


def matrix(mesh, space):
    """What each call in this namespace came to, by name: the answer, and the clusters that the Envoys of the caller and
    of the server used."""
    server, outside = mesh.addresses(space, "server"), mesh.addresses("outside", "outside")
    calls = {
        "client": {
            "Service": f"get:http://server.{space}:8080/",
            "headless Service": f"get:http://server-headless.{space}:8080/",
            "pod": f"get:http://{server[0]}:8080/",
            "pod, IPv6": f"get:http://[{server[1]}]:8080/",
            "port of no Service": f"get:http://{server[0]}:9090/",
            "port without a server": f"get:http://{server[0]}:8099/",
            "server speaks first": f"first:server.{space}:3306",
            "excluded port": f"first:{server[0]}:7777",
            "outside the mesh, Service": "get:http://outside.outside:8080/",
            "outside the mesh, pod": f"get:http://{outside[0]}:8080/",
            "outside the mesh, IPv6": f"get:http://[{outside[1]}]:8080/",
            "outside the mesh, server speaks first": f"first:{outside[0]}:3306",
            "outside the mesh, excluded port": f"first:{outside[0]}:7777",
            "name": "dig:outside.outside.svc.cluster.local",
            "name by TCP": "dig-tcp:outside.outside.svc.cluster.local",
            "no such name": "dig:none.outside.svc.cluster.local",
        },
        "server": {
            "own Service": f"get:http://server.{space}:8080/",
            "own address": f"get:http://{server[0]}:8080/",
            "own address, IPv6": f"get:http://[{server[1]}]:8080/",
            "loopback": "get:http://127.0.0.1:8080/",
            "loopback, IPv6": "get:http://[::1]:8080/",
        },
        "outside": {
            "pod": f"get:http://{server[0]}:8080/",
            "IPv6": f"get:http://[{server[1]}]:8080/",
            "Service": f"get:http://server.{space}:8080/",
            "port of no Service": f"get:http://{server[0]}:9090/",
            "server speaks first": f"first:{server[0]}:3306",
            "excluded port": f"first:{server[0]}:7777",
            "readiness of the proxy": f"get:http://{server[0]}:9902/ready",
        },
    }
    roles = Roles(mesh, space)
    with contextlib.ExitStack() as stack:
        places = {"client": space, "server": space, "outside": "outside"}
        apps = {name: stack.enter_context(mesh.ask(place, name)) for name, place in places.items()}
        envoys = {
            name: stack.enter_context(mesh.ask(space, name, "kuma-sidecar")) for name in ("client", "server")
        }

        def outcome(caller, what):
            before = {name: envoy(ENVOY) for name, envoy in envoys.items()}
            answer = apps[caller](what)
            found = {"answer": CLOSED.get(answer, answer)}
            for name, envoy in envoys.items():
                used = [cluster for cluster, count in envoy(ENVOY).items() if count != before[name].get(cluster)]
                found[name] = sorted(HASH.sub("_server-HASH_", roles.neutral(cluster)) for cluster in used)
            return roles.neutral(found)

        return {f"{caller}: {name}": outcome(caller, what)
                for caller, made in calls.items() for name, what in made.items()}
