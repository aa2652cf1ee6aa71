#!/usr/bin/env bash
# Usage: busybox.sh DIRECTORY
# Makes a root file system of busybox in DIRECTORY/rootfs, and DIRECTORY/busybox.tar, an image of it that is called
# localhost/busybox.
set -euo pipefail
cd "$1"

mkdir -p rootfs/{bin,dev,envoy,etc,lib,lib64,proc,sys,tmp,usr,www/cgi-bin}
chmod 1777 rootfs/tmp
cp /bin/busybox rootfs/bin/
for applet in cat httpd sh sleep wget; do
    ln -s busybox "rootfs/bin/$applet"
done
printf 'root:x:0:0::/:/bin/sh\n' >rootfs/etc/passwd
# A page that says who asks for it.
cat >rootfs/www/cgi-bin/who <<'END'
#!/bin/sh
printf '\r\n%s\n' "$REMOTE_ADDR"
END
chmod 755 rootfs/www/cgi-bin/who

# The format of `docker save`.
mkdir image
tar --create --file image/layer.tar --directory rootfs .
layer=$(sha256sum image/layer.tar | cut --delimiter ' ' --fields 1)
cat >image/config.json <<END
{
  "architecture": "$(dpkg --print-architecture)", "os": "linux",
  "config": { "Env": ["PATH=/bin"], "Cmd": ["sleep", "86400"] },
  "rootfs": { "type": "layers", "diff_ids": ["sha256:$layer"] }
}
END
cat >image/manifest.json <<END
[{ "Config": "config.json", "RepoTags": ["localhost/busybox:latest"], "Layers": ["layer.tar"] }]
END
tar --create --file busybox.tar --directory image manifest.json config.json layer.tar
