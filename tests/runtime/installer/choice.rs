//! The joined configuration is the one that runtimes choose, as libcni itself reports
//! (`tests/libcni`).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use super::fixture::{FLANNEL, Machine, WEAVE, eventually};
use crate::program::Run;

/// The program that calls libcni and go-cni.
pub fn libcni() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| go_program("tests/libcni", ".", "libcni"));
    &PROGRAM
}

/// Builds a package of a Go module of the repository.
pub fn go_program(module: &str, package: &str, name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = kept.join(name);
    let mut build = Command::new(root.join(".venv/bin/go"));
    build
        // Without optimization and debug information, Helm's thousand packages compile in three quarters of the time.
        .args(["build", "-trimpath", "-gcflags=all=-N -l", "-ldflags=-s -w", "-o"])
        .arg(&program)
        .arg(package)
        .current_dir(root.join(module))
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=readonly -modcacherw -buildvcs=false")
        .env("GOPATH", kept.join("go"))
        .env("GOCACHE", kept.join("go/cache"));
    Run::of(&mut build).succeeded();
    program
}

/// What runtimes take from a directory.
pub fn chosen(machine: &Machine) -> Value {
    let run = Run::of(Command::new(libcni()).arg("choose").arg(machine.conf())).succeeded();
    serde_json::from_str(&run.stdout).expect("JSON")
}

fn status(machine: &Machine) -> Value {
    serde_json::from_str(&machine.run(&["status", "--json"]).stdout).expect("JSON")
}

pub fn plugins(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.map(|plugin| plugin.as_str().expect("a type")).collect()
}

