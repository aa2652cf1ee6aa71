"""Istio's control plane, its injector and Envoy: pods redirected by Istio's own istio-init, by sidetrack's image in its
place, and by sidetrack's plugin.

The three ways are there at once: for each a revision of istiod, and a namespace whose pods are injected by it. The
namespace `outside` is outside of the mesh. Runs if scripts/test-cluster has a name with `istio`, as it takes istiod.
"""

import contextlib

from cluster import version
from istio.matrix import IPV6_WITHOUT_LISTENER, matrix
from istio.mesh import (
    HUB,
    IMAGE,
    ISTIO_INIT,
    PLUGIN,
    SYSTEM,
    WAYS,
    Mesh,
    namespace,
    workload,
)
from istio.programs import import_images
from meshes.mesh import name_server
from meshes.suite import MeshTest
from processes import eventually
from suite import install

OURS = (IMAGE, PLUGIN)
INBOUND = ["inbound|8080||"]
PROXY, SIDETRACK_IMAGE = f"{HUB}/proxyv2:test", f"registry.example/sidetrack:{version()}"
INIT_CONTAINERS = {
    ISTIO_INIT: ("istio-init", PROXY),
    IMAGE: ("istio-init", SIDETRACK_IMAGE),
    PLUGIN: ("istio-validation", PROXY),
}
CAPTURE = {"proxy.istio.io/config": 'proxyMetadata: {ISTIO_META_DNS_CAPTURE: "true"}'}
# A name without an address, which no DNS server knows. istiod chooses one, and agents that capture DNS answer it.
NAME, CHOSEN = "chosen.example", r"\b240\.240\.\d+\.\d+\b"


