"""Linkerd's control plane, its injector and its proxy: pods redirected by Linkerd's own linkerd-init, by sidetrack's binary
in its place, and by sidetrack's plugin.

The namespaces of the three ways are there at once, and `outside`, which is outside of the mesh. There is one control plane,
which changed from one way to the next while they were made, its own pods too. Runs if scripts/test-cluster has a name with
`linkerd`, and the directory of Linkerd's programs.
"""

from linkerd.matrix import matrix
from linkerd.mesh import (
    CONTROL_PLANE,
    CONTROL_PLANE_PODS,
    HUB,
    IMAGE,
    LINKERD_INIT,
    PLUGIN,
    SIDETRACK_PROXY,
    SYSTEM,
    TAG,
    WAYS,
    Mesh,
    namespace,
    workload,
)
from linkerd.programs import import_images
from meshes.mesh import first_init_container, name_server
from meshes.suite import MeshTest
from suite import install, uninstall

INIT_CONTAINERS = {
    LINKERD_INIT: ("linkerd-init", f"{HUB}/proxy:{TAG}"),
    IMAGE: ("linkerd-init", f"{SIDETRACK_PROXY}:{TAG}"),
    # Linkerd's own program, under the plugin's rules.
    PLUGIN: ("linkerd-network-validator", f"{HUB}/proxy:{TAG}"),
}
ACCEPTED = {"client": ["1 outbound"], "server": ["1 inbound"]}
IDENTITY = "client.NAMESPACE.serviceaccount.identity.linkerd.cluster.local"


class LinkerdTest(MeshTest):
    init_containers = INIT_CONTAINERS

    @classmethod
    def setUpClass(cls):
        mesh = cls.start_mesh(Mesh, import_images, "linkerd", "scripts/test-cluster --meshes DIR linkerd")
        mesh.apply(*name_server(), namespace("outside", injected=False), *workload("outside", "outside"))
        cls.control_plane = {}
        for way in WAYS:
            cls.use(way)
            cls.control_plane[way] = [first_init_container(mesh.pod(SYSTEM, *pod)) for pod in CONTROL_PLANE_PODS]
            mesh.apply(namespace(way), *workload(way, "server"), *workload(way, "client"))
            mesh.wait(way, "server", "client")
        mesh.wait("outside", "outside")

    @classmethod
    def use(cls, way, **values):
        """Let new pods be redirected in this way. The plugin is there for its own alone: it cannot see Linkerd's init
        container, and both would redirect the pods."""
        if way == PLUGIN:
            install(cls.mesh.cluster)
        else:
            uninstall(cls.mesh.cluster)
        cls.mesh.control_plane({**WAYS[way], **values})

    def test_injector_writes_the_init_container_of_each_way(self):
        for way, expected in INIT_CONTAINERS.items():
            with self.subTest(way):
                for app in ("server", "client"):
                    self.assert_init_container(way, way, app)
                # The control plane's own pods were redirected in the same way, and served the others.
                self.assertEqual(set(self.control_plane[way]), {(*expected, 0)})

    def test_traffic_is_that_of_linkerd_init(self):
        seen = {way: matrix(self.mesh, way) for way in WAYS}
        # A request that both proxies took has an identity.
        self.assert_same_traffic(seen, {
            "client: Service": {"answer": f"200 server from SERVER4 {IDENTITY}", **ACCEPTED},
            "client: outside the mesh, pod": {
                "answer": "200 outside from CLIENT4 ", "client": ["1 outbound"], "server": []},
            "client: excluded port": {"answer": "server CLIENT4", "client": [], "server": []},
            "server: own address": {"answer": "200 server from SERVER4 ", "client": [], "server": []},
            "outside: pod": {"answer": "200 server from SERVER4 ", "client": [], "server": ["1 inbound"]},
            "outside: readiness of the proxy": {"answer": "200", "client": [], "server": []},
        })

    def test_rules_are_those_that_the_quickstart_names(self):
        # With the port that the suite excludes: the annotation replaces 4567 and 4568, which the charts exclude.
        excluded = ("--exclude-inbound-ports=7777", "--exclude-outbound-ports=7777")
        self.assert_rules(PLUGIN, "server", "--mesh", "linkerd", *excluded)

    def test_proxies_that_listen_on_ipv6_get_it_as_from_linkerd_init(self):
        self.addCleanup(self.use, PLUGIN)
        # docs/quickstart.md: no pod of Linkerd shows that its proxy does, those of the control plane neither.
        redirected = {PLUGIN: {"traffic.sidetrack.dev/ip-family": "auto"}}
        seen = {}
        for way in WAYS:
            annotations = {**WAYS[way].get("podAnnotations", {}), **redirected.get(way, {})}
            self.use(way, disableIPv6=False, podAnnotations=annotations)
            space = f"{way}-dual"
            self.mesh.apply(namespace(space))
            self.addCleanup(self.delete, "namespace", space)
            for app in ("server", "client"):
                self.mesh.apply(*workload(space, app, redirected.get(way)))
            self.mesh.wait(space, "server", "client")
            seen[way] = matrix(self.mesh, space)
        self.assert_same_traffic(seen, {
            "client: pod, IPv6": {"answer": f"200 server from SERVER6 {IDENTITY}", **ACCEPTED},
            "outside: IPv6": {"answer": "200 server from SERVER6 ", "client": [], "server": ["1 inbound"]},
        })

    def test_moving_from_linkerd_init_and_back_loses_no_request(self):
        # In the order of docs/migration.md.
        space, annotations = "moved", WAYS[PLUGIN]["podAnnotations"]
        self.addCleanup(self.use, PLUGIN)
        self.use(LINKERD_INIT)
        self.start_web(namespace(space), workload)

        def steps():
            self.mesh.control_plane({"podAnnotations": annotations})
            install(self.mesh.cluster)
            self.mesh.restart(SYSTEM, *CONTROL_PLANE)
            self.mesh.control_plane(WAYS[PLUGIN])
            self.restart_web(space, PLUGIN)
            self.mesh.control_plane({"podAnnotations": annotations})
            self.restart_web(space, LINKERD_INIT)
            uninstall(self.mesh.cluster)
            self.mesh.control_plane({})
            self.restart_web(space, LINKERD_INIT)

        self.assert_no_request_lost(space, steps)
