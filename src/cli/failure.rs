//! The one place where errors become exit codes.

use std::process::ExitCode;

use thiserror::Error;

use crate::config::problem::Problem;
use crate::kernel::KernelError;

/// The exit code for input that cannot be used.
pub const INPUT: u8 = 2;
/// The exit code for a system that cannot do what was asked.
pub const SYSTEM: u8 = 1;

/// Input that cannot be used: all that is wrong with it.
#[derive(Debug, Error)]
pub enum Failure {
    /// Each a sentence.
    #[error("{}", .0.join("; "))]
    Input(Vec<String>),
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Input(problems.iter().map(ToString::to_string).collect())
    }
}

/// Logs an error, a line for each thing that is wrong, and says what to exit with.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(Failure::Input(problems)) = error.downcast_ref() {
        for problem in problems {
            tracing::error!("{problem}");
        }
        return ExitCode::from(INPUT);
    }
    let advice = error.downcast_ref().and_then(KernelError::advice);
    match advice {
        Some(advice) => tracing::error!("{error}. {advice}"),
        None => tracing::error!("{error}"),
    }
    ExitCode::from(SYSTEM)
}
