//! The manifests of `cni-conf`: against the schemas of Kubernetes, and against what the program knows.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sidetrack::cni::attach;
use sidetrack::cni::netconf::NetConf;
use sidetrack::mesh::pod::PodName;
use sidetrack::mesh::verdict::Verdict;
use sidetrack::node::startup_taint::KEY;
use sidetrack::options::table::{OPTIONS, Scope};

use crate::SIDETRACK;
use crate::common::output_of;
use crate::program::Run;

/// Variants of the base, each with what it changes.
const VARIANTS: [&str; 3] = ["k3s", "gke", "openshift"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cni-conf").join(name)
}

/// One of them.
pub fn manifest(name: &str) -> Value {
    let text = fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let document = sidetrack::yaml::document(&text);
    document
        .unwrap_or_else(|error| panic!("{name}: {}", error.reason))
        .to_json()
}

/// Compares files with the published schemas, and says which do not conform.
pub fn validate(files: &[PathBuf]) -> Command {
    let validator = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/kubernetes-validate");
    let mut command = Command::new(validator);
    command.arg("--strict").args(files);
    command
}

/// The entries of a list, by name.
fn named<'v>(list: &'v Value, name: &str) -> Option<&'v Value> {
    list.as_array()?.iter().find(|entry| entry["name"] == name)
}

