use serde_json::{Value, json};

use super::*;
use crate::mesh::annotations::PREFIX;
use crate::mesh::invocation::Invocation;
use crate::mesh::manifest;
use crate::mesh::pod::PodName;
use crate::types::{Policy as Rule, Port};
use crate::yaml;

fn policy(select: Select) -> Policy {
    Policy {
        select,
        ..Policy::default()
    }
}

fn verdict_on(pod: &Pod<'_>, policy: &Policy, read: &ReadInvocation) -> Result<Verdict, Undecided> {
    verdict_within(pod, policy, &Layer::default(), read)
}

/// The verdict on a pod where the node has these options.
fn verdict_within(pod: &Pod<'_>, policy: &Policy, node: &Layer, read: &ReadInvocation) -> Result<Verdict, Undecided> {
    let inputs = Inputs {
        policy,
        overrides: &Layer::default(),
        fallbacks: node,
        read,
    };
    verdict(pod, &inputs)
}

/// The verdict on a pod that a runtime passes with these annotations.
fn verdict_by_annotations(policy: &Policy, annotations: Option<&Annotations>) -> Result<Verdict, Undecided> {
    verdict_on(&Pod::of_runtime(&PodName::default(), annotations), policy, &|_| None)
}

/// Whether a pod with these annotations is redirected, and why.
fn decided(select: Select, annotations: &[(&str, &str)]) -> (bool, String) {
    let object: Value = annotations.iter().map(|(name, value)| (*name, *value)).collect();
    let verdict = verdict_by_annotations(&policy(select), Some(&Annotations::of(&object).unwrap())).unwrap();
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
    let cases: [Case; 16] = [
        (&[STATUS], true, "Istio"),
        (&[("sidecar.istio.io/status", "not JSON")], true, "Istio"),
        (
            &[(
                "sidecar.istio.io/status",
                r#"{"initContainers":["istio-proxy"],"containers":null}"#,
            )],
            true,
            "Istio",
        ),
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
        (&CONSUL[..1], false, "no annotation of an injected sidecar"),
        (
            &[("kuma.io/sidecar-injected", "false")],
            false,
            "no annotation of an injected sidecar",
        ),
        (
            &[("sidecar.istio.io/status", "")],
            false,
            "no annotation of an injected sidecar",
        ),
    ];
    for (annotations, redirected, reason) in cases {
        let decided = decided(Select::Injected, annotations);
        assert_eq!(decided.0, redirected, "{annotations:?}: {}", decided.1);
        assert!(decided.1.contains(reason), "{annotations:?}: {}", decided.1);
    }
}