class IstioTest(MeshTest):
    init_containers = INIT_CONTAINERS

    @classmethod
    def setUpClass(cls):
        mesh = cls.start_mesh(Mesh, import_images, "istio", "scripts/test-cluster istio")
        install(mesh.cluster)
        mesh.apply(*name_server(), namespace(SYSTEM), namespace("outside"), *workload("outside", "outside"))
        mesh.chart("base", "istio-base", f"--set=defaultRevision={ISTIO_INIT}")
        for way, files in WAYS.items():
            mesh.apply(namespace(way, revision=way))
            mesh.control_plane(way, files)
            mesh.apply(*workload(way, "server"), *workload(way, "client"))
        mesh.wait("outside", "outside")
        for way in WAYS:
            mesh.wait(way, "server", "client")

    @contextlib.contextmanager
    def workloads(self, name, *arguments, ways=WAYS, **more):
        """A workload in the namespace of each way; its pods end with the test."""
        for way in ways:
            self.mesh.apply(*workload(way, name, *arguments, **more))
        try:
            for way in ways:
                self.mesh.wait(way, name)
            yield
        finally:
            for way in ways:
                self.delete("deployment", name, way)

    def assert_works(self, space, app, server=PLUGIN):
        """Requests go through the workload's proxy in both directions."""
        address = self.mesh.addresses(space, app)[0]
        call = self.mesh.call("outside", "outside", f"get:http://{address}:8080/", address)
        self.assertRegex(call["answer"], rf"^200 {app}-")
        self.assertEqual(call["server"], INBOUND)
        answer = self.mesh.answer(space, app, f"get:http://server.{server}:8080/")
        self.assertRegex(answer, rf"^200 server-\S+ from 127.0.0.6 spiffe://cluster.local/ns/{space}/sa/{app}$")

    def test_injector_writes_the_init_container_of_each_way(self):
        for way in WAYS:
            with self.subTest(way):
                self.assert_init_container(way, way, "server")
                self.assert_revision(way, way, "server")

    def test_traffic_is_that_of_istio_init(self):
        seen = {way: matrix(self.mesh, way) for way in WAYS}
        self.assert_same_traffic(seen, {
            "client: Service": {
                "answer": "200 server from 127.0.0.6 spiffe://cluster.local/ns/NAMESPACE/sa/client",
                "own": ["outbound|8080||server.NAMESPACE.svc.cluster.local"],
                "server": INBOUND,
            },
            "outside: pod": {"answer": "200 server from 127.0.0.6 ", "own": [], "server": INBOUND},
            "client: excluded port": {"answer": "server CLIENT4", "own": [], "server": []},
        }, {PLUGIN: IPV6_WITHOUT_LISTENER})

    def test_strict_mtls_refuses_plaintext(self):
        for way in WAYS:
            with self.subTest(way):
                about = {"name": "strict", "namespace": way}
                self.mesh.apply({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": about,
                                 "spec": {"mtls": {"mode": "STRICT"}}})
                self.addCleanup(self.delete, "peerauthentication", "strict", way)
                self.assert_refuses_plaintext(way)
                answer = self.mesh.answer(way, "client", f"get:http://server.{way}:8080/")
                self.assertRegex(answer, rf"^200 server-\S+ from 127.0.0.6 spiffe://cluster.local/ns/{way}/sa/client$")

    def test_excluded_ports_of_annotations_bypass_the_proxy(self):
        for way in WAYS:
            with self.subTest(way):
                address = self.mesh.addresses(way, "server")[0]
                call = self.mesh.call(way, "client", f"get:http://{address}:7777/", address)
                self.assertEqual((call["own"], call["server"]), ([], []))
        none = {name: "9999" for name in ("traffic.sidecar.istio.io/excludeInboundPorts",
                                          "traffic.sidecar.istio.io/excludeOutboundPorts")}
        with self.workloads("included", none):
            for way in WAYS:
                with self.subTest(way):
                    address = self.mesh.addresses(way, "included")[0]
                    call = self.mesh.call("outside", "outside", f"get:http://{address}:7777/", address)
                    self.assertNotEqual(call["server"], [])
                    server = self.mesh.addresses(way, "server")[0]
                    self.assertNotEqual(self.mesh.call(way, "included", f"get:http://{server}:7777/")["own"], [])

    def assert_resolves(self, way, app):
        """The agent answers, and the proxy takes the address that it chose."""
        eventually("istiod has chosen an address", lambda: self.mesh.answer(way, app, f"dig:{NAME}") != "no such host")
        self.assertRegex(self.mesh.answer(way, app, f"dig:{NAME}"), CHOSEN)
        call = self.mesh.call(way, app, f"get:http://{NAME}:8080/")
        self.assertRegex(call["answer"], "^200 outside-")
        self.assertEqual(call["own"], [f"outbound|8080||{NAME}"])

    def create_name(self):
        endpoint = {"address": self.mesh.addresses("outside", "outside")[0]}
        port = {"number": 8080, "name": "http", "protocol": "HTTP"}
        where = {"location": "MESH_EXTERNAL", "resolution": "STATIC", "endpoints": [endpoint]}
        self.mesh.apply({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": "chosen", "namespace": "outside"},
            "spec": {"hosts": [NAME], "ports": [port], **where},
        })

    def test_dns_capture_of_an_annotation_resolves_names_of_the_mesh(self):
        self.create_name()
        with self.workloads("resolver", CAPTURE):
            for way in WAYS:
                with self.subTest(way):
                    self.assertEqual(self.mesh.answer(way, "client", f"dig:{NAME}"), "no such host")
                    self.assert_resolves(way, "resolver")

    def test_dns_capture_of_the_whole_mesh_resolves_names_of_the_mesh(self):
        self.create_name()
        for way, files in WAYS.items():
            self.mesh.control_plane(way, files, "meshConfig.defaultConfig.proxyMetadata.ISTIO_META_DNS_CAPTURE=true")
            self.addCleanup(self.mesh.control_plane, way, files)
        with self.workloads("resolver"):
            for way in WAYS:
                with self.subTest(way):
                    self.assert_resolves(way, "resolver")

    def test_tproxy_shows_the_client_to_the_application(self):
        outside = self.mesh.addresses("outside", "outside")[0]
        with self.workloads("transparent", {"sidecar.istio.io/interceptionMode": "TPROXY"}):
            for way in WAYS:
                with self.subTest(way):
                    address, client = (self.mesh.addresses(way, app)[0] for app in ("transparent", "client"))
                    call = self.mesh.call("outside", "outside", f"get:http://{address}:8080/", address)
                    self.assertRegex(call["answer"], rf"^200 transparent-\S+ from {outside} $")
                    self.assertEqual(call["server"], INBOUND)
                    answer = self.mesh.answer(way, "client", f"get:http://transparent.{way}:8080/")
                    self.assertRegex(answer, rf"^200 transparent-\S+ from {client} spiffe://\S+/sa/client$")
                    answer = self.mesh.answer(way, "transparent", f"get:http://server.{way}:8080/")
                    self.assertRegex(answer, r"^200 server-\S+ from 127.0.0.6 spiffe://\S+/sa/transparent$")

    def test_dual_stack_redirects_ipv6_as_istio_init_does(self):
        def change(*settings):
            for way, files in WAYS.items():
                self.mesh.control_plane(way, files, *settings)
            for way in WAYS:
                self.mesh.restart(way, "server", "client")

        self.addCleanup(change)
        change("env.ISTIO_DUAL_STACK=true", "meshConfig.defaultConfig.proxyMetadata.ISTIO_DUAL_STACK=true")
        seen = {way: matrix(self.mesh, way) for way in WAYS}
        self.assertEqual(seen[ISTIO_INIT]["outside: IPv6"]["server"], INBOUND)
        self.assert_same_traffic(seen, {})

    def test_native_sidecars_and_others_are_redirected(self):
        for native, place in (("true", "initContainers"), ("false", "containers")):
            name = f"native-{native}"
            with self.workloads(name, {"sidecar.istio.io/nativeSidecar": native}, ways=OURS):
                for way in OURS:
                    with self.subTest(f"{name}, {way}"):
                        containers = [container["name"] for container in self.mesh.pod(way, name)["spec"][place]]
                        self.assertIn("istio-proxy", containers)
                        self.assert_works(way, name, server=way)

    def test_gateway_is_not_redirected_and_reaches_the_mesh(self):
        port = {"number": 80, "name": "http", "protocol": "HTTP"}
        gateway = {"selector": {"istio": "ingress"}, "servers": [{"port": port, "hosts": ["*"]}]}
        route = {"route": [{"destination": {"host": "server", "port": {"number": 8080}}}]}
        service = {"hosts": ["*"], "gateways": ["ingress"], "http": [route]}
        # Images come from no registry.
        settings = ("autoscaling.enabled=false", "service.type=ClusterIP", "imagePullPolicy=IfNotPresent")
        settings = [f"--set={setting}" for setting in settings]
        for way in OURS:
            with self.subTest(way):
                self.mesh.chart("gateway", "ingress", *settings, f"--set=revision={way}", namespace=way)
                self.addCleanup(self.delete, "deployment", "ingress", way)
                about = {"apiVersion": "networking.istio.io/v1", "metadata": {"name": "ingress", "namespace": way}}
                self.mesh.apply(
                    {**about, "kind": "Gateway", "spec": gateway}, {**about, "kind": "VirtualService", "spec": service})
                self.mesh.wait(way, "ingress")
                self.assertEqual(self.mesh.pod(way, "ingress")["spec"].get("initContainers", []), [])
                caller = f"get:http://ingress.{way}:80/"

                def answer():
                    return self.mesh.answer("outside", "outside", caller)

                eventually("the gateway has the route", lambda: answer().startswith("200"))
                self.assertRegex(answer(), r"^200 server-\S+ from 127.0.0.6 spiffe://\S+/sa/ingress$")

    def test_proxy_of_another_user_is_exempt(self):
        # Istio's own init container takes no notice of the user: this is about the template that the plugin needs.
        user = {"name": "istio-proxy", "image": "auto", "imagePullPolicy": "IfNotPresent",
                "securityContext": {"runAsUser": 2000, "runAsGroup": 2000}}
        with self.workloads("other-user", containers=[user], ways=[PLUGIN]):
            self.assert_works(PLUGIN, "other-user")

    def test_proxy_in_the_range_of_openshift_is_exempt(self):
        space, uids = "openshift", "1000650000/10000"
        self.mesh.control_plane(space, WAYS[PLUGIN], "platform=openshift", "pilot.cni.provider=default")
        self.addCleanup(self.mesh.remove_control_plane, space)
        self.mesh.apply(namespace(space, revision=space, **{
            "openshift.io/sa.scc.uid-range": uids, "openshift.io/sa.scc.supplemental-groups": uids}))
        self.addCleanup(self.delete, "namespace", space)
        self.mesh.apply(*workload(space, "ranged"))
        self.mesh.wait(space, "ranged")
        spec = self.mesh.pod(space, "ranged")["spec"]
        proxies = [one for one in spec["containers"] + spec["initContainers"] if one["name"] == "istio-proxy"]
        self.assertIn(proxies[0]["securityContext"]["runAsUser"], range(1000650000, 1000660000))
        self.assert_works(space, "ranged")

    def assert_revision(self, revision, space, app):
        self.assertEqual(self.mesh.pod(space, app)["metadata"]["annotations"]["istio.io/rev"], revision)

    def restart_web(self, space, way, revision):
        """As the docs do. Its pods are redirected afterwards."""
        super().restart_web(space, way)
        self.assert_revision(revision, space, "web")
        address = self.mesh.addresses(space, "web")[0]
        call = self.mesh.call("outside", "outside", f"get:http://{address}:8080/", address)
        self.assertEqual(call["server"], INBOUND)

    def start_web_and_control_plane(self, space, files=()):
        self.mesh.control_plane(space, files)
        self.addCleanup(self.mesh.remove_control_plane, space)
        self.start_web(namespace(space, revision=space), workload)

    def test_moving_from_istio_init_and_back_loses_no_request(self):
        for way in OURS:
            with self.subTest(way):
                space = f"from-{way}"
                self.start_web_and_control_plane(space)

                def steps():
                    self.mesh.control_plane(space, WAYS[way])
                    self.restart_web(space, way, revision=space)
                    self.mesh.control_plane(space)
                    self.restart_web(space, ISTIO_INIT, revision=space)

                self.assert_no_request_lost(space, steps)

    def test_upgrade_of_the_revision_and_back_loses_no_request(self):
        # As Istio's documentation says: a control plane beside the old one, the label, a restart.
        self.start_web_and_control_plane("older", WAYS[PLUGIN])
        self.mesh.control_plane("newer", WAYS[PLUGIN])
        self.addCleanup(self.mesh.remove_control_plane, "newer")

        def steps():
            for revision in ("newer", "older"):
                self.mesh.kubectl("label", "namespace", "older", f"istio.io/rev={revision}", "--overwrite")
                self.restart_web("older", PLUGIN, revision)

        self.assert_no_request_lost("older", steps)
