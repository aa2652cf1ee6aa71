//! The Helm chart: it renders what the kustomizations render, by the programs that users run (`tests/charts`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::common::output_of;
use crate::installer::choice::go_program;
use crate::manifests::{manifest, validate};
use crate::program::Run;

/// The metadata of Helm, which a kustomization does not have.
const HELM_LABELS: [&str; 3] = [
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
];

/// Helm and kustomize, built from the versions in `tests/charts/go.mod`.
struct Programs {
    helm: PathBuf,
    kustomize: PathBuf,
}

fn programs() -> &'static Programs {
    static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| Programs {
        helm: go_program("tests/charts", "helm.sh/helm/v3/cmd/helm", "helm"),
        kustomize: go_program("tests/charts", "sigs.k8s.io/kustomize/kustomize/v5", "kustomize"),
    });
    &PROGRAMS
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    root().join("cni-conf/helm/sidetrack")
}

/// Helm without the caller's repositories and plugins.
fn helm(words: &[&str]) -> Command {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm-home");
    let mut command = Command::new(&programs().helm);
    command.args(words).arg(chart()).env("HOME", &home);
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECONFIG"] {
        command.env(variable, &home);
    }
    command
}

/// The objects of a rendered text, by kind and name.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let documents = sidetrack::yaml::documents(text).unwrap_or_else(|error| panic!("{}: {text}", error.reason));
    let documents = documents.iter().map(|document| document.to_json());
    let named = documents.filter(|document| !document.is_null()).map(|document| {
        let name = format!("{} {}", document["kind"], document["metadata"]["name"]);
        (name.replace('"', ""), document)
    });
    named.collect()
}

/// The chart, rendered with these settings.
fn rendered(settings: &[&str]) -> BTreeMap<String, Value> {
    let mut command = helm(&[
        "template",
        "sidetrack",
        "--kube-version=1.34.0",
        "--namespace=sidetrack-system",
    ]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    objects(&output_of(&mut command))
}

/// A kustomization of a user: a variant of the base and components.
fn kustomized(name: &str, variant: &str, components: &[&str]) -> BTreeMap<String, Value> {
    // Below the target directory of the checkout, since a kustomization refers to others by relative paths.
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kustomization-{name}"));
    let _removed = fs::remove_dir_all(&directory);
    let copy = directory.join("kubernetes");
    fs::create_dir_all(&directory).expect("a directory");
    output_of(
        Command::new("cp")
            .arg("-r")
            .arg(root().join("cni-conf/kubernetes"))
            .arg(&copy),
    );
    let components: Vec<String> = components
        .iter()
        .map(|component| format!("kubernetes/{component}"))
        .collect();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [format!("kubernetes/{variant}")],
        "components": components,
    });
    fs::write(directory.join("kustomization.yaml"), kustomization.to_string()).expect("a file");
    let mut objects = objects(&output_of(
        Command::new(&programs().kustomize).arg("build").arg(&directory),
    ));
    // Helm has an option for it, and cannot label it.
    objects.remove("Namespace sidetrack-system").expect("the namespace");
    objects
}

/// Removes what the formats do not share: labels of Helm, and the order of capabilities and variables.
fn comparable(mut objects: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    for object in objects.values_mut() {
        for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
            if let Some(Value::Object(labels)) = object.pointer_mut(labels) {
                labels.retain(|name, _| !HELM_LABELS.contains(&name.as_str()));
            }
        }
        // The chart labels all objects, the base the DaemonSet.
        if object["kind"] == "ServiceAccount"
            && let Some(metadata) = object["metadata"].as_object_mut()
        {
            metadata.remove("labels");
        }
        let container = "/spec/template/spec/containers/0";
        for (list, key) in [("env", "name"), ("volumeMounts", "name")] {
            if let Some(Value::Array(entries)) = object.pointer_mut(&format!("{container}/{list}")) {
                entries.sort_by_key(|entry| entry[key].to_string());
                for entry in entries
                    .iter_mut()
                    .filter(|entry| entry["name"] == "SIDETRACK_NODE_PLUGIN_CONF")
                {
                    let text = entry["value"].as_str().expect("a text");
                    entry["value"] = serde_json::from_str(text).expect("JSON");
                }
            }
        }
        if let Some(Value::Array(volumes)) = object.pointer_mut("/spec/template/spec/volumes") {
            volumes.sort_by_key(|volume| volume["name"].to_string());
        }
    }
    objects
}

