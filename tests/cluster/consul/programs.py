"""Images of Consul's programs, with upstream Envoy for the data plane and the iptables of this machine for connect-init."""

import pathlib
import shutil

from consul.mesh import HUB, TAG
from meshes.programs import import_image, import_own, iptables, with_libraries

# What the commands of Consul's chart call besides. The server's image has an entry point that prepares what the chart has
# already prepared.
SHELL = {f"/bin/{name}": "/bin/busybox" for name in ("sh", "cp", "sed", "grep", "cat", "sleep")}
ENTRY_POINT = '#!/bin/sh\nexec "$@"\n'


def import_images(cluster, programs):
    """Make the images and import them on the node."""
    directory = pathlib.Path(programs["consul"])
    entry_point = cluster.directory / "docker-entrypoint.sh"
    entry_point.write_text(ENTRY_POINT)
    server = {
        **SHELL,
        "/bin/consul": directory / "consul",
        "/usr/local/bin/docker-entrypoint.sh": entry_point,
        **with_libraries("/usr/bin/curl", shutil.which("curl")),
    }
    files, links = iptables()
    plane = {**SHELL, **files}
    for program in ("consul-k8s-control-plane", "consul-cni"):
        plane[f"/bin/{program}"] = directory / program
    proxy = {
        "/usr/local/bin/consul-dataplane": directory / "consul-dataplane",
        **with_libraries("/usr/local/bin/envoy", programs["envoy"]),
    }
    for name, contents, names, entry in (
        ("consul", server, {}, "/usr/local/bin/docker-entrypoint.sh"),
        ("control-plane", plane, links, "/bin/consul-k8s-control-plane"),
        ("dataplane", proxy, {}, "/usr/local/bin/consul-dataplane"),
    ):
        import_image(cluster, f"{HUB}/{name}:{TAG}", contents, names, entry)
    import_own(cluster, programs["meshes"])
