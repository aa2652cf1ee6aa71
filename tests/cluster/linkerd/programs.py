"""Images of Linkerd's programs, and the iptables of this machine for linkerd-init."""

import pathlib
import shutil

from linkerd.mesh import HUB, SIDETRACK_PROXY, TAG
from meshes.programs import import_image, import_own, iptables, with_libraries

DIRECTORY = "/usr/lib/linkerd"
# Capabilities of files, as the project's Dockerfile sets them, and as docs/linkerd-proxy-init.md says.
NET_ADMIN, NET_RAW = 12, 13


def import_images(cluster, programs):
    """Make the images and import them on the node."""
    built = pathlib.Path(programs["linkerd"])
    controller = {
        "/controller": built / "controller",
        **with_libraries("/linkerd-policy-controller", built / "linkerd-policy-controller"),
    }
    import_image(cluster, f"{HUB}/controller:{TAG}", controller, {}, "/controller")
    proxy = {}
    for name in ("linkerd2-proxy", "linkerd2-proxy-identity", "linkerd2-network-validator"):
        proxy |= with_libraries(f"{DIRECTORY}/{name}", built / name)
    init, entry = f"{DIRECTORY}/linkerd2-proxy-init", f"{DIRECTORY}/linkerd2-proxy-identity"
    files, links = iptables()
    backends = [str(pathlib.Path(shutil.which(f"xtables-{backend}-multi")).resolve()) for backend in ("nft", "legacy")]
    own = {**proxy, **files, init: built / "linkerd2-proxy-init"}
    import_image(cluster, f"{HUB}/proxy:{TAG}", own, links, entry,
                 capabilities={path: (NET_ADMIN, NET_RAW) for path in (init, *backends)})
    swapped = {**proxy, init: pathlib.Path(programs["binary"])}
    import_image(cluster, f"{SIDETRACK_PROXY}:{TAG}", swapped, {}, entry, capabilities={init: (NET_ADMIN,)})
    import_own(cluster, programs["meshes"])