#[test]
fn chart_renders_what_the_kustomizations_render() {
    let table: [(&str, &[&str], &str, &[&str]); 8] = [
        ("base", &[], "base", &[]),
        ("k3s", &["platform=k3s"], "k3s", &[]),
        ("gke", &["platform=gke"], "gke", &[]),
        ("openshift", &["platform=openshift"], "openshift", &[]),
        ("repair", &["repair.mode=in-place"], "base", &["repair"]),
        ("restart", &["repair.mode=delete"], "base", &["repair", "restart"]),
        ("taint", &["startupTaint.enabled=true"], "base", &["taint"]),
        (
            "all",
            &["repair.mode=delete", "startupTaint.enabled=true", "platform=k3s"],
            "k3s",
            &["repair", "restart", "taint"],
        ),
    ];
    for (name, settings, variant, components) in table {
        let (chart, base) = (rendered(settings), kustomized(name, variant, components));
        let (chart, base) = (comparable(chart), comparable(base));
        let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&chart), names(&base), "{name}");
        for (object, of_base) in &base {
            assert_eq!(&chart[object], of_base, "{name}: {object}");
        }
    }
}

#[test]
fn chart_follows_the_namespace_of_its_release() {
    let mut command = helm(&[
        "template",
        "sidetrack",
        "--kube-version=1.34.0",
        "--namespace=mesh-node",
    ]);
    command.args(["--set", "repair.mode=label,startupTaint.enabled=true"]);
    let text = output_of(&mut command);
    assert!(!text.contains("sidetrack-system"), "{text}");
    assert!(
        text.contains("system:serviceaccount:mesh-node:sidetrack-node"),
        "{text}"
    );
}

#[test]
fn chart_passes_the_linter_of_helm() {
    output_of(&mut helm(&["lint", "--strict"]));
}

#[test]
fn wrong_values_are_refused_with_their_names() {
    for (value, named) in [
        ("platform=eks", "platform"),
        ("repair.mode=restart", "mode"),
        ("image.tagg=1", "tagg"),
        ("cni.binDir=opt", "binDir"),
    ] {
        let mut command = helm(&["template", "sidetrack", "--kube-version=1.34.0"]);
        let run = Run::of(command.args(["--set", value]));
        assert!(run.code != Some(0) && run.stderr.contains(named), "{value}: {run:?}");
    }
}

