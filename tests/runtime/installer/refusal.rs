//! Refused operations: the message has advice, and existing files stay.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::fixture::{CILIUM, FLANNEL, Machine, WEAVE, names};
use crate::program::{Run, static_program};

/// A command of `sidetrack node`, after a script has prepared its mount namespace.
fn after(machine: &Machine, script: &str, arguments: &[&str]) -> Run {
    let node = machine.command(arguments);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-e", "-c", &format!("{script}\nexec \"$@\""), "sh"])
        .arg(node.get_program())
        .args(node.get_args())
        .envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("NODE", machine.root());
    Run::of(&mut command)
}

/// The static binary is built without features.
#[test]
fn mode_missing_from_the_build_is_refused_with_its_feature() {
    for mode in ["label", "delete"] {
        let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
        let mut command = machine.command_of(static_program(), &["install", "--repair", mode]);
        Run::of(&mut command).failed(2, &["--repair", mode, "--features kubernetes"]);
        assert_eq!(machine.read("10-flannel.conflist"), FLANNEL);
        let mut command = machine.command_of(static_program(), &["install", "--eviction-interval", "often"]);
        Run::of(&mut command).failed(2, &["--eviction-interval", "a duration, such as 5s"]);
    }
}

#[test]
fn startup_taint_is_refused_by_a_build_without_kubernetes() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let taint = ["install", "--startup-taint", "a.example/b", "--node-name", "n"];
    let mut command = machine.command_of(static_program(), &taint);
    Run::of(&mut command).failed(2, &["--startup-taint", "--features kubernetes"]);
    assert_eq!(machine.read("10-flannel.conflist"), FLANNEL);
}

#[test]
fn all_errors_are_reported_at_once() {
    let machine = Machine::new();
    let arguments = [
        "install",
        "--standalone",
        "../a.conf",
        "--plugin-conf",
        "{\"select\": }",
        "--health-address",
        "here",
    ];
    let mut command = machine.command(&arguments);
    Run::of(command.env("SIDETRACK_NODE_ONCE", "yes")).failed(
        2,
        &[
            "--standalone: \"../a.conf\" is not a file name",
            "--plugin-conf: expected value",
            "--health-address: \"here\"",
            "SIDETRACK_NODE_ONCE: \"yes\" is not one of true, false",
        ],
    );
    for arguments in [
        &["install", "--nonsense"][..],
        &["uninstall", "--once"],
        &["nonsense"],
        &["status", "--log-level", "loud"],
        &["install", "--plugin-conf", "{\"type\": \"bridge\"}"],
        &["install", "--plugin-conf", "/nonexistent"],
        &["install", "--plugin-conf", "{\"selekt\": \"always\"}"],
        &["install", "--plugin-conf", "{\"redirect\": {\"proxyUid\": -1}}"],
        &["install", "--plugin-conf", "{"],
    ] {
        machine.run(arguments).failed(2, &[]);
    }
    assert_eq!(names(&machine.conf()), Vec::<String>::new());
}

#[test]
fn variables_of_other_commands_and_services_are_ignored() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let mut command = machine.command(&["install", "--once"]);
    command
        .env("SIDETRACK_PROXY_UID", "nonsense")
        .env("SIDETRACK_NODE_PORT", "tcp://10.0.0.1:15014")
        .env("SIDETRACK_NODE_CNI_CONF_NAME", "");
    let log = Run::of(&mut command).succeeded().stderr;
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn once_without_configuration_fails() {
    let machine = Machine::new();
    machine
        .run(&["install", "--once"])
        .failed(1, &["no valid network configuration yet", "Without --once"]);
    machine.write("10-old.conflist", &FLANNEL.replace("0.3.1", "0.2.0"));
    machine
        .run(&["install", "--once"])
        .failed(1, &["10-old.conflist has cniVersion 0.2.0", "from 0.3.0"]);
    assert!(machine.has_binary(), "which does no harm");
    machine.write("05-weave.conf", WEAVE);
    machine.write("05-weave.conflist", CILIUM);
    let before = machine.files();
    machine
        .run(&["install", "--once"])
        .failed(1, &["05-weave.conflist is there already"]);
    assert_eq!(machine.files(), before);
}

#[test]
fn foreign_file_is_not_replaced() {
    let machine = Machine::with(&[("sidetrack.conf", WEAVE)]);
    machine
        .run(&["install", "--once", "--standalone", "sidetrack.conf"])
        .failed(1, &["sidetrack.conf is there already"]);
    assert_eq!(machine.read("sidetrack.conf"), WEAVE);
}

