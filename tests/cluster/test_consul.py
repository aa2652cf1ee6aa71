"""Consul's server, control plane, injector and data plane with Envoy: pods redirected by Consul's own init container, by
Consul's plugin, and by sidetrack's plugin in the place of that.

The namespaces of the three ways are there at once, and `outside`, which is outside of the mesh. There is one control plane,
which changed from one way to the next while they were made. Runs if scripts/test-cluster has a name with `consul`, and the
directory of Consul's programs.
"""

import json

from consul.matrix import ENVOY, matrix
from consul.mesh import (
    ANNOTATIONS,
    CONNECT_INIT,
    CONSUL_CNI,
    HUB,
    PLUGIN,
    TAG,
    WAYS,
    Mesh,
    intention,
    name_in_consul,
    workload,
)
from consul.programs import import_images
from meshes.mesh import CLOSED, name_server, namespace
from meshes.mesh import workload as plain_workload
from meshes.suite import MeshTest
from processes import eventually
from suite import install, uninstall

INIT_CONTAINER = ("consul-connect-inject-init", f"{HUB}/control-plane:{TAG}")
CONFIGURATION = f"{ANNOTATIONS}redirect-traffic-config"
CONFIGURED = {"ProxyUserID": "5995", "ProxyInboundPort": 20000, "ProxyOutboundPort": 15001, "ConsulDNSIP": "127.0.0.1",
              "ConsulDNSPort": 8600, "ExcludeInboundPorts": ["20400", "7777"], "ExcludeOutboundPorts": ["7777"],
              "ExcludeUIDs": ["5996"]}


