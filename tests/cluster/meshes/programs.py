"""Images of the programs of meshes, and of the suite's own."""

import pathlib
import shutil

import images
from meshes.mesh import APP, DNS
from processes import run


def import_image(cluster, name, files, links, entry, **more):
    """Make an image of files of this machine, and import it on the node."""
    archive = cluster.directory / "mesh.tar"
    images.write(archive, name, run("dpkg", "--print-architecture").strip(), files, [entry], links, **more)
    cluster.node.import_image(archive, name)
    archive.unlink()


def import_own(cluster, directory):
    """The application of the tests, and the name server."""
    for name, program in ((APP, "app"), (DNS, "dns")):
        import_image(cluster, name, {f"/{program}": pathlib.Path(directory, program)}, {}, f"/{program}")


def with_libraries(path, program):
    """A program of this machine at a path of an image, and the shared libraries that it needs."""
    return {path: pathlib.Path(program), **{library: library for library in images.libraries(program)}}


def iptables():
    """The programs of iptables, their extensions and the file that they lock; and the names that they are called by."""
    files, links = {"/run/xtables.lock": "/dev/null"}, {}
    for backend, suffixes in (("nft", ("", "-nft")), ("legacy", ("-legacy",))):
        program = pathlib.Path(shutil.which(f"xtables-{backend}-multi")).resolve()
        files |= with_libraries(str(program), program)
        for family in ("iptables", "ip6tables"):
            for suffix in suffixes:
                links |= {f"/usr/sbin/{family}{suffix}{verb}": str(program) for verb in ("", "-save", "-restore")}
    for extension in next(pathlib.Path("/usr/lib").glob("**/libxt_owner.so")).parent.glob("*.so"):
        files |= {str(extension): extension}
    return files, links
