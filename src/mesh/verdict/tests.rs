use serde_json::{Value, json};

use super::*;
use crate::mesh::annotations::OURS;
use crate::mesh::invocation::Invocation;
use crate::mesh::manifest;
use crate::mesh::pod::PodName;
use crate::types::Port;
use crate::yaml;

fn policy(select: Select) -> Policy {
    Policy {
        select,
        ..Policy::default()
    }
}

fn asked(pod: &Pod<'_>, policy: &Policy, read: &ReadInvocation) -> Result<Verdict, Undecided> {
    let nothing = Layer::default();
    let given = Given {
        policy,
        before: &nothing,
        after: &nothing,
        read,
    };
    verdict(pod, &given)
}

/// What becomes of a pod of which a runtime tells these annotations.
fn told(policy: &Policy, annotations: Option<&Annotations>) -> Result<Verdict, Undecided> {
    asked(&Pod::of_runtime(&PodName::default(), annotations), policy, &|_| None)
}

/// Whether a pod with these annotations is redirected, and why.
fn decided(select: Select, annotations: &[(&str, &str)]) -> (bool, String) {
    let object: Value = annotations.iter().map(|(name, value)| (*name, *value)).collect();
    let verdict = told(&policy(select), Some(&Annotations::of(&object).unwrap())).unwrap();
    (matches!(verdict, Verdict::Redirected(_)), verdict.reason().to_owned())
}

const STATUS: (&str, &str) = (
    "sidecar.istio.io/status",
    r#"{"initContainers":["istio-validation"],"containers":["istio-proxy"]}"#,
);
const LINKERD: (&str, &str) = ("linkerd.io/proxy-version", "edge-26.7.1");
const KUMA: (&str, &str) = ("kuma.io/sidecar-injected", "true");
const KUMA_CNI: (&str, &str) = ("k8s.v1.cni.cncf.io/networks", "kuma-cni");
const KUMA_CONFIG: (&str, &str) = ("traffic.kuma.io/transparent-proxy-config", "cniMode: true\nwait: 5");
const CONSUL: [(&str, &str); 3] = [
    ("consul.hashicorp.com/connect-inject-status", "injected"),
    ("consul.hashicorp.com/transparent-proxy-status", "enabled"),
    ("consul.hashicorp.com/redirect-traffic-config", "{}"),
];

#[test]
fn injected_pods_of_each_mesh_are_redirected() {
    type Case<'c> = (&'c [(&'c str, &'c str)], bool, &'c str);
    let cases: [Case; 15] = [
        (&[STATUS], true, "Istio"),
        (&[("sidecar.istio.io/status", "not JSON")], true, "Istio"),
        (&[LINKERD], true, "Linkerd"),
        (&[KUMA, KUMA_CNI], true, "Kuma"),
        (&[KUMA, (KUMA_CNI.0, "a, shop/kuma-cni@eth1")], true, "Kuma"),
        (&[KUMA, KUMA_CONFIG], true, "Kuma"),
        (
            &[KUMA, KUMA_CNI, ("kuma.io/transparent-proxying", "disabled")],
            true,
            "Kuma",
        ),
        (&[KUMA], false, "kuma-init"),
        (&[KUMA, (KUMA_CNI.0, "kuma-cni-2")], false, "kuma-init"),
        (&[KUMA, (KUMA_CONFIG.0, "cniMode: false")], false, "kuma-init"),
        (&CONSUL, true, "Consul"),
        (&CONSUL[..2], false, "init container"),
        (&CONSUL[..1], false, "no mark"),
        (&[("kuma.io/sidecar-injected", "false")], false, "no mark"),
        (&[("sidecar.istio.io/status", "")], false, "no mark"),
    ];
    for (annotations, redirected, reason) in cases {
        let decided = decided(Select::Injected, annotations);
        assert_eq!(decided.0, redirected, "{annotations:?}: {}", decided.1);
        assert!(decided.1.contains(reason), "{annotations:?}: {}", decided.1);
    }
}

