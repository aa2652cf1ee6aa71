"""Images for the containers of the suite, written without a daemon: files of this machine in one layer."""

import hashlib
import io
import json
import pathlib
import struct
import subprocess
import tarfile

MEDIA_TYPE = "application/vnd.oci.image."


def libraries(program):
    """The shared libraries that a program of this machine needs."""
    listed = subprocess.run(("ldd", program), capture_output=True, text=True).stdout
    return [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]


def write(archive, name, architecture, files, entrypoint, links=None, capabilities=None):
    """Write an image `name` of `files` (paths in the image: files of this machine) and of links as an OCI archive. Files
    may have capabilities, by their numbers, as `setcap NAME+ep` gives them."""
    capabilities = capabilities or {}
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path, source in files.items():
            _add(tar, path.lstrip("/"), pathlib.Path(source).read_bytes(), 0o755, capabilities.get(path))
        for path, target in (links or {}).items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    blobs = {}

    def blob(content, kind):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": MEDIA_TYPE + kind, "digest": f"sha256:{digest}", "size": len(data)}

    data = blob(layer.getvalue(), "layer.v1.tar")
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"User": "65532:65532", "Entrypoint": entrypoint},
        "rootfs": {"type": "layers", "diff_ids": [data["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA_TYPE}manifest.v1+json",
        "config": blob(config, "config.v1+json"),
        "layers": [data],
    }
    described = {**blob(manifest, "manifest.v1+json"), "annotations": {"io.containerd.image.name": name}}
    index = {"schemaVersion": 2, "manifests": [described]}
    with tarfile.open(archive, "w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(tar, "index.json", json.dumps(index).encode())
        for digest, data in blobs.items():
            _add(tar, f"blobs/sha256/{digest}", data)


def _add(tar, path, data, mode=0o644, capabilities=None):
    entry = tarfile.TarInfo(path)
    entry.mode, entry.size = mode, len(data)
    if capabilities:
        # struct vfs_cap_data of linux/capability.h, revision 2, with the bit that makes them effective.
        permitted = sum(1 << number for number in capabilities)
        attribute = struct.pack("<5I", 0x02000001, permitted, 0, 0, 0)
        entry.pax_headers["SCHILY.xattr.security.capability"] = attribute.decode()
    tar.addfile(entry, io.BytesIO(data))
