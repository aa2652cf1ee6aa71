//! A node: the directories that the installer works in, and installers at work there.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::SIDETRACK;
use crate::program::Run;

/// The program under test, without what debuggers need: installers copy it, again and again.
pub fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sidetrack");
        let new = path.with_extension(std::process::id().to_string());
        let status = Command::new("strip")
            .arg("-o")
            .args([&new, Path::new(SIDETRACK)])
            .status();
        assert!(status.expect("strip, from binutils").success());
        fs::rename(new, &path).expect("a file that can be renamed");
        path
    });
    &PROGRAM
}

/// What a network plugin writes, laid out by hand, with things that do not survive being read and written.
pub const FLANNEL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "x-number": 123456789012345678901234567890, "x-float": 1.50, "x-text": "\u00e9\/",
  "plugins": [
    {
      "type": "flannel",
      "delegate": { "hairpinMode": true, "isDefaultGateway": true }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"#;
/// What another network plugin writes.
pub const CILIUM: &str = "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"cilium\",\n  \"plugins\": [\n    {\n      \
                          \"type\": \"cilium-cni\",\n      \"enable-debug\": false\n    }\n  ]\n}\n";
/// A configuration of a single plugin.
pub const WEAVE: &str = "{\n    \"cniVersion\": \"0.3.0\",\n    \"name\": \"weave\",\n    \"type\": \"weave-net\",\n    \
                         \"mtu\": 1.50\n}\n";

/// A node.
pub struct Machine(PathBuf);

impl Machine {
    /// One without any network yet.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("sidetrack-node-{}-{count}", std::process::id()));
        for directory in ["bin", "conf"] {
            fs::create_dir_all(root.join(directory)).expect("a directory");
        }
        Self(root)
    }

    /// One with these configurations.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let machine = Self::new();
        for (name, text) in files {
            machine.write(name, text);
        }
        machine
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    pub fn bin(&self) -> PathBuf {
        self.0.join("bin")
    }

    pub fn binary(&self) -> PathBuf {
        self.bin().join("sidetrack")
    }

    pub fn conf(&self) -> PathBuf {
        self.0.join("conf")
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("run/log.sock")
    }

    /// Writes a configuration whole, by renaming one that was made elsewhere: nothing else happens in the directory.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.0.join(name);
        fs::write(&new, text).expect("a file");
        fs::rename(&new, self.conf().join(name)).expect("a file that can be renamed");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.conf().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The names and texts of all files of the configuration directory.
    pub fn files(&self) -> Vec<(String, String)> {
        let mut files: Vec<_> = names(&self.conf())
            .into_iter()
            .map(|name| (name.clone(), self.read(&name)))
            .collect();
        files.sort();
        files
    }

    /// The types of the plugins of a configuration; `None` where there is none, or one that is not whole.
    pub fn plugins(&self, name: &str) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.conf().join(name)).ok()?;
        plugins(&text)
    }

    /// Whether the binary is this program, for everybody to execute.
    pub fn has_binary(&self) -> bool {
        self.is_build(program())
    }

    /// Whether the binary is that build of the program, for everybody to execute.
    pub fn is_build(&self, program: &Path) -> bool {
        let is_executable = |metadata: fs::Metadata| metadata.is_file() && metadata.mode() & 0o7777 == 0o755;
        fs::symlink_metadata(self.binary()).is_ok_and(is_executable)
            && fs::read(self.binary()).is_ok_and(|content| content == fs::read(program).expect("the program"))
    }

    /// A command of `sidetrack node`, of this program.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(program(), arguments)
    }

    /// A command of `sidetrack node`, of a program.
    pub fn command_of(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .arg("node")
            .args(arguments)
            .env("SIDETRACK_NODE_CNI_BIN_DIR", self.bin())
            .env("SIDETRACK_NODE_CNI_CONF_DIR", self.conf())
            .env("SIDETRACK_NODE_SOCKET", self.socket())
            .env("SIDETRACK_NODE_HEALTH_ADDRESS", "127.0.0.1:0");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    pub fn install_once(&self) -> Run {
        self.run(&["install", "--once"]).succeeded()
    }

    /// Starts an installer that stays.
    pub fn start(&self, options: &[&str]) -> Installer {
        Installer::start(self.command(&[&["install"], options].concat()))
    }

    /// A copy of the program that is another build of it, of the same length: what is at an executable's end means
    /// nothing to it, and there is one byte more than in the program.
    pub fn other_build(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        // By another process: see `write_program`.
        let script = "cp \"$1\" \"$2\"; printf %.1s \"$3\" >>\"$2\"";
        let status = Command::new("sh")
            .args(["-e", "-c", script, "sh"])
            .args([program(), &path, Path::new(name)])
            .status();
        assert!(status.expect("a shell").success());
        path
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The names of what is in a directory.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<String> = entries.map(|entry| name(entry).into_string().expect("text")).collect();
    names.sort();
    names
}

/// The types of the plugins in the text of a configuration.
pub fn plugins(text: &str) -> Option<Vec<String>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let kind = |plugin: &Value| plugin["type"].as_str().map(str::to_owned);
    match &value["plugins"] {
        Value::Array(plugins) => plugins.iter().map(kind).collect(),
        _ => kind(&value).map(|kind| vec![kind]),
    }
}

