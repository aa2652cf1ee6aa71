#!/usr/bin/env bash
# Usage: node.sh SIDETRACK
# A node for container runtimes: network, mount and PID namespaces of its own, with something of its own in every place
# where a runtime keeps its state. Prints, once it is ready, its directory and the ID of a process in its namespaces.
# It ends with its standard input, and with it its processes, mounts and control groups, however its user has ended.
set -euo pipefail

# What the first process of the node does.
inside() {
    local directory=$1 sidetrack=$2 id=$3
    mkdir "$directory"/{bin,net.d,others,plugins}

    # CNI plugins, in the directory of all runtimes: those of the machine, and sidetrack. They are links: a test
    # can put something else in the place of one.
    touch "$directory/bin/sidetrack"
    mount --bind "$sidetrack" "$directory/bin/sidetrack"
    mount --bind /usr/lib/cni "$directory/others"
    ln -s "$directory/bin/sidetrack" "$directory/others/"* "$directory/plugins"
    mount --bind "$directory/plugins" /usr/lib/cni
    mount --bind "$directory/net.d" /etc/cni/net.d

    # Images, containers, sockets, locks, addresses that are taken, namespaces that have names. (Nothing that the node
    # needs may be in these two directories, such as the checkout.)
    mount -t tmpfs tmpfs /var/lib
    mount -t tmpfs tmpfs /run
    mkdir /run/lock

    # As on a host: podman leaves it to a process in a mount namespace of its own to clean up after a container.
    mount --make-rshared /

    ip link set lo up
    echo "$directory $id"
    # The shell waits for the first process to end, and so buries those whose parents have left them.
    cat >/dev/null
}

if [ "$1" = inside ]; then
    shift
    inside "$@"
    exit
fi

# An interrupt from the terminal comes here too.
trap '' HUP INT TERM
directory=$(mktemp --directory --tmpdir sidetrack-runtime-XXXXXX)
(exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" inside "$directory" "$1" "$BASHPID") || true

# The mounts are gone with their namespace, and were never seen here. Control groups belong to no namespace: runtimes
# put their own below one named like the directory, of cgroup v2 or of each controller of v1.
rm --recursive --force "$directory"
for group in /sys/fs/cgroup{,/*}/"${directory##*/}"; do
    [ ! -d "$group" ] || find "$group" -depth -type d -delete
done