/// A directory of configurations: files by path, the folders that they are in made as needed.
fn machine(files: &[(&str, &[u8])]) -> Machine {
    let machine = Machine::new();
    for (name, content) in files {
        let path = machine.conf().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    machine
}

/// Names and texts of single files.
const FILES: [(&str, &str); 52] = [
    ("list.conflist", FLANNEL),
    ("single.conf", WEAVE),
    ("single.json", WEAVE),
    (".conf", WEAVE),
    (".hidden.conflist", FLANNEL),
    ("list-in-single.conf", FLANNEL),
    ("single-in-list.conflist", WEAVE),
    ("empty.conflist", ""),
    ("half.conflist", "{\"name\":"),
    ("null.conflist", "null"),
    ("list.json", "[]"),
    (
        "bom.conflist",
        "\u{feff}{\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "comment.conflist",
        "{\"name\":\"a\", // why\n\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "trailing.conflist",
        "{\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]} more",
    ),
    ("comma.conflist", "{\"name\":\"a\",\"plugins\":[{\"type\":\"x\"},]}"),
    ("no-name.conflist", "{\"plugins\":[{\"type\":\"x\"}]}"),
    ("no-name.conf", "{\"cniVersion\":\"0.4.0\",\"type\":\"x\"}"),
    ("null-name.conflist", "{\"name\":null,\"plugins\":[{\"type\":\"x\"}]}"),
    ("null-name.conf", "{\"name\":null,\"type\":\"x\"}"),
    ("number-name.conf", "{\"name\":1,\"type\":\"x\"}"),
    (
        "name-in-capitals.conflist",
        "{\"NAME\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "in-capitals.conf",
        "{\"CNIVersion\":\"0.4.0\",\"Name\":\"a\",\"Type\":\"x\"}",
    ),
    (
        "type-in-capitals.conflist",
        "{\"cniVersion\":\"1.0.0\",\"name\":\"a\",\"plugins\":[{\"TYPE\":\"x\"}]}",
    ),
    ("no-type.conflist", "{\"name\":\"a\",\"plugins\":[{\"type\":\"x\"},{}]}"),
    ("null-plugin.conflist", "{\"name\":\"a\",\"plugins\":[null]}"),
    ("text-plugin.conflist", "{\"name\":\"a\",\"plugins\":[\"x\"]}"),
    ("number-type.conf", "{\"name\":\"a\",\"type\":1}"),
    ("no-plugins.conflist", "{\"name\":\"a\",\"plugins\":[]}"),
    ("null-plugins.conflist", "{\"name\":\"a\",\"plugins\":null}"),
    (
        "plugins-twice.conflist",
        "{\"name\":\"a\",\"plugins\":[],\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "inlined-only.conflist",
        "{\"name\":\"a\",\"loadOnlyInlinedPlugins\":true}",
    ),
    (
        "inlined-only-as-text.conflist",
        "{\"name\":\"a\",\"loadOnlyInlinedPlugins\":\"True\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "inlined-only-as-number.conflist",
        "{\"name\":\"a\",\"loadOnlyInlinedPlugins\":1,\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "disable-check-null.conflist",
        "{\"name\":\"a\",\"disableCheck\":null,\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "disable-gc.conflist",
        "{\"name\":\"a\",\"disableGC\":\"yes\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "version-0.1.conflist",
        "{\"cniVersion\":\"0.1.0\",\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "version-0.2.conf",
        "{\"cniVersion\":\"0.2.0\",\"name\":\"a\",\"type\":\"x\"}",
    ),
    (
        "version-0.3.conflist",
        "{\"cniVersion\":\"0.3.0\",\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "version-1.1.conflist",
        "{\"cniVersion\":\"1.1.0\",\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "version-9.conflist",
        "{\"cniVersion\":\"9\",\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "version-none.conflist",
        "{\"cniVersion\":\"new\",\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "version-number.conflist",
        "{\"cniVersion\":1,\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "versions.conflist",
        "{\"cniVersion\":\"0.2.0\",\"cniVersions\":[\"1.0.0\",\"0.4.0\",\"9.0.0\"],\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "versions-later.conflist",
        "{\"cniVersions\":[\"9.0.0\"],\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "versions-text.conflist",
        "{\"cniVersions\":\"1.0.0\",\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "versions-odd.conflist",
        "{\"cniVersions\":[\"1.0.0.0\"],\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "versions-odd-one.conflist",
        "{\"cniVersion\":\"one\",\"cniVersions\":[\"1.0.0\"],\"name\":\"a\",\"plugins\":[{\"type\":\"x\"}]}",
    ),
    (
        "ipam.conflist",
        "{\"name\":\"a\",\"plugins\":[{\"type\":\"x\",\"ipam\":\"host-local\"}]}",
    ),
    (
        "dns.conflist",
        "{\"name\":\"a\",\"plugins\":[{\"type\":\"x\",\"dns\":{\"nameservers\":\"10.0.0.1\"}}]}",
    ),
    (
        "capabilities.conflist",
        "{\"name\":\"a\",\"plugins\":[{\"type\":\"x\",\"capabilities\":{\"dns\":\"yes\"}}]}",
    ),
    (
        "multus.conf",
        "{\"cniVersion\":\"0.3.1\",\"name\":\"m\",\"type\":\"multus\",\"delegates\":[{\"name\":\"d\",\"plugins\":[{\"type\":\"x\"}]}]}",
    ),
    (
        "large-number.conflist",
        "{\"name\":\"a\",\"plugins\":[{\"type\":\"x\",\"mtu\":1e999}]}",
    ),
];

/// Directories in which a list takes plugins from a folder.
const FOLDERS: [&[(&str, &[u8])]; 9] = [
    &[
        ("d.conflist", b"{\"cniVersion\":\"1.0.0\",\"name\":\"d\"}"),
        ("d/10-x.conf", b"{\"type\":\"x\"}"),
        ("d/20-y.conf", b"{\"type\":\"y\"}"),
    ],
    &[
        ("d.conflist", b"{\"cniVersion\":\"1.0.0\",\"name\":\"d\"}"),
        ("d/zzz.conf", b"{\"type\":\"x\"}"),
        ("d/y.conflist", b"{"),
        ("d/y.json", b"{"),
    ],
    &[
        (
            "d.conflist",
            b"{\"cniVersion\":\"1.0.0\",\"name\":\"d\",\"plugins\":[{\"type\":\"x\"}]}",
        ),
        ("d/y.conf", b"{\"type\":\"y\"}"),
    ],
    &[
        (
            "d.conflist",
            b"{\"cniVersion\":\"1.0.0\",\"name\":\"d\",\"loadOnlyInlinedPlugins\":true,\"plugins\":[{\"type\":\"x\"}]}",
        ),
        ("d/y.conf", b"{"),
    ],
    &[
        (
            "d.conflist",
            b"{\"cniVersion\":\"1.0.0\",\"name\":\"d\",\"plugins\":[{\"type\":\"x\"}]}",
        ),
        ("d/y.conf", b"{}"),
    ],
    &[("d.conflist", b"{\"name\":\"d\"}"), ("d/y.json", b"{\"type\":\"y\"}")],
    &[("d.conflist", b"{\"name\":\"d\"}")],
    &[
        ("d.conflist", b"{\"name\":\"d\",\"plugins\":[{\"type\":\"x\"}]}"),
        ("d", b"no folder"),
    ],
    &[
        ("d.conf", b"{\"cniVersion\":\"1.0.0\",\"name\":\"d\",\"type\":\"x\"}"),
        ("d/y.conf", b"{\"type\":\"y\"}"),
    ],
];

/// Compares with what runtimes take, and once it is installed, too.
fn compare(machine: &Machine) {
    let (before, status_before) = (chosen(machine), status(machine));
    let files = before["files"].as_array().expect("files");
    let judged = status_before["files"].as_array().expect("files");
    let names = |files: &[Value]| -> Vec<Value> { files.iter().map(|file| file["file"].clone()).collect() };
    assert_eq!(names(judged), names(files));
    for (file, judged) in files.iter().zip(judged) {
        let is_taken = matches!(judged["verdict"].as_str(), Some("joined" | "unused"));
        assert_eq!(is_taken, file["error"] == "", "{file} {judged}");
        assert_ne!(
            is_taken,
            judged["reason"].as_str().is_some_and(|reason| !reason.is_empty())
        );
    }
    let verdict = |wanted: &str| {
        judged
            .iter()
            .find(|file| file["verdict"] == wanted)
            .map(|file| &file["file"])
    };
    // A version that has no chains keeps us out of what the runtime takes.
    let version = status_before["missing"]
        .as_str()
        .is_some_and(|missing| missing.contains("has cniVersion"));
    if version {
        return;
    }
    let crio = before["crio"].as_str().filter(|name| !name.is_empty());
    assert_eq!(
        verdict("joined").and_then(Value::as_str),
        crio,
        "{before} {status_before}"
    );
    assert_eq!(
        before["refused"] == "",
        verdict("blocking").is_none() && !files.is_empty(),
        "{before}"
    );
    if crio.is_none() {
        return;
    }
    machine.install_once();
    let after = chosen(machine);
    let taken = |choice: &Value, name: &str| {
        let files = choice["files"].as_array().expect("files").iter();
        files
            .clone()
            .find(|file| file["file"] == name)
            .map_or(Value::Null, |file| file["plugins"].clone())
    };
    let (old, new) = (
        taken(&before, crio.unwrap_or_default()),
        taken(&after, after["crio"].as_str().expect("a name")),
    );
    let mut expected = plugins(&old);
    // Those of a folder come after what is in the list.
    let inlined = fs::read_to_string(machine.conf().join(after["crio"].as_str().expect("a name"))).expect("a file");
    match inlined.contains("\"sidetrack\"") {
        true => {
            let list: Value = serde_json::from_str(&inlined).expect("JSON");
            expected.insert(list["plugins"].as_array().map_or(0, Vec::len) - 1, "sidetrack");
        }
        false => expected.push("sidetrack"),
    }
    assert_eq!(plugins(&new), expected, "{before} {after}");
    if before["refused"] == "" {
        assert_eq!(plugins(&after["containerd"]), expected, "{before} {after}");
    }
    machine.run(&["uninstall"]).succeeded();
    assert_eq!(chosen(machine), before);
}

#[test]
fn each_file_is_judged_as_libcni_judges_it() {
    for (name, text) in FILES {
        compare(&machine(&[(name, text.as_bytes())]));
    }
    for folder in FOLDERS {
        compare(&machine(folder));
    }
}

#[test]
fn file_that_runtimes_choose_is_joined() {
    let contents = FILES.map(|(name, text)| (name, text.as_bytes()));
    for first in (0..FILES.len()).step_by(4) {
        let renamed: Vec<(String, &[u8])> = contents[first..]
            .iter()
            .take(6)
            .enumerate()
            .map(|(index, (name, content))| (format!("{index}{name}"), *content))
            .collect();
        let files: Vec<(&str, &[u8])> = renamed
            .iter()
            .map(|(name, content)| (name.as_str(), *content))
            .collect();
        compare(&machine(&files));
    }
}

#[test]
fn non_utf8_file_is_not_skipped() {
    // libcni takes such bytes in strings; the next configuration gets the entry, too, in case that it does not.
    let files: [(&str, &[u8]); 2] = [
        (
            "05-x.conflist",
            b"{\"name\":\"a\",\"x\":\"\xe9\",\"plugins\":[{\"type\":\"x\"}]}",
        ),
        ("10-flannel.conflist", FLANNEL.as_bytes()),
    ];
    let machine = machine(&files);
    assert_eq!(chosen(&machine)["crio"], "05-x.conflist");
    machine
        .run(&["install", "--once"])
        .failed(1, &["05-x.conflist comes first", "UTF-8"]);
    assert_eq!(machine.plugins("10-flannel.conflist").map(|chain| chain.len()), Some(3));
    assert_eq!(machine.run(&["status"]).code, Some(3));
}

#[test]
fn link_dangling_in_the_container_is_not_skipped() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    // As on NixOS: absolute, out of the directory.
    let store = machine.root().join("store");
    fs::create_dir(&store).expect("a directory");
    fs::write(store.join("a.conflist"), FLANNEL.replace("cbr0", "nix")).expect("a file");
    symlink(store.join("a.conflist"), machine.conf().join("05-a.conflist")).expect("a link");
    assert_eq!(chosen(&machine)["crio"], "05-a.conflist");
    let hidden = |arguments: &[&str]| {
        let node = machine.command(arguments);
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs tmpfs \"$STORE\"; exec \"$@\"";
        command
            .args(["--mount", "sh", "-ec", script, "sh"])
            .arg(node.get_program())
            .args(node.get_args())
            .envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("STORE", &store);
        Run::of(&mut command)
    };
    let run = hidden(&["status"]);
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(
        run.stdout.contains("05-a.conflist: unreadable: it is a link to "),
        "{run:?}"
    );
    assert!(run.stdout.contains("mount the directory that it leads to"), "{run:?}");
    hidden(&["install", "--once"]).failed(1, &["05-a.conflist comes first"]);
    // Where the directory is there, too, what the link leads to is what is joined.
    machine.install_once();
    assert!(machine.conf().join("05-a.conflist").is_symlink());
    assert_eq!(machine.plugins("05-a.conflist").map(|chain| chain.len()), Some(3));
    assert_eq!(chosen(&machine)["containerd"][2], "sidetrack");
}