#[test]
fn missing_directory_is_reported() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    for directory in ["--cni-bin-dir", "--cni-conf-dir"] {
        let arguments = ["install", directory, "/nonexistent"];
        machine
            .run(&arguments)
            .failed(1, &["/nonexistent", "Mount the node's directory"]);
    }
    assert_eq!(machine.read("10-flannel.conflist"), FLANNEL);
}

#[test]
fn read_only_directory_is_reported() {
    let read_only = |directory: &str| {
        format!("mount --bind $NODE/{directory} $NODE/{directory}; mount -o remount,bind,ro $NODE/{directory}")
    };
    for arguments in [&["install"][..], &["install", "--once"]] {
        let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
        fs::write(machine.binary(), "old").expect("a file");
        let said = &["read-only: mount the node's directory"];
        after(&machine, &read_only("bin"), arguments).failed(1, said);
        assert_eq!(fs::read_to_string(machine.binary()).expect("a file"), "old");
        assert_eq!(
            machine.read("10-flannel.conflist"),
            FLANNEL,
            "no chain with an old binary"
        );
        after(&machine, &read_only("conf"), arguments).failed(1, said);
        assert_eq!(machine.read("10-flannel.conflist"), FLANNEL);
        assert!(machine.has_binary());
    }
}

#[test]
fn foreign_directory_is_refused() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let mut command = machine.command(&["install"]);
    Run::of(command.uid(65534).gid(65534)).failed(1, &["Permission denied", "Run as root", "spc_t"]);
    assert_eq!(names(&machine.bin()), Vec::<String>::new());
}

#[test]
fn root_needs_no_capability() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let node = machine.command(&["install", "--once"]);
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(node.get_program())
        .args(node.get_args())
        .envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Run::of(&mut command).succeeded();
    assert!(machine.has_binary());
    assert_eq!(machine.plugins("10-flannel.conflist").map(|chain| chain.len()), Some(3));
}

#[test]
fn installer_runs_with_a_read_only_root() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    fs::create_dir(machine.root().join("run")).expect("a directory");
    let read_only = "mount --bind $NODE $NODE; mount -o remount,bind,ro /; ! touch /x 2>/dev/null";
    after(&machine, read_only, &["install", "--once"]).succeeded();
    assert!(machine.has_binary());
    assert_eq!(machine.plugins("10-flannel.conflist").map(|chain| chain.len()), Some(3));
}

#[test]
fn full_disk_keeps_existing_files() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let full = "mount -t tmpfs -o size=64k tmpfs $NODE/bin; echo old >$NODE/bin/sidetrack
        trap 'cat $NODE/bin/sidetrack; ls -A $NODE/bin' EXIT
        set +e; \"$@\"; exit $?";
    let run = after(&machine, full, &["install", "--once"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(
        run.stderr.contains("No space left") && run.stderr.contains("Make room"),
        "{run:?}"
    );
    assert_eq!(run.stdout, "old\nsidetrack\n", "the old one, and nothing unfinished");
    assert_eq!(machine.read("10-flannel.conflist"), FLANNEL);
}

#[test]
fn file_size_limit_keeps_existing_files() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    fs::write(machine.binary(), "old").expect("a file");
    let limit = "trap '' XFSZ; ulimit -f 64";
    after(&machine, limit, &["install", "--once"]).failed(1, &["File too large", "still in place"]);
    assert_eq!(names(&machine.bin()), ["sidetrack"]);
    // Who does not ignore the signal is killed by it, in the middle.
    let killed = after(&machine, "ulimit -f 64", &["install", "--once"]);
    assert_eq!(killed.code, None, "{killed:?}");
    assert_eq!(fs::read_to_string(machine.binary()).expect("a file"), "old");
    assert_eq!(machine.read("10-flannel.conflist"), FLANNEL);
    machine.install_once();
    assert!(machine.has_binary());
    assert_eq!(names(&machine.bin()), ["sidetrack"], "nothing unfinished stays");
}

#[test]
fn an_entry_written_by_hand_keeps_the_binary() {
    let by_hand = r#"{"cniVersion":"1.0.0","name":"podman","plugins":[{"type":"bridge"},{"type":"sidetrack"}]}"#;
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL), ("87-podman.conflist", by_hand)]);
    machine.install_once();
    machine
        .run(&["uninstall"])
        .failed(1, &["87-podman.conflist still names sidetrack", "run this again"]);
    assert_eq!(machine.read("10-flannel.conflist"), FLANNEL);
    assert_eq!(machine.read("87-podman.conflist"), by_hand);
    assert!(machine.has_binary());
    fs::remove_file(machine.conf().join("87-podman.conflist")).expect("a file");
    machine.run(&["uninstall"]).succeeded();
    assert_eq!(names(&machine.bin()), Vec::<String>::new());
}
