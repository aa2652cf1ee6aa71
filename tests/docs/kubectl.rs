//! The kubectl plugin, with the stand-in for kubectl of `files/cluster.py`; docs/kubectl.md has more of its commands.

use std::path::Path;
use std::process::Command;

use sidetrack::yaml;

use crate::common::output_of;
use crate::page::{Page, ROOT};
use crate::shell::{Ended, Shell};

/// What a pod of Istio's mesh needs to start on the node of the stand-in.
const START: &str = "helm upgrade istiod istio/istiod --namespace istio-system --reuse-values --values \
                     cni-conf/examples/istio-cni.yaml; kubectl -n shop rollout restart statefulset/web";

/// Runs commands in one shell.
fn run(name: &str, commands: &[&str]) -> Vec<Ended> {
    let mut page = Page::read(&Path::new(ROOT).join("docs/kubectl.md"));
    page.name = name.to_owned();
    let mut shell = Shell::of(&page);
    commands.iter().for_each(|command| {
        shell.add(command);
    });
    shell.run().into_values().collect()
}

#[track_caller]
fn assert_ended(ended: &Ended, code: i32, said: &[&str]) {
    assert_eq!(ended.code, code, "{}", ended.output);
    for text in said {
        assert!(ended.output.contains(text), "{text:?} is not in {}", ended.output);
    }
}

#[test]
fn plugin_runs_commands_in_the_installers_pod_and_returns_their_exit_codes() {
    let ended = run(
        "kubectl-installer",
        &[
            "kubectl apply -k cni-conf/kubernetes/quickstart",
            START,
            "kubectl sidetrack check web-0 -n shop",
            "nsenter --net=/run/netns/pod sidetrack apply --exclude-inbound-ports 22,15020 --exclude-outbound-ports 3306",
            "kubectl sidetrack check --namespace=shop web-0; kubectl sidetrack check web-0",
            "kubectl sidetrack check web-0 --exclude-inbound-ports 22,15020 --json",
            "kubectl sidetrack pods web-0",
            "kubectl sidetrack pods --node node-1 --json",
            "kubectl sidetrack stats web-0; nsenter --net=/run/netns/pod sidetrack apply --counters",
            "kubectl sidetrack stats web-0 --json",
        ],
    );
    ended[..2].iter().for_each(|ended| assert_ended(ended, 0, &[]));
    assert_ended(&ended[2], 0, &["in-sync"]);
    // The name comes right after the command; the namespace is that of the context.
    assert_ended(&ended[4], 3, &["check needs the name of a pod", "drifted"]);
    assert_ended(&ended[5], 0, &["\"state\": \"in-sync\""]);
    assert_ended(&ended[6], 0, &["state          drifted: "]);
    assert_ended(&ended[7], 0, &["\"drifted\""]);
    assert_ended(&ended[8], 0, &["have no counters", "hint: Set the option counters"]);
    assert_ended(&ended[9], 0, &["\"outbound_to_the_proxy\""]);
}

#[test]
fn plugin_uses_a_debug_pod_where_the_installer_may_not_enter_pods() {
    let ended = run(
        "kubectl-debug",
        &[
            "kubectl sidetrack pods",
            "kubectl sidetrack check web-0",
            "kubectl apply -k cni-conf/kubernetes/base",
            START,
            "kubectl sidetrack check web-0",
            "kubectl sidetrack check web-0 --debug",
            "kubectl sidetrack pods --node node-1 --debug",
            "kubectl sidetrack sing; kubectl sidetrack check web-0 --image",
        ],
    );
    assert_ended(
        &ended[0],
        2,
        &["no pod of the installer runs in the namespace sidetrack-system"],
    );
    assert_ended(
        &ended[1],
        2,
        &["no pod of the installer runs on the node node-1", "--image"],
    );
    assert_ended(&ended[4], 1, &["/nonexistent"]);
    assert_ended(&ended[5], 0, &["in-sync"]);
    assert_ended(&ended[6], 0, &["shop/web-0"]);
    assert_ended(&ended[7], 2, &["there is no command sing", "--image needs a value"]);
}

#[test]
fn krew_manifest_has_checksum_of_its_archive() {
    let directory = std::env::temp_dir().join(format!("sidetrack-krew-{}", std::process::id()));
    let build = || {
        output_of(
            Command::new(Path::new(ROOT).join("scripts/krew"))
                .arg(&directory)
                .env("SOURCE_DATE_EPOCH", "1"),
        )
    };
    let manifest = build();
    let text = std::fs::read_to_string(manifest.trim()).expect("a manifest");
    let archive = directory.join("kubectl-sidetrack.tar.gz");
    let checksum = output_of(Command::new("sha256sum").arg(&archive));
    let names = output_of(Command::new("tar").arg("tzf").arg(&archive));
    build();
    assert_eq!(
        checksum,
        output_of(Command::new("sha256sum").arg(&archive)),
        "the same sources give the same archive"
    );
    std::fs::remove_dir_all(&directory).expect("a directory");
    let manifest = yaml::document(&text).expect("YAML").to_json();
    assert_eq!(manifest["kind"], "Plugin");
    assert_eq!(manifest["spec"]["version"], format!("v{}", env!("CARGO_PKG_VERSION")));
    let platform = &manifest["spec"]["platforms"][0];
    let expected = checksum.split(' ').next().expect("a checksum");
    assert_eq!(platform["sha256"], expected);
    let files = platform["files"].as_array().expect("files").iter();
    let files: Vec<&str> = files.map(|file| file["from"].as_str().expect("a name")).collect();
    assert_eq!(names.lines().collect::<Vec<_>>(), files);
    assert!(files.contains(&platform["bin"].as_str().expect("a name")));
}
