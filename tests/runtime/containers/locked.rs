//! The recipe for podman in docs/locked-egress.md, command by command, with images of our own.

use std::fs;
use std::path::Path;

use super::IMAGE;
use super::node::Node;
use super::podman::Podman;
use crate::SIDETRACK;
use crate::common::{Netns, Owner, Server, output_of};
use crate::installer::fixture::eventually;

/// The port of the host outside.
const SERVER: u16 = 9090;
/// Sends a datagram, and prints the answer if it left.
const ASK: &str = "exec 3<>/dev/udp/198.51.100.2/9090; echo ? >&3 && /usr/bin/timeout 60 /usr/bin/head -c 12 <&3";

/// The commands of the page's block of podman.
fn recipe() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/locked-egress.md");
    let page = fs::read_to_string(page).expect("the page");
    let lines = page.lines().filter(|line| line.starts_with("podman run "));
    lines.map(str::to_owned).collect()
}

/// The words of a command of the page after `podman`, with what each image of the page stands for.
fn words(line: &str) -> Vec<String> {
    let libraries = ["/usr", "/lib", "/lib64"].map(|path| format!("--volume={path}:{path}:ro"));
    let (options, command) = line.split_once(" registry.example/").expect("an image");
    let mut words: Vec<String> = options.split(' ').skip(1).map(str::to_owned).collect();
    // Our image has busybox alone, so programs are the host's.
    words.extend(libraries);
    let (image, arguments) = command.split_once(' ').unwrap_or((command, ""));
    let stands_for: Vec<String> = match image {
        "pause" => ["sleep", "1000000"].map(str::to_owned).to_vec(),
        "sidetrack" => {
            words.push(format!("--volume={SIDETRACK}:/sidetrack:ro"));
            let arguments = arguments.split(' ').map(str::to_owned);
            ["/sidetrack".to_owned()].into_iter().chain(arguments).collect()
        }
        "envoy" => ["/usr/bin/bash", "-c", &format!("{ASK}; exec sleep 1000000")]
            .map(str::to_owned)
            .to_vec(),
        "job" => ["/usr/bin/bash", "-c", ASK].map(str::to_owned).to_vec(),
        other => panic!("no stand-in for {other}"),
    };
    words.push(IMAGE.to_owned());
    words.extend(stands_for);
    words
}

#[test]
fn podman_recipe_locks_the_job_and_not_the_proxy() {
    let podman = Podman::new(Node::start(&[]));
    let node = &podman.node;
    podman.run(&["network", "create", "--subnet", "10.77.0.0/24", "locked"]);
    let _server = Server::start(&node.outside, "outside", Owner::ROOT, &[SERVER]);
    let lines = recipe();
    assert_eq!(lines.len(), 4, "{lines:?}");
    let cgroup = format!("--cgroup-parent=/{}", node.name());
    let run = |line: &str, more: &[&str]| {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (verb, rest) = words.split_first().expect("run");
        podman.command(&[&[*verb, &cgroup][..], more, rest].concat())
    };
    output_of(&mut run(&lines[0], &["--network", "locked"]));
    let job = |more: &[&str]| {
        let output = run(&lines[3], &[&["--rm"], more].concat()).output().expect("podman");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (said(&output.stdout), said(&output.stderr))
    };
    let (answer, complaint) = job(&[]);
    assert!(
        answer.contains("outside 9090"),
        "without the lock: {answer} {complaint}"
    );
    output_of(&mut run(&lines[1], &[]));
    assert_eq!(job(&[]).0, "");
    output_of(&mut run(&lines[2], &["--name", "proxy"]));
    eventually("the proxy is answered", || match podman.run(&["logs", "proxy"]) {
        said if said.contains("outside 9090") => Ok(()),
        said => Err(said),
    });
    let netns = podman.inspect("lock", "{{.NetworkSettings.SandboxKey}}");
    let netns = Netns::open(&node.path(&netns));
    let check = ["check", "--outbound-policy", "proxy-only"];
    crate::program::sidetrack(&netns, &check).succeeded();
    for name in ["proxy", "lock"] {
        podman.run(&["rm", "--force", "--time", "0", name]);
    }
    podman.run(&["network", "rm", "locked"]);
}
