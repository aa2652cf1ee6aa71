//! Installing once, uninstalling, and the status: what is changed, and what is not.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::fixture::{CILIUM, End, FLANNEL, Machine, WEAVE, names, plugins};
use crate::cni::{has_rules, request};
use crate::common::{Netns, copy_program};
use crate::program::Run;

/// The identity of a file, which changes when the file is replaced.
fn identity(path: &Path) -> (u64, i64, i64) {
    let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

fn access(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::metadata(path).expect("a file");
    (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
}

#[test]
fn install_appends_the_plugin_and_changes_nothing_else() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL), ("20-other.conflist", CILIUM)]);
    let before = machine.files();
    let file = machine.conf().join("10-flannel.conflist");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("a mode");
    chown(&file, Some(12), Some(34)).expect("an owner");

    machine.install_once();
    assert!(machine.has_binary());
    assert_eq!(access(&file), (0o640, 12, 34));
    assert_eq!(machine.read("20-other.conflist"), CILIUM);
    let installed = machine.read("10-flannel.conflist");
    assert_eq!(
        plugins(&installed).expect("a chain"),
        ["flannel", "portmap", "sidetrack"]
    );
    let value: Value = serde_json::from_str(&installed).expect("JSON");
    let entry = &value["plugins"][2];
    assert_eq!(
        *entry,
        json!({
            "type": "sidetrack",
            "installer": "sidetrack-system/sidetrack-node",
            "logSocket": machine.socket(),
            "capabilities": {"io.kubernetes.cri.pod-annotations": true, "dns": true},
        })
    );
    // Byte by byte, what was there is still there: only the entry was put in.
    let (begin, end) = FLANNEL.split_at(FLANNEL.rfind("\n  ]").expect("the end of the list"));
    assert!(installed.starts_with(begin) && installed.ends_with(end), "{installed}");

    machine.run(&["uninstall"]).succeeded();
    assert_eq!(machine.files(), before);
    assert_eq!(access(&file), (0o640, 12, 34));
    assert_eq!(names(&machine.bin()), Vec::<String>::new());
}

#[test]
fn installed_plugin_runs_with_given_configuration() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let conf = "{\"select\": \"always\", \"redirect\": {\"proxyUid\": 101}}";
    machine.run(&["install", "--once", "--plugin-conf", conf]).succeeded();
    let list: Value = serde_json::from_str(&machine.read("10-flannel.conflist")).expect("JSON");
    // As a runtime derives it.
    let mut netconf = list["plugins"][2].clone();
    netconf["name"] = list["name"].clone();
    netconf["cniVersion"] = "1.1.0".into();
    let stdin = machine.root().join("netconf.json");
    fs::write(&stdin, netconf.to_string()).expect("a file");
    let output = Command::new(machine.binary())
        .envs([("CNI_COMMAND", "GC"), ("CNI_PATH", "/opt/cni/bin")])
        .stdin(fs::File::open(stdin).expect("a file"))
        .output()
        .expect("the plugin");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn installing_again_writes_nothing() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    machine.install_once();
    let paths = [machine.binary(), machine.conf().join("10-flannel.conflist")];
    let before = paths.each_ref().map(|path| identity(path));
    let log = machine.install_once().stderr;
    assert!(log.contains("in place"), "{log}");
    assert_eq!(paths.each_ref().map(|path| identity(path)), before);
    machine.run(&["uninstall"]).succeeded();
    machine.run(&["uninstall"]).succeeded();
}

#[test]
fn single_plugin_configuration_becomes_a_conflist_and_is_restored() {
    for name in ["10-weave.conf", "10-weave.json"] {
        let machine = Machine::with(&[(name, WEAVE), ("99-other.conflist", CILIUM)]);
        let before = machine.files();
        fs::set_permissions(machine.conf().join(name), fs::Permissions::from_mode(0o600)).expect("a mode");
        machine.install_once();
        machine.install_once();
        let mut expected = ["10-weave.conflist", &format!("{name}.sidetrack"), "99-other.conflist"];
        expected.sort_unstable();
        assert_eq!(names(&machine.conf()), expected);
        let list: Value = serde_json::from_str(&machine.read("10-weave.conflist")).expect("JSON");
        assert_eq!(list["cniVersion"], "0.3.0");
        assert_eq!(list["name"], "weave");
        assert_eq!(list["plugins"][0], serde_json::from_str::<Value>(WEAVE).expect("JSON"));
        assert_eq!(list["plugins"][1]["type"], "sidetrack");
        assert_eq!(access(&machine.conf().join("10-weave.conflist")).0, 0o600);
        machine.run(&["uninstall"]).succeeded();
        assert_eq!(machine.files(), before);
        assert_eq!(access(&machine.conf().join(name)).0, 0o600);
    }
}

