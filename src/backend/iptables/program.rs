//! Finds and runs the iptables programs.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::Variant;
use super::error::{Failure, IptablesError};
use super::variant::plain_name;
use crate::types::Family;

/// Time limit for a program, including its wait for the lock.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the legacy variant waits for the lock of iptables, in seconds.
const LOCK_WAIT: &str = "--wait=10";

/// The programs of one family.
#[derive(Clone, Debug)]
pub struct Programs {
    variant: Variant,
    family: Family,
    save: PathBuf,
    restore: PathBuf,
}

impl Programs {
    /// Finds the programs of a variant and family: by their full names, or by the plain names if those are of this
    /// variant.
    pub fn find(variant: Variant, family: Family, search: &OsStr) -> Option<Self> {
        variant.programs(family).into_iter().find_map(|name| {
            let programs = Self {
                variant,
                family,
                save: find_program(&format!("{name}-save"), search)?,
                restore: find_program(&format!("{name}-restore"), search)?,
            };
            let right = name != plain_name(family) || plain_variant(family, search) == Some(variant);
            right.then_some(programs)
        })
    }

    /// The text of `iptables-save`.
    ///
    /// # Errors
    /// The program cannot be run, or fails.
    pub fn save(&self, arguments: &[&str]) -> Result<String, IptablesError> {
        run(&self.save, self.family, arguments, String::new(), PROGRAM_TIMEOUT)
    }

    /// Runs `iptables-restore` with `text` as its input.
    ///
    /// # Errors
    /// The program cannot be run, or fails. Tables before the failed one are changed.
    pub fn restore(&self, text: String) -> Result<(), IptablesError> {
        let arguments: &[&str] = match self.variant {
            Variant::Nft => &["--noflush"], // This variant takes no lock.
            Variant::Legacy => &["--noflush", LOCK_WAIT],
        };
        run(&self.restore, self.family, arguments, text, PROGRAM_TIMEOUT).map(drop)
    }
}

/// The variant of the programs with plain names. `iptables` is asked, since old versions of the other programs do not
/// know `--version`.
fn plain_variant(family: Family, search: &OsStr) -> Option<Variant> {
    let program = find_program(plain_name(family), search)?;
    let version = run(&program, family, &["--version"], String::new(), PROGRAM_TIMEOUT).ok()?;
    // Versions before 1.8 are all legacy and do not print a variant.
    Some(if version.contains("(nf_tables)") {
        Variant::Nft
    } else {
        Variant::Legacy
    })
}

/// The search path if `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The absolute directories of `PATH`. A relative or empty one is in the working directory,
/// where other users may have put programs.
pub fn search_path(path: Option<&OsStr>) -> OsString {
    let directories =
        env::split_paths(path.unwrap_or(DEFAULT_PATH.as_ref())).filter(|directory| directory.is_absolute());
    // Joining cannot fail: the parts of a split path contain no separator.
    env::join_paths(directories).unwrap_or_default()
}

fn find_program(name: &str, search: &OsStr) -> Option<PathBuf> {
    env::split_paths(search)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Runs a program and returns its output. It inherits the network namespace of this thread.
///
/// # Errors
/// The program cannot be started, does not end within `timeout`, or fails.
pub fn run(
    program: &Path,
    family: Family,
    arguments: &[&str],
    input: String,
    timeout: Duration,
) -> Result<String, IptablesError> {
    let started = Instant::now();
    let cannot_run = |source| IptablesError::CannotRun {
        program: program.to_owned(),
        source,
    };
    let mut child = Command::new(program)
        .args(arguments)
        // A script that replaces iptables runs programs too.
        .env("PATH", search_path(env::var_os("PATH").as_deref()))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_run)?;
    let exchange = match Exchange::begin(&mut child, input.clone()) {
        Ok(exchange) => exchange,
        Err(source) => {
            // The program has read no input yet; a failure to stop it would not help the user.
            let _stopped = child.kill().and_then(|()| child.wait());
            return Err(cannot_run(source));
        }
    };
    let deadline = started + timeout;
    let exchanged = exchange.end(deadline);
    let status = wait(&mut child, deadline).map_err(cannot_run)?;
    tracing::debug!(
        program = %program.display(), %family, duration = ?started.elapsed(),
        status = status.map(tracing::field::display), "ran",
    );
    let (Some(status), Some(exchanged)) = (status, exchanged) else {
        return Err(IptablesError::TimedOut {
            program: program.to_owned(),
            seconds: timeout.as_secs(),
        });
    };
    if !status.success() {
        let stderr = exchanged.stderr.unwrap_or_default();
        let failure = Failure::new(program, status, &stderr, &input);
        return Err(IptablesError::Failed(Box::new(failure)));
    }
    // A truncated output must not count as the whole ruleset.
    let whole = exchanged.fed.and(exchanged.stdout);
    whole.map_err(|source| IptablesError::BrokenOff {
        program: program.to_owned(),
        source,
    })
}

