//! Errors of options.

use std::fmt;
use std::path::PathBuf;

use crate::types::Invalid;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag of the command line.
    Flag,
    /// An environment variable.
    Environment,
    /// An annotation of the pod; the option's name is the annotation's.
    Annotation,
    /// The network configuration of the CNI plugin.
    NetConf,
    /// The configuration file.
    File(PathBuf),
}

/// An error of the options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A value is not valid.
    Value {
        /// The source of the value.
        source: Source,
        /// The option's name, as flags write it.
        option: String,
        /// The value, and what would be valid.
        invalid: Invalid,
    },
    /// A source as a whole cannot be used.
    Source {
        /// The source.
        source: Source,
        /// The error.
        reason: String,
    },
    /// Values that are valid alone contradict each other.
    Contradiction {
        /// The options' names, as flags write them.
        options: Vec<String>,
        /// The contradiction.
        reason: String,
    },
}

impl Problem {
    /// A contradiction between options.
    pub fn between(options: &[&str], reason: impl Into<String>) -> Self {
        Self::Contradiction {
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            reason: reason.into(),
        }
    }

    /// The options that are concerned; empty if the whole source is.
    pub fn options(&self) -> &[String] {
        match self {
            Self::Value { option, .. } => std::slice::from_ref(option),
            Self::Source { .. } => &[],
            Self::Contradiction { options, .. } => options,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value {
                source,
                option,
                invalid,
            } => {
                match source {
                    Source::Flag => write!(f, "--{option}")?,
                    Source::Environment => f.write_str(&environment_name(option))?,
                    Source::Annotation => write!(f, "annotation {option}")?,
                    Source::NetConf => write!(f, "NetConf: {option}")?,
                    Source::File(path) => write!(f, "{}: {option}", path.display())?,
                }
                write!(f, ": {:?} is not {}", invalid.value, invalid.expected)
            }
            Self::Source { source, reason } => match source {
                Source::Flag => write!(f, "command line: {reason}"),
                Source::Environment => write!(f, "environment: {reason}"),
                Source::Annotation => write!(f, "annotations: {reason}"),
                Source::NetConf => write!(f, "NetConf: {reason}"),
                Source::File(path) => write!(f, "{}: {reason}", path.display()),
            },
            Self::Contradiction { options, reason } => write!(f, "--{}: {reason}", options.join(" and --")),
        }
    }
}

/// The environment variable of an option.
pub fn environment_name(option: &str) -> String {
    format!("SIDETRACK_{}", option.to_uppercase().replace('-', "_"))
}
