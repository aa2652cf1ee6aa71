"""Images of Istio's programs, with upstream Envoy as the sidecar and the iptables of this machine for istio-init."""

import pathlib

from istio.mesh import HUB
from meshes.programs import import_image, import_own, iptables, with_libraries

BOOTSTRAP = "tools/packaging/common/envoy_bootstrap.json"


def import_images(cluster, programs):
    """Make the images and import them on the node."""
    built, charts = (pathlib.Path(programs[name]) for name in ("istio", "charts"))
    files, links = iptables()
    proxy = {
        "/usr/local/bin/pilot-agent": built / "pilot-agent",
        "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json": charts.parent.parent / BOOTSTRAP,
        **with_libraries("/usr/local/bin/envoy", programs["envoy"]),
        **files,
    }
    pilot = {"/pilot-discovery": built / "pilot-discovery"}
    import_image(cluster, f"{HUB}/pilot:test", pilot, {}, "/pilot-discovery")
    import_image(cluster, f"{HUB}/proxyv2:test", proxy, links, "/usr/local/bin/pilot-agent")
    import_own(cluster, programs["meshes"])
