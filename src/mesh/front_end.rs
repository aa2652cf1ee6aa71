//! Common parts of the front ends for the meshes' own programs: reading values, and errors.

use std::fmt;

use crate::options::problem::Problem;
use crate::types::Invalid;

/// An error in the arguments of a mesh's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A value is not valid.
    Value {
        /// The setting.
        setting: &'static str,
        /// Where it was given, for messages.
        origin: String,
        /// Whether the mesh's own program reports it as a usage error, with another exit code.
        usage: bool,
        /// The value, and what would be valid.
        invalid: Invalid,
    },
    /// Another error of a setting, or of a file.
    Other {
        /// The setting; empty for a file.
        setting: &'static str,
        /// Where it was given, for messages.
        origin: String,
        /// The error.
        reason: String,
    },
    /// Values that are valid alone contradict each other.
    Contradiction(Problem),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { origin, invalid, .. } => {
                write!(f, "{origin}: {:?} is not {}", invalid.value, invalid.expected)
            }
            Self::Other { origin, reason, .. } => write!(f, "{origin}: {reason}"),
            Self::Contradiction(problem) => problem.fmt(f),
        }
    }
}

impl Mistake {
    /// An error of a flag.
    pub fn of_flag(setting: &'static str, reason: impl Into<String>) -> Self {
        Self::Other {
            setting,
            origin: format!("--{setting}"),
            reason: reason.into(),
        }
    }

    fn setting(&self) -> &'static str {
        match self {
            Self::Value { setting, .. } | Self::Other { setting, .. } => setting,
            Self::Contradiction(_) => "",
        }
    }
}

/// Whether this setting already has an error.
pub fn is_wrong(mistakes: &[Mistake], setting: &str) -> bool {
    mistakes.iter().any(|mistake| mistake.setting() == setting)
}

/// The result of the settings, or all errors: `mistakes`, and the contradictions between options that none of these
/// concerns, reported with the names of the settings that the options come from.
///
/// # Errors
/// All errors.
pub fn settle<T>(
    settled: Result<T, Vec<Problem>>,
    mut mistakes: Vec<Mistake>,
    setting_of: impl Fn(&str) -> Option<&'static str>,
) -> Result<T, Vec<Mistake>> {
    let problems = match settled {
        Ok(settled) if mistakes.is_empty() => return Ok(settled),
        Ok(_) => Vec::new(),
        Err(problems) => problems,
    };
    let named = |option: &String| setting_of(option).map_or_else(|| option.clone(), str::to_owned);
    for problem in problems {
        let options: Vec<String> = problem.options().iter().map(named).collect();
        if options.iter().any(|option| is_wrong(&mistakes, option)) {
            continue;
        }
        mistakes.push(Mistake::Contradiction(match problem {
            Problem::Contradiction { reason, .. } => Problem::Contradiction { options, reason },
            other @ (Problem::Value { .. } | Problem::Source { .. }) => other,
        }));
    }
    Err(mistakes)
}

/// Stores a value that was read.
pub fn set<T, P: From<T>>(place: &mut P, value: Result<T, Invalid>) -> Result<(), Vec<Invalid>> {
    set_list(place, value.map_err(|invalid| vec![invalid]))
}

/// Stores a list that was read.
pub fn set_list<T, P: From<T>>(place: &mut P, value: Result<T, Vec<Invalid>>) -> Result<(), Vec<Invalid>> {
    *place = value?.into();
    Ok(())
}

/// The items of a list, trimmed, without blank ones.
pub fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Reads every item, or reports all that are invalid.
pub fn each<'t, T>(
    items: impl IntoIterator<Item = &'t str>,
    read: impl Fn(&'t str) -> Result<T, Invalid>,
) -> Result<Vec<T>, Vec<Invalid>> {
    let (values, errors): (Vec<_>, Vec<_>) = items.into_iter().map(read).partition(Result::is_ok);
    if errors.is_empty() {
        Ok(values.into_iter().flatten().collect())
    } else {
        Err(errors.into_iter().filter_map(Result::err).collect())
    }
}
