"""The node of a cluster: a machine in namespaces of its own, with a kubelet, containerd and kube-proxy."""

import json
import os
import pathlib
import signal
import string
import subprocess

import pki
from processes import Daemon, Failure, eventually, run

HERE = pathlib.Path(__file__).resolve().parent
SERVER, SERVER_6 = "172.31.250.1", "fd00:250::1"
PODS, PODS_6 = "10.244.0.0/16", "fd44::/48"
SERVICES, SERVICES_6 = "10.96.0.0/16", "fd96::/112"


class Node:
    """The machine of a node: what it keeps over a reboot is in a directory. A second node has a link of its own."""

    def __init__(self, directory, cgroup, programs, number=1):
        self.name, self._number, self._programs = f"node{number}", number, programs
        self.directory, self._cgroup = directory / self.name, f"{cgroup}/{self.name}"
        self.directory.mkdir()
        link, link_6 = f"172.31.{249 + number}", f"fd00:{249 + number}:"
        # Of the server, and of the node.
        self._server = (f"{link}.1", f"{link_6}:1")
        self.addresses = (f"{link}.2", f"{link_6}:2")
        # As the controllers number them.
        self._pods = (f"10.244.{number - 1}.0/24", f"fd44:0:0:{number - 1}::/64")
        pki.certify_node(directory / "pki", self.name, self.addresses)
        conf, binaries = self.path("etc/cni/net.d"), self.path("opt/cni/bin")
        conf.mkdir(parents=True)
        binaries.mkdir(parents=True)
        network = json.loads((HERE / "files/10-net.conflist").read_text())
        if number > 1:
            network["plugins"][0]["ipam"]["ranges"] = [[{"subnet": subnet}] for subnet in self._pods]
            (conf / "10-net.conflist").write_text(json.dumps(network))
        else:
            run("cp", HERE / "files/10-net.conflist", conf)
        for plugin in pathlib.Path(programs["plugins"]).iterdir():
            run("cp", plugin, binaries)
        self._logs = directory / "logs" / self.name
        self._logs.mkdir()
        values = {"directory": directory, "pki": directory / "pki", "cgroup": self._cgroup, "node": self.name}
        names = ("containerd.toml", "kubelet.yaml", "kube-proxy.yaml")
        files = {name: directory / f"{self.name}.{name}" for name in names}
        for name, file in files.items():
            template = string.Template((HERE / "files" / name).read_text())
            file.write_text(template.substitute(programs, **values))
        kubernetes, runtime = programs["kubernetes"], programs["runtime"]
        named = f"--hostname-override={self.name}"
        self._words = {
            "containerd": (f"{runtime}/containerd", "--config", files["containerd.toml"]),
            "kubelet": (
                *(f"{kubernetes}/kubelet", f"--config={files['kubelet.yaml']}", named),
                *(f"--kubeconfig={directory}/{self.name}.kubeconfig", f"--node-ip={','.join(self.addresses)}"),
            ),
            # It ends when the addresses of its node change, as they do where the node registers late. Everywhere else, it
            # is in a pod, and starts again.
            "kube-proxy": (
                *("bash", "-c", 'until "$@"; do sleep 1; done', "again"),
                *(f"{kubernetes}/kube-proxy", f"--config={files['kube-proxy.yaml']}", named),
            ),
        }
        self.daemons = {}

    def path(self, path):
        """Where a file of the node is outside of its mount namespace."""
        return self.directory / path.lstrip("/")

    def start(self):
        """Boot: namespaces, network, daemons."""
        self._make_cgroup()
        enter = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        words = (*enter, HERE / "machine.sh", self.directory)
        with (self._logs / "machine.log").open("a") as log:
            self._machine = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        if self._machine.stdout.readline() != "ready\n":
            raise Failure(f"the node does not boot, see {self._logs}/machine.log")
        children = pathlib.Path(f"/proc/{self._machine.pid}/task/{self._machine.pid}/children")
        self._init = int(children.read_text().split()[0])
        self.enter = ("nsenter", "--target", str(self._init), "--net", "--mount", "--pid", "--")
        self._connect()
        path = f"PATH={self._programs['runtime']}:{os.environ['PATH']}"
        command = self.directory.parent / "bin" / ("node" if self._number == 1 else self.name)
        command.write_text(f"#!/bin/sh\nexec {' '.join(self.enter)} env '{path}' \"$@\"\n")
        command.chmod(0o755)
        environment = ("env", path)
        for name, words in self._words.items():
            daemon = Daemon(words, self._logs / f"{name}.log", (*self.enter, *environment))
            self.daemons[name] = daemon.start()
            if name == "containerd":
                eventually("containerd answers", lambda: self.attempt("ctr", "version").returncode == 0)

    def _connect(self):
        run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", str(self._init))
        forward = ("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        (server, server_6), (address, address_6) = self._server, self.addresses
        for words in (
            ("ip", "address", "add", f"{server}/24", "dev", self.name),
            ("ip", "address", "add", f"{server_6}/64", "dev", self.name, "nodad"),
            ("ip", "link", "set", self.name, "up"),
            forward,
        ):
            run(*words)
        for words in (
            ("ip", "address", "add", f"{address}/24", "dev", "eth0"),
            ("ip", "address", "add", f"{address_6}/64", "dev", "eth0", "nodad"),
            ("ip", "link", "set", "eth0", "up"),
            ("ip", "route", "add", "default", "via", server),
            ("ip", "-6", "route", "add", "default", "via", server_6),
            forward,
        ):
            self.run(*words)
        # Nodes reach each other's pods by way of the server. For webhooks, the server reaches Services by the first node.
        routes = dict(zip(self._pods, self.addresses, strict=True))
        if self._number == 1:
            routes |= {SERVICES: address, SERVICES_6: address_6}
        for destination, gateway in routes.items():
            run("ip", "route", "add", destination, "via", gateway)

    def _make_cgroup(self):
        """The group that the kubelet keeps its own below: cgroup v1 has one of each controller."""
        root, own = pathlib.Path("/sys/fs/cgroup"), pathlib.Path(self._cgroup)
        if (root / "cgroup.controllers").exists():
            (root / own).mkdir(parents=True, exist_ok=True)
            controllers = " ".join("+" + name for name in (root / "cgroup.controllers").read_text().split())
            for directory in (root, root / own.parent, root / own):
                (directory / "cgroup.subtree_control").write_text(controllers)
            return
        for controller in root.iterdir():
            if not controller.is_dir() or controller.name == "unified":
                continue
            for group in (controller / own.parent, controller / own):
                group.mkdir(exist_ok=True)
                for file in ("cpuset.cpus", "cpuset.mems"):
                    if (group / file).exists():
                        (group / file).write_text((controller / file).read_text())

    def attempt(self, *words):
        """Run a command on the node, whatever its exit code."""
        path = f"PATH={self._programs['runtime']}:{os.environ['PATH']}"
        return subprocess.run((*self.enter, "env", path, *words), capture_output=True, text=True)

    def run(self, *words):
        done = self.attempt(*words)
        if done.returncode != 0:
            raise Failure(f"on the node: {' '.join(map(str, words))}: {done.stderr}{done.stdout}")
        return done.stdout

    def import_image(self, archive, name):
        """Import an OCI archive under this name alone: a container of an image with two may not start."""
        names = ("--index-name", name, "--base-name", name.rpartition(":")[0])
        self.run("ctr", "--namespace", "k8s.io", "images", "import", *names, "--all-platforms=false", archive)

    def power_off(self):
        """All processes of the node are killed at once; its namespaces end."""
        os.kill(self._init, signal.SIGKILL)
        self._machine.wait()
        shown = ("ip", "link", "show", self.name)
        eventually("the node's interface is gone", lambda: subprocess.run(shown, capture_output=True).returncode != 0)

    def reboot(self):
        self.power_off()
        self.start()
