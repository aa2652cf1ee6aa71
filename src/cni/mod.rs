//! The CNI plugin: last in a chain, it redirects the traffic of pods as the runtime attaches them to their network.
//!
//! ```text
//!  environment ── Verb, Attachment ─┐            ┌─ not redirected ───────────┐
//!  stdin ──────── NetConf ──────────┼─ verdict ──┤                            ├─ Answer ── stdout, exit code
//!    annotations ─ Layer ───────────┘  (pure)    └─ redirect ─ kernel ────────┘
//! ```
//!
//! Names, texts and codes are those of the CNI specification 1.1.0
//! (<https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md>). Everything about a pod comes from the
//! runtime: the plugin sends no request to a server, resolves no name and takes no lock of the host.

pub mod attach;
pub mod capability;
pub mod environment;
pub mod error;
pub mod late;
mod log;
mod multus;
pub mod netconf;
pub mod nomad;
pub mod report;
pub mod result;
#[cfg(test)]
mod tests;
pub mod verbatim;
pub mod version;
pub mod warm_up;

use std::io::{self, Read, Write as _};
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use self::environment::{Attachment, Variables, Verb, pod_name};
use self::error::Error;
use self::netconf::{Header, NetConf};
use self::report::{Outcome, Report};
use self::result::Answer;
use self::version::Version;

/// The plugin as a program: this process's environment, standard input and standard output.
pub fn main() -> ExitCode {
    answer_panics();
    let run = run(&|name| std::env::var_os(name), io::stdin().lock());
    let written = write_answer(&run.answer);
    run.report.send(&run.socket);
    match written {
        Ok(()) => ExitCode::from(run.answer.code),
        // Standard output is closed: the error cannot be reported.
        Err(_) => ExitCode::FAILURE,
    }
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The answer to the runtime.
    pub answer: Answer,
    /// The report to the node installer.
    pub report: Report,
    /// The socket of the node installer.
    pub socket: PathBuf,
}

/// The largest standard input: sixteen times all annotations that Kubernetes allows a pod.
const MAX_STDIN_BYTES: u64 = 4 * 1024 * 1024;

/// The plugin as a function.
pub fn run(variables: Variables, stdin: impl Read) -> Run {
    let begun = Instant::now();
    let mut bytes = Vec::new();
    let read = stdin.take(MAX_STDIN_BYTES + 1).read_to_end(&mut bytes);
    let header = Header::parse(&bytes);
    let result = Verb::of(variables).and_then(|verb| match verb {
        // A runtime must be able to remove the pod with any configuration. The rules end with the namespace.
        Verb::Del => Ok((Answer::nothing(), Outcome::Done)),
        Verb::Version => {
            let requested = header.version.as_deref().unwrap_or(Version::NEWEST.as_str());
            Ok((Answer::versions(requested), Outcome::Done))
        }
        Verb::Add | Verb::Check | Verb::Gc | Verb::Status => {
            if read? as u64 > MAX_STDIN_BYTES {
                return Err(Error::Decoding(format!("it is longer than {MAX_STDIN_BYTES} bytes")));
            }
            request(verb, variables, &bytes)
        }
    });
    let (answer, outcome) = result.unwrap_or_else(|error| {
        log::start_if_needed();
        let message = error.message();
        tracing::error!(code = error.code().number(), "{message}");
        let version = header.version.as_deref().and_then(Version::parse);
        let answer = Answer::error(version.unwrap_or(Version::NEWEST), &error);
        (answer, Outcome::Failed(message))
    });
    let text = |name| variables(name).map_or_else(String::new, |text| text.to_string_lossy().into_owned());
    Run {
        answer,
        report: Report {
            command: text("CNI_COMMAND"),
            pod: pod_name(variables).unwrap_or_default(),
            container: text("CNI_CONTAINERID"),
            outcome,
            warnings: log::take_warnings(),
            duration: begun.elapsed(),
        },
        socket: header.socket,
    }
}

/// Handles the verbs that need a NetConf.
fn request(verb: Verb, variables: Variables, stdin: &[u8]) -> Result<(Answer, Outcome), Error> {
    let mut netconf = NetConf::parse(stdin)?;
    let since = match verb {
        Verb::Check => Version::V0_4_0,
        Verb::Gc | Verb::Status => Version::V1_1_0,
        Verb::Add | Verb::Del | Verb::Version => Version::V0_3_0,
    };
    if netconf.version < since {
        let reason = format!("{} has no {}; {since} has", netconf.version, verb.name());
        return Err(Error::Version(reason));
    }
    log::start(&netconf);
    match verb {
        // Not even an exempt pod: this configuration gives no pod a network.
        Verb::Add | Verb::Check | Verb::Status if netconf.awaits_network => return Err(Error::AwaitsNetwork),
        Verb::Add => {
            let attachment = Attachment::of(variables)?;
            netconf.learn(&attachment);
            let outcome = span(verb, &attachment).in_scope(|| attach::add(&netconf, &attachment))?;
            return Ok((Answer::result(netconf.version, netconf.previous.as_deref()), outcome));
        }
        Verb::Check => {
            let attachment = Attachment::of(variables)?;
            netconf.learn(&attachment);
            span(verb, &attachment).in_scope(|| attach::check(&netconf, &attachment))?;
        }
        Verb::Status => attach::status(&netconf)?,
        Verb::Gc => netconf.usable()?,
        Verb::Del | Verb::Version => {}
    }
    Ok((Answer::nothing(), Outcome::Done))
}

/// The log fields of an attachment.
fn span(verb: Verb, attachment: &Attachment) -> tracing::Span {
    let Attachment {
        container_id,
        ifname,
        pod,
        ..
    } = attachment;
    tracing::error_span!("cni", verb = verb.name(), %pod, container_id, ifname)
}

fn write_answer(answer: &Answer) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&answer.stdout)?;
    stdout.flush()
}

/// Answers a panic on any thread with a CNI error.
pub fn answer_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!(" ({place})")).unwrap_or_default();
        let reason = panic.payload_as_str().unwrap_or("panic");
        let error = Error::Internal(format!("{reason}{place}"));
        let answer = Answer::error(Version::NEWEST, &error);
        let _written = write_answer(&answer);
        std::process::exit(answer.code.into());
    }));
}
