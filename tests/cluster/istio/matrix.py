"""The calls that are compared between the ways of redirection: who answers, and which proxies took part."""

from meshes.matrix import Roles

# Rows where sidetrack differs on purpose (docs/migration.md): the plugin redirects IPv6 where the pod could use it, and
# Envoy does not listen there unless ISTIO_DUAL_STACK is on.
REFUSED = {"answer": "connection refused", "own": [], "server": []}
IPV6_WITHOUT_LISTENER = {
    "client: pod, IPv6": REFUSED,
    "client: outside the mesh, IPv6": REFUSED,
    "outside: IPv6": REFUSED,
}


def matrix(mesh, space):
    """What each call in this namespace came to, by name."""
    server, client, outside = (
        mesh.addresses(*pod) for pod in ((space, "server"), (space, "client"), ("outside", "outside")))
    callers = {
        "client": (space, "client", server[0], {
            "Service": f"get:http://server.{space}:8080/",
            "headless Service": f"get:http://server-headless.{space}:8080/",
            "pod": f"get:http://{server[0]}:8080/",
            "pod, IPv6": f"get:http://[{server[1]}]:8080/",
            "port of no Service": f"get:http://{server[0]}:9090/",
            "port without a server": f"get:http://{server[0]}:8099/",
            "server speaks first": f"first:server.{space}:3306",
            "server speaks first, pod": f"first:{server[0]}:3306",
            "excluded port": f"first:{server[0]}:7777",
            "outside the mesh, Service": "get:http://outside.outside:8080/",
            "outside the mesh, pod": f"get:http://{outside[0]}:8080/",
            "outside the mesh, IPv6": f"get:http://[{outside[1]}]:8080/",
            "outside the mesh, server speaks first": f"first:{outside[0]}:3306",
            "outside the mesh, excluded port": f"first:{outside[0]}:7777",
        }),
        "server": (space, "server", "", {
            "own Service": f"get:http://server.{space}:8080/",
            "own address": f"get:http://{server[0]}:8080/",
            "own address, IPv6": f"get:http://[{server[1]}]:8080/",
            "own address, server speaks first": f"first:{server[0]}:3306",
            "loopback": "get:http://127.0.0.1:8080/",
            "loopback, IPv6": "get:http://[::1]:8080/",
        }),
        "outside": ("outside", "outside", server[0], {
            "pod": f"get:http://{server[0]}:8080/",
            "IPv6": f"get:http://[{server[1]}]:8080/",
            "Service": f"get:http://server.{space}:8080/",
            "port of no Service": f"get:http://{server[0]}:9090/",
            "server speaks first": f"first:{server[0]}:3306",
            "excluded port": f"first:{server[0]}:7777",
            "metrics of Envoy": f"get:http://{server[0]}:15090/stats/prometheus",
            "metrics of the agent": f"get:http://{server[0]}:15020/stats/prometheus",
            "readiness": f"get:http://{server[0]}:15021/healthz/ready",
        }),
    }
    roles = Roles(mesh, space)
    return {
        f"{caller}: {name}": roles.neutral(outcome)
        for caller, (place, app, asked, calls) in callers.items()
        for name, outcome in mesh.calls(place, app, asked, calls).items()
    }