#[test]
fn running_older_binary_is_replaced_and_keeps_running() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    copy_program(Path::new("/bin/sleep"), &machine.binary());
    let mut running = Command::new(machine.binary())
        .arg("600")
        .stdout(Stdio::null())
        .spawn()
        .expect("a process");
    machine.install_once();
    assert!(machine.has_binary());
    assert_eq!(running.try_wait().expect("its state"), None, "it runs on");
    running.kill().expect("a signal");
    running.wait().expect("its end");
}

#[test]
fn binary_and_conflist_are_complete_at_every_instant() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let builds = ["a", "b"].map(|name| machine.other_build(name));
    let wholes = builds.each_ref().map(|build| fs::read(build).expect("a file"));
    let install = |round: usize| {
        let select = ["always", "never"][round % 2];
        let conf = format!("{{\"select\":\"{select}\"}}");
        let arguments = ["install", "--once", "--plugin-conf", &conf];
        Run::of(&mut machine.command_of(&builds[round % 2], &arguments)).succeeded();
    };
    install(0);
    let done = AtomicBool::new(false);
    let looks = thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                let binary = fs::read(machine.binary()).expect("there is one always");
                assert!(wholes.contains(&binary), "{} bytes", binary.len());
                let text = machine.read("10-flannel.conflist");
                let chain = plugins(&text).unwrap_or_else(|| panic!("not whole: {text}"));
                assert_eq!(chain, ["flannel", "portmap", "sidetrack"]);
                looks += 1;
            }
            looks
        });
        let end = End(&done);
        (1..=10).for_each(install);
        drop(end);
        looks.join().expect("whole files")
    });
    assert!(looks > 2, "{looks}");
}

#[test]
fn changed_entry_is_repaired_and_counted_once() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    machine.install_once();
    let never = ["install", "--once", "--plugin-conf", "{\"select\": \"never\"}"];
    let log = machine.run(&never).succeeded().stderr;
    assert!(log.contains("entry-different"), "{log}");
    let value: Value = serde_json::from_str(&machine.read("10-flannel.conflist")).expect("JSON");
    assert_eq!(value["plugins"][2]["select"], "never");
    assert_eq!(value["plugins"].as_array().map(Vec::len), Some(3));
    machine.run(&["uninstall"]).succeeded();
    assert_eq!(machine.read("10-flannel.conflist"), FLANNEL);
}

#[test]
fn plugin_skips_the_installers_own_pods() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let of_pod = |arguments: &[&str]| {
        let mut command = machine.command(arguments);
        command
            .env("SIDETRACK_NODE_POD_NAMESPACE", "mesh")
            .env("SIDETRACK_NODE_POD_NAME", "agent-x7k2p");
        Run::of(&mut command)
    };
    of_pod(&["install", "--once", "--plugin-conf", "{\"select\": \"always\"}"]).succeeded();
    of_pod(&["status", "--plugin-conf", "{\"select\": \"always\"}"]).succeeded();
    let list: Value = serde_json::from_str(&machine.read("10-flannel.conflist")).expect("JSON");
    assert_eq!(list["plugins"][2]["installer"], "mesh/agent");
    for (pod, redirected) in [("agent-abcde", false), ("web-abcde", true)] {
        let netns = Netns::new();
        let args = format!("K8S_POD_NAMESPACE=mesh;K8S_POD_NAME={pod}");
        let entry = list["plugins"][2].as_object().expect("our entry").clone();
        let request = entry
            .into_iter()
            .fold(request("ADD", &netns.path()), |request, (key, value)| {
                request.with(&key, value)
            });
        request.variable("CNI_ARGS", &args).succeeds();
        assert_eq!(has_rules(&netns), redirected, "{pod}");
    }
    of_pod(&["install", "--once", "--pod-name", "alone"]).failed(2, &["--pod-name", "\"alone\"", "NAME-xxxxx"]);
}

#[test]
fn plugin_configuration_may_come_from_a_file() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let file = machine.root().join("plugin.json");
    fs::write(&file, "{\"select\": \"always\", \"redirect\": {\"proxyUid\": 101}}").expect("a file");
    let mut command = machine.command(&["install", "--once"]);
    Run::of(command.env("SIDETRACK_NODE_PLUGIN_CONF", &file)).succeeded();
    let value: Value = serde_json::from_str(&machine.read("10-flannel.conflist")).expect("JSON");
    assert_eq!(value["plugins"][2]["redirect"], json!({"proxyUid": 101}));
}

