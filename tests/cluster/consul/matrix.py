"""The calls that are compared between the ways of redirection: who answers, and which Envoys took part."""

import re

from meshes.matrix import NAMES, Roles, calls, envoys, rows
from meshes.mesh import CLOSED

ENVOY = "used:http://127.0.0.1:19000"
IDENTITY = re.compile(r"spiffe://[\w-]+\.consul/\S+/svc/")


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
        "name of Consul": f"dig:server-{space}.service.consul",
        "name of Consul by TCP": f"dig-tcp:server-{space}.service.consul",
        "no such name of Consul": "dig:none.service.consul",
    }
    made["outside"]["probe of the application"] = f"get:http://{server[0]}:20400/"
    roles = Roles(mesh, space)
    with envoys(mesh, space, ENVOY) as observe:

        def outcome(app, what):
            answer, used = observe(app, what)
            answer = "closed" if answer in CLOSED else IDENTITY.sub("", answer).replace(f"-{space}", "")
            found = {"answer": answer}
            for name, clusters in used.items():
                # A name of a service, its place and the domain of its certificates. The kubelet's probes come by Envoy all
                # the time, and use `local_app` too.
                found[name] = sorted(cluster.partition(".")[0].removesuffix(f"-{space}")
                                     for cluster in clusters if cluster != "local_app")
            return roles.neutral(found)

        return rows(mesh, space, made, outcome)
