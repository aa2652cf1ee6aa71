"""Many pods at once. Nothing is asserted about durations: what was measured is printed, for docs/operations.md."""

import os
import pathlib
import time

import pods
from processes import eventually
from suite import ClusterTest

COUNT = 100
TICK = os.sysconf("SC_CLK_TCK")


class Load(ClusterTest):
    def usage(self):
        """CPU seconds, resident and peak memory of the installer."""
        process = pathlib.Path(f"/proc/{eventually('the installer runs', self.installer_process)}")
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        memory = {name: int(status[name].split()[0]) for name in ("VmRSS", "VmHWM")}
        return (int(fields[11]) + int(fields[12])) / TICK, memory["VmRSS"], memory["VmHWM"]

    def report(self, what, before, seconds):
        after = self.usage()
        # Less than before: it is another process.
        used = after[0] - before[0] if after[0] >= before[0] else after[0]
        load = pathlib.Path("/proc/loadavg").read_text().split()[0]
        print(
            f"\n  {what}: {seconds:.1f} s; installer {used:.2f} s CPU,"
            f" {after[1]} kB resident, peak {after[2]} kB; load of the machine {load}",
            flush=True,
        )

    def start_and_delete(self, name, annotations, redirected):
        """A Deployment until all pods are ready, and the installer has counted those that are redirected."""
        begin, before = time.monotonic(), self.usage()
        of = pods.idle(name, annotations=annotations)
        self.create(pods.controller("Deployment", name, of, replicas=COUNT))
        self.in_namespace("rollout", "status", f"deployment/{name}", "--timeout=900s")
        seconds = time.monotonic() - begin
        self.report(f"{COUNT} pods {name}", before, seconds)
        eventually(f"{redirected} pods are redirected", lambda: self.count("redirected") == redirected)
        self.in_namespace("delete", f"deployment/{name}")
        eventually("the pods are gone", lambda: not self.pods(f"app={name}"), 900)

    def durations(self):
        """Runs of ADD by the bounds of the histogram."""
        name = 'sidetrack_node_plugin_run_duration_seconds_bucket{command="ADD",le="'
        found = {key: value for key, value in self.metrics().items() if key.startswith(name)}
        return {key.removeprefix(name).rstrip('"}'): value for key, value in found.items()}

    def test_hundred_pods_at_once_are_redirected(self):
        before, begin = self.usage(), time.monotonic()
        time.sleep(60)
        self.report("at rest for a minute", before, time.monotonic() - begin)
        runs = self.durations()
        self.start_and_delete("without", {}, redirected=0)
        self.start_and_delete("with", pods.INJECTED, redirected=COUNT)

        def added():
            return {bound: value - runs.get(bound, 0) for bound, value in self.durations().items()}

        # More, where a pod was attached twice.
        eventually("each run of ADD is counted", lambda: added()["+Inf"] >= 2 * COUNT)
        buckets = added()
        print("  ADD within " + ", ".join(f"{bound} s: {value:.0f}" for bound, value in buckets.items()))
