//! Our image as an init container: before the app and Envoy start, in the network namespace that they will share.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::node::Node;
use super::podman::Podman;
use super::proxied::{APP, HOST_PORT, app, proxy};
use crate::common::output_of;

/// A network without our plugin.
const NETWORK: [&str; 8] = [
    "network",
    "create",
    "--subnet",
    "10.77.0.0/24",
    "--ipv6",
    "--subnet",
    "fd77::/64",
    "plain",
];

/// What `docs` and `cni-conf/examples` tell to give it, and no more.
const RESTRICTED: [&str; 6] = [
    "--read-only",
    "--cap-drop",
    "all",
    "--security-opt",
    "no-new-privileges",
    "--rm",
];

#[test]
fn image_redirects_a_pod_with_net_admin_alone() {
    let podman = Podman::new(Node::start(&[]));
    let build = |name: &str| {
        let archive = podman.node.directory().join(name);
        let mut command = Command::new("scripts/image");
        command.arg(&archive).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
        output_of(&mut command);
        archive
    };
    let (archive, again) = (build("sidetrack.tar"), build("again.tar"));
    assert!(
        fs::read(&archive).expect("an archive") == fs::read(again).expect("an archive"),
        "not reproducible"
    );
    let loaded = podman.run(&["load", "--quiet", "--input", archive.to_str().expect("text")]);
    let image = loaded.trim().rsplit(' ').next().expect("a name");

    let labels = podman.inspect(
        image,
        "{{.User}} {{index .Labels \"org.opencontainers.image.version\"}}",
    );
    assert_eq!(labels, format!("65532:65532 {}", env!("CARGO_PKG_VERSION")));

    podman.run(&NETWORK);
    let publish = format!("{HOST_PORT}:{APP}");
    let options = ["--network", "plain", "--publish", &publish];
    let mut holder = app();
    holder.name = "holder";
    holder.command = ["sleep", "1000000"].map(str::to_owned).to_vec();
    podman.start_container(&holder, &options);
    let sidetrack = |options: &[&str], arguments: &[&str]| {
        let of_the_pod = ["run", "--network", "container:holder"];
        podman.command(&[&of_the_pod, &RESTRICTED[..], options, &[image], arguments].concat())
    };

    // As the image's user and without the capability, a dry run works, and an apply reports what is missing.
    let plan = output_of(&mut sidetrack(&[], &["apply", "--dry-run"]));
    assert!(plan.contains("redirect to :15001"), "{plan}");
    let refused = sidetrack(&[], &["apply"]).output().expect("podman runs");
    let reason = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{reason}");
    assert!(reason.contains("NET_ADMIN"), "{reason}");
    assert_eq!(
        output_of(&mut sidetrack(
            &["--user", "0", "--cap-add", "NET_ADMIN"],
            &["apply", "-v"]
        )),
        ""
    );

    let joined = ["--network", "container:holder"];
    let (app, proxy) = (app(), proxy());
    podman.start_container(&app, &joined);
    podman.start_container(&proxy, &joined);
    podman.check_that_envoy_is_passed("holder", "plain");
    for name in ["proxy", "app", "holder"] {
        podman.run(&["rm", "--force", "--time", "0", name]);
    }
    podman.run(&["network", "rm", "plain"]);
    assert_eq!(podman.node.leftovers(), [""; 0]);
}