#[test]
fn named_configuration_is_joined() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL), ("20-cilium.conflist", CILIUM)]);
    machine
        .run(&["install", "--once", "--cni-conf-name", "20-cilium.conflist"])
        .succeeded();
    assert_eq!(machine.read("10-flannel.conflist"), FLANNEL);
    let chain = machine.plugins("20-cilium.conflist");
    assert_eq!(chain.expect("a chain"), ["cilium-cni", "sidetrack"]);
    machine.run(&["uninstall"]).succeeded();
    assert_eq!(machine.read("20-cilium.conflist"), CILIUM);
}

#[test]
fn own_network_is_written_for_multus() {
    for name in ["sidetrack.conf", "sidetrack.conflist"] {
        let machine = Machine::with(&[("00-multus.conf", WEAVE)]);
        let alone = ["--standalone", name];
        machine.run(&[&["install", "--once"], &alone[..]].concat()).succeeded();
        assert_eq!(machine.read("00-multus.conf"), WEAVE);
        assert_eq!(machine.plugins(name).expect("a chain"), ["sidetrack"]);
        machine.run(&[&["status"], &alone[..]].concat()).succeeded();
        machine.run(&["uninstall"]).succeeded();
        assert_eq!(names(&machine.conf()), ["00-multus.conf"]);
    }
}

#[test]
fn symbolic_link_stays_a_link() {
    let machine = Machine::new();
    let real = machine.root().join("real");
    fs::create_dir(&real).expect("a directory");
    fs::write(real.join("net.json"), FLANNEL).expect("a file");
    symlink("../real/net.json", machine.conf().join("10-a.conflist")).expect("a link");
    machine.install_once();
    let link = machine.conf().join("10-a.conflist");
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
    let chain = plugins(&fs::read_to_string(real.join("net.json")).expect("a file"));
    assert_eq!(chain.expect("a chain"), ["flannel", "portmap", "sidetrack"]);
    machine.run(&["uninstall"]).succeeded();
    assert_eq!(fs::read_to_string(link).expect("a file"), FLANNEL);
}

#[test]
fn only_regular_files_are_opened() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let pipe = machine.conf().join("05-pipe.conf");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    fs::create_dir(machine.conf().join("06-directory.conflist")).expect("a directory");
    symlink("/nonexistent", machine.conf().join("20-nowhere.conf")).expect("a link");
    fs::write(machine.conf().join("08-bytes.conf"), b"\xff\xfe").expect("a file");
    machine.install_once();
    assert_eq!(machine.plugins("10-flannel.conflist").map(|chain| chain.len()), Some(3));
}

#[test]
fn only_unfinished_files_of_the_installer_are_removed() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    for directory in [machine.bin(), machine.conf()] {
        fs::write(directory.join(".sidetrack-unfinished-1-2"), "half").expect("a file");
        fs::write(directory.join(".other-unfinished-1-2"), "half").expect("a file");
    }
    machine.install_once();
    assert_eq!(names(&machine.bin()), [".other-unfinished-1-2", "sidetrack"]);
    assert_eq!(names(&machine.conf()), [".other-unfinished-1-2", "10-flannel.conflist"]);
}

#[test]
fn status_shows_what_is_missing_and_changes_nothing() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    let before = machine.files();
    let status = |code: i32, said: &[&str]| {
        let run = machine.run(&["status"]);
        assert_eq!(run.code, Some(code), "{run:?}");
        for text in said {
            assert!(run.stdout.contains(text), "{text}: {run:?}");
        }
        let json = machine.run(&["status", "--json"]);
        assert_eq!(json.code, Some(code), "{json:?}");
        serde_json::from_str::<Value>(&json.stdout).unwrap_or_else(|error| panic!("{error}: {json:?}"))
    };
    let json = status(3, &["binary-missing", "entry-missing", "not running"]);
    assert_eq!(json["reasons"], json!(["binary-missing", "entry-missing"]));
    assert_eq!((machine.files(), names(&machine.bin()).len()), (before, 0));

    machine.install_once();
    let json = status(0, &["as wanted"]);
    assert_eq!((&json["missing"], &json["reasons"]), (&Value::Null, &json!([])));
    assert_eq!(json["configuration"], json!(machine.conf().join("10-flannel.conflist")));

    fs::set_permissions(machine.binary(), fs::Permissions::from_mode(0o644)).expect("a mode");
    assert_eq!(status(3, &["binary-different"])["reasons"], json!(["binary-different"]));
    fs::remove_file(machine.conf().join("10-flannel.conflist")).expect("a file");
    status(3, &["no valid network configuration yet"]);
}
