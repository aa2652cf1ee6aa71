"""The calls that are compared between the ways of redirection: who answers, and which Envoys took part."""

import re

from meshes.matrix import NAMES, Roles, calls, envoys, rows
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
        **NAMES,
        "no such name": "dig:none.outside.svc.cluster.local",
    }
    made["outside"]["readiness of the proxy"] = f"get:http://{server[0]}:9902/ready"
    roles = Roles(mesh, space)
    with envoys(mesh, space, ENVOY, "kuma-sidecar") as observe:

        def outcome(app, what):
            answer, used = observe(app, what)
            found = {"answer": "closed" if answer in CLOSED else answer}
            for name, clusters in used.items():
                found[name] = sorted(HASH.sub("_server-HASH_", roles.neutral(cluster)) for cluster in clusters)
            return roles.neutral(found)

        return rows(mesh, space, made, outcome)
