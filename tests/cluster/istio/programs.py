"""Images of Istio's programs, with upstream Envoy as the sidecar and the iptables of this machine for istio-init."""

import pathlib
import shutil

import images
from istio.mesh import APP, DNS, HUB
from processes import run

BOOTSTRAP = "tools/packaging/common/envoy_bootstrap.json"


def import_images(cluster, programs):
    """Make the images and import them on the node."""
    programs = {name: pathlib.Path(path) for name, path in programs.items()}
    built = programs["istio"]
    proxy = {
        "/usr/local/bin/pilot-agent": built / "pilot-agent",
        "/usr/local/bin/envoy": programs["envoy"],
        "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json": programs["charts"].parent.parent / BOOTSTRAP,
        **_libraries(programs["envoy"]),
    }
    files, links = _iptables()
    architecture = run("dpkg", "--print-architecture").strip()
    for name, contents, names, entry in (
        (f"{HUB}/pilot:test", {"/pilot-discovery": built / "pilot-discovery"}, {}, "/pilot-discovery"),
        (f"{HUB}/proxyv2:test", {**proxy, **files}, links, "/usr/local/bin/pilot-agent"),
        (APP, {"/app": built / "app"}, {}, "/app"),
        (DNS, {"/dns": built / "dns"}, {}, "/dns"),
    ):
        archive = cluster.directory / "istio.tar"
        images.write(archive, name, architecture, contents, [entry], names)
        cluster.node.import_image(archive, name)
        archive.unlink()


def _libraries(program):
    return {path: path for path in images.libraries(program)}


def _iptables():
    """The programs of iptables, their extensions and the file that they lock; and the names that they are called by."""
    files, links = {"/run/xtables.lock": "/dev/null"}, {}
    for backend, suffixes in (("nft", ("", "-nft")), ("legacy", ("-legacy",))):
        program = pathlib.Path(shutil.which(f"xtables-{backend}-multi")).resolve()
        files |= {str(program): program, **_libraries(program)}
        for family in ("iptables", "ip6tables"):
            for suffix in suffixes:
                links |= {f"/usr/sbin/{family}{suffix}{verb}": str(program) for verb in ("", "-save", "-restore")}
    for extension in next(pathlib.Path("/usr/lib").glob("**/libxt_owner.so")).parent.glob("*.so"):
        files |= {str(extension): extension}
    return files, links
