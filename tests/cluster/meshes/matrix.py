"""The comparison of traffic between ways of redirection."""


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
