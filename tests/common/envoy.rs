//! A real Envoy, configured like a sidecar proxy.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, pipe};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use caps::Capability;
use nix::unistd::{Gid, Uid, fchown};
use serde_json::Value;
use sidetrack::types::InboundMode;

use super::{Netns, Owner, http, socket};

/// How long a line of the access log may take. Envoy writes it when the connection has ended on both sides.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Envoy. It is killed when dropped.
pub struct Envoy {
    netns: Netns,
    process: Child,
    access_log: Receiver<Access>,
}

/// A connection that passed Envoy, from its access log.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Where the connection was meant to go.
    pub original_destination: SocketAddr,
    /// Where Envoy passed it on to; `None` for a connection that it dropped.
    pub passed_on_to: Option<SocketAddr>,
}

/// The connections that Envoy's two listeners have accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub inbound: u64,
    pub outbound: u64,
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in, {} out", self.inbound, self.outbound)
    }
}

impl Accepted {
    /// Those that were accepted after `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            inbound: self.inbound - earlier.inbound,
            outbound: self.outbound - earlier.outbound,
        }
    }

    pub fn total(self) -> u64 {
        self.inbound + self.outbound
    }

    /// Asks the Envoy in a namespace.
    pub fn by(netns: &Netns) -> io::Result<Self> {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 15000));
        let path = "/stats?filter=^listener%5C.virtual.*bound%5C.downstream_cx_total$";
        let stats = netns.run(|| http::get(socket::stream(None, admin)?, path))?;
        let count = |listener: &str| {
            let name = format!("listener.{listener}.downstream_cx_total: ");
            let count = stats.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
            count.ok_or_else(|| io::Error::other(format!("Envoy does not count {listener}: {stats:?}")))
        };
        Ok(Self {
            inbound: count("virtualInbound")?,
            outbound: count("virtualOutbound")?,
        })
    }
}

impl Envoy {
    /// Starts Envoy; it listens when this returns. For transparent sockets (TPROXY) and marked ones it gets the capability.
    pub fn start(netns: &Netns, owner: Owner, inbound: InboundMode) -> Self {
        // The proxy's user need not be able to reach the checkout: the program is opened here, and the configuration
        // is an argument.
        let binary = binary();
        let program = File::open(&binary).unwrap_or_else(|error| {
            panic!(
                "{}: {error}: run scripts/setup, or set ENVOY to Envoy's binary",
                binary.display()
            )
        });
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        let mut command = match (inbound, owner.mark) {
            (InboundMode::Redirect, 0) => netns.command_of(owner, path),
            _ => netns.command_with(owner, Capability::CAP_NET_ADMIN, path),
        };
        command.arg0("envoy").args(arguments(inbound, owner.mark));

        let (lines, stdout) = pipe().expect("a pipe");
        // Envoy opens /dev/stdout, which is this pipe, again.
        fchown(&stdout, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .expect("a pipe that is Envoy's");
        let (log, stderr) = pipe().expect("a pipe");
        let process = command.stdout(stdout).stderr(stderr).spawn().expect("Envoy");
        drop(command); // It holds the pipes' other ends, whose closing shows that Envoy has died.

        wait_for_start(BufReader::new(log));
        let envoy = Self {
            netns: netns.clone(),
            process,
            access_log: entries(BufReader::new(lines)),
        };
        // An answer comes only after the listeners that were about to start.
        envoy.accepted();
        envoy
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How many connections Envoy has accepted.
    pub fn accepted(&self) -> Accepted {
        Accepted::by(&self.netns).expect("Envoy's statistics")
    }

    /// The next line of the access log, once it is there.
    pub fn next_access(&self) -> Access {
        self.access_log
            .recv_timeout(PATIENCE)
            .expect("a line in Envoy's access log")
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // It may have died already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Its program: what `$ENVOY` says, or else where `scripts/setup` puts it.
pub fn binary() -> PathBuf {
    if let Some(binary) = env::var_os("ENVOY") {
        return binary.into();
    }
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/lib");
    let pythons = fs::read_dir(libraries).into_iter().flatten().flatten();
    pythons
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|binary| binary.exists())
        .unwrap_or_else(|| ".venv".into())
}

/// The arguments of its program. It marks its connections, unless the mark is 0.
pub fn arguments(inbound: InboundMode, mark: u32) -> Vec<String> {
    let config = config(inbound, mark);
    let arguments = ["--config-yaml", &config, "--disable-hot-restart", "--concurrency", "1"];
    let log = ["--log-level", "info", "--file-flush-interval-msec", "10"];
    arguments.into_iter().chain(log).map(str::to_owned).collect()
}

/// The configuration for a way in which connections to the pod come. The file is the one for REDIRECT without marks.
fn config(inbound: InboundMode, mark: u32) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envoy/sidecar.yaml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = match mark {
        0 => text,
        mark => text.replace("\n#marked", "\n").replace("MARK, ", &format!("{mark}, ")),
    };
    match inbound {
        InboundMode::Redirect => text,
        InboundMode::Tproxy => text
            .lines()
            .filter(|line| !line.ends_with("# redirect"))
            .map(|line| format!("{}\n", line.strip_prefix("#tproxy").unwrap_or(line)))
            .collect(),
    }
}

/// Waits until Envoy is about to serve, and goes on emptying its log.
fn wait_for_start(mut log: BufReader<io::PipeReader>) {
    let mut line = String::new();
    let mut before = String::new();
    while !line.contains("starting workers") {
        before.push_str(&line);
        line.clear();
        let length = log.read_line(&mut line).expect("Envoy's log");
        assert!(length > 0, "Envoy ended before it served:\n{before}");
    }
    thread::spawn(move || io::copy(&mut log, &mut io::sink()));
}

fn entries(lines: BufReader<io::PipeReader>) -> Receiver<Access> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in lines.lines() {
            let line = line.expect("Envoy's access log");
            let access = Access::parse(&line).unwrap_or_else(|| panic!("a line of Envoy's access log: {line}"));
            if sender.send(access).is_err() {
                return; // The reader has gone.
            }
        }
    });
    receiver
}

impl Access {
    fn parse(line: &str) -> Option<Self> {
        let entry: Value = serde_json::from_str(line).ok()?;
        let address = |key: &str| entry.get(key)?.as_str()?.parse().ok();
        Some(Self {
            original_destination: address("original_destination")?,
            passed_on_to: address("passed_on_to"),
        })
    }
}
