//! The template for Istio's injector in `cni-conf/examples/istio-cni.yaml`: the plugin's verdict on pods that were
//! injected with it.
//!
//! `tests/istio/injected.json` has what istiod made of some pods (istio/istio at 86c9f01, 2026-08-22: the chart rendered
//! with that file, then `injectPod` of `pkg/kube/inject`): the annotations, shortened to those that are about
//! redirection, the proxy's user and group, and the template that they were rendered from.

use std::path::Path;

use serde_json::{Map, Value, json};
use sidetrack::cni::attach;
use sidetrack::cni::netconf::NetConf;
use sidetrack::mesh::pod::PodName;
use sidetrack::mesh::verdict::Verdict;
use sidetrack::options::Config;
use sidetrack::types::{DnsServers, Gid, Id as _, InboundMode, IpFamily, Uid};
use sidetrack::yaml;

fn injected() -> Value {
    serde_json::from_str(include_str!("../istio/injected.json")).expect("JSON")
}

fn pods() -> Map<String, Value> {
    injected()["pods"].as_object().expect("pods").clone()
}

fn annotations_of(pod: &str) -> Value {
    pods()[pod]["annotations"].clone()
}

fn verdict(members: &Value) -> Verdict {
    let mut netconf = json!({ "cniVersion": "1.0.0", "name": "net", "type": "sidetrack" });
    let members = members.as_object().expect("members").clone();
    netconf.as_object_mut().expect("an object").extend(members);
    let netconf = NetConf::parse(netconf.to_string().as_bytes()).expect("a NetConf");
    attach::verdict(&netconf, &PodName::default()).unwrap_or_else(|error| panic!("{}", error.message()))
}

/// The verdict on a pod whose runtime passes annotations.
fn by_runtime(annotations: &Value) -> Verdict {
    verdict(&json!({ "runtimeConfig": { "io.kubernetes.cri.pod-annotations": annotations } }))
}

/// The input from Multus for Istio's network: arguments alone.
fn by_multus(annotations: &Value) -> Verdict {
    let networks = annotations["k8s.v1.cni.cncf.io/networks"].as_str().expect("networks");
    let networks: Vec<Value> = serde_json::from_str(networks).expect("JSON");
    let ours: Vec<&Value> = networks
        .iter()
        .filter(|network| network["name"] == "istio-cni" && network["namespace"] == "default")
        .collect();
    let [ours] = ours.as_slice() else {
        panic!("not attached once: {networks:?}");
    };
    verdict(&json!({ "args": { "cni": ours["cni-args"] } }))
}

fn config(verdict: Verdict) -> Config {
    match verdict {
        Verdict::Redirected(redirected) => redirected.settings.config,
        Verdict::Skipped(skipped) => panic!("not redirected: {skipped:?}"),
    }
}

fn config_of(pod: &str) -> Config {
    config(by_runtime(&annotations_of(pod)))
}

#[test]
fn recorded_pods_were_injected_with_the_shipped_template() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("cni-conf/examples/istio-cni.yaml");
    let values = yaml::document(&std::fs::read_to_string(file).expect("the values")).expect("YAML");
    let webhook = values.to_json()["sidecarInjectorWebhook"].clone();
    let lines = injected()["template"].clone();
    let lines: Vec<&str> = lines
        .as_array()
        .expect("lines")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(webhook["templates"]["sidetrack"], lines.join("\n"));
    assert_eq!(webhook["defaultTemplates"], json!(["sidecar", "sidetrack"]));
}

