//! Network namespaces without names.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::thread;

use caps::Capability;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::Owner;

/// A network namespace, its loopback interface up. It has no name: the kernel removes it once no handle and no
/// process is left, even if this process is killed.
#[derive(Clone)]
pub struct Netns(Arc<File>);

impl Netns {
    /// Makes one.
    pub fn new() -> Self {
        // On a thread of its own, which takes the change of namespace with it when it ends.
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("run as root: a network namespace needs CAP_SYS_ADMIN");
            File::open("/proc/thread-self/ns/net").expect("the namespace of this thread")
        });
        let netns = Self(Arc::new(made.join().unwrap_or_else(|panic| resume_unwind(panic))));
        netns.ip("link set lo up");
        netns
    }

    /// Makes one with the interfaces eth0 and eth1, for plans that have routes of interfaces.
    pub fn with_interfaces() -> Self {
        let netns = Self::new();
        netns.ip("link add eth0 up type veth peer name eth1");
        netns.ip("link set eth1 up");
        netns
    }

    /// The one that a file stands for, such as `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(Arc::new(file))
    }

    /// A path that stands for the namespace as long as this process runs.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd()).into()
    }

    /// Takes the calling thread inside, for good.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&*self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `work` inside, on a thread of its own, which ends with it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter()
                .expect("run as root: entering a namespace needs CAP_SYS_ADMIN");
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// A command that runs inside as root.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_of(Owner::ROOT, program)
    }

    /// A command that runs inside as `owner`. It is killed when the thread that started it ends.
    pub fn command_of(&self, owner: Owner, program: impl AsRef<OsStr>) -> Command {
        // System calls and nothing else: this takes no lock and does not allocate.
        self.command_that(move || owner.assume(), program)
    }

    /// A command that runs inside as `owner` and may do what this capability allows. It is killed when the thread that
    /// started it ends.
    pub fn command_with(&self, owner: Owner, capability: Capability, program: impl AsRef<OsStr>) -> Command {
        // This allocates, which glibc allows in the child since its allocator takes care of forks.
        self.command_that(move || owner.assume_with(capability), program)
    }

    #[expect(unsafe_code, reason = "a namespace is entered between fork and exec")]
    fn command_that(
        &self,
        prepare: impl Fn() -> io::Result<()> + Send + Sync + 'static,
        program: impl AsRef<OsStr>,
    ) -> Command {
        let netns = self.clone();
        let enter = move || {
            netns.enter()?;
            prepare()?;
            // Last, because the kernel forgets it when the user changes.
            Ok(set_pdeathsig(Signal::SIGKILL)?)
        };
        let mut command = Command::new(program);
        // Legacy iptables takes a lock of the whole machine, for which tests would wait until they give up.
        command.env("XTABLES_LOCKFILE", self.path());
        // SAFETY: the closure makes system calls; what it does besides, its makers above answer for.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// The routes of a family (`-4` or `-6`) in all tables, a line each, without the kernel's own: those follow links and
    /// addresses some time later.
    pub fn routes(&self, family: &str) -> String {
        let all = output_of(self.command("ip").args([family, "route", "show", "table", "all"]));
        let added = all.lines().filter(|route| !route.contains("proto kernel"));
        added.map(|route| format!("{route}\n")).collect()
    }

    /// Runs iproute2 commands, one a line, without the leading `ip`.
    pub fn ip(&self, batch: &str) {
        let mut command = self.command("ip");
        command
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut ip = command.spawn().expect("ip (iproute2)");
        ip.stdin
            .take()
            .expect("a pipe")
            .write_all(batch.as_bytes())
            .expect("ip reads its commands");
        let output = ip.wait_with_output().expect("the end of ip");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip: {complaint}in\n{batch}");
    }
}

/// A command that runs in these namespaces of a process, each an option of nsenter(1) and its name in `/proc/ID/ns`.
pub fn inside(id: &str, namespaces: &[(&str, &str)], program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.args(
        namespaces
            .iter()
            .map(|(option, name)| format!("--{option}=/proc/{id}/ns/{name}")),
    );
    command.arg(program);
    command
}

/// Runs a command that must succeed, and returns what it prints.
pub fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    String::from_utf8(output.stdout).expect("text")
}
