"""The calls that are compared between the ways of redirection: who answers, and how many connections the proxies accepted.

In a loop, a proxy accepts more than one connection for a request.
"""

import contextlib

from meshes.matrix import Roles, calls


def matrix(mesh, space):
    """What each call in this namespace came to, by name."""
    server = mesh.addresses(space, "server")
    made = calls(mesh, space)
    made["client"] |= {
        "name": "dig:outside.outside.svc.cluster.local",
        "name by TCP": "dig-tcp:outside.outside.svc.cluster.local",
    }
    made["outside"]["readiness of the proxy"] = f"get:http://{server[0]}:4191/ready"
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
                for caller, of_caller in made.items() for name, what in of_caller.items()}
