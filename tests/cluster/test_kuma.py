"""Kuma's control plane, its injector, its data plane and Envoy: pods redirected by Kuma's own kuma-init, by sidetrack's image
in its place, and by sidetrack's plugin.

The namespaces of the three ways are there at once, and `outside`, which is outside of the mesh. There is one control plane,
which changed from one way to the next while they were made. Runs if scripts/test-cluster has a name with `kuma`, and the
directory of Kuma's programs.
"""

import re

from kuma.matrix import ENVOY, matrix
from kuma.mesh import (
    HUB,
    IMAGE,
    KUMA_INIT,
    PLUGIN,
    SIDETRACK_INIT,
    SYSTEM,
    TAG,
    WAYS,
    Mesh,
    namespace,
    permission,
    workload,
)
from kuma.programs import import_images
from meshes.mesh import name_server
from meshes.suite import MeshTest
from processes import eventually
from suite import install

INBOUND = ["self_inbound_dp_8080"]
OUTBOUND = "kri_msvc_default_default_NAMESPACE_server_http"
OWN_INIT = f"{HUB}/kuma-init:{TAG}"
INIT_CONTAINERS = {
    KUMA_INIT: ("kuma-init", OWN_INIT),
    IMAGE: ("kuma-init", SIDETRACK_INIT),
    # Kuma's own program, under the plugin's rules.
    PLUGIN: ("kuma-validation", OWN_INIT),
}


