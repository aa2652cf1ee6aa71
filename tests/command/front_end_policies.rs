//! The programs of meshes have no policies: whoever asks for one beside them is told so, where rules would be made.

use std::fs;
use std::process::Command;

use crate::SIDETRACK;
use crate::program::Run;
use crate::temporary::Directory;

/// A dry run of each program.
const PROGRAMS: [&[&str]; 3] = [
    &["istio-iptables", "--dry-run"],
    &[
        "linkerd-proxy-init",
        "--simulate",
        "-p",
        "4143",
        "-o",
        "4140",
        "-u",
        "2102",
    ],
    &["kuma-init", "--dry-run", "--kuma-dp-user", "5678"],
];

fn run(arguments: &[&str], variable: &str, value: &str) -> Run {
    Run::of(Command::new(SIDETRACK).args(arguments).env(variable, value))
}

#[track_caller]
fn is_refused(run: &Run, words: &[&str]) {
    assert_ne!(run.code, Some(0), "{run:?}");
    assert_eq!(run.stdout, "", "no rules");
    assert!(words.iter().all(|word| run.stderr.contains(word)), "{words:?}: {run:?}");
}

#[test]
fn policy_in_a_variable_is_refused_by_each_program() {
    for program in PROGRAMS {
        for option in ["outbound-policy", "inbound-policy"] {
            let variable = format!("SIDETRACK_{}", option.to_uppercase().replace('-', "_"));
            let words = [&*variable, "\"proxy-only\"", program[0], "only allow is valid", option];
            is_refused(&run(program, &variable, "proxy-only"), &words);
            run(program, &variable, "allow").succeeded();
            is_refused(
                &run(program, &variable, "strict"),
                &["\"strict\"", &*variable, "proxy-only"],
            );
        }
        is_refused(
            &run(program, "SIDETRACK_PROXY_MARK", "77"),
            &["SIDETRACK_PROXY_MARK", "unset it"],
        );
        // What has no policy in it is none of their business.
        run(program, "SIDETRACK_PROXY_UID", "no user").succeeded();
    }
}

#[test]
fn policy_in_the_file_of_a_variable_is_refused_by_each_program() {
    let directory = Directory::new("front-end-policies");
    let path = directory.path().join("options.yaml");
    let path = path.to_str().expect("a path");
    for program in PROGRAMS {
        fs::write(path, "outboundPolicy: proxy-only\n").expect("a file");
        is_refused(
            &run(program, "SIDETRACK_CONFIG", path),
            &[path, "outbound-policy", program[0]],
        );
        fs::write(path, "excludeOutboundPorts: 22\n").expect("a file");
        run(program, "SIDETRACK_CONFIG", path).succeeded();
    }
}

/// Lint and explain read the command line of an init container, and its variables.
#[test]
fn policy_in_a_variable_of_an_init_container_is_found_by_lint() {
    let directory = Directory::new("front-end-policies-lint");
    let path = directory.path().join("pod.yaml");
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: app, image: app}], \
               initContainers: [{name: istio-init, image: sidetrack, args: [istio-iptables, -u, '1337'], \
               env: [{name: SIDETRACK_OUTBOUND_POLICY, value: proxy-only}]}]}}";
    fs::write(&path, pod).expect("a file");
    let found = Run::of(Command::new(SIDETRACK).arg("lint").arg(&path));
    assert!(
        found.stdout.contains("ST603") && found.stdout.contains("SIDETRACK_OUTBOUND_POLICY"),
        "{found:?}"
    );
}