/// Stops another thread when it is dropped, even if a test fails.
pub struct End<'d>(pub &'d AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long anything may take, on a busy machine. The installer checks once a minute without any event, so that anything
/// sooner was caused by an event.
const DEADLINE: Duration = Duration::from_secs(50);

/// Waits until something is so.
#[track_caller]
pub fn eventually<D: Debug>(what: &str, mut is_so: impl FnMut() -> Result<(), D>) {
    let started = Instant::now();
    while let Err(seen) = is_so() {
        assert!(started.elapsed() < DEADLINE, "{what}: {seen:#?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a configuration has these plugins.
#[track_caller]
pub fn eventually_runs(machine: &Machine, name: &str, wanted: &[&str]) {
    eventually(name, || match machine.plugins(name) {
        Some(plugins) if plugins == wanted => Ok(()),
        other => Err(other),
    });
}

/// What a program writes: to a file, so that what it wrote before anything else is there when that is seen. A thread that
/// reads a pipe may come later.
pub struct Written(File);

impl Written {
    pub fn new() -> Self {
        let file = memfd_create("written", MFdFlags::MFD_CLOEXEC).expect("a file in memory");
        Self(file.into())
    }

    /// The writing end.
    pub fn stdio(&self) -> Stdio {
        self.0.try_clone().expect("the same file").into()
    }

    pub fn text(&self) -> String {
        let length = self.0.metadata().expect("a file").len();
        let mut bytes = vec![0; length as usize];
        // Not from the place in the file, which is the program's.
        self.0.read_exact_at(&mut bytes, 0).expect("what was written");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The lines that are whole.
    pub fn lines(&self) -> Vec<String> {
        let text = self.text();
        let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        whole.map(str::to_owned).collect()
    }
}

/// An installer at work. It is killed with the test.
pub struct Installer {
    child: Child,
    address: SocketAddr,
    log: Written,
}

impl Installer {
    #[expect(unsafe_code, reason = "the installer is to end with its test")]
    pub fn start(mut command: Command) -> Self {
        let log = Written::new();
        command.stdin(Stdio::null()).stderr(log.stdio());
        // SAFETY: the closure makes a system call and nothing else.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let mut child = command.spawn().expect("the program");
        let mut address = None;
        eventually("its address", || {
            let end = child.try_wait().expect("its state");
            let health = |line: &String| line.split_once("health=").map(|(_, rest)| rest.trim().to_owned());
            address = log.lines().iter().find_map(health);
            assert!(address.is_some() || end.is_none(), "it ended: {}", log.text());
            address.as_ref().map(drop).ok_or(log.text())
        });
        let address = address.and_then(|address| address.parse().ok()).expect("an address");
        Self { child, address, log }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ID of the process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    /// The status and the body of an answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.get_as(path, "*/*")
    }

    /// The answer in the format that an `Accept` header asks for.
    pub fn get_as(&self, path: &str, accept: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        // Longer than a kubelet waits, so that an answer that never comes ends the test.
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        // In one piece, as a kubelet sends it.
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nAccept: {accept}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => {}
        }
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("{head:?}")), body.to_owned())
    }

    /// The value of a metric, by name and labels, once the installer has it.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> f64 {
        let mut value = None;
        eventually(sample, || {
            let (_, text) = self.get("/metrics");
            value = text
                .lines()
                .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
                .map(|value| value.parse().expect("a number"));
            value.map(drop).ok_or(text)
        });
        value.expect("a value")
    }

    #[track_caller]
    pub fn eventually_ready(&self) {
        eventually("ready", || match self.get("/readyz") {
            (200, _) => Ok(()),
            (status, body) => Err((status, body, self.log())),
        });
    }

    #[track_caller]
    pub fn eventually_not_ready(&self, said: &str) {
        eventually("not ready", || match self.get("/readyz") {
            (503, body) if body.contains(said) => Ok(()),
            (status, body) => Err((status, body, self.log())),
        });
    }

    #[track_caller]
    pub fn eventually_logs(&self, said: &str) {
        eventually("log", || {
            if self.log().contains(said) {
                Ok(())
            } else {
                Err(self.log())
            }
        });
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a signal");
    }

    /// Stops the installer with SIGTERM, and waits for its end.
    pub fn stop(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let (child, log) = (&mut self.child, &self.log);
        let mut end = None;
        eventually("its end", || {
            end = child.try_wait().expect("its state");
            end.map(drop).ok_or(log.text())
        });
        end.expect("its end")
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
