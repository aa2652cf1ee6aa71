"""What the tests of all meshes have."""

import sys
import unittest

from meshes.matrix import differences
from meshes.mesh import CLOSED, first_init_container
from processes import eventually
from suite import ClusterTest


class MeshTest(unittest.TestCase):
    maxDiff = None
    mesh = None
    # By way of redirection, that of the mesh itself first: the name of the init container that is injected, and its image.
    init_containers = None

    @classmethod
    def start_mesh(cls, kind, import_images, programs, command):
        """The mesh on the cluster, with the images of its programs. Skips the tests if they were not asked for."""
        cluster = ClusterTest.cluster
        if programs not in ClusterTest.programs:
            raise unittest.SkipTest(f"it takes the programs of {programs}: {command}")
        import_images(cluster, ClusterTest.programs)
        cls.mesh = kind(cluster, ClusterTest.programs)
        return cls.mesh

    def delete(self, kind, name, *space):
        self.mesh.kubectl("delete", kind, name, "--wait=false", *(f"--namespace={name}" for name in space))

    def assert_init_container(self, way, space, app):
        """The newest pod of a workload has the first init container of this way, and it has ended well."""
        self.assertEqual(first_init_container(self.mesh.pod(space, app)), (*self.init_containers[way], 0))

    def assert_same_traffic(self, seen, rows, expected=None):
        """The matrix of each way is that of the mesh's own, but for the rows that are `expected` to differ, by way. In that
        of the mesh's own are these `rows`: so the comparison is not one of nothing with nothing."""
        own, *others = self.init_containers
        for name, row in rows.items():
            with self.subTest(name):
                self.assertEqual(seen[own][name], row)
        for way in others:
            with self.subTest(way):
                self.assertEqual(differences(seen[own], seen[way], (expected or {}).get(way, {})), [])

    def assert_refuses_plaintext(self, space, app="server"):
        """A pod closes a plain connection from outside of the mesh, if it is not to an excluded port: nothing between
        the caller and the application could."""
        address = self.mesh.addresses(space, app)[0]

        def answer(what):
            return self.mesh.answer("outside", "outside", what)

        eventually("plaintext is refused", lambda: answer(f"get:http://{address}:8080/") in CLOSED)
        self.assertRegex(answer(f"first:{address}:7777"), f"^{app}-")

    def assert_rules(self, space, app, *options):
        """A pod's rules are those of these options, and work."""
        for command in ("check", "probe"):
            with self.subTest(command):
                done = self.mesh.sidetrack(space, app, command, *options)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def start_web(self, namespace, workload):
        """Two pods that are called, `web`, and one that calls them, in a namespace that ends with the test."""
        space = namespace["metadata"]["name"]
        self.mesh.apply(namespace, *workload(space, "web", replicas=2), *workload(space, "caller"))
        self.addCleanup(self.delete, "namespace", space)
        self.mesh.wait(space, "web", "caller")

    def wait_until_called_by_envoy(self, space, place, cluster, container="app"):
        """Pods are ready before the control plane has sent their addresses to callers: until then, the caller's Envoy
        answers in their place, or calls them by another cluster. `place` is where it is asked, in a container."""
        with self.mesh.ask(space, "caller", container) as envoy:

            def has_called():
                answer = self.mesh.answer(space, "caller", f"get:http://web.{space}:8080/")
                return answer.startswith("200 ") and any(used.startswith(cluster) for used in envoy(place))

            eventually("the caller's Envoy calls a pod of web", has_called)

    def restart_web(self, space, way):
        self.mesh.restart(space, "web")
        self.assert_init_container(way, space, "web")

    def assert_no_request_lost(self, space, steps):
        """Let `caller` call `web` while the steps are taken."""
        with self.mesh.load(space, "caller", f"http://web.{space}:8080/") as load:
            steps()
            result = load.end()
        print(f"{result['requests']} requests", end=" ... ", file=sys.stderr, flush=True)
        self.assertEqual(result["failed"], {}, f"of {result['requests']} requests")
        # A restart takes ten seconds at least: so the caller did not hang.
        self.assertGreater(result["requests"], 20)