#[test]
fn whoever_opts_out_is_let_through_even_where_all_are_redirected() {
    let cases = [
        ("sidecar.istio.io/interceptionMode", "NONE"),
        ("inject.istio.io/templates", "gateway"),
        ("inject.istio.io/templates", "custom, grpc-agent"),
        ("inject.istio.io/templates", "waypoint"),
        ("sidecar.istio.io/status", r#"{"initContainers":["a","istio-init"]}"#),
        ("consul.hashicorp.com/transparent-proxy", "false"),
        (REDIRECT, "false"),
    ];
    for (name, value) in cases {
        for select in [Select::Injected, Select::Always] {
            let mut annotations = vec![STATUS, LINKERD, KUMA, KUMA_CNI];
            annotations.retain(|(other, _)| *other != name);
            annotations.push((name, value));
            let (redirected, reason) = decided(select, &annotations);
            assert!(!redirected && reason.contains(name), "{name}: {reason}");
        }
    }
}

/// istiod's templates of other names are somebody's own. Istio's plugin asks the pod's containers, not this annotation.
#[test]
fn pods_that_choose_templates_of_their_own_are_redirected() {
    for templates in [
        "sidecar, mine",
        "sidecar",
        "custom,sidetrack",
        "custom",
        "gateway,sidecar",
    ] {
        let annotations = [STATUS, ("inject.istio.io/templates", templates)];
        assert!(decided(Select::Injected, &annotations).0, "{templates}");
    }
}

/// An injector that has left its mark is past what it was told. Labels, which a plugin is not told, may have counted.
#[test]
fn whoever_bears_a_mark_is_redirected_whatever_an_injector_is_told() {
    let marks: [&[(&str, &str)]; 4] = [&[STATUS], &[LINKERD], &[KUMA, KUMA_CNI], &CONSUL];
    for told in [
        ("sidecar.istio.io/inject", "false"),
        ("linkerd.io/inject", "disabled"),
        ("consul.hashicorp.com/connect-inject", "false"),
    ] {
        for mark in marks {
            let (redirected, reason) = decided(Select::Injected, &[mark, &[told]].concat());
            assert!(redirected, "{told:?} beside {mark:?}: {reason}");
        }
        let (redirected, reason) = decided(Select::Always, &[told]);
        assert!(!redirected && reason.contains(told.0), "{told:?}: {reason}");
    }
}

#[test]
fn pods_that_consuls_init_container_redirects_are_let_through_even_where_all_are_redirected() {
    for select in [Select::Injected, Select::Always] {
        let (redirected, reason) = decided(select, &CONSUL[..2]);
        assert!(!redirected && reason.contains("redirect-traffic-config"), "{reason}");
        assert!(decided(select, &CONSUL).0);
    }
    let mut asked = CONSUL[..2].to_vec();
    asked.push((REDIRECT, "true"));
    assert!(decided(Select::Injected, &asked).0);
}

#[test]
fn our_own_annotation_counts_before_those_of_meshes() {
    assert!(REDIRECT.starts_with(OURS));
    assert!(
        decided(
            Select::Injected,
            &[(REDIRECT, "true"), ("sidecar.istio.io/interceptionMode", "NONE")]
        )
        .0
    );
    assert!(!decided(Select::Never, &[(REDIRECT, "true")]).0);
    let annotations = Annotations::of(&json!({ REDIRECT: "yes" })).unwrap();
    let undecided = told(&policy(Select::Always), Some(&annotations)).unwrap_err();
    assert!(matches!(undecided, Undecided::Invalid(_)), "{undecided:?}");
}

#[test]
fn without_annotations_it_is_the_policy_that_decides() {
    let decide = |policy: &Policy| told(policy, None);
    assert_eq!(decide(&policy(Select::Injected)), Err(Undecided::NoAnnotations));
    assert!(matches!(decide(&policy(Select::Always)), Ok(Verdict::Redirected(_))));
    assert!(matches!(decide(&policy(Select::Never)), Ok(Verdict::Left(_))));
    let pass = Policy {
        on_missing_annotations: OnMissing::Pass,
        ..Policy::default()
    };
    assert!(matches!(decide(&pass), Ok(Verdict::Left(_))));
}

/// What becomes of the pod of a manifest, where an init container with arguments moves the proxy's inbound port to 7.
fn described(text: &str) -> Result<Verdict, Undecided> {
    let document = yaml::document(text).expect("YAML");
    let pod = manifest::only_pod(&document).expect("a pod");
    let annotations = pod.annotations().map_or(Value::Null, yaml::Node::to_json);
    let pod = Pod::of_manifest(&pod, Annotations::of(&annotations).expect("texts"));
    let read = |invocation: &Invocation<'_>| {
        if invocation.words.contains(&"wrong") {
            return Some(Err(vec!["what is wrong".to_owned()]));
        }
        let mut settings = Settings::default();
        settings.config.proxy.inbound_port = Port::new(7).expect("a port");
        Some(Ok(settings))
    };
    asked(&pod, &Policy::default(), &read)
}

