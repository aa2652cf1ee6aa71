#!/usr/bin/env bash
# Usage: machine.sh DIRECTORY
# The first process of a node, in namespaces of its own. What a node keeps over a reboot is in DIRECTORY; /run is new. Says
# when it is ready, and ends with its standard input.
set -euo pipefail

for place in opt var/lib var/log etc/cni; do
    mkdir -p "$1/$place"
    mount --bind "$1/$place" "/$place"
done
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/netns /opt/cni/bin /etc/cni/net.d
# The kubelet shares mounts with containers.
mount --make-rshared /
ip link set lo up
echo ready
# The shell waits for this, and so buries processes whose parents have left them.
cat >/dev/null
