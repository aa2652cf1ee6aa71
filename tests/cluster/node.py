"""The node of a cluster: a machine in namespaces of its own, with a kubelet, containerd and kube-proxy."""

import os
import pathlib
import signal
import string
import subprocess

from processes import Daemon, Failure, eventually, run

HERE = pathlib.Path(__file__).resolve().parent
NODE = "node1"
SERVER, SERVER_6 = "172.31.250.1", "fd00:250::1"
ADDRESS, ADDRESS_6 = "172.31.250.2", "fd00:250::2"
PODS, PODS_6 = "10.244.0.0/16", "fd44::/48"
SERVICES, SERVICES_6 = "10.96.0.0/16", "fd96::/112"


class Node:
    """The machine of the node: what it keeps over a reboot is in a directory."""

    def __init__(self, directory, cgroup, programs):
        self.directory, self._cgroup, self._programs = directory / NODE, cgroup, programs
        self.directory.mkdir()
        conf, binaries = self.path("etc/cni/net.d"), self.path("opt/cni/bin")
        conf.mkdir(parents=True)
        binaries.mkdir(parents=True)
        run("cp", HERE / "files/10-net.conflist", conf)
        for plugin in pathlib.Path(programs["plugins"]).iterdir():
            run("cp", plugin, binaries)
        logs, pki_directory = directory / "logs", directory / "pki"
        for name in ("containerd.toml", "kubelet.yaml", "kube-proxy.yaml"):
            template = string.Template((HERE / "files" / name).read_text())
            text = template.substitute(programs, directory=directory, pki=pki_directory, cgroup=cgroup)
            (directory / name).write_text(text)
        kubernetes, runtime = programs["kubernetes"], programs["runtime"]
        addresses = f"--node-ip={ADDRESS},{ADDRESS_6}"
        self._words = {
            "containerd": (f"{runtime}/containerd", "--config", f"{directory}/containerd.toml"),
            "kubelet": (
                *(f"{kubernetes}/kubelet", f"--config={directory}/kubelet.yaml"),
                *(f"--kubeconfig={directory}/kubelet.kubeconfig", f"--hostname-override={NODE}", addresses),
            ),
            "kube-proxy": (
                *(f"{kubernetes}/kube-proxy", f"--config={directory}/kube-proxy.yaml"),
                f"--hostname-override={NODE}",
            ),
        }
        self._logs = logs
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
        command = self.directory.parent / "bin/node"
        command.write_text(f"#!/bin/sh\nexec {' '.join(self.enter)} env '{path}' \"$@\"\n")
        command.chmod(0o755)
        environment = ("env", path)
        for name, words in self._words.items():
            daemon = Daemon(words, self._logs / f"{name}.log", (*self.enter, *environment))
            self.daemons[name] = daemon.start()
            if name == "containerd":
                eventually("containerd answers", lambda: self.attempt("ctr", "version").returncode == 0)

    def _connect(self):
        run("ip", "link", "add", "node", "type", "veth", "peer", "name", "eth0", "netns", str(self._init))
        for words in (
            ("address", "add", f"{SERVER}/24", "dev", "node"),
            ("address", "add", f"{SERVER_6}/64", "dev", "node", "nodad"),
            ("link", "set", "node", "up"),
        ):
            run("ip", *words)
        for words in (
            ("ip", "address", "add", f"{ADDRESS}/24", "dev", "eth0"),
            ("ip", "address", "add", f"{ADDRESS_6}/64", "dev", "eth0", "nodad"),
            ("ip", "link", "set", "eth0", "up"),
            ("ip", "route", "add", "default", "via", SERVER),
            ("ip", "-6", "route", "add", "default", "via", SERVER_6),
            ("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"),
        ):
            self.run(*words)
        # Webhooks: the API server reaches pods and services by way of the node.
        for destination in (PODS, SERVICES):
            run("ip", "route", "add", destination, "via", ADDRESS)
        for destination in (PODS_6, SERVICES_6):
            run("ip", "-6", "route", "add", destination, "via", ADDRESS_6)

    def _make_cgroup(self):
        """The group that the kubelet keeps its own below: cgroup v1 has one of each controller."""
        root = pathlib.Path("/sys/fs/cgroup")
        if (root / "cgroup.controllers").exists():
            group = root / self._cgroup
            group.mkdir(exist_ok=True)
            controllers = " ".join("+" + name for name in (root / "cgroup.controllers").read_text().split())
            for directory in (root, group):
                (directory / "cgroup.subtree_control").write_text(controllers)
            return
        for controller in root.iterdir():
            if not controller.is_dir() or controller.name == "unified":
                continue
            group = controller / self._cgroup
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
        eventually("the node's interface is gone", lambda: not pathlib.Path("/sys/class/net/node").exists())

    def reboot(self):
        self.power_off()
        self.start()
