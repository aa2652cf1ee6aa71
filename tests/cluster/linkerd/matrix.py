"""The calls that are compared between the ways of redirection: who answers, and how many connections the proxies accepted.

In a loop, a proxy accepts more than one connection for a request.
"""

import contextlib

from meshes.matrix import Roles


def matrix(mesh, space):
    """What each call in this namespace came to, by name."""
    server, outside = mesh.addresses(space, "server"), mesh.addresses("outside", "outside")
    calls = {
        "client": {
            "Service": f"get:http://server.{space}:8080/",
            "headless Service": f"get:http://server-headless.{space}:8080/",
            "pod": f"get:http://{server[0]}:8080/",
            "pod, IPv6": f"get:http://[{server[1]}]:8080/",
            "port of no Service": f"get:http://{server[0]}:9090/",
            "server speaks first": f"first:server.{space}:3306",
            "excluded port": f"first:{server[0]}:7777",
            "outside the mesh, Service": "get:http://outside.outside:8080/",
            "outside the mesh, pod": f"get:http://{outside[0]}:8080/",
            "outside the mesh, IPv6": f"get:http://[{outside[1]}]:8080/",
            "outside the mesh, excluded port": f"first:{outside[0]}:7777",
            "name": "dig:outside.outside.svc.cluster.local",
            "name by TCP": "dig-tcp:outside.outside.svc.cluster.local",
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
            "readiness of the proxy": f"get:http://{server[0]}:4191/ready",
        },
    }
    roles = Roles(mesh, space)
    proxies = ("client", "server")
    with contextlib.ExitStack() as stack:
        places = {"client": space, "server": space, "outside": "outside"}
        apps = {name: stack.enter_context(mesh.ask(place, name)) for name, place in places.items()}

        def outcome(caller, what):
            before = {name: mesh.accepted(space, name) for name in proxies}
            found = {"answer": apps[caller](what)}
            for name in proxies:
                counts = mesh.accepted(space, name)
                found[name] = [f"{counts[direction] - earlier} {direction}"
                               for direction, earlier in before[name].items() if counts[direction] != earlier]
            return roles.neutral(found)

        return {f"{caller}: {name}": outcome(caller, what)
                for caller, made in calls.items() for name, what in made.items()}