fn redirected(text: &str) -> Redirected {
    match described(text) {
        Ok(Verdict::Redirected(redirected)) => *redirected,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn every_reason_not_to_redirect_is_told() {
    let template = |pod: &str| format!("kind: Deployment\nspec: {{template: {pod}}}");
    let annotated = |name: &str, value: &str| {
        template(&format!(
            "{{metadata: {{annotations: {{{name}: \"{value}\"}}}}, spec: {{containers: [{{name: app}}]}}}}"
        ))
    };
    let labelled = |name: &str, value: &str| {
        template(&format!(
            "{{metadata: {{labels: {{{name}: \"{value}\"}}}}, spec: {{containers: [{{name: app}}]}}}}"
        ))
    };
    let cases = [
        (
            annotated("sidecar.istio.io/inject", "false"),
            Because::Told,
            "sidecar.istio.io/inject",
        ),
        (
            labelled("sidecar.istio.io/inject", "false"),
            Because::Told,
            "sidecar.istio.io/inject",
        ),
        (
            annotated("traffic.sidetrack.dev/redirect", "false"),
            Because::Told,
            "redirect is false",
        ),
        (
            annotated("linkerd.io/inject", "disabled"),
            Because::Told,
            "linkerd.io/inject",
        ),
        (
            annotated("linkerd.io/inject", "yes"),
            Because::Told,
            "linkerd.io/inject",
        ),
        (
            annotated("consul.hashicorp.com/connect-inject", "false"),
            Because::Told,
            "connect-inject",
        ),
        (
            annotated("sidecar.istio.io/interceptionMode", "NONE"),
            Because::Told,
            "interceptionMode",
        ),
        (
            labelled("kuma.io/sidecar-injection", "no"),
            Because::Told,
            "kuma.io/sidecar-injection",
        ),
        (
            annotated("consul.hashicorp.com/transparent-proxy", "0"),
            Because::Told,
            "transparent-proxy",
        ),
        (
            template("{spec: {hostNetwork: true, containers: [{name: app}]}}"),
            Because::HostNetwork,
            "hostNetwork",
        ),
        (
            "{kind: Pod, metadata: {namespace: kube-system}, spec: {containers: [{name: dns}]}}".to_owned(),
            Because::Exempt,
            "excludeNamespaces lists its namespace kube-system",
        ),
        (
            "{kind: Pod, metadata: {uid: 7d3}, spec: {containers: [{name: app}]}}".to_owned(),
            Because::NotInjected,
            "no mark of an injected sidecar",
        ),
        (
            annotated(
                "sidecar.istio.io/status",
                "{\\\"initContainers\\\":[\\\"istio-init\\\"]}",
            ),
            Because::InitContainer("istio-init"),
            "istio-init",
        ),
    ];
    for (text, because, reason) in cases {
        let Ok(Verdict::Left(left)) = described(&text) else {
            panic!("{text}: {:?}", described(&text));
        };
        assert_eq!(left.because, because, "{text}: {}", left.reason);
        assert!(left.reason.contains(reason), "{text}: {}", left.reason);
    }
}

#[test]
fn a_template_is_taken_for_one_that_will_be_injected() {
    for (metadata, reason, mesh, inbound) in [
        (
            "labels: {sidecar.istio.io/inject: 'true'}",
            "Istio's injector is told to",
            MeshName::Istio,
            15006,
        ),
        (
            "annotations: {linkerd.io/inject: enabled}",
            "Linkerd's injector is told to",
            MeshName::Linkerd,
            4143,
        ),
        (
            "labels: {kuma.io/sidecar-injection: enabled}",
            "Kuma's injector is told to",
            MeshName::Kuma,
            15006,
        ),
        (
            "annotations: {consul.hashicorp.com/connect-inject: 'true'}",
            "Consul's injector is told to",
            MeshName::Consul,
            20000,
        ),
        (
            "annotations: {config.linkerd.io/skip-outbound-ports: '25'}",
            "taken as if",
            MeshName::Linkerd,
            4143,
        ),
        ("name: plain", "taken as if", MeshName::Istio, 15006),
    ] {
        let text = format!(
            "kind: Job\nspec: {{template: {{metadata: {{{metadata}}}, spec: {{containers: [{{name: app}}]}}}}}}"
        );
        let found = redirected(&text);
        assert!(found.reason.contains(reason), "{metadata}: {}", found.reason);
        assert_eq!(found.settings.config.proxy.mesh, mesh, "{metadata}");
        assert_eq!(found.settings.config.proxy.inbound_port.get(), inbound, "{metadata}");
    }
}

#[test]
fn an_init_container_redirects_whatever_annotations_say() {
    let pod = |init: &str| {
        format!(
            "{{kind: Pod, metadata: {{uid: x, namespace: kube-system, annotations: {{sidecar.istio.io/inject: 'false'}}}},
            spec: {{initContainers: [{{{init}}}], containers: [{{name: app}}]}}}}"
        )
    };
    let told = redirected(&pod("name: istio-init, args: [istio-iptables, -p, '15001']"));
    let (name, is_told) = ("istio-init".to_owned(), true);
    assert_eq!(told.by, By::InitContainer { name, is_told });
    assert_eq!(told.settings.config.proxy.inbound_port.get(), 7, "as it was told");
    let unknown = redirected(&pod("name: linkerd-init"));
    let (name, is_told) = ("linkerd-init".to_owned(), false);
    assert_eq!(unknown.by, By::InitContainer { name, is_told });
    assert_eq!(
        unknown.settings.config.proxy.inbound_port.get(),
        4143,
        "as is usual in its mesh"
    );
    let wrong = described(&pod("name: sidetrack, args: [apply, wrong]"));
    assert!(matches!(wrong, Err(Undecided::Arguments { .. })), "{wrong:?}");
    for other in [
        "name: sidetrack, args: [check]",
        "name: istio-validation, args: [istio-iptables, --skip-rule-apply]",
        "name: consul-connect-inject-init",
        "name: migrate",
    ] {
        assert!(matches!(described(&pod(other)), Ok(Verdict::Left(_))), "{other}");
    }
    let consul_s = "name: consul-connect-inject-init, env: [{name: CONSUL_REDIRECT_TRAFFIC_CONFIG, value: '{}'}]";
    assert!(matches!(redirected(&pod(consul_s)).by, By::InitContainer { .. }));
}