/// The proxy's user and group are exempt, so that its traffic does not return to it.
#[test]
fn user_or_group_of_the_proxy_is_exempt() {
    let not_ours = ["none", "gateway", "grpc-agent", "multus-none"];
    // Root is never exempt, as in Istio's own rules.
    let unusable = ["overridden-root"];
    for (name, pod) in pods() {
        if not_ours.contains(&name.as_str()) || unusable.contains(&name.as_str()) {
            continue;
        }
        let id = |key: &str| u32::try_from(pod[key].as_u64().expect("an id")).expect("an id");
        let config = config_of(&name);
        if name.starts_with("own-annotation") {
            continue;
        }
        let group = config.proxy.gids.contains(Gid::new(id("group")).expect("a group"));
        let user = config.proxy.uids.contains(Uid::new(id("user")).expect("a user"));
        assert!(group && (user || id("user") == 0), "{name}: {:?}", config.proxy);
    }
    assert_eq!(config_of("overridden-root").proxy.uids.to_string(), "1337");
}

#[test]
fn settings_without_istio_annotation_come_from_the_template() {
    let owners = |pod| {
        let proxy = config_of(pod).proxy;
        (proxy.uids.to_string(), proxy.gids.to_string())
    };
    let pair = |uid: &str, gid: &str| (uid.to_owned(), gid.to_owned());
    assert_eq!(owners("plain"), pair("1337", "1337"));
    assert_eq!(owners("overridden-user"), pair("2000", "3000"));
    assert_eq!(owners("openshift-range"), pair("1000659999", "1000659999"));
    assert_eq!(owners("trace"), pair("1337", "1000659999"));
    assert_eq!(owners("low-ports"), pair("1337", "1337"));
    for (pod, captured) in [
        ("plain", false),
        ("dns-of-the-mesh", true),
        ("dns-of-the-container", true),
        ("dns-of-the-pod", false),
        ("no-boolean", false),
        ("own-annotation", false),
    ] {
        assert_eq!(config_of(pod).dns.redirect, captured, "{pod}");
    }
    let all = config_of("everything-of-the-mesh");
    assert!(all.dns.redirect && all.general.drop_invalid);
    assert_eq!(all.dns.servers, DnsServers::All);
    assert_eq!(all.inbound.tproxy_mark.to_string(), "1400");
    assert_eq!(all.inbound.tproxy_route_table.to_string(), "200");
    assert_eq!(all.outbound.exclude_gids.to_string(), "2000");
    for pod in ["tproxy", "tproxy-of-the-mesh"] {
        assert_eq!(config_of(pod).inbound.mode, InboundMode::Tproxy, "{pod}");
    }
    let ports = config_of("ports").proxy;
    assert_eq!((ports.inbound_port.get(), ports.outbound_port.get()), (16006, 16001));
}

/// Annotations of the pod stay beside those of the template.
#[test]
fn pod_annotations_override_the_template() {
    let own = config_of("own-annotation");
    assert_eq!(
        (own.proxy.uids.to_string(), own.proxy.gids.to_string()),
        ("4000".into(), "1337".into())
    );
    assert_eq!(own.outbound.exclude_ports.to_string(), "3306");
    assert!(!own.dns.redirect);
    let (own, of_mesh) = (config_of("own-annotations"), config_of("everything-of-the-mesh"));
    assert_eq!(
        (own.proxy.uids.to_string(), own.proxy.gids.to_string()),
        ("1337".into(), "4000".into())
    );
    assert_eq!(
        (own.general.ip_family, of_mesh.general.ip_family),
        (IpFamily::Ipv4, IpFamily::Auto)
    );
    assert_eq!(
        (own.dns.servers.to_string(), of_mesh.dns.servers),
        ("10.96.0.10".into(), DnsServers::All)
    );
    assert_eq!((own.general.drop_invalid, of_mesh.general.drop_invalid), (false, true));
    assert!(own.dns.redirect, "the mesh says so, and the pod nothing else");
}

