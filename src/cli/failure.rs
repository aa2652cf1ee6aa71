//! The one place where errors become exit codes.

use std::process::ExitCode;

use thiserror::Error;

use super::logging;
use crate::backend::KernelError;
use crate::options::problem::Problem;
use crate::probe::Tally;
use crate::probe::validation::ValidationError;

/// What a command exits with where its input is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCodes {
    /// For flags that are no flags.
    pub usage: u8,
    /// For input that cannot be used.
    pub input: u8,
}

/// Those of our own commands.
pub const SIDETRACK: ExitCodes = ExitCodes { usage: 2, input: 2 };
/// Those of `linkerd-proxy-init`.
pub const LINKERD_PROXY_INIT: ExitCodes = ExitCodes { usage: 1, input: 1 };
/// Those of `istio-iptables`.
pub const ISTIO_IPTABLES: ExitCodes = ExitCodes { usage: 255, input: 1 };

/// Those of `kumactl`.
pub const KUMACTL: ExitCodes = ExitCodes { usage: 1, input: 1 };

/// The exit code for a system that cannot do what was asked.
pub const SYSTEM: u8 = 1;
/// The exit code where something is not as it should be, and that is the answer to what was asked.
pub const NEGATIVE: u8 = 3;
/// The exit code for traffic that is not redirected. Istio's repair controller waits for it.
pub const VALIDATION: u8 = 126;

/// Input that cannot be used: all that is wrong with it.
#[derive(Debug, Error)]
pub enum Failure {
    /// Values of options. Each a sentence.
    #[error("{}", .0.join("; "))]
    Input(Vec<String>),
    /// The way in which a command is used, maybe values too. Each a sentence.
    #[error("{}", .0.join("; "))]
    Usage(Vec<String>),
}

/// Probes that did not all pass.
#[derive(Debug, Error)]
pub enum Unproved {
    /// Some came to something else than they should.
    #[error("the redirection does not work as planned: {0}")]
    Failed(Tally),
    /// Some could not be made; the others passed.
    #[error("some probes could not run: {0}. The report shows what each one needs")]
    Incomplete(Tally),
    /// Some that Istio's validation would make failed, or others like them.
    #[error("traffic is not redirected as it should be: {0}")]
    Validation(Tally),
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Input(problems.iter().map(ToString::to_string).collect())
    }
}

/// Prints an error, a line for each thing that is wrong, and says what to exit with.
pub fn report(error: &anyhow::Error, codes: ExitCodes) -> ExitCode {
    if let Some(failure) = error.downcast_ref() {
        let (code, problems) = match failure {
            Failure::Input(problems) => (codes.input, problems),
            Failure::Usage(problems) => (codes.usage, problems),
        };
        for problem in problems {
            logging::error(problem);
        }
        return ExitCode::from(code);
    }
    let advice = error.downcast_ref().and_then(KernelError::advice);
    match advice {
        Some(advice) => logging::error(&format!("{error}. {advice}")),
        None => logging::error(&error.to_string()),
    }
    let unproved = error.downcast_ref().map(|unproved| match unproved {
        Unproved::Failed(_) => NEGATIVE,
        Unproved::Incomplete(_) => SYSTEM,
        Unproved::Validation(_) => VALIDATION,
    });
    let validation = error.is::<ValidationError>().then_some(VALIDATION);
    ExitCode::from(unproved.or(validation).unwrap_or(SYSTEM))
}
