"""More than one node: what the DaemonSet installs on each, and removes from each."""

import pods
from processes import eventually
from suite import ClusterTest

PLAIN = ["ptp", "portmap"]


class Nodes(ClusterTest):
    def test_new_node_is_installed_and_all_nodes_are_uninstalled(self):
        server = self.start_plain_server()
        with self.cluster.second_node() as second:
            nodes = (self.node, second)
            for node in nodes:
                eventually(f"the entry is on {node.name}", lambda node=node: "sidetrack" in self.conflist(node))
                self.create(pods.client(f"with-{node.name}", *server, nodeName=node.name))
                self.assert_redirected(f"with-{node.name}")
            # The nodes reach each other: nothing else refused the connections.
            self.create(pods.client("exempt", *server, annotations={}, nodeName=second.name))
            self.assert_bypassed("exempt")

            self.change_installation()
            for node in nodes:
                self.assertEqual(self.conflist(node), PLAIN)
                self.create(pods.client(f"without-{node.name}", *server, nodeName=node.name))
                self.assert_bypassed(f"without-{node.name}")