/// Each line of the template sets one option.
#[test]
fn each_setting_of_the_mesh_changes_one_option() {
    let plain = config_of("plain");
    for (pod, change) in [
        (
            "capture-all",
            (|config| (config.dns.redirect, config.dns.servers) = (true, DnsServers::All)) as fn(&mut Config),
        ),
        ("dual-stack", |config| config.general.ip_family = IpFamily::Auto),
        ("drop-invalid", |config| config.general.drop_invalid = true),
    ] {
        let mut expected = plain.clone();
        change(&mut expected);
        assert_eq!(config_of(pod), expected, "{pod}");
    }
    let said = annotations_of("dual-stack")["traffic.sidetrack.dev/ip-family"].clone();
    assert_eq!(said, "auto", "a node may override it for all its pods");
    let netconf = json!({ "redirect": { "ip-family": "ipv4" },
        "runtimeConfig": { "io.kubernetes.cri.pod-annotations": annotations_of("dual-stack") } });
    assert_eq!(config(verdict(&netconf)).general.ip_family, IpFamily::Auto);
}

/// `inject.istio.io/templates` replaces the list of templates: it must name sidetrack's, too.
#[test]
fn pods_with_named_templates_get_settings_if_they_name_sidetrack() {
    assert_eq!(config_of("chosen-templates"), config_of("plain"));
    assert_eq!(config_of("chosen-templates-openshift"), config_of("openshift-range"));
    let custom = config_of("custom-templates");
    assert_eq!(
        (custom.proxy.uids.to_string(), custom.dns.redirect),
        ("1000659999".into(), true)
    );
    for pod in ["sidecar-alone", "custom-template-alone"] {
        let annotations = annotations_of(pod);
        let members = annotations.as_object().expect("annotations");
        assert!(
            !members.keys().any(|name| name.starts_with("traffic.sidetrack.dev/")),
            "{pod}"
        );
        assert_eq!(
            config(by_runtime(&annotations)).proxy,
            config_of("plain").proxy,
            "{pod}"
        );
    }
}

/// `proxy.istio.io/overrides` alone, for pods or meshes without sidetrack's template.
#[test]
fn overridden_user_is_read_without_the_template() {
    for name in ["overridden-user", "overridden-user-native"] {
        let mut annotations = annotations_of(name);
        let members = annotations.as_object_mut().expect("annotations");
        members.retain(|name, _| !name.starts_with("traffic.sidetrack.dev/"));
        let proxy = config(by_runtime(&annotations)).proxy;
        assert_eq!(
            (proxy.uids.to_string(), proxy.gids.to_string()),
            ("2000".into(), "3000".into())
        );
    }
}

#[test]
fn gateways_and_pods_without_interception_get_no_settings() {
    for name in ["gateway", "grpc-agent", "none"] {
        let annotations = annotations_of(name);
        let members = annotations.as_object().expect("annotations");
        assert!(
            !members.keys().any(|name| name.starts_with("traffic.sidetrack.dev/")),
            "{members:?}"
        );
        assert!(matches!(by_runtime(&annotations), Verdict::Skipped(_)), "{name}");
    }
    assert_eq!(annotations_of("none")["a"], "b");
    assert!(annotations_of("tproxy")["sidecar.istio.io/interceptionMode"] == "TPROXY");
}

#[test]
fn multus_arguments_give_the_same_verdict_as_annotations() {
    for (name, pod) in pods() {
        if !name.starts_with("multus") {
            continue;
        }
        let of_multus = by_multus(&pod["annotations"]);
        match by_runtime(&pod["annotations"]) {
            Verdict::Skipped(skipped) => assert_eq!(of_multus, Verdict::Skipped(skipped), "{name}"),
            redirected => assert_eq!(config(of_multus), config(redirected), "{name}"),
        }
    }
    let networks = annotations_of("multus-list")["k8s.v1.cni.cncf.io/networks"].clone();
    let networks: Value = serde_json::from_str(networks.as_str().expect("text")).expect("JSON");
    assert_eq!(networks[0], json!({ "name": "macvlan" }));
    assert_eq!(
        networks[1],
        json!({ "name": "net", "namespace": "other", "interface": "net5" })
    );
}
