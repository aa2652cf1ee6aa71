"""What the tests of all meshes have."""

import unittest


class MeshTest(unittest.TestCase):
    maxDiff = None
    mesh = None

    def delete(self, kind, name, *space):
        self.mesh.kubectl("delete", kind, name, "--wait=false", *(f"--namespace={name}" for name in space))

    def assert_no_request_lost(self, space, steps, but=()):
        """Call `web` while the steps are taken. Answers of `but` are left out."""
        with self.mesh.load(space, "caller", f"http://web.{space}:8080/") as load:
            steps()
            result = load.end()
        failed = {answer: count for answer, count in result["failed"].items() if answer not in but}
        self.assertEqual(failed, {}, f"of {result['requests']} requests")
        # A restart takes ten seconds at least: so the caller did not hang.
        self.assertGreater(result["requests"], 20)
