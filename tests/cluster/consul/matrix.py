"""The calls that are compared between the ways of redirection: who answers, and which Envoys took part."""

import contextlib
import re

from meshes.matrix import Roles, calls
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
        "name": "dig:outside.outside.svc.cluster.local",
        "name by TCP": "dig-tcp:outside.outside.svc.cluster.local",
        "no such name": "dig:none.outside.svc.cluster.local",
        "name of Consul": f"dig:server-{space}.service.consul",
        "name of Consul by TCP": f"dig-tcp:server-{space}.service.consul",
        "no such name of Consul": "dig:none.service.consul",
    }
    made["outside"]["probe of the application"] = f"get:http://{server[0]}:20400/"
    roles = Roles(mesh, space)
    with contextlib.ExitStack() as stack:
        places = {"client": space, "server": space, "outside": "outside"}
        apps = {name: stack.enter_context(mesh.ask(place, name)) for name, place in places.items()}
        envoys = {name: stack.enter_context(mesh.ask(space, name)) for name in ("client", "server")}

        def outcome(caller, what):
            before = {name: envoy(ENVOY) for name, envoy in envoys.items()}
            answer = apps[caller](what)
            answer = "closed" if answer in CLOSED else IDENTITY.sub("", answer).replace(f"-{space}", "")
            found = {"answer": answer}
            for name, envoy in envoys.items():
                # The kubelet's probes come by Envoy all the time, and use `local_app` too.
                used = [cluster for cluster, count in envoy(ENVOY).items()
                        if cluster != "local_app" and count != before[name].get(cluster)]
                # A name of a service, its place and the domain of its certificates.
                found[name] = sorted(cluster.partition(".")[0].removesuffix(f"-{space}") for cluster in used)
            return roles.neutral(found)

        return {f"{caller}: {name}": outcome(caller, what)
                for caller, of_caller in made.items() for name, what in of_caller.items()}
