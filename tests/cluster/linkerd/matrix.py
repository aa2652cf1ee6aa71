"""The calls that are compared between the ways of redirection: who answers, and how many connections the proxies accepted.

In a loop, a proxy accepts more than one connection for a request.
"""

from meshes.matrix import NAMES, Roles, calls, rows


def matrix(mesh, space):
    """What each call in this namespace came to, by name."""
    server = mesh.addresses(space, "server")
    made = calls(mesh, space)
    made["client"] |= NAMES
    made["outside"]["readiness of the proxy"] = f"get:http://{server[0]}:4191/ready"
    roles = Roles(mesh, space)
    proxies = ("client", "server")

    def outcome(app, what):
        before = {name: mesh.accepted(space, name) for name in proxies}
        found = {"answer": app(what)}
        for name in proxies:
            counts = mesh.accepted(space, name)
            found[name] = [f"{counts[direction] - earlier} {direction}"
                           for direction, earlier in before[name].items() if counts[direction] != earlier]
        return roles.neutral(found)

    return rows(mesh, space, made, outcome)