#[test]
fn opted_out_pods_are_skipped_even_if_select_is_always() {
    let cases = [
        ("sidecar.istio.io/interceptionMode", "NONE"),
        ("inject.istio.io/templates", "gateway"),
        ("inject.istio.io/templates", "custom, grpc-agent"),
        ("inject.istio.io/templates", "waypoint"),
        ("sidecar.istio.io/status", r#"{"initContainers":["a","istio-init"]}"#),
        (
            "sidecar.istio.io/status",
            r#"{"initContainers":null,"containers":["app"]}"#,
        ),
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

/// The rules of an init container need not have the node's policy: in the dialects of Istio and Kuma they cannot.
#[test]
fn pods_of_init_containers_are_refused_under_a_policy_of_the_node() {
    let node = Layer {
        outbound_policy: Some(Rule::ProxyOnly),
        ..Layer::default()
    };
    let refused = |annotations: &[(&str, &str)]| {
        let object: Value = annotations.iter().map(|(name, value)| (*name, *value)).collect();
        let annotations = Annotations::of(&object).unwrap();
        let pod = PodName::default();
        let pod = Pod::of_runtime(&pod, Some(&annotations));
        let verdict = |node: &Layer| verdict_within(&pod, &policy(Select::Injected), node, &|_| None);
        assert!(matches!(verdict(&Layer::default()), Ok(Verdict::Skipped(_))));
        match verdict(&node) {
            Err(Undecided::Invalid(problems)) => problems[0].to_string(),
            other => panic!("{other:?}"),
        }
    };
    let istio = (
        "sidecar.istio.io/status",
        r#"{"initContainers":["istio-init"],"containers":["istio-proxy"]}"#,
    );
    for (annotations, reason) in [
        (&[istio][..], "sidecar.istio.io/status"),
        (&[KUMA], "kuma"),
        (&CONSUL[..2], "Consul's init container"),
    ] {
        let problem = refused(annotations);
        assert!(
            problem.contains(reason) && problem.contains("policy of proxy-only"),
            "{problem}"
        );
    }
    let text = "{kind: Pod, metadata: {uid: x}, spec: {initContainers: [{name: istio-init, args: [istio-iptables]}], \
                containers: [{name: app}]}}";
    let document = yaml::document(text).expect("YAML");
    let pod = Pod::of_manifest(&manifest::only_pod(&document).expect("a pod"), Annotations::default());
    for (own, is_kept) in [(Rule::Allow, false), (Rule::ProxyOnly, true)] {
        let read = move |_: &Invocation<'_>| {
            let mut settings = Settings::default();
            settings.config.outbound.policy = own;
            Some(Ok(settings))
        };
        let verdict = verdict_within(&pod, &Policy::default(), &node, &read);
        assert_eq!(verdict.is_ok(), is_kept, "{verdict:?}");
    }
}

/// Templates with names that istiod does not ship are custom. Istio's plugin checks the pod's containers, not this annotation.
#[test]
fn pods_with_custom_templates_are_redirected() {
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

/// After injection the switch no longer matters. A label, which a plugin does not receive, may have overridden it.
#[test]
fn injected_pods_are_redirected_even_if_the_switch_is_off() {
    let marks: [&[(&str, &str)]; 4] = [&[STATUS], &[LINKERD], &[KUMA, KUMA_CNI], &CONSUL];
    for switch in [
        ("sidecar.istio.io/inject", "false"),
        ("linkerd.io/inject", "disabled"),
        ("consul.hashicorp.com/connect-inject", "false"),
    ] {
        for mark in marks {
            let (redirected, reason) = decided(Select::Injected, &[mark, &[switch]].concat());
            assert!(redirected, "{switch:?} beside {mark:?}: {reason}");
        }
        let (redirected, reason) = decided(Select::Always, &[switch]);
        assert!(!redirected && reason.contains(switch.0), "{switch:?}: {reason}");
    }
}

#[test]
fn pods_that_consuls_init_container_redirects_are_skipped_even_if_select_is_always() {
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
fn sidetracks_annotation_overrides_those_of_meshes() {
    assert!(REDIRECT.starts_with(PREFIX));
    assert!(
        decided(
            Select::Injected,
            &[(REDIRECT, "true"), ("sidecar.istio.io/interceptionMode", "NONE")]
        )
        .0
    );
    assert!(!decided(Select::Never, &[(REDIRECT, "true")]).0);
    let annotations = Annotations::of(&json!({ REDIRECT: "yes" })).unwrap();
    let undecided = verdict_by_annotations(&policy(Select::Always), Some(&annotations)).unwrap_err();
    assert!(matches!(undecided, Undecided::Invalid(_)), "{undecided:?}");
}

#[test]
fn the_policy_decides_without_annotations() {
    let decide = |policy: &Policy| verdict_by_annotations(policy, None);
    assert_eq!(decide(&policy(Select::Injected)), Err(Undecided::NoAnnotations));
    assert!(matches!(decide(&policy(Select::Always)), Ok(Verdict::Redirected(_))));
    assert!(matches!(decide(&policy(Select::Never)), Ok(Verdict::Skipped(_))));
    let pass = Policy {
        on_missing_annotations: OnMissing::Pass,
        ..Policy::default()
    };
    assert!(matches!(decide(&pass), Ok(Verdict::Skipped(_))));
}

/// The verdict on the pod of a manifest, in which an init container with arguments moves the proxy's inbound port to 7.
fn described(text: &str) -> Result<Verdict, Undecided> {
    let document = yaml::document(text).expect("YAML");
    let pod = manifest::only_pod(&document).expect("a pod");
    let annotations = pod.annotations().map_or(Value::Null, yaml::Node::to_json);
    let pod = Pod::of_manifest(&pod, Annotations::of(&annotations).expect("texts"));
    let read = |invocation: &Invocation<'_>| {
        if invocation.words.contains(&"wrong") {
            return Some(Err(vec!["an error".to_owned()]));
        }
        let mut settings = Settings::default();
        settings.config.proxy.inbound_port = Port::new(7).expect("a port");
        Some(Ok(settings))
    };
    verdict_on(&pod, &Policy::default(), &read)
}

fn redirected(text: &str) -> Redirected {
    match described(text) {
        Ok(Verdict::Redirected(redirected)) => *redirected,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn every_reason_to_skip_a_pod_is_reported() {
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
    let opted_out = [
        (annotated("sidecar.istio.io/inject", "false"), "sidecar.istio.io/inject"),
        (labelled("sidecar.istio.io/inject", "false"), "sidecar.istio.io/inject"),
        (
            annotated("traffic.sidetrack.dev/redirect", "false"),
            "redirect is false",
        ),
        (annotated("linkerd.io/inject", "disabled"), "linkerd.io/inject"),
        (annotated("linkerd.io/inject", "yes"), "linkerd.io/inject"),
        (
            annotated("consul.hashicorp.com/connect-inject", "false"),
            "connect-inject",
        ),
        (
            annotated("sidecar.istio.io/interceptionMode", "NONE"),
            "interceptionMode",
        ),
        (labelled("kuma.io/sidecar-injection", "no"), "kuma.io/sidecar-injection"),
        (
            annotated("consul.hashicorp.com/transparent-proxy", "0"),
            "transparent-proxy",
        ),
    ];
    let other = [
        (
            template("{spec: {hostNetwork: true, containers: [{name: app}]}}"),
            SkipKind::HostNetwork,
            "hostNetwork",
        ),
        (
            "{kind: Pod, metadata: {namespace: kube-system}, spec: {containers: [{name: dns}]}}".to_owned(),
            SkipKind::Exempt,
            "excludeNamespaces lists its namespace kube-system",
        ),
        (
            "{kind: Pod, metadata: {uid: 7d3}, spec: {containers: [{name: app}]}}".to_owned(),
            SkipKind::NotInjected,
            "no annotation of an injected sidecar",
        ),
        (
            annotated(
                "sidecar.istio.io/status",
                "{\\\"initContainers\\\":[\\\"istio-init\\\"]}",
            ),
            SkipKind::InitContainer("istio-init"),
            "istio-init",
        ),
    ];
    let opted_out = opted_out.map(|(text, reason)| (text, SkipKind::OptedOut, reason));
    for (text, kind, reason) in opted_out.into_iter().chain(other) {
        let Ok(Verdict::Skipped(skipped)) = described(&text) else {
            panic!("{text}: {:?}", described(&text));
        };
        assert_eq!(skipped.kind, kind, "{text}: {}", skipped.reason);
        assert!(skipped.reason.contains(reason), "{text}: {}", skipped.reason);
    }
}

#[test]
fn templates_are_assumed_to_be_injected_later() {
    for (metadata, reason, mesh, inbound) in [
        (
            "labels: {sidecar.istio.io/inject: 'true'}",
            "Istio injection is enabled",
            MeshName::Istio,
            15006,
        ),
        (
            "annotations: {linkerd.io/inject: enabled}",
            "Linkerd injection is enabled",
            MeshName::Linkerd,
            4143,
        ),
        (
            "labels: {kuma.io/sidecar-injection: enabled}",
            "Kuma injection is enabled",
            MeshName::Kuma,
            15006,
        ),
        (
            "annotations: {consul.hashicorp.com/connect-inject: 'true'}",
            "Consul injection is enabled",
            MeshName::Consul,
            20000,
        ),
        (
            "annotations: {config.linkerd.io/skip-outbound-ports: '25'}",
            "not injected yet",
            MeshName::Linkerd,
            4143,
        ),
        ("name: plain", "not injected yet", MeshName::Istio, 15006),
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
fn init_containers_override_annotations() {
    let pod = |init: &str| {
        format!(
            "{{kind: Pod, metadata: {{uid: x, namespace: kube-system, annotations: {{sidecar.istio.io/inject: 'false'}}}},
            spec: {{initContainers: [{{{init}}}], containers: [{{name: app}}]}}}}"
        )
    };
    let known = redirected(&pod("name: istio-init, args: [istio-iptables, -p, '15001']"));
    let (name, has_known_arguments) = ("istio-init".to_owned(), true);
    assert_eq!(
        known.by,
        By::InitContainer {
            name,
            has_known_arguments
        }
    );
    assert_eq!(known.settings.config.proxy.inbound_port.get(), 7, "by its arguments");
    let unknown = redirected(&pod("name: linkerd-init"));
    let (name, has_known_arguments) = ("linkerd-init".to_owned(), false);
    assert_eq!(
        unknown.by,
        By::InitContainer {
            name,
            has_known_arguments
        }
    );
    assert_eq!(
        unknown.settings.config.proxy.inbound_port.get(),
        4143,
        "the default of its mesh"
    );
    let wrong = described(&pod("name: sidetrack, args: [apply, wrong]"));
    assert!(matches!(wrong, Err(Undecided::Arguments { .. })), "{wrong:?}");
    for other in [
        "name: sidetrack, args: [check]",
        "name: istio-validation, args: [istio-iptables, --skip-rule-apply]",
        "name: consul-connect-inject-init",
        "name: migrate",
    ] {
        assert!(matches!(described(&pod(other)), Ok(Verdict::Skipped(_))), "{other}");
    }
    let consul_s = "name: consul-connect-inject-init, env: [{name: CONSUL_REDIRECT_TRAFFIC_CONFIG, value: '{}'}]";
    assert!(matches!(redirected(&pod(consul_s)).by, By::InitContainer { .. }));
}

#[test]
fn unseen_settings_come_with_their_annotation() {
    let pod = |annotations: &str, proxy: &str| {
        let text = format!(
            "{{kind: Pod, metadata: {{annotations: {{sidecar.istio.io/status: '{{}}', {annotations}}}}},
            spec: {{containers: [{{name: app}}, {{name: istio-proxy, {proxy}}}]}}}}"
        );
        let equivalent = |unseen: Unseen| (unseen.annotation.replace(PREFIX, ""), unseen.value);
        redirected(&text).unseen.into_iter().map(equivalent).collect::<Vec<_>>()
    };
    let is = |option: &str, value: &str| vec![(option.to_owned(), value.to_owned())];
    assert_eq!(pod("", "securityContext: {runAsUser: 1337}"), []);
    assert_eq!(pod("", "securityContext: {runAsUser: 1000}"), is("proxy-uid", "1000"));
    assert_eq!(pod("", "securityContext: {runAsUser: 0, runAsGroup: 1337}"), []);
    assert_eq!(
        pod("", "securityContext: {runAsUser: 0, runAsGroup: 9}"),
        is("proxy-gid", "9")
    );
    let annotated = "traffic.sidetrack.dev/proxy-uid: '1000'";
    assert_eq!(pod(annotated, "securityContext: {runAsUser: 1000}"), []);
    let dns = |value: &str| format!("env: [{{name: ISTIO_META_DNS_CAPTURE, value: '{value}'}}]");
    assert_eq!(pod("", &dns("true")), is("redirect-dns", "true"));
    assert_eq!(pod("", &dns("false")), []);
    assert_eq!(pod("", &dns("yes")), [], "Go reads no boolean");
    let annotated = "proxy.istio.io/config: '{proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}}'";
    assert_eq!(pod(annotated, &dns("true")), []);
}

#[test]
fn overrides_precede_annotations_and_fallbacks_follow() {
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
        let inputs = Inputs {
            policy: &Policy::default(),
            overrides: &before,
            fallbacks: &after,
            read: &|_| None,
        };
        let settings = by_annotations(&pod, &inputs).unwrap();
        assert_eq!(settings.config.proxy.inbound_port.get(), counts);
    }
}
