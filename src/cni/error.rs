//! What can go wrong, and the one place where it becomes a code of the specification (section 5, "Error").

use std::io;

use thiserror::Error;

use super::capability::POD_ANNOTATIONS;
use super::version::Version;
use crate::backend::KernelError;
use crate::backend::check::State;
use crate::backend::iptables::IptablesError;
use crate::backend::nftables::transaction::NftablesError;
use crate::drift::Difference;
use crate::linux::netlink::NetlinkError;
use crate::linux::netns::NetnsError;
use crate::linux::route::RouteError;
use crate::options::problem::{Problem, Source};
use crate::plan::PlanError;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $meaning:literal;)*) => {
        /// The code of an error. Those below 100 are the specification's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $(#[doc = $meaning] $name,)* }

        impl Code {
            /// Each of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its number.
            pub fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

codes! {
    Version = 1, "incompatible CNI version";
    UnsupportedField = 2, "unsupported field in the network configuration";
    Environment = 4, "invalid environment variables";
    Input = 5, "standard input could not be read";
    Decoding = 6, "the network configuration could not be decoded";
    NetConf = 7, "invalid network configuration";
    TryAgain = 11, "try again later";
    NotAvailable = 50, "the plugin is not available";
    Annotations = 100, "invalid annotations of the pod";
    NoAnnotations = 101, "the runtime handed over no annotations of the pod";
    Plan = 102, "what is asked for cannot be done in this pod";
    System = 103, "the rules could not be written";
    Absent = 104, "the rules are missing";
    Drifted = 105, "the rules are not those that ADD wrote";
    Internal = 199, "a mistake in sidetrack, please report it";
}

/// The longest message: a hostile value is not repeated at length. Kubernetes cuts events at 1024 characters.
const LONGEST: usize = 900;

/// Why a request was refused or failed.
#[derive(Debug, Error)]
pub enum Error {
    /// A version of the specification that is not spoken, or not with this verb.
    #[error("{0}")]
    Version(String),
    /// A key of the NetConf that means nothing here: key and value, as the specification wants it.
    #[error("{key:?}: {value}")]
    UnsupportedField {
        /// The key.
        key: String,
        /// The value, as JSON.
        value: String,
    },
    /// Variables of the environment: what is wrong with each, by its name.
    #[error("{}", .0.join("; "))]
    Environment(Vec<String>),
    /// The path in CNI_NETNS leads to no network namespace, or to one that cannot or may not be entered.
    #[error("CNI_NETNS: {0}")]
    Netns(#[from] NetnsError),
    /// Standard input.
    #[error("{0}")]
    Input(#[from] io::Error),
    /// Standard input is no JSON object.
    #[error("{0}")]
    Decoding(String),
    /// Keys of the NetConf, or annotations, or both.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Options(Vec<Problem>),
    /// `select` needs annotations and there are none.
    #[error("select needs them to tell whether it is part of a mesh")]
    NoAnnotations {
        /// Whether the NetConf asks the runtime for them.
        asked: bool,
    },
    /// There is no plan for this pod.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The system could not or may not.
    #[error("{0}")]
    System(#[from] KernelError),
    /// The programs of iptables could not be kept away from what the host shares.
    #[error("programs of iptables cannot be run apart from the host's locks and name services: {0}")]
    Isolation(io::Error),
    /// CHECK found another state than ADD left.
    #[error("in the network namespace {netns}{}", in_short(differences))]
    Check {
        /// Which, [`State::Absent`] or [`State::Drifted`].
        state: State,
        /// Where.
        netns: String,
        /// In what it differs.
        differences: Vec<Difference>,
    },
    /// STATUS: ADD would not work here.
    #[error("{0}")]
    NotAvailable(String),
    /// A panic.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// The code.
    pub fn code(&self) -> Code {
        match self {
            Self::Version(_) => Code::Version,
            Self::UnsupportedField { .. } => Code::UnsupportedField,
            Self::Environment(_) | Self::Netns(NetnsError::Open { .. } | NetnsError::NotANamespace(_)) => {
                Code::Environment
            }
            Self::Netns(
                NetnsError::NotPermitted(_)
                | NetnsError::Enter { .. }
                | NetnsError::Thread { .. }
                | NetnsError::Elsewhere(_)
                | NetnsError::Privilege(_),
            ) => Code::System,
            Self::Input(_) => Code::Input,
            Self::Decoding(_) => Code::Decoding,
            Self::Options(problems) if problems.iter().any(is_of_netconf) => Code::NetConf,
            Self::Options(_) => Code::Annotations,
            Self::NoAnnotations { .. } => Code::NoAnnotations,
            Self::Plan(_) => Code::Plan,
            Self::System(error) if is_transient(error) => Code::TryAgain,
            Self::System(_) | Self::Isolation(_) => Code::System,
            Self::Check {
                state: State::Absent, ..
            } => Code::Absent,
            Self::Check { .. } => Code::Drifted,
            Self::NotAvailable(_) => Code::NotAvailable,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// The message: what the code means, and what it is about.
    pub fn message(&self) -> String {
        let message = format!("{}: {self}", self.code().meaning());
        match message.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &message[..end]),
            None => message,
        }
    }

    /// What to do about it.
    pub fn details(&self) -> Option<String> {
        match self {
            Self::Version(_) => {
                let versions = Version::ALL.map(Version::as_str);
                Some(format!("the versions that are spoken: {}", versions.join(", ")))
            }
            Self::NoAnnotations { asked } => Some(how_to_get_annotations(*asked)),
            Self::System(error) => error.advice(),
            Self::Isolation(_) => Some("use the nftables backend, which runs no program".to_owned()),
            Self::Check { .. } => Some("delete the pod: its controller makes a new one, which ADD programs".to_owned()),
            _ => None,
        }
    }
}

/// The first few differences, and how many there are besides.
fn in_short(differences: &[Difference]) -> String {
    const FEW: usize = 3;
    let told = differences.iter().take(FEW).map(ToString::to_string);
    let more = differences.len().checked_sub(FEW).filter(|more| *more > 0);
    let parts: Vec<String> = told.chain(more.map(|more| format!("and {more} more"))).collect();
    if parts.is_empty() {
        return String::new();
    }
    format!(": {}", parts.join("; "))
}

/// What to do where a runtime hands over no annotations.
pub fn how_to_get_annotations(asked: bool) -> String {
    let first = if asked {
        "the NetConf asks for them, so this runtime cannot: update it (containerd 1.5, CRI-O 1.28 or later)".to_owned()
    } else {
        format!(
            "add \"capabilities\": {{\"{POD_ANNOTATIONS}\": true}} to this plugin in the conflist \
             (containerd 1.5, CRI-O 1.28 or later), or with Multus, which hands none on, \"cni-args\" to the pod's network"
        )
    };
    format!("{first}; or let such pods through with \"onMissingAnnotations\": \"pass\"")
}

fn is_of_netconf(problem: &Problem) -> bool {
    match problem {
        Problem::Value { source, .. } | Problem::Source { source, .. } => *source == Source::NetConf,
        Problem::Contradiction { .. } => false,
    }
}

/// Whether the same request may succeed in a moment: others were at it, or an answer was lost.
fn is_transient(error: &KernelError) -> bool {
    matches!(
        error,
        KernelError::Nftables(NftablesError::Busy | NftablesError::Unanswered(_))
            | KernelError::Route(RouteError::Netlink(NetlinkError::Interrupted))
            | KernelError::Iptables(IptablesError::TimedOut { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_ours_begin_at_100_and_none_is_used_twice() {
        let numbers: Vec<u32> = Code::ALL.iter().map(|code| code.number()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
        let of_specification = [1, 2, 4, 5, 6, 7, 11, 50];
        assert!(
            numbers
                .iter()
                .all(|number| *number >= 100 || of_specification.contains(number))
        );
    }

    #[test]
    fn a_long_value_is_not_repeated_at_length() {
        let message = Error::Decoding("é".repeat(100_000)).message();
        assert_eq!(message.chars().count(), LONGEST + 1);
        assert!(message.ends_with('…'));
    }
}
