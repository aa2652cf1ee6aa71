"""The comparison of traffic between ways of redirection."""


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