#[test]
fn what_a_plugin_is_not_told_comes_with_the_annotation_that_would_tell_it() {
    let pod = |annotations: &str, proxy: &str| {
        let text = format!(
            "{{kind: Pod, metadata: {{annotations: {{sidecar.istio.io/status: '{{}}', {annotations}}}}},
            spec: {{containers: [{{name: app}}, {{name: istio-proxy, {proxy}}}]}}}}"
        );
        let told = |unseen: Unseen| (unseen.annotation.replace(OURS, ""), unseen.value);
        redirected(&text).unseen.into_iter().map(told).collect::<Vec<_>>()
    };
    let is = |option: &str, value: &str| vec![(option.to_owned(), value.to_owned())];
    assert_eq!(pod("", "securityContext: {runAsUser: 1337}"), []);
    assert_eq!(pod("", "securityContext: {runAsUser: 1000}"), is("proxy-uid", "1000"));
    assert_eq!(pod("", "securityContext: {runAsUser: 0, runAsGroup: 1337}"), []);
    assert_eq!(
        pod("", "securityContext: {runAsUser: 0, runAsGroup: 9}"),
        is("proxy-gid", "9")
    );
    let told = "traffic.sidetrack.dev/proxy-uid: '1000'";
    assert_eq!(pod(told, "securityContext: {runAsUser: 1000}"), []);
    let dns = |value: &str| format!("env: [{{name: ISTIO_META_DNS_CAPTURE, value: '{value}'}}]");
    assert_eq!(pod("", &dns("true")), is("redirect-dns", "true"));
    assert_eq!(pod("", &dns("false")), []);
    assert_eq!(pod("", &dns("yes")), [], "that is no boolean to Go");
    let told = "proxy.istio.io/config: '{proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}}'";
    assert_eq!(pod(told, &dns("true")), []);
}

#[test]
fn options_count_before_or_after_annotations() {
    let annotations = Annotations::of(&json!({
        "sidecar.istio.io/status": "{}", "traffic.sidetrack.dev/proxy-inbound-port": "8",
    }));
    let annotations = annotations.unwrap();
    let pod = Pod::of_runtime(&PodName::default(), Some(&annotations));
    let says = |port: u16| Layer {
        proxy_inbound_port: Port::new(port),
        ..Layer::default()
    };
    for (before, after, counts) in [
        (Layer::default(), says(9), 8),
        (says(7), says(9), 7),
        (Layer::default(), Layer::default(), 8),
    ] {
        let given = Given {
            policy: &Policy::default(),
            before: &before,
            after: &after,
            read: &|_| None,
        };
        let settings = by_annotations(&pod, &given).unwrap();
        assert_eq!(settings.config.proxy.inbound_port.get(), counts);
    }
}
