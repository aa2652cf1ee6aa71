"""Connections of which one half is closed: whether an answer that takes long still arrives."""

import pathlib
import socket
import threading
import time

import peers
from connections import PEER, SERVICE
from lab import pod_and_peer
from report import Section, Table, at_least

POD = "10.99.0.2"
OURS = "`sidetrack apply`"
ANSWER = b"x" * 1000
# For how long the kernel remembers such a connection here, and for how long the server works; seconds.
REMEMBERED, WORK = 1, 3
SETTING = pathlib.Path("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait")


def measure(bench):
    without = bench.plan("without-timeouts", close_wait_timeout=[0])
    ways = {
        "no rules": ([], SERVICE, SERVICE),
        OURS: ([bench.plan().apply], 15006, 15001),
        "`sidetrack apply --close-wait-timeout 0`": ([without.apply], 15006, 15001),
        "Istio, iptables-nft": (peers.istio("nft", bench.rules(peers.istio_rules)), 15006, 15001),
        "Linkerd, iptables-nft": (peers.linkerd("nft"), 4143, 4140),
        "Kuma, iptables-nft": (peers.kuma(bench.rules(peers.kuma_rules)), 15006, 15001),
    }
    rows = []
    for name, (steps, inbound, outbound) in ways.items():
        arrived = _answers(bench, steps, inbound, outbound)
        rows.append((name, *(f"{count:,}" for count in arrived)))
    ours = min(int(count.replace(",", "")) for name, *counts in rows if name == OURS for count in counts)
    return Section(
        "Half-closed connections",
        f"Of {len(ANSWER):,} bytes, those that arrive at a client that has closed its half of the connection, if the "
        f"answer takes {WORK} s and the kernel is set to forget such a connection after {REMEMBERED} s. It does so after "
        "60 s by default; Linkerd has an option that sets that, in a privileged container.",
        Table(("", "inbound", "outbound"), rows),
        targets=[at_least("bytes of a late answer", ours / len(ANSWER), 1)],
    )


def _answers(bench, steps, inbound, outbound):
    """How many bytes arrive over a connection to the pod, and over one from it."""
    pod, peer = pod_and_peer()
    with pod.entered():
        SETTING.write_text(str(REMEMBERED))
    bench.runner.run(steps, pod)
    # Without rules, the second connection arrives at the neighbour itself.
    elsewhere = peer if outbound == SERVICE else pod
    calls = [(pod, inbound, peer, POD), (elsewhere, outbound, pod, PEER)]
    results = [0, 0]

    def call(index, server, port, client, address):
        with server.entered(), socket.create_server(("", port)) as listener:
            threading.Thread(target=_answer, args=(listener,), daemon=True).start()
            with client.entered():
                results[index] = _ask(address)

    threads = [threading.Thread(target=call, args=(index, *one)) for index, one in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for namespace in (pod, peer):
        namespace.close()
    return results


def _answer(listener):
    connection, _ = listener.accept()
    with connection:
        while connection.recv(64):
            pass
        time.sleep(WORK)
        connection.sendall(ANSWER)


def _ask(address):
    with socket.create_connection((address, SERVICE), timeout=2 * WORK) as connection:
        connection.sendall(b"?")
        connection.shutdown(socket.SHUT_WR)
        arrived = 0
        try:
            while part := connection.recv(4096):
                arrived += len(part)
        except OSError:
            pass  # What has arrived counts, however it ends.
        return arrived