fn installer(daemonset: &Value) -> &Value {
    &daemonset["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn manifests_conform_to_the_schemas_of_kubernetes() {
    let files = [
        "kubernetes/base/namespace.yaml",
        "kubernetes/base/daemonset.yaml",
        "kubernetes/gke/quota.yaml",
        "kubernetes/openshift/privileged.yaml",
        "kubernetes/base/serviceaccount.yaml",
        "kubernetes/restart/role.yaml",
        "kubernetes/restart/rolebinding.yaml",
        "kubernetes/restart/admission.yaml",
        "kubernetes/taint/role.yaml",
        "kubernetes/taint/rolebinding.yaml",
        "kubernetes/taint/admission.yaml",
        "kubernetes/annotations/admission.yaml",
        "examples/plain-envoy.yaml",
    ];
    output_of(&mut validate(&files.map(path)));

    let daemonset = fs::read_to_string(path("kubernetes/base/daemonset.yaml")).expect("a manifest");
    let misspelt = daemonset.replace("hostNetwork:", "hostNetwrk:");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("misspelt.yaml");
    fs::write(&file, misspelt).expect("a file");
    let validated = validate(&[file]).output().expect("scripts/setup installs it");
    assert!(!validated.status.success(), "a schema that allows anything");
}

#[test]
fn kustomizations_refer_to_existing_files_and_fields() {
    let base = manifest("kubernetes/base/daemonset.yaml");
    let volumes = &base["spec"]["template"]["spec"]["volumes"];
    for variant in ["base"].into_iter().chain(VARIANTS) {
        let kustomization = manifest(&format!("kubernetes/{variant}/kustomization.yaml"));
        let patches = kustomization["patches"].as_array().into_iter().flatten();
        let resources = kustomization["resources"].as_array().expect("resources");
        for file in resources.iter().chain(patches.map(|patch| &patch["path"])) {
            let file = path(&format!("kubernetes/{variant}/{}", file.as_str().expect("a path")));
            assert!(file.exists(), "{}", file.display());
        }
    }
    for variant in VARIANTS {
        let patch = manifest(&format!("kubernetes/{variant}/daemonset.yaml"));
        assert_eq!(patch["metadata"]["name"], base["metadata"]["name"]);
        let pod = &patch["spec"]["template"]["spec"];
        for volume in pod["volumes"].as_array().expect("volumes") {
            let name = volume["name"].as_str().expect("a name");
            let of_base = named(volumes, name).unwrap_or_else(|| panic!("{variant}: {name} is not in the base"));
            assert_ne!(
                volume["hostPath"]["path"], of_base["hostPath"]["path"],
                "{variant}: {name}"
            );
        }
        if let Some(container) = pod["containers"].get(0) {
            assert_eq!(container["name"], installer(&base)["name"]);
        }
    }
}

/// What OpenShift's Multus lets pods of every namespace name is in `default`, and istiod names one network by itself.
#[test]
fn openshift_networks_can_be_named_by_each_pod() {
    let networks = ["sidetrack", "istio-cni"].map(|name| {
        let file = if name == "istio-cni" {
            "network-istio"
        } else {
            "network"
        };
        let network = manifest(&format!("kubernetes/openshift/{file}.yaml"));
        assert_eq!(network["apiVersion"], "k8s.cni.cncf.io/v1");
        assert_eq!(network["kind"], "NetworkAttachmentDefinition");
        assert_eq!(network["metadata"], json!({ "name": name, "namespace": "default" }));
        network
    });
    // Without a configuration Multus takes the file of that name, which the installer writes.
    assert_eq!(networks[0].get("spec"), None);
    let config = networks[1]["spec"]["config"].as_str().expect("a configuration");
    let mut config: Value = serde_json::from_str(config).expect("JSON");
    assert_eq!(config["name"], "istio-cni");
    let verdict = |config: &Value| {
        let netconf = NetConf::parse(config.to_string().as_bytes()).expect("a NetConf");
        attach::verdict(&netconf, &PodName::default())
    };
    let error = verdict(&config).expect_err("no pod of the mesh without its proxy's user");
    assert!(
        error.details().is_some_and(|details| details.contains("cni-args")),
        "{error:?}"
    );
    config["args"] =
        json!({ "cni": { "sidecar.istio.io/status": "{}", "traffic.sidetrack.dev/proxy-uid": "1000659999" } });
    let Ok(Verdict::Redirected(redirected)) = verdict(&config) else {
        panic!("not redirected");
    };
    assert_eq!(redirected.settings.config.proxy.uids.to_string(), "1000659999");
}

#[test]
fn quickstart_is_base_with_repair() {
    let kustomization = manifest("kubernetes/quickstart/kustomization.yaml");
    for (key, name) in [("resources", "base"), ("components", "repair")] {
        assert_eq!(kustomization[key], json!([format!("../{name}")]));
    }
}

/// What the component adds fits the base, and what the program looks for.
#[test]
fn repair_component_mounts_needed_directories() {
    let component = manifest("kubernetes/repair/kustomization.yaml");
    assert_eq!(component["kind"], "Component");
    assert_eq!(component["patches"][0]["path"], "daemonset.yaml");
    let base = manifest("kubernetes/base/daemonset.yaml");
    let patch = manifest("kubernetes/repair/daemonset.yaml");
    for name in ["kind", "apiVersion"] {
        assert_eq!(patch[name], base[name]);
    }
    assert_eq!(patch["metadata"]["name"], base["metadata"]["name"]);
    assert_eq!(installer(&patch)["name"], installer(&base)["name"]);
    let help = output_of(Command::new(SIDETRACK).args(["node", "install", "--help"]));
    let volumes = &patch["spec"]["template"]["spec"]["volumes"];
    let mounts = installer(&patch)["volumeMounts"].as_array().expect("mounts");
    for mount in mounts {
        let name = mount["name"].as_str().expect("a name");
        let host = named(volumes, name).expect("a volume")["hostPath"]["path"]
            .as_str()
            .expect("a path");
        let path = mount["mountPath"].as_str().expect("a path");
        assert_eq!(path.strip_prefix("/host"), Some(host));
        assert!(help.contains(path.trim_end_matches("/sys/net")), "{path}");
    }
    assert_eq!(volumes.as_array().map(Vec::len), Some(mounts.len()));
    let propagation =
        |name: &str| named(&installer(&patch)["volumeMounts"], name).expect("a mount")["mountPropagation"].clone();
    assert_eq!(propagation("netns"), "HostToContainer");
    let variable = &installer(&patch)["env"][0];
    assert_eq!(variable["name"], "SIDETRACK_NODE_REPAIR");
    assert!(help.contains(variable["value"].as_str().expect("a mode")));
}

/// The documents of a manifest.
fn documents(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let documents = sidetrack::yaml::documents(&text).unwrap_or_else(|error| panic!("{name}: {}", error.reason));
    documents.iter().map(|document| document.to_json()).collect()
}

/// A component that gives the account of the base rights: its patch of the DaemonSet, and its admission policies. Each
/// right has its policy, each policy its binding, and all are about that account.
fn limited_component(name: &str, rights: &[(Value, Value)]) -> (Value, Vec<Value>) {
    let component = manifest(&format!("kubernetes/{name}/kustomization.yaml"));
    assert_eq!(component["kind"], "Component");
    let patch = manifest(&format!("kubernetes/{name}/daemonset.yaml"));
    let listed = component["resources"].as_array().expect("resources").iter();
    let [role, binding, admission] = listed
        .map(|file| documents(&format!("kubernetes/{name}/{}", file.as_str().expect("a name"))))
        .collect::<Vec<_>>()
        .try_into()
        .expect("three files");
    let ([role], [binding]) = (role.as_slice(), binding.as_slice()) else {
        panic!("one document each");
    };
    // In the base, since two components that bring the same account cannot be combined.
    let account = manifest("kubernetes/base/serviceaccount.yaml");
    assert_eq!(account["automountServiceAccountToken"], false);
    let base = manifest("kubernetes/base/daemonset.yaml");
    let pod = &base["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(patch["spec"]["template"]["spec"]["automountServiceAccountToken"], true);
    let namespace = manifest("kubernetes/base/kustomization.yaml")["namespace"].clone();
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["namespace"], namespace);
    let granted = role["rules"].as_array().expect("rules").iter();
    let granted: Vec<(Value, Value)> = granted
        .map(|rule| (rule["resources"].clone(), rule["verbs"].clone()))
        .collect();
    assert_eq!(granted, rights);

    let of_kind = |kind: &str| {
        let of_kind = admission.iter().filter(move |document| document["kind"] == kind);
        of_kind.cloned().collect::<Vec<_>>()
    };
    let policies = of_kind("ValidatingAdmissionPolicy");
    let bindings = of_kind("ValidatingAdmissionPolicyBinding");
    let limited = policies
        .iter()
        .map(|policy| &policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"]);
    assert!(limited.eq(rights.iter().map(|(resources, _)| resources)));
    let user = format!(
        "request.userInfo.username == \"system:serviceaccount:{}:{}\"",
        namespace.as_str().expect("a namespace"),
        account["metadata"]["name"].as_str().expect("a name")
    );
    assert_eq!(policies.len(), bindings.len());
    for (policy, binding) in policies.iter().zip(&bindings) {
        assert_eq!(policy["spec"]["matchConditions"][0]["expression"], user);
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
        assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
    }
    (patch, policies)
}

/// The account of the component that evicts may do what the program asks for, and no more.
#[test]
fn restart_component_grants_the_needed_rights() {
    let rights = [
        (json!(["pods/status"]), json!(["patch"])),
        (json!(["pods/eviction"]), json!(["create"])),
        (json!(["events"]), json!(["create"])),
    ];
    let (patch, policies) = limited_component("restart", &rights);
    assert_eq!(installer(&patch)["env"][0]["value"], "delete");
    let labels = policies[0]["spec"]["variables"].to_string();
    assert!(labels.contains("traffic.sidetrack.dev/bypasses-proxy"), "{labels}");
}

#[test]
fn startup_taint_component_may_patch_nodes_and_one_key() {
    let (patch, policies) = limited_component("taint", &[(json!(["nodes"]), json!(["patch"]))]);
    let variables = &installer(&patch)["env"];
    let key = named(variables, "SIDETRACK_NODE_STARTUP_TAINT").expect("a variable");
    assert_eq!(key["value"], KEY);
    let node = named(variables, "SIDETRACK_NODE_NODE_NAME").expect("a variable");
    assert_eq!(node["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
    let help = output_of(Command::new(SIDETRACK).args(["node", "install", "--help"]));
    assert!(help.contains("--startup-taint ") && help.contains("--node-name "));
    assert_eq!(
        named(&policies[0]["spec"]["variables"], "key").expect("a variable")["expression"],
        format!("\"{KEY}\"")
    );
    // The installer starts on a node with this taint, and with any other.
    let base = manifest("kubernetes/base/daemonset.yaml");
    assert_eq!(
        base["spec"]["template"]["spec"]["tolerations"],
        json!([{ "operator": "Exists" }])
    );
}

/// Kustomize refuses an object that is there already, so that components which bring the same one cannot be combined.
#[test]
fn components_define_distinct_objects() {
    let mut seen = BTreeSet::new();
    for part in ["base", "repair", "restart", "taint"] {
        let kustomization = manifest(&format!("kubernetes/{part}/kustomization.yaml"));
        for file in kustomization["resources"].as_array().into_iter().flatten() {
            for object in documents(&format!("kubernetes/{part}/{}", file.as_str().expect("a name"))) {
                let identity = (object["kind"].to_string(), object["metadata"]["name"].to_string());
                assert!(seen.insert(identity.clone()), "{part}: {identity:?}");
            }
        }
    }
    assert!(seen.len() > 10, "{seen:?}");
}

/// Every annotation of a mesh by which outbound traffic is excluded is refused, and so is every such option of sidetrack.
#[test]
fn the_policy_on_annotations_knows_all_that_exclude_outbound_traffic() {
    let policy = fs::read_to_string(path("kubernetes/annotations/admission.yaml")).expect("a policy");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cni.md");
    let page = fs::read_to_string(page).expect("a page");
    let (_, table) = page.split_once("<!-- annotations -->").expect("a table");
    let excluding = [
        "exclude-outbound-",
        "exclude-uids",
        "exclude-gids",
        "exclude-interfaces",
    ];
    let mut known = 0;
    for row in table.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (annotation, rest) = row.split_once('`').expect("a name");
        // Those with an object as value are the injectors' own.
        let is_object = rest.contains(" = ");
        if !is_object && excluding.iter().any(|option| rest.contains(option)) {
            known += 1;
            assert!(policy.contains(&format!("\"{annotation}\"")), "{annotation}");
        }
    }
    assert!(known > 8, "{known}");
    for option in OPTIONS.iter().filter(|option| option.scope == Scope::Pod) {
        if excluding.iter().any(|begin| option.name.starts_with(begin)) {
            let annotation = format!("\"traffic.sidetrack.dev/{}\"", option.name);
            assert!(policy.contains(&annotation), "{annotation}");
        }
    }
}

/// What the variables say is an option of the installer, and the defaults of those that are not given fit the mounts.
#[test]
fn manifest_options_are_known_to_the_installer() {
    let help = output_of(Command::new(SIDETRACK).args(["node", "install", "--help"]));
    let base = manifest("kubernetes/base/daemonset.yaml");
    let variants = VARIANTS.map(|variant| manifest(&format!("kubernetes/{variant}/daemonset.yaml")));
    for daemonset in [&base].into_iter().chain(&variants) {
        for variable in installer(daemonset)["env"].as_array().into_iter().flatten() {
            let name = variable["name"].as_str().expect("a name");
            if let Some(option) = name.strip_prefix("SIDETRACK_NODE_") {
                let flag = format!("--{}", option.to_lowercase().replace('_', "-"));
                assert!(help.contains(&flag), "{flag}");
            }
            if name == "SIDETRACK_NODE_PLUGIN_CONF" {
                let text = variable["value"].as_str().expect("a text");
                serde_json::from_str::<Value>(text).expect("JSON");
            }
        }
    }
    let mounts = &installer(&base)["volumeMounts"];
    for (volume, directory) in [
        ("bin", "/host/opt/cni/bin"),
        ("conf", "/host/etc/cni/net.d"),
        ("run", "/var/run/sidetrack"),
        ("cache", "/host/var/lib/cni/results"),
    ] {
        assert_eq!(named(mounts, volume).expect("a mount")["mountPath"], directory);
        assert!(help.contains(directory), "{directory}");
    }
}

#[test]
fn lint_finds_nothing_in_shipped_manifests() {
    for file in ["examples/plain-envoy.yaml", "kubernetes/base/daemonset.yaml"] {
        let found = Run::of(Command::new(SIDETRACK).arg("lint").arg(path(file))).succeeded();
        assert_eq!(found.stdout, "", "{file}");
    }
}
