"""The calls that are compared between the ways of redirection: who answers, and which Envoys took part."""

import contextlib
import re

from meshes.matrix import Roles, calls
from meshes.mesh import CLOSED

# Where kuma-dp has put the socket of its Envoy.
ENVOY = "used:/tmp/kuma-dp-*/kuma-envoy-admin.sock"
# Kuma names a server of a headless Service by its pod, and a hash.
HASH = re.compile("_server-[0-9a-f]+_")


def matrix(mesh, space):
    """What each call in this namespace came to, by name: the answer, and the clusters that the Envoys of the caller and
    of the server used."""
    server, outside = mesh.addresses(space, "server"), mesh.addresses("outside", "outside")
    made = calls(mesh, space)
    made["client"] |= {
        "port without a server": f"get:http://{server[0]}:8099/",
        "outside the mesh, server speaks first": f"first:{outside[0]}:3306",
        "name": "dig:outside.outside.svc.cluster.local",
        "name by TCP": "dig-tcp:outside.outside.svc.cluster.local",
        "no such name": "dig:none.outside.svc.cluster.local",
    }
    made["outside"]["readiness of the proxy"] = f"get:http://{server[0]}:9902/ready"
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
            found = {"answer": "closed" if answer in CLOSED else answer}
            for name, envoy in envoys.items():
                used = [cluster for cluster, count in envoy(ENVOY).items() if count != before[name].get(cluster)]
                found[name] = sorted(HASH.sub("_server-HASH_", roles.neutral(cluster)) for cluster in used)
            return roles.neutral(found)

        return {f"{caller}: {name}": outcome(caller, what)
                for caller, of_caller in made.items() for name, what in of_caller.items()}
