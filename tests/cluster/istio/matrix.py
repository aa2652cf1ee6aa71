"""The calls that are compared between the ways of redirection: who answers, and which proxies took part."""

from meshes.matrix import Roles, calls

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
    server, outside = mesh.addresses(space, "server"), mesh.addresses("outside", "outside")
    made = calls(mesh, space)
    made["client"] |= {
        "port without a server": f"get:http://{server[0]}:8099/",
        "server speaks first, pod": f"first:{server[0]}:3306",
        "outside the mesh, server speaks first": f"first:{outside[0]}:3306",
    }
    made["server"]["own address, server speaks first"] = f"first:{server[0]}:3306"
    made["outside"] |= {
        "metrics of Envoy": f"get:http://{server[0]}:15090/stats/prometheus",
        "metrics of the agent": f"get:http://{server[0]}:15020/stats/prometheus",
        "readiness": f"get:http://{server[0]}:15021/healthz/ready",
    }
    # Where each is made, and the pod whose Envoy is asked besides.
    callers = {
        "client": (space, "client", server[0]),
        "server": (space, "server", ""),
        "outside": ("outside", "outside", server[0]),
    }
    roles = Roles(mesh, space)
    return {
        f"{caller}: {name}": roles.neutral(outcome)
        for caller, place in callers.items()
        for name, outcome in mesh.calls(*place, made[caller]).items()
    }
