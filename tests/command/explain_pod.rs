//! `sidetrack explain --pod` with each pod in `tests/pods`; none of them runs.
//!
//! Review the files in `tests/golden/explain-pod` like code.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value, json};
use sidetrack::cni::attach;
use sidetrack::cni::netconf::NetConf;
use sidetrack::mesh::pod::PodName;
use sidetrack::mesh::verdict::Verdict;

use crate::SIDETRACK;
use crate::program::Run;
use crate::temporary::Temporary;

const PODS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pods");

/// The question about each pod.
const QUESTIONS: [&[&str]; 5] = [
    &["outbound", "tcp", "10.0.0.5:443"],
    &["outbound", "tcp", "10.0.0.5:443", "--uid", "1000659999"],
    &["outbound", "tcp", "10.0.0.5:443", "--uid", "2102"],
    &["outbound", "udp", "10.96.0.10:53"],
    &["inbound", "tcp", ":8080"],
];

fn explain(arguments: &[&str]) -> Run {
    Run::of(Command::new(SIDETRACK).arg("explain").args(arguments).current_dir(PODS))
}

fn json(arguments: &[&str]) -> Value {
    json_of(&explain(&[arguments, &["--json"]].concat()))
}

fn json_of(run: &Run) -> Value {
    assert_eq!(run.code, Some(0), "{run:?}");
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(PODS).expect("pods");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    paths.iter().map(name).collect()
}

#[test]
fn verdict_of_each_pod_matches_golden() {
    insta::with_settings!({ snapshot_path => "../golden/explain-pod", prepend_module_to_snapshot => false, omit_expression => true }, {
        for name in names() {
            let file = format!("{name}.yaml");
            let of_pod = ["--pod", file.as_str()];
            let said = explain(&[QUESTIONS[0], &of_pod].concat()).succeeded().stdout;
            let lines = said.lines().filter(|line| line.starts_with("Pod ") || line.starts_with("Rules "));
            let mut found = lines.collect::<Vec<_>>().join("\n") + "\n";
            for question in QUESTIONS {
                let answer = json(&[question, &of_pod].concat());
                let verdict = &answer["verdict"];
                let _ = writeln!(found, "{}: {} {}", question.join(" "), verdict["action"], verdict["port"]);
            }
            let _ = writeln!(found, "{:#}", json(&[QUESTIONS[0], &of_pod].concat())["pod"]);
            insta::assert_snapshot!(name, found);
        }
    });
}

/// What istiod's injector decides (`injectRequired` of pkg/kube/inject/inject.go): a label of this name is read in place of
/// the annotation; with other values than `true` and `false` the namespace decides, which is taken to enable injection.
fn istio_injects(label: Option<&str>, annotation: Option<&str>) -> bool {
    label.or(annotation) != Some("false")
}

#[test]
fn labels_and_annotations_are_evaluated_as_by_istios_injector() {
    const INJECT: &str = "sidecar.istio.io/inject";
    const STATUS: &str = "sidecar.istio.io/status";
    let values = [None, Some("true"), Some("false"), Some(""), Some("0"), Some("no")];
    for (label, annotation) in values
        .iter()
        .flat_map(|label| values.map(|annotation| (*label, annotation)))
    {
        let injects = istio_injects(label, annotation);
        let labels: Map<String, Value> = label.map(|text| (INJECT.to_owned(), text.into())).into_iter().collect();
        let mut annotations: Map<String, Value> = annotation
            .map(|text| (INJECT.to_owned(), text.into()))
            .into_iter()
            .collect();
        // The application runs as the proxy's user: a finding wherever the pod is redirected.
        let spec = json!({ "containers": [{ "name": "app", "securityContext": { "runAsUser": 1337 } }] });
        let before = json!({ "kind": "Deployment", "spec": { "template":
            { "metadata": { "labels": labels, "annotations": annotations }, "spec": spec } } });
        if injects {
            annotations.insert(STATUS.to_owned(), "{}".into());
        }
        let metadata = json!({ "uid": "7d3", "labels": labels, "annotations": annotations });
        let after = json!({ "kind": "Pod", "metadata": metadata, "spec": spec });
        for (pod, when) in [(before, "before"), (after, "after")] {
            let file = Temporary::new("pod.json", &pod.to_string());
            let explained = json_of(&explain(&[QUESTIONS[0], &["--pod", file.path(), "--json"]].concat()));
            let lint = Run::of(Command::new(SIDETRACK).args(["lint", file.path()]));
            let seen = (explained["pod"]["redirected"] == true, lint.stdout.contains("ST201"));
            assert_eq!(
                seen,
                (injects, injects),
                "{when}, label {label:?}, annotation {annotation:?}: {lint:?}"
            );
        }
        let netconf = json!({ "cniVersion": "1.0.0", "name": "net", "type": "sidetrack",
            "runtimeConfig": { "io.kubernetes.cri.pod-annotations": annotations } });
        let netconf = NetConf::parse(netconf.to_string().as_bytes()).expect("a NetConf");
        let Ok(verdict) = attach::verdict(&netconf, &PodName::default()) else {
            panic!("label {label:?}, annotation {annotation:?}");
        };
        let redirected = matches!(verdict, Verdict::Redirected(_));
        assert_eq!(
            redirected, injects,
            "the plugin, label {label:?}, annotation {annotation:?}"
        );
    }
}

