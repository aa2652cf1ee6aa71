"""Starts a cluster, and runs the tests, or a command, in it.

Usage: python3 tests/cluster PROGRAM=PATH... [NAME... | --shell [COMMAND...]]

Run by scripts/test-cluster, which makes the namespaces that it is in and names the programs.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time
import unittest

import suite
from cluster import HERE, Cluster
from processes import Failure


def main():
    words = sys.argv[1:]
    programs = {}
    while words and "=" in words[0]:
        name, _, path = words.pop(0).partition("=")
        programs[name] = path
    directory = pathlib.Path(programs.pop("directory"))
    cluster = Cluster(directory, programs.pop("cgroup"), programs)
    begin = time.monotonic()
    try:
        cluster.start()
    except Failure as failure:
        print(failure, file=sys.stderr)
        keep_logs(directory)
        return 1
    print(f"the cluster is ready after {time.monotonic() - begin:.0f} s", file=sys.stderr)
    if words[:1] == ["--shell"]:
        environment = {
            **os.environ,
            "PATH": f"{cluster.commands}:{programs['kubernetes']}:{os.environ['PATH']}",
            "KUBECONFIG": str(cluster.kubeconfig),
        }
        return subprocess.run(words[1:] or ["bash"], env=environment).returncode
    suite.ClusterTest.cluster, suite.ClusterTest.programs = cluster, programs
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{word}*" for word in words] or None
    tests = loader.discover(str(HERE))
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    if not result.wasSuccessful():
        keep_logs(directory)
    if result.testsRun == 0:
        print(f"no test has a name with {' or '.join(words)}", file=sys.stderr)
        return 2
    return 0 if result.wasSuccessful() else 1


def keep_logs(directory):
    kept = directory.parent / "logs"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(directory / "logs", kept)
    print(f"logs of the cluster are in {kept}", file=sys.stderr)


sys.exit(main())