#[test]
fn two_names_of_one_file_are_one_configuration() {
    let machine = Machine::with(&[("10-flannel.conflist", FLANNEL)]);
    symlink("10-flannel.conflist", machine.conf().join("00-b.conflist")).expect("a link");
    let before = machine.files();
    machine.install_once();
    assert_eq!(chosen(&machine)["containerd"][2], "sidetrack");
    machine.run(&["status"]).succeeded();
    machine.run(&["uninstall"]).succeeded();
    assert_eq!(machine.files(), before);
}

#[test]
fn broken_first_configuration_is_reported_as_blocking() {
    let machine = Machine::with(&[("00-broken.conflist", "{"), ("10-flannel.conflist", FLANNEL)]);
    assert!(
        chosen(&machine)["refused"]
            .as_str()
            .expect("a reason")
            .contains("00-broken")
    );
    let installer = machine.start(&[]);
    installer.eventually_ready();
    installer.eventually_logs("containerd takes no configuration until it is repaired or removed");
    assert_eq!(
        installer.metric("sidetrack_node_configurations{verdict=\"blocking\"}"),
        1.0
    );
    assert_eq!(
        installer.metric("sidetrack_node_configurations{verdict=\"joined\"}"),
        1.0
    );
    let said = machine.run(&["status"]).stdout;
    assert!(
        said.contains("00-broken.conflist: blocking: it is not a JSON object"),
        "{said}"
    );
    assert!(said.contains("10-flannel.conflist: joined\n"), "{said}");
    fs::remove_file(machine.conf().join("00-broken.conflist")).expect("a file");
    eventually("no file that blocks", || {
        match installer.metric("sidetrack_node_configurations{verdict=\"blocking\"}") {
            0.0 => Ok(()),
            other => Err(other),
        }
    });
}

#[test]
fn plugin_added_to_a_directory_is_noticed() {
    let files: [(&str, &[u8]); 2] = [
        ("d.conflist", b"{\"cniVersion\":\"1.0.0\",\"name\":\"d\"}"),
        ("d/10-x.conf", b"{\"type\":\"x\"}"),
    ];
    let machine = machine(&files);
    let installer = machine.start(&[]);
    installer.eventually_ready();
    assert!(machine.conf().join("d/zz-sidetrack.conf").exists());
    fs::write(machine.conf().join("d/zzz.conf"), "{\"type\":\"z\"}").expect("a file");
    eventually("ours is last", || {
        let choice = chosen(&machine);
        match plugins(&choice["containerd"]).as_slice() {
            ["x", "z", "sidetrack"] => Ok(()),
            _ => Err(choice),
        }
    });
}