/// The input and output of a program, on separate threads, so that a full pipe never blocks both sides.
struct Exchange {
    fed: Receiver<io::Result<()>>,
    stdout: Receiver<io::Result<String>>,
    stderr: Receiver<io::Result<String>>,
}

/// The results of an exchange.
struct Exchanged {
    fed: io::Result<()>,
    stdout: io::Result<String>,
    stderr: io::Result<String>,
}

impl Exchange {
    fn begin(child: &mut Child, input: String) -> io::Result<Self> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Self {
            stdout: in_background(move || all_of(stdout))?,
            stderr: in_background(move || all_of(stderr))?,
            fed: in_background(move || stdin.map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes())))?,
        })
    }

    /// `None`: the program did not end before the deadline.
    fn end(self, deadline: Instant) -> Option<Exchanged> {
        fn ended<T>(of: &Receiver<T>, deadline: Instant) -> Option<T> {
            of.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
        }
        Some(Exchanged {
            stdout: ended(&self.stdout, deadline)?,
            stderr: ended(&self.stderr, deadline)?,
            fed: ended(&self.fed, deadline)?,
        })
    }
}

fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Receiver<T>> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().spawn(move || sender.send(work()))?;
    Ok(receiver)
}

/// Reads a stream to its end.
fn all_of(stream: Option<impl Read>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The exit status; `None` for a child that was killed.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        // The child's output has ended, so it exits within microseconds.
        thread::sleep(Duration::from_micros(200));
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn programs_in_the_working_directory_are_ignored() {
        let search = |path: Option<&str>| search_path(path.map(OsStr::new)).into_string().unwrap();
        assert_eq!(search(None), DEFAULT_PATH);
        assert_eq!(search(Some("")), "");
        assert_eq!(search(Some("/sbin::bin:./x:/usr/sbin:")), "/sbin:/usr/sbin");
        // The sources of this crate are in the working directory of its tests.
        let here = fs::metadata("Cargo.toml").unwrap();
        assert!(here.is_file());
        let directory = env::temp_dir().join(format!("sidetrack-{}-relative", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let program = directory.join("iptables-save");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let up = "../".repeat(env::current_dir().unwrap().components().count());
        let relative = Path::new(&up).join(directory.strip_prefix("/").unwrap());
        let found = find_program("iptables-save", relative.as_os_str());
        let absolute = find_program("iptables-save", directory.as_os_str());
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!((found, absolute), (None, Some(program)));
    }

    #[test]
    fn hanging_program_is_stopped() {
        let directory = env::temp_dir().join(format!("sidetrack-{}-hang", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (program, id) = (directory.join("iptables-save"), directory.join("id"));
        fs::write(
            &program,
            format!("#!/bin/sh\necho $$ >{}\nexec sleep 60\n", id.display()),
        )
        .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let error = run(&program, Family::V4, &[], String::new(), Duration::from_secs(1));
        let id = fs::read_to_string(&id).unwrap().trim().parse().unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert!(matches!(error, Err(IptablesError::TimedOut { .. })), "{error:?}");
        assert_eq!(kill(Pid::from_raw(id), None), Err(nix::errno::Errno::ESRCH));
    }
}