#[test]
fn settings_that_the_plugin_does_not_get_are_warned_of() {
    let run = explain(&[QUESTIONS[0], &["--pod", "istio-plugin.yaml"]].concat()).succeeded();
    for said in [
        "container istio-proxy runs as user 1000659999; set traffic.sidetrack.dev/proxy-uid",
        "ISTIO_META_DNS_CAPTURE of container istio-proxy is true; set traffic.sidetrack.dev/redirect-dns",
    ] {
        assert!(run.stderr.contains(said), "{said}: {run:?}");
    }
}

#[test]
fn pod_with_annotations_alone_is_explained() {
    let annotated = |annotation: &str| json(&[QUESTIONS[0], &["--annotation", annotation]].concat());
    let left = annotated("sidecar.istio.io/inject=false");
    assert_eq!(left["pod"]["redirected"], false);
    assert_eq!(left["verdict"]["action"], "accept");
    assert_eq!(annotated("linkerd.io/inject=enabled")["verdict"]["port"], 4140);
    assert_eq!(json(QUESTIONS[0])["pod"], Value::Null, "no pod was described");
}

#[test]
fn options_beside_the_init_containers_arguments_are_refused() {
    let refused = |options: &[&str], said: &str| {
        let pod = ["--pod", "istio-init.yaml"];
        explain(&[QUESTIONS[0], &pod, options].concat()).failed(2, &[said, "init container istio-init"]);
    };
    refused(
        &["--exclude-outbound-ports", "443"],
        "--exclude-outbound-ports has no effect",
    );
    refused(&["--annotation", "a=b"], "--annotation has no effect");
}

#[test]
fn invalid_pods_are_reported() {
    let explain = |pod: &str| {
        let file = Temporary::new("pod.yaml", pod);
        explain(&[QUESTIONS[0], &["--pod", file.path()]].concat())
    };
    let init = "kind: Pod\nspec:\n  initContainers: [{name: sidetrack, args: [apply, --proxy-uid=-1]}]\n  \
                containers: [{name: app}]\n";
    explain(init).failed(2, &["--pod: container sidetrack: --proxy-uid"]);
    let annotations = "metadata: {annotations: {traffic.sidetrack.dev/redirect: maybe}}\n";
    explain(annotations).failed(2, &["\"maybe\" is not true or false"]);
    let several = "{kind: List, items: [{kind: Pod, spec: {containers: [{name: a}]}}, \
                   {kind: Pod, spec: {containers: [{name: b}]}}]}";
    explain(several).failed(2, &["there are 2 pods in the manifest"]);
}

/// The machine that has the manifest is not the pod: its `/etc/resolv.conf` says nothing about the pod's name servers.
#[test]
fn name_servers_of_a_manifest_are_not_those_of_the_caller() {
    let manifest = |spec: &str| {
        let text = format!(
            "{{kind: Pod, metadata: {{name: web, annotations: {{traffic.sidetrack.dev/redirect: 'true', \
             traffic.sidetrack.dev/redirect-dns: 'true'}}}}, spec: {{{spec}}}}}"
        );
        Temporary::new("name-servers.yaml", &text)
    };
    let is_captured = |server: &str, spec: &str| {
        let file = manifest(spec);
        let run = explain(&["outbound", "udp", &format!("{server}:53"), "--pod", file.path()]).succeeded();
        (
            run.stdout.contains("DNS query, to the proxy."),
            run.stderr.contains("are unknown"),
        )
    };
    for server in ["10.96.0.10", "9.9.9.9"] {
        assert_eq!(is_captured(server, "dnsPolicy: ClusterFirst"), (true, true), "{server}");
    }
    let named = "dnsPolicy: None, dnsConfig: {nameservers: [10.96.0.10]}";
    assert_eq!(is_captured("10.96.0.10", named), (true, false));
    assert_eq!(is_captured("9.9.9.9", named), (false, false));
}
