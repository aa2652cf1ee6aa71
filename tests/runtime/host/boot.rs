//! A host that systemd boots.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::{Netns, inside, output_of};
use crate::program::{Run, static_program};

/// A host with namespaces of its own for everything, an `/etc` and a `/var` that outlive its boots, and the released
/// program in `/usr/local/bin`. It ends with this, or with the tests.
pub struct Host {
    keeper: Child,
    said: BufReader<ChildStdout>,
    /// The ID of a process in its namespaces.
    id: String,
}

impl Host {
    /// One that has been booted.
    pub fn boot() -> Self {
        let mut keeper = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtime/files/host.sh"))
            .arg(static_program())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("host.sh");
        let said = BufReader::new(keeper.stdout.take().expect("a pipe"));
        let mut host = Self {
            keeper,
            said,
            id: String::new(),
        };
        host.start();
        host
    }

    fn start(&mut self) {
        let mut input = self.keeper.stdin.as_ref().expect("a pipe");
        input.write_all(b"boot\n").expect("host.sh listens");
        let line = self.line();
        let (_directory, id) = line.split_once(' ').expect("host.sh says why it failed");
        self.id = id.to_owned();
        // It answers as soon as its socket is there; then it is asked to wait for the end of the boot.
        for _ in 0..600 {
            if self.path("/run/systemd/private").exists() {
                let state = self.run("systemctl", &["is-system-running", "--wait"]);
                assert_eq!(state.stdout, "running\n", "{state:?}\n{}", self.journal());
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("systemd does not start");
    }

    /// Shuts it down, as its administrator would.
    pub fn shut_down(&mut self) {
        self.run("systemctl", &["poweroff"]).succeeded();
        assert_eq!(self.line(), "down");
    }

    /// Shuts it down and boots it again.
    pub fn reboot(&mut self) {
        self.shut_down();
        self.start();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    fn journal(&self) -> String {
        self.run("journalctl", &["--no-pager", "--boot"]).stdout
    }

    /// Its network namespace.
    pub fn netns(&self) -> Netns {
        Netns::open(Path::new(&format!("/proc/{}/ns/net", self.id)))
    }

    /// Where a file of the running host is for the tests.
    pub fn path(&self, inside: &str) -> PathBuf {
        let init = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.id)).unwrap_or_default();
        format!("/proc/{}/root{inside}", init.trim()).into()
    }

    /// The text of a file of it.
    pub fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"))
    }

    /// Writes a file of it.
    pub fn write(&self, inside: &str, text: &str) {
        fs::write(self.path(inside), text).unwrap_or_else(|error| panic!("{inside}: {error}"));
    }

    /// Everything in its `/etc`, with what it is: a text, or where a link leads.
    pub fn etc(&self) -> String {
        let script = "find etc -type l -printf '%p -> %l\\n' -o -type f -printf '%p %m ' -exec md5sum {} ';' -o -printf \
                      '%p %m\\n' | sort";
        output_of(self.command("sh").args(["-c", script]))
    }

    /// A command that runs on it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let namespaces = [
            ("mount", "mnt"),
            ("net", "net"),
            ("pid", "pid_for_children"),
            ("uts", "uts"),
            ("ipc", "ipc"),
            ("cgroup", "cgroup"),
        ];
        inside(&self.id, &namespaces, program)
    }

    /// Runs a program on it.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Run {
        Run::of(self.command(program).args(arguments))
    }

    /// Runs `sidetrack` on it.
    pub fn sidetrack(&self, arguments: &[&str]) -> Run {
        self.run("/usr/local/bin/sidetrack", arguments)
    }

    /// Runs a shell script on it.
    pub fn shell(&self, script: &str) -> Run {
        self.run("sh", &["-euc", script])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // That it ended badly has been said where it mattered.
        let _ended = self.keeper.wait();
    }
}
