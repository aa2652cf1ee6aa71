"""The comparison of traffic between ways of redirection."""

import contextlib

# Calls of the client by name, of meshes that capture its queries.
NAMES = {
    "name": "dig:outside.outside.svc.cluster.local",
    "name by TCP": "dig-tcp:outside.outside.svc.cluster.local",
}


def calls(mesh, space):
    """The calls that are compared in every mesh, by who makes them and by name."""
    server, outside = mesh.addresses(space, "server"), mesh.addresses("outside", "outside")
    return {
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
        },
    }


def rows(mesh, space, made, outcome):
    """The outcome of each of these calls, by caller and name. `outcome` gets the workload, which makes a call, and the call."""
    places = {"client": space, "server": space, "outside": "outside"}
    with contextlib.ExitStack() as stack:
        apps = {name: stack.enter_context(mesh.ask(place, name)) for name, place in places.items()}
        return {f"{caller}: {name}": outcome(apps[caller], what)
                for caller, of_caller in made.items() for name, what in of_caller.items()}


@contextlib.contextmanager
def envoys(mesh, space, place, *container):
    """Makes a call and tells its answer, and the clusters that the Envoys of the client and of the server used meanwhile.
    `place` is where these are asked, in a container of the pods."""
    with contextlib.ExitStack() as stack:
        asked = {name: stack.enter_context(mesh.ask(space, name, *container)) for name in ("client", "server")}

        def observe(app, what):
            before = {name: envoy(place) for name, envoy in asked.items()}
            answer = app(what)
            return answer, {
                name: [cluster for cluster, count in envoy(place).items() if count != before[name].get(cluster)]
                for name, envoy in asked.items()
            }

        yield observe


class Roles:
    """What differs between the namespaces of two ways, but means the same: names and addresses of pods."""

    def __init__(self, mesh, space):
        self._roles = {f".{space}.": ".NAMESPACE.", f"/ns/{space}/": "/ns/NAMESPACE/", f"_{space}_": "_NAMESPACE_"}
        for place, app in ((space, "server"), (space, "client"), ("outside", "outside")):
            pod = mesh.pod(place, app)
            v4, v6 = (entry["ip"] for entry in pod["status"]["podIPs"])
            self._roles |= {pod["metadata"]["name"]: app, v4: f"{app.upper()}4", v6: f"{app.upper()}6"}

    def neutral(self, value):
        """A value without what differs."""
        if isinstance(value, dict):
            return {name: self.neutral(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.neutral(item) for item in value]
        for text, role in sorted(self._roles.items(), key=lambda pair: -len(pair[0])):
            value = value.replace(text, role)
        return value


def differences(reference, other, expected):
    """The rows in which a way of redirection differs from the reference, but for those that are expected to differ."""
    rows = []
    for name, row in reference.items():
        wanted = expected.get(name, row)
        if other[name] != wanted:
            rows.append(f"{name}: {other[name]}, not {wanted}")
    return rows