class ConsulTest(MeshTest):
    init_containers = dict.fromkeys(WAYS, INIT_CONTAINER)

    @classmethod
    def setUpClass(cls):
        mesh = cls.start_mesh(Mesh, import_images, "consul", "scripts/test-cluster --meshes DIR consul")
        cls.use_version("1.0.0")
        cls.addClassCleanup(cls.use_version, "1.1.0")
        mesh.apply(*name_server(), namespace("outside"), *plain_workload("outside", "outside"))
        for way in WAYS:
            cls.use(way)
            mesh.apply(namespace(way), *workload(way, "server"), *workload(way, "client"))
            mesh.wait(way, "server", "client")
        mesh.wait("outside", "outside")

    @classmethod
    def use_version(cls, version):
        """Consul's plugin does not know STATUS, which containerd asks for from version 1.1 of the specification on."""
        file = cls.mesh.cluster.node.path("etc/cni/net.d/10-net.conflist")
        conflist = json.loads(file.read_text())
        new = file.with_suffix(".new")
        new.write_text(json.dumps({**conflist, "cniVersion": version}))
        new.replace(file)

    @classmethod
    def use(cls, way):
        """Let new pods be redirected in this way, in the order of docs/migration.md: never by none."""
        mesh = cls.mesh
        if way == CONSUL_CNI:
            mesh.control_plane(WAYS[way])
            mesh.start_own_plugin()
            uninstall(mesh.cluster)
        else:
            # It skips the pods that the init container redirects.
            install(mesh.cluster)
            mesh.control_plane(WAYS[way])
        if way == PLUGIN:
            mesh.remove_own_plugin()

    def assert_configured(self, way, space, app):
        """A pod has the settings where this way reads them, and nowhere else."""
        self.assert_init_container(way, space, app)
        pod = self.mesh.pod(space, app)
        annotations = pod["metadata"]["annotations"]
        # Only Consul's plugin tells that it has redirected.
        status = "complete" if way == CONSUL_CNI else "enabled"
        self.assertEqual(annotations[f"{ANNOTATIONS}transparent-proxy-status"], status)
        environment = {one["name"]: one.get("value") for one in pod["spec"]["initContainers"][0]["env"]}
        written, other = environment.get("CONSUL_REDIRECT_TRAFFIC_CONFIG"), annotations.get(CONFIGURATION)
        if way != CONNECT_INIT:
            written, other = other, written
        self.assertIsNone(other)
        configuration = json.loads(written)
        self.assertEqual({name: configuration[name] for name in CONFIGURED}, CONFIGURED)

    def test_injector_writes_the_configuration_of_each_way(self):
        for way in WAYS:
            with self.subTest(way):
                self.assert_configured(way, way, "server")

    def test_probes_of_the_kubelet_reach_the_application(self):
        for way in WAYS:
            with self.subTest(way):
                pod = self.mesh.pod(way, "server")
                app = next(one for one in pod["spec"]["containers"] if one["name"] == "app")
                # Envoy takes it without TLS, and calls the application.
                self.assertEqual(app["readinessProbe"]["httpGet"]["port"], 20400)
                conditions = {one["type"]: one["status"] for one in pod["status"]["conditions"]}
                self.assertEqual(conditions["ContainersReady"], "True")

    def test_traffic_is_that_of_connect_init_and_of_consul_cni(self):
        seen = {way: matrix(self.mesh, way) for way in WAYS}
        # Server and client have an identity in each other's proxy. Plain calls of the server's address are refused.
        self.assert_same_traffic(seen, {
            "client: Service": {"answer": "200 server from 127.0.0.1 client", "client": ["server"], "server": []},
            "client: pod": {"answer": "closed", "client": ["original-destination"], "server": []},
            "client: excluded port": {"answer": "server CLIENT4", "client": [], "server": []},
            "client: outside the mesh, pod": {
                "answer": "200 outside from CLIENT4 ", "client": ["original-destination"], "server": []},
            "client: name of Consul": {"answer": "SERVER4", "client": [], "server": []},
            "server: own address": {
                "answer": "200 server from SERVER4 ", "client": [], "server": ["original-destination"]},
            "outside: pod": {"answer": "closed", "client": [], "server": []},
            "outside: probe of the application": {"answer": "200 server from 127.0.0.1 ", "client": [], "server": []},
        }, {PLUGIN: {
            # docs/cni.md: a pod's calls of itself need no proxy.
            "server: own address": {"answer": "200 server from SERVER4 ", "client": [], "server": []},
        }})

    def test_mtls_is_between_the_proxies_and_intentions_count(self):
        for way in WAYS:
            with self.subTest(way):
                self.assert_refuses_plaintext(way)
                server, client = (name_in_consul(way, name) for name in ("server", "client"))

                def answer():
                    return self.mesh.answer(way, "client", f"get:http://server.{way}:8080/")

                self.assertRegex(answer(), rf"^200 server-\S+ from 127.0.0.1 \S+/svc/{client}$")
                self.mesh.apply(intention(server, client, "deny"))
                try:
                    eventually("the server refuses the caller", lambda: answer() in CLOSED)
                finally:
                    self.delete("serviceintentions", server, "outside")
                eventually("the server answers the caller", lambda: answer().startswith("200 "))

    def test_rules_are_those_that_the_quickstart_names(self):
        # With the ports of the suite besides.
        excluded = ("--exclude-inbound-ports=7777,20400", "--exclude-outbound-ports=7777", "--exclude-uids=5996")
        options = ("--mesh", "consul", *excluded, "--redirect-dns", "--dns-servers", "127.0.0.1")
        done = self.mesh.sidetrack(PLUGIN, "server", "check", *options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        lines = self.mesh.sidetrack(PLUGIN, "server", "probe", *options).stdout.splitlines()
        self.assertGreaterEqual(len([line for line in lines if line.startswith("passed")]), 10, lines)
        # docs/quickstart.md: where the data plane runs, nothing tells its answer from one of the pod's own port 53.
        failed = [line for line in lines if line.startswith("failed") and "UDP lookup" not in line]
        self.assertEqual(failed, [])

    def start_web(self, namespace, workload):
        super().start_web(namespace, workload)
        space = namespace["metadata"]["name"]
        self.wait_until_called_by_envoy(space, ENVOY, f"{name_in_consul(space, 'web')}.")

    def restart_web(self, space, way):
        super().restart_web(space, way)
        self.assert_configured(way, space, "web")
        self.assert_refuses_plaintext(space, "web")
        # The load goes on while their proxies drain.
        self.mesh.wait_for_former_pods(space)

    def assert_moves(self, way, back):
        """From a way of Consul's to sidetrack's plugin, and back, in the order of docs/migration.md."""
        space = f"from-{way}"
        self.addCleanup(self.use, PLUGIN)
        self.use(way)
        uninstall(self.mesh.cluster)
        self.start_web(namespace(space), workload)

        def steps():
            self.use(PLUGIN)
            self.restart_web(space, PLUGIN)
            back(space)

        self.assert_no_request_lost(space, steps)

    def test_moving_from_connect_init_and_back_loses_no_request(self):
        def back(space):
            self.mesh.control_plane(WAYS[CONNECT_INIT])
            self.restart_web(space, CONNECT_INIT)
            uninstall(self.mesh.cluster)

        self.assert_moves(CONNECT_INIT, back)

    def test_moving_from_consul_cni_and_back_loses_no_request(self):
        def back(space):
            self.use(CONSUL_CNI)
            self.restart_web(space, CONSUL_CNI)

        self.assert_moves(CONSUL_CNI, back)
