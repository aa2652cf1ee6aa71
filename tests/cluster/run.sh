#!/usr/bin/env bash
# Usage: run.sh work=DIRECTORY PROGRAM=PATH... [NAME... | --shell [COMMAND...]]
# Makes the namespaces of a cluster, and a directory for it below DIRECTORY, and runs __main__.py in them. Everything ends
# with this script, however it ends. DIRECTORY/enter COMMAND runs a command in the namespaces.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=${1#work=}
shift
mkdir -p "$work"
directory=$(mktemp --directory --tmpdir="$work" run-XXXXXX)
cgroup=sidetrack-cluster-${directory##*-}
kubernetes=
for word in "$@"; do
    [[ $word != kubernetes=* ]] || kubernetes=${word#*=}
done

# Removes what does not end by itself; fails while processes still end.
clean() {
    local group
    rm --recursive --force "$directory" || return
    [ -e "$work/enter" ] || rm --force "$work/enter" # the link
    for group in /sys/fs/cgroup{,/*}/"$cgroup"; do
        [ ! -d "$group" ] || find "$group" -depth -type d -delete || return
    done
}

# Processes, mounts and namespaces end by themselves. The rest is removed once nobody has this pipe: the script, and the
# first processes of the namespaces.
exec {alive}> >(
    trap '' HUP INT TERM
    cat >/dev/null
    for _ in {1..100}; do
        if clean 2>/dev/null; then
            exit
        fi
        sleep 0.2
    done
    clean
)
cleaner=$!

# shellcheck disable=SC2016 # for the shell in the namespaces, which buries processes whose parents have left them
setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc bash -c '"$@"; exit $?' cluster \
    .venv/bin/python tests/cluster "directory=$directory" "cgroup=$cgroup" "$@" <&0 &
unshare=$!
first=
until read -r first </proc/$unshare/task/$unshare/children || [ -n "$first" ]; do
    kill -0 "$unshare"
    sleep 0.1
done
cat >"$directory/enter" <<END
#!/bin/sh
exec nsenter --target ${first% } --mount --net --pid --wd="\$PWD" \\
    env PATH="$directory/bin:$kubernetes:\$PATH" KUBECONFIG=$directory/admin.kubeconfig "\$@"
END
chmod +x "$directory/enter"
ln --symbolic --force --no-dereference "$directory/enter" "$work/enter"

result=0
wait "$unshare" || result=$?
exec {alive}>&-
wait "$cleaner"
exit "$result"
