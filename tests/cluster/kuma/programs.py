"""Images of Kuma's programs, with upstream Envoy as the sidecar and the iptables of this machine for kuma-init."""

import pathlib

from kuma.mesh import HUB, SIDETRACK_INIT, TAG
from meshes.programs import import_image, import_own, iptables, with_libraries

# kumactl looks the proxy's user up.
PASSWD = "root:x:0:0::/:/bin/false\nkuma-dp:x:5678:5678::/:/bin/false\n"


def import_images(cluster, programs):
    """Make the images and import them on the node."""
    directory = pathlib.Path(programs["kuma"])
    passwd = cluster.directory / "passwd"
    passwd.write_text(PASSWD)
    files, links = iptables()
    proxy = {"/usr/bin/kuma-dp": directory / "kuma-dp", **with_libraries("/usr/bin/envoy", programs["envoy"])}
    # The injector's preStop hook calls it, so that Envoy drains its connections.
    proxy["/usr/bin/killall"] = "/bin/busybox"
    init = {"/usr/bin/kumactl": directory / "kumactl", "/etc/passwd": passwd, **files}
    for name, contents, names, entry in (
        ("kuma-cp", {"/usr/bin/kuma-cp": directory / "kuma-cp"}, {}, "/usr/bin/kuma-cp"),
        # For the tests, which ask Envoy what it has done: nobody else reaches its socket.
        ("kuma-dp", {**proxy, "/app": pathlib.Path(programs["meshes"], "app")}, {}, "/usr/bin/kuma-dp"),
        ("kuma-init", init, links, "/usr/bin/kumactl"),
    ):
        import_image(cluster, f"{HUB}/{name}:{TAG}", contents, names, entry)
    import_image(cluster, SIDETRACK_INIT, {"/usr/bin/kumactl": pathlib.Path(programs["binary"])}, {}, "/usr/bin/kumactl")
    import_own(cluster, programs["meshes"])
