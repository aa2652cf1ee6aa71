#!/usr/bin/env bash
# Usage: host.sh SIDETRACK
# A host that systemd boots from the programs of this machine, with an /etc, a /var and everything else of its own, and
# SIDETRACK in /usr/local/bin. For each line that it reads, it boots once, and prints its directory and the ID of a
# process in its namespaces; and "down" when the host has shut down. What is in /etc and /var is there again at the next
# boot. It ends with its standard input, however its user has ended.
set -euo pipefail

# The first process of the host: makes the root directory what it should be, and becomes systemd.
boot() {
    local root=$1
    mount --make-rprivate /
    mount --bind "$root" "$root"
    cd "$root"

    # The programs of this machine. What is installed is gone with the next boot.
    mount -t tmpfs tmpfs run
    mkdir run/{upper,work}
    mount -t overlay overlay -o lowerdir=/usr,upperdir=run/upper,workdir=run/work usr
    install -m 755 bin-of-sidetrack usr/local/bin/sidetrack

    # The kernel is everybody's: its settings can be read. Those of the network are the host's own.
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount --bind /proc/sys/net proc/sys/net
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs -o mode=755 tmpfs dev
    for device in full null random tty urandom zero; do
        touch "dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/{pts,shm}
    mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
        mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
        mkdir sys/fs/cgroup/{systemd,unified}
        mount -t cgroup -o none,name=systemd,xattr cgroup sys/fs/cgroup/systemd
        mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
    else
        mount -t cgroup2 cgroup2 sys/fs/cgroup
    fi

    mkdir -p old
    pivot_root . old
    umount --lazy /old
    exec env -i container=sidetrack PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
}

# What lasts from one boot to the next.
inside() {
    local directory=$1 sidetrack=$2 root=$1/root running=''
    mount -t tmpfs -o mode=755 tmpfs "$directory"
    mkdir -p "$root"/{dev,etc/systemd/system,proc,root,run,sys,tmp,usr,var/lib/dpkg/{info,updates}}
    cp "$sidetrack" "$root/bin-of-sidetrack"
    for link in bin lib lib64 sbin; do
        ln -s "usr/$link" "$root/$link"
    done
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    echo 'root:x:0:0::/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    touch "$root/var/lib/dpkg/status"
    ln -s /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"

    while read -r _; do
        (
            # Control groups belong to no namespace: those of the host are below one that is called like its directory.
            for group in /sys/fs/cgroup{,/*}; do
                if [ -e "$group/cgroup.procs" ] && mkdir -p "$group/${directory##*/}"; then
                    # Groups of some controllers need settings to accept processes; systemd does not need those.
                    echo "$BASHPID" 2>/dev/null >"$group/${directory##*/}/cgroup.procs" || true
                fi
            done
            exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child "$0" boot "$root" \
                </dev/null >"$directory/log" 2>&1
        ) &
        running=$!
        echo "$directory $running"
        (
            tail --pid="$running" --follow /dev/null
            echo down
        ) &
    done
    [ -z "$running" ] || kill -KILL "$running" 2>/dev/null || true
    wait 2>/dev/null
}

case $1 in
    boot | inside)
        "$@"
        exit
        ;;
esac

# An interrupt from the terminal comes here too.
trap '' HUP INT TERM
directory=$(mktemp --directory --tmpdir sidetrack-host-XXXXXX)
unshare --mount "$0" inside "$directory" "$1" || true
rm --recursive --force "$directory"
for group in /sys/fs/cgroup{,/*}/"${directory##*/}"; do
    [ ! -d "$group" ] || find "$group" -depth -type d -delete
done
