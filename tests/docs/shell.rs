//! The shell for the commands of a page: on a node with a pod, with file systems of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::SIDETRACK;
use crate::common::Pod;
use crate::page::{Page, ROOT};

/// Programs that commands may call. Any other one is not found, so that its command fails.
const PROGRAMS: &[&str] = &[
    "bash",
    "cat",
    "chmod",
    "cp",
    "cut",
    "env",
    "getcap",
    "grep",
    "head",
    "install",
    "ip",
    "ip6tables-legacy-restore",
    "ip6tables-legacy-save",
    "ip6tables-nft-restore",
    "ip6tables-nft-save",
    "iptables",
    "iptables-legacy",
    "iptables-legacy-restore",
    "iptables-legacy-save",
    "iptables-nft",
    "iptables-nft-restore",
    "iptables-nft-save",
    "ip6tables-nft",
    "kill",
    "ls",
    "mkdir",
    "mount",
    "nft",
    "nsenter",
    "od",
    "python3",
    "rm",
    "sed",
    "sleep",
    "sort",
    "setpriv",
    "ss",
    "stat",
    "sysctl",
    "tail",
    "tee",
    "timeout",
    "touch",
    "tr",
    "true",
    "wc",
];

/// What stands in for programs that ask a cluster.
const CLUSTER: &[&str] = &["kubectl", "helm", "crictl"];

/// Makes the file systems of the shell, then runs the commands, each with its output and its code in files.
const SHELL: &str = r#"
set -euo pipefail
cp -a /etc "$WORK/etc"
rm -rf "$WORK/etc/cni/net.d"
mkdir -p "$WORK/etc/cni/net.d" "$WORK/etc/bash_completion.d"
cp "$ROOT/tests/docs/files/10-pods.conflist" "$WORK/etc/cni/net.d"
mount --bind "$WORK/etc" /etc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /opt
mount -t tmpfs tmpfs /usr/local/bin
mount -t tmpfs tmpfs /var/lib
mkdir -p /opt/cni/bin /run/netns /var/lib/cni/results
touch /run/netns/pod
mount --bind "/proc/$POD_PID/ns/net" /run/netns/pod
cd "$WORK/home"
PATH=$WORK/bin
set +eu
for file in "$WORK"/commands/*; do
    number=${file##*/}
    eval "$(<"$file")" >"$WORK/output/$number" 2>&1 </dev/null
    echo $? >"$WORK/code/$number"
done
"#;

/// A shell.
pub struct Shell {
    directory: PathBuf,
    node: Pod,
    pod: Child,
    commands: usize,
    _pod: Pod,
}

/// How a command ended.
pub struct Ended {
    pub code: i32,
    pub output: String,
}

impl Shell {
    /// One for a page. The files that the page shows by name, or docs/usage.md, are there.
    pub fn of(page: &Page) -> Self {
        let name = page.name.replace('/', "-");
        let directory = std::env::temp_dir().join(format!("sidetrack-docs-{}-{name}", std::process::id()));
        for folder in ["home/deploy", "bin", "commands", "output", "code", "state"] {
            fs::create_dir_all(directory.join(folder)).expect("a folder");
        }
        let (node, pod) = (Pod::new(), Pod::new());
        let sleeper = pod.netns.command("sleep").arg("1000").spawn().expect("sleep");
        let shell = Self {
            directory,
            node,
            pod: sleeper,
            commands: 0,
            _pod: pod,
        };
        shell.furnish(page);
        shell
    }

    fn furnish(&self, page: &Page) {
        let bin = self.directory.join("bin");
        for program in PROGRAMS {
            let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(|folder| Path::new(folder).join(program));
            if let Some(path) = found.iter().find(|path| path.exists()) {
                symlink(path, bin.join(program)).expect("a link");
            }
        }
        for program in CLUSTER {
            symlink(Path::new(ROOT).join("tests/docs/files/cluster.py"), bin.join(program)).expect("a link");
        }
        let home = self.directory.join("home");
        let plugin = Path::new(ROOT).join("packaging/kubectl/kubectl-sidetrack");
        symlink(plugin, bin.join("kubectl-sidetrack")).expect("a link");
        for place in [bin.join("sidetrack"), home.join("sidetrack")] {
            symlink(SIDETRACK, place).expect("a link");
        }
        symlink(Path::new(ROOT).join("cni-conf"), home.join("cni-conf")).expect("a link");
        fs::copy(
            Path::new(ROOT).join("tests/docs/files/web.yaml"),
            home.join("deploy/web.yaml"),
        )
        .expect("a manifest");
        let usage = Page::read(&Path::new(ROOT).join("docs/usage.md"));
        for block in usage.blocks.iter().chain(&page.blocks) {
            let first = block.text.lines().next().unwrap_or_default();
            if let Some(name) = first.strip_prefix("# ").filter(|name| name.ends_with(".yaml")) {
                fs::write(home.join(name), &block.text).expect("a file");
            }
        }
    }

    /// Adds a command, to be run after those before it. Returns its number.
    pub fn add(&mut self, command: &str) -> usize {
        let pod = format!("/proc/{}/ns/net", self.pod.id());
        let command = ["/proc/4321/ns/net", "/proc/PID/ns/net"]
            .iter()
            .fold(command.to_owned(), |command, of_the_page| {
                command.replace(of_the_page, &pod)
            });
        self.commands += 1;
        let file = self.directory.join(format!("commands/{:04}", self.commands));
        fs::write(file, command + "\n").expect("a file");
        self.commands
    }

    /// Runs all commands in one shell, and returns how each ended.
    pub fn run(&self) -> BTreeMap<usize, Ended> {
        // A command that never ends is the one without a recorded exit code.
        let mut command = self.node.netns.command("timeout");
        command
            .args([
                "600",
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "bash",
                "-c",
                SHELL,
            ])
            .env("WORK", &self.directory)
            .env("ROOT", ROOT)
            .env("HOME", self.directory.join("home"))
            .env("POD_PID", self.pod.id().to_string())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        let output = command.output().expect("unshare (util-linux)");
        let complaint = String::from_utf8_lossy(&output.stderr);
        let ended = |number: usize| {
            let read = |folder: &str| fs::read_to_string(self.directory.join(format!("{folder}/{number:04}"))).ok();
            let code = read("code")?.trim().parse().ok()?;
            let output = read("output")?;
            Some((number, Ended { code, output }))
        };
        let ended: BTreeMap<usize, Ended> = (1..=self.commands).filter_map(ended).collect();
        assert_eq!(ended.len(), self.commands, "the shell ended early: {complaint}");
        ended
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.pod.kill();
        let _ = self.pod.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whether this is the whole of a command, or goes on in the next line.
pub fn is_whole(command: &str) -> bool {
    let checked = Command::new("bash")
        .args(["-n", "-c", command])
        .stderr(Stdio::null())
        .status();
    !command.ends_with('\\') && checked.expect("bash").success()
}
