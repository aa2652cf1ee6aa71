//! The manifests of `cni-conf`: against the schemas of Kubernetes, and against what the program knows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sidetrack::cni::attach;
use sidetrack::cni::netconf::NetConf;
use sidetrack::mesh::pod::PodName;
use sidetrack::mesh::verdict::Verdict;

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
fn validate(files: &[PathBuf]) -> Command {
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
        "kubernetes/restart/serviceaccount.yaml",
        "kubernetes/restart/role.yaml",
        "kubernetes/restart/rolebinding.yaml",
        "kubernetes/restart/admission.yaml",
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
fn networks_of_openshift_can_be_named_by_every_pod() {
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
fn the_quick_start_is_the_base_with_repair() {
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

/// The account of the component that evicts may do what the program asks for, and no more.
#[test]
fn the_component_for_restarts_has_the_account_that_it_takes() {
    let component = manifest("kubernetes/restart/kustomization.yaml");
    let patch = manifest("kubernetes/restart/daemonset.yaml");
    let listed = component["resources"].as_array().expect("resources").iter();
    let [account, role, binding, admission] = listed
        .map(|file| documents(&format!("kubernetes/restart/{}", file.as_str().expect("a name"))))
        .collect::<Vec<_>>()
        .try_into()
        .expect("four files");
    let ([account], [role], [binding]) = (account.as_slice(), role.as_slice(), binding.as_slice()) else {
        panic!("one document each");
    };
    let pod = &patch["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
    assert_eq!(pod["automountServiceAccountToken"], true);
    assert_eq!(installer(&patch)["env"][0]["value"], "delete");
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["namespace"], account["metadata"]["namespace"]);
    let rules = role["rules"].as_array().expect("rules").iter();
    let granted: Vec<(&Value, &Value)> = rules.map(|rule| (&rule["resources"], &rule["verbs"])).collect();
    let wanted = [
        (json!(["pods/status"]), json!(["patch"])),
        (json!(["pods/eviction"]), json!(["create"])),
        (json!(["events"]), json!(["create"])),
    ];
    assert_eq!(granted, wanted.each_ref().map(|(resources, verbs)| (resources, verbs)));

    // Each right has its policy, each policy its binding, and all are about that account.
    let of_kind = |kind: &str| {
        admission
            .iter()
            .filter(move |document| document["kind"] == kind)
            .collect::<Vec<_>>()
    };
    let policies = of_kind("ValidatingAdmissionPolicy");
    let bindings = of_kind("ValidatingAdmissionPolicyBinding");
    let limited: Vec<&Value> = policies
        .iter()
        .map(|policy| &policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"])
        .collect();
    assert_eq!(
        limited,
        granted.iter().map(|(resources, _)| *resources).collect::<Vec<_>>()
    );
    let user = format!(
        "request.userInfo.username == \"system:serviceaccount:{}:{}\"",
        account["metadata"]["namespace"].as_str().expect("a namespace"),
        account["metadata"]["name"].as_str().expect("a name")
    );
    assert_eq!(policies.len(), bindings.len());
    for (policy, binding) in policies.iter().zip(&bindings) {
        assert_eq!(policy["spec"]["matchConditions"][0]["expression"], user);
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
        assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
    }
    let labels = policies[0]["spec"]["variables"].to_string();
    assert!(labels.contains("traffic.sidetrack.dev/bypasses-proxy"), "{labels}");
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
fn nothing_speaks_against_the_example_without_a_mesh() {
    let file = path("examples/plain-envoy.yaml");
    let found = Run::of(Command::new(SIDETRACK).arg("lint").arg(&file)).succeeded();
    assert_eq!(found.stdout, "");
    // The installer has to be in the node's network.
    let mut lint = Command::new(SIDETRACK);
    let found = lint.arg("lint").arg(path("kubernetes/base/daemonset.yaml")).output();
    let found = found.expect("it runs");
    assert_eq!(found.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&found.stdout).contains("ST101"));
}

/// Alerts ask for metrics and labels that the installer has.
#[test]
fn alerts_ask_for_metrics_that_there_are() {
    let rules = manifest("examples/alerts.yaml");
    let machine = crate::installer::fixture::Machine::new();
    let exposed = machine.start(&["--repair", "report"]).get("/metrics").1;
    let groups = rules["groups"].as_array().expect("groups").iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().expect("rules"));
    let mut asked = 0;
    for rule in rules {
        let expression = rule["expr"].as_str().expect("an expression");
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = expression.split(|c: char| !is_name(c));
        for metric in words.filter(|word| word.starts_with("sidetrack_")) {
            asked += 1;
            assert!(exposed.contains(&format!("# TYPE {metric} ")), "{metric}: {exposed}");
        }
        for state in expression
            .split('"')
            .skip(1)
            .step_by(2)
            .flat_map(|states| states.split('|'))
        {
            let known = sidetrack::node::repair::state::State::NAMES.contains(&state);
            assert!(known || exposed.contains(&format!("=\"{state}\"")), "{state}");
        }
    }
    assert!(asked > 3);
}
