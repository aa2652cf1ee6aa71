//! What is wrong with the settings that were given.

use std::fmt;

use super::table::SETTINGS;
use crate::options::problem::Problem;
use crate::types::Invalid;

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A value is not valid.
    Value {
        /// Where it was given.
        origin: Origin,
        /// Whether it is wrong usage of the flag to Istio, which exits with another code then.
        usage: bool,
        /// The value, and what would be valid.
        invalid: Invalid,
    },
    /// Values that are valid alone do not go together.
    Contradiction(Problem),
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The flag of this name.
    Flag(&'static str),
    /// The variable of this name.
    Variable(String),
    /// The default of this setting.
    Default(&'static str),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { origin, invalid, .. } => {
                write!(f, "{origin}: {:?} is not {}", invalid.value, invalid.expected)
            }
            Self::Contradiction(problem) => problem.fmt(f),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(name),
            Self::Default(name) => write!(f, "default of {name}"),
        }
    }
}

impl Mistake {
    /// A contradiction between our options, told as one between the settings that they come from.
    pub(super) fn in_istio_s_words(problem: Problem) -> Self {
        let name = |option: String| match SETTINGS.iter().find(|setting| setting.option == option) {
            Some(setting) => setting.name.to_owned(),
            None => option,
        };
        Self::Contradiction(match problem {
            Problem::Contradiction { options, reason } => Problem::Contradiction {
                options: options.into_iter().map(name).collect(),
                reason,
            },
            other @ (Problem::Value { .. } | Problem::Source { .. }) => other,
        })
    }
}
