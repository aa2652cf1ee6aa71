//! The mapping of errors to exit codes.

use std::process::ExitCode;

use thiserror::Error;

use super::logging;
use crate::backend::KernelError;
use crate::options::problem::Problem;
use crate::probe::Tally;
use crate::probe::validation::ValidationError;

/// The exit codes of a command for invalid input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCodes {
    /// For unknown flags.
    pub usage: u8,
    /// For invalid values.
    pub input: u8,
}

/// The exit codes of sidetrack's own commands.
pub const SIDETRACK: ExitCodes = ExitCodes { usage: 2, input: 2 };
/// The exit codes of `linkerd-proxy-init`.
pub const LINKERD_PROXY_INIT: ExitCodes = ExitCodes { usage: 1, input: 1 };
/// The exit codes of `istio-iptables`.
pub const ISTIO_IPTABLES: ExitCodes = ExitCodes { usage: 255, input: 1 };

/// The exit codes of `kumactl`.
pub const KUMACTL: ExitCodes = ExitCodes { usage: 1, input: 1 };

/// The exit code if the system does not allow the operation.
pub const SYSTEM: u8 = 1;
/// The exit code of a negative result: drift, findings, failed probes.
pub const NEGATIVE: u8 = 3;
/// The exit code for traffic that is not redirected. Istio's repair controller looks for it.
pub const VALIDATION: u8 = 126;

/// Invalid input, with all mistakes in it.
#[derive(Debug, Error)]
pub enum Failure {
    /// Values of options. Each a sentence.
    #[error("{}", .0.join("; "))]
    Input(Vec<String>),
    /// Wrong usage of a command, possibly with invalid values. Each a sentence.
    #[error("{}", .0.join("; "))]
    Usage(Vec<String>),
}

/// Probes that did not all pass.
#[derive(Debug, Error)]
pub enum ProbeFailure {
    /// Some failed.
    #[error("the redirection does not work as planned: {0}")]
    Failed(Tally),
    /// Some could not run; the others passed.
    #[error("some probes could not run: {0}. The report shows what each one needs")]
    Incomplete(Tally),
    /// Some failed that Istio's validation or its extension here makes.
    #[error("traffic is not redirected as it should be: {0}")]
    Validation(Tally),
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Input(problems.iter().map(ToString::to_string).collect())
    }
}

/// Prints an error, a line for each mistake, and returns the exit code.
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
    let probe_failure = error.downcast_ref().map(|failure| match failure {
        ProbeFailure::Failed(_) => NEGATIVE,
        ProbeFailure::Incomplete(_) => SYSTEM,
        ProbeFailure::Validation(_) => VALIDATION,
    });
    let validation = error.is::<ValidationError>().then_some(VALIDATION);
    ExitCode::from(probe_failure.or(validation).unwrap_or(SYSTEM))
}