#[test]
fn options_of_the_chart_reach_the_daemonset() {
    let objects = rendered(&[
        "image.repository=registry.internal/sidetrack",
        "image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "image.pullSecrets={regcred}",
        "cni.binDir=/usr/libexec/cni",
        "cni.ownConflist=00-sidetrack.conflist",
        "plugin.backend=nftables",
        "uninstallOnExit=true",
        "logFormat=json",
        "capabilities={CHOWN}",
        "podMonitor.enabled=true",
        "prometheusRule.enabled=true",
        "dashboard.enabled=true",
    ]);
    let pod = &objects["DaemonSet sidetrack-node"]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let variable = |name: &str| {
        let list = container["env"].as_array().expect("variables");
        list.iter().find(|entry| entry["name"] == name).expect("a variable")["value"].clone()
    };
    let image = container["image"].as_str().expect("an image");
    assert!(image.starts_with("registry.internal/sidetrack@sha256:"), "{image}");
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "regcred" }]));
    assert_eq!(pod["volumes"][0]["hostPath"]["path"], "/usr/libexec/cni");
    assert_eq!(variable("SIDETRACK_NODE_OWN_CONFLIST"), "00-sidetrack.conflist");
    assert_eq!(variable("SIDETRACK_NODE_UNINSTALL_ON_EXIT"), "true");
    assert_eq!(variable("SIDETRACK_LOG_FORMAT"), "json");
    let plugin: Value =
        serde_json::from_str(variable("SIDETRACK_NODE_PLUGIN_CONF").as_str().expect("a text")).expect("JSON");
    assert_eq!(plugin, json!({ "select": "injected", "backend": "nftables" }));
    assert_eq!(container["securityContext"]["capabilities"]["add"], json!(["CHOWN"]));
    let alerts = manifest("helm/sidetrack/files/alerts.yaml");
    assert_eq!(objects["PrometheusRule sidetrack-node"]["spec"], alerts);
    let dashboard = objects["ConfigMap sidetrack-node-dashboard"]["data"]["sidetrack.json"]
        .as_str()
        .expect("a text");
    let dashboard: Value = serde_json::from_str(dashboard).expect("JSON");
    assert_eq!(dashboard, manifest("helm/sidetrack/files/dashboard.json"));
    let port = &objects["PodMonitor sidetrack-node"]["spec"]["podMetricsEndpoints"][0]["port"];
    assert_eq!(*port, container["ports"][0]["name"]);
}

#[test]
fn rendered_objects_conform_to_the_schemas_of_kubernetes() {
    let settings = [
        "repair.mode=delete",
        "startupTaint.enabled=true",
        "platform=gke",
        "dashboard.enabled=true",
    ];
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chart-objects");
    let _removed = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory");
    let files: Vec<PathBuf> = rendered(&settings)
        .iter()
        .map(|(name, object)| {
            let file = directory.join(format!("{}.yaml", name.replace(' ', "-")));
            fs::write(&file, object.to_string()).expect("a file");
            file
        })
        .collect();
    output_of(&mut validate(&files));
}

/// The table of values in the README of the chart, from the comments of `values.yaml`.
#[test]
fn readme_of_the_chart_lists_its_values() {
    let text = fs::read_to_string(chart().join("values.yaml")).expect("the values");
    let values = manifest("helm/sidetrack/values.yaml");
    let mut rows = vec!["| Value | Default | Meaning |".to_owned(), "|---|---|---|".to_owned()];
    let (mut path, mut comment): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let depth = (line.len() - line.trim_start().len()) / 2;
        if let Some(words) = line.trim_start().strip_prefix("# ") {
            comment.push(words);
        } else if let Some((key, _)) = line.trim_start().split_once(':').filter(|(key, _)| is_key(key)) {
            path.truncate(depth);
            path.push(key);
            let pointer: String = path.iter().map(|key| format!("/{key}")).collect();
            // An object whose keys are data is a value of its own.
            let value = values.pointer(&pointer);
            let is_section = value.and_then(Value::as_object).is_some_and(|object| {
                let mut keys = object.keys();
                !object.is_empty() && keys.all(|key| is_key(key))
            });
            if !comment.is_empty() || !is_section {
                let default = value.map_or_else(String::new, Value::to_string);
                let default = if is_section {
                    String::new()
                } else {
                    format!("`{default}`")
                };
                rows.push(format!("| `{}` | {default} | {} |", path.join("."), comment.join(" ")));
            }
            comment.clear();
        }
    }
    let readme = chart().join("README.md");
    let written = fs::read_to_string(&readme).expect("a README");
    let (begin, end) = ("<!-- values -->\n", "<!-- end of values -->");
    let (before, rest) = written.split_once(begin).expect("a mark");
    let (_, after) = rest.split_once(end).expect("a mark");
    let wanted = format!("{before}{begin}{}\n{end}{after}", rows.join("\n"));
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(&readme, &wanted).expect("a file");
    } else {
        assert!(written == wanted, "run the tests with UPDATE_README=1");
    }
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric())
}