class KumaTest(MeshTest):
    init_containers = INIT_CONTAINERS

    @classmethod
    def setUpClass(cls):
        mesh = cls.start_mesh(Mesh, import_images, "kuma", "scripts/test-cluster --meshes DIR kuma")
        install(mesh.cluster)
        mesh.apply(*name_server(), namespace("outside", injected=False), *workload("outside", "outside"))
        for way, values in WAYS.items():
            mesh.control_plane(values)
            mesh.apply(namespace(way), *workload(way, "server"), *workload(way, "client"))
            # What is injected has to be there before the control plane changes.
            for app in ("server", "client"):
                mesh.pod(way, app)
        mesh.wait("outside", "outside")
        for way in WAYS:
            mesh.wait(way, "server", "client")

    def test_injector_writes_the_init_container_of_each_way(self):
        for way in WAYS:
            with self.subTest(way):
                self.assert_init_container(way, way, "server")
                plugin = self.mesh.pod(way, "server")["metadata"]["annotations"].get("k8s.v1.cni.cncf.io/networks")
                self.assertEqual(plugin, "kuma-cni" if way == PLUGIN else None)

    def test_probes_of_the_kubelet_reach_the_data_plane_and_the_application(self):
        for way in WAYS:
            with self.subTest(way):
                pod = self.mesh.pod(way, "server")
                containers = {one["name"]: one for one in pod["spec"]["containers"] + pod["spec"]["initContainers"]}
                # The injector has rewritten the application's probes: kuma-dp takes them, and calls the application.
                ports = [containers[name]["readinessProbe"]["httpGet"]["port"] for name in ("app", "kuma-sidecar")]
                self.assertEqual(ports, [9001, 9902])
                self.assertEqual(containers["app"]["livenessProbe"]["httpGet"]["path"], "/tcp/8080")
                conditions = {one["type"]: one["status"] for one in pod["status"]["conditions"]}
                self.assertEqual(conditions["ContainersReady"], "True")

    def test_traffic_is_that_of_kuma_init(self):
        seen = {way: matrix(self.mesh, way) for way in WAYS}
        self.assert_same_traffic(seen, {
            "client: Service": {"answer": "200 server from 127.0.0.6 ", "client": [OUTBOUND], "server": INBOUND},
            "client: outside the mesh, IPv6": {"answer": "200 outside from CLIENT6 ", "server": [],
                                               "client": ["self_transparentproxy_passthrough_outbound_ipv6"]},
            "client: excluded port": {"answer": "server CLIENT4", "client": [], "server": []},
            "outside: pod": {"answer": "200 server from 127.0.0.6 ", "client": [], "server": INBOUND},
            "outside: readiness of the proxy": {"answer": "200", "client": [], "server": []},
        })

    def test_mtls_is_between_the_proxies_and_refuses_plaintext(self):
        self.mesh.apply(*permission())
        for kind, name in (("meshidentity", "suite"), ("meshtrust", "suite"), ("meshtrafficpermission", "suite")):
            self.addCleanup(self.delete, kind, name, SYSTEM)
        for way in WAYS:
            with self.subTest(way):
                self.assert_refuses_plaintext(way)
                identity = f"spiffe://default.default.mesh.local/ns/{way}/sa/client"
                expected = re.compile(rf"200 server-\S+ from 127.0.0.6 {identity}")
                call = f"get:http://server.{way}:8080/"
                # Proxies learn of identities and permissions one after the other.
                eventually("the server sees the caller's identity",
                           lambda: expected.fullmatch(self.mesh.answer(way, "client", call)))

    def test_dns_is_answered_by_the_data_plane(self):
        # No DNS server knows these names: only kuma-dp does, which has them from the control plane.
        self.mesh.apply({
            "apiVersion": "kuma.io/v1alpha1", "kind": "HostnameGenerator",
            "metadata": {"name": "suite", "namespace": SYSTEM},
            "spec": {"selector": {"meshService": {"matchLabels": {"kuma.io/env": "kubernetes"}}},
                     "template": "{{ .DisplayName }}.{{ .Namespace }}.chosen.example"},
        })
        self.addCleanup(self.delete, "hostnamegenerator", "suite", SYSTEM)
        for way in WAYS:
            with self.subTest(way):
                name = f"server.{way}.chosen.example"

                def answer(what):
                    return self.mesh.answer(way, "client", what)

                eventually("kuma-dp knows the name", lambda: answer(f"dig:{name}") != "no such host")
                service = self.mesh.get("service", "server", f"--namespace={way}")["spec"]["clusterIP"]
                # Once for each family: for IPv6, kuma-dp has the same address.
                self.assertEqual(set(answer(f"dig:{name}").split()), {service})
                self.assertRegex(answer(f"get:http://{name}:8080/"), r"^200 server-\S+ from 127.0.0.6 ")
                # Kuma leaves TCP alone: the cluster's own server is asked.
                self.assertEqual(answer(f"dig-tcp:{name}"), "no such host")
                known = "server.image.svc.cluster.local"
                self.assertEqual(answer(f"dig-tcp:{known}"), answer(f"dig:{known}"))

    def test_rules_are_those_that_the_quickstart_names(self):
        # With the port that the suite excludes besides.
        excluded = ("--exclude-inbound-ports=7777,9001,9902", "--exclude-outbound-ports=7777")
        self.assert_rules(PLUGIN, "server", "--mesh", "kuma", *excluded, "--redirect-dns", "--dns-servers", "all")

    def test_gateway_takes_no_inbound_traffic_and_reaches_the_mesh(self):
        self.mesh.apply(*workload(PLUGIN, "gateway", {"kuma.io/gateway": "enabled"}))
        self.addCleanup(self.delete, "deployment", "gateway", PLUGIN)
        self.mesh.wait(PLUGIN, "gateway")
        outside, gateway = (self.mesh.addresses(*pod)[0] for pod in (("outside", "outside"), (PLUGIN, "gateway")))
        answer = self.mesh.answer("outside", "outside", f"get:http://{gateway}:8080/")
        self.assertRegex(answer, rf"^200 gateway-\S+ from {outside} $")
        self.assertRegex(self.mesh.answer(PLUGIN, "gateway", f"get:http://server.{PLUGIN}:8080/"), "^200 server-")

    def start_web(self, namespace, workload):
        super().start_web(namespace, workload)
        space = namespace["metadata"]["name"]
        web = OUTBOUND.replace("NAMESPACE", space).replace("server", "web")
        self.wait_until_called_by_envoy(space, ENVOY, web, "kuma-sidecar")

    def test_moving_from_kuma_init_and_back_loses_no_request(self):
        space = "moved"
        self.addCleanup(self.mesh.control_plane, WAYS[PLUGIN])
        self.mesh.control_plane(WAYS[KUMA_INIT])
        self.start_web(namespace(space), workload)

        def steps():
            for way in (PLUGIN, IMAGE, KUMA_INIT):
                self.mesh.control_plane(WAYS[way])
                self.restart_web(space, way)

        self.assert_no_request_lost(space, steps)
