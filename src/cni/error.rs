//! What can go wrong, and the one place where it becomes a code of the specification (section 5, "Error").

use std::io;

use thiserror::Error;

use super::capability::POD_ANNOTATIONS;
use super::version::Version;
use crate::backend::KernelError;
use crate::backend::check::State;
use crate::backend::iptables::IptablesError;
use crate::backend::nftables::transaction::NftablesError;
use crate::drift::{self, Difference};
use crate::linux::netlink::NetlinkError;
use crate::linux::netns::NetnsError;
use crate::linux::route::RouteError;
use crate::options::problem::{Problem, Source};
use crate::plan::PlanError;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $meaning:literal;)*) => {
        /// The code of an error. Codes below 100 are defined by the specification.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $(#[doc = $meaning] $name,)* }

        impl Code {
            /// All codes, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number of the code.
            pub fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }

            /// The meaning of the code.
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
    NoAnnotations = 101, "the runtime passed no annotations of the pod";
    Plan = 102, "the requested redirection is not possible in this pod";
    System = 103, "the rules could not be written";
    Absent = 104, "the rules are missing";
    Drifted = 105, "the rules are not those that ADD wrote";
    Internal = 199, "a mistake in sidetrack, please report it";
}

/// The longest message, in characters. It bounds hostile values; Kubernetes cuts events at 1024 characters.
const MAX_MESSAGE_CHARS: usize = 900;

/// Why a request was refused or failed.
#[derive(Debug, Error)]
pub enum Error {
    /// An unsupported CNI version, or a verb that the version does not have.
    #[error("{0}")]
    Version(String),
    /// An unknown key of the NetConf, with its value, as the specification requires.
    #[error("{key:?}: {value}")]
    UnsupportedField {
        /// The key.
        key: String,
        /// The value, as JSON.
        value: String,
    },
    /// Invalid environment variables: a message for each, with its name.
    #[error("{}", .0.join("; "))]
    Environment(Vec<String>),
    /// CNI_NETNS is not a network namespace, or the namespace cannot be entered.
    #[error("CNI_NETNS: {0}")]
    Netns(#[from] NetnsError),
    /// Reading standard input failed.
    #[error("{0}")]
    Input(#[from] io::Error),
    /// Standard input is not a JSON object.
    #[error("{0}")]
    Decoding(String),
    /// Invalid keys of the NetConf, invalid annotations, or both.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Options(Vec<Problem>),
    /// `select` needs annotations, and the runtime passed none.
    #[error("select needs them to decide whether the pod is part of a mesh")]
    NoAnnotations {
        /// Whether the NetConf requests them by its capabilities.
        requested: bool,
    },
    /// There is no plan for this pod.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The kernel refused a request, or a program failed.
    #[error("{0}")]
    System(#[from] KernelError),
    /// The iptables programs cannot be isolated from the host.
    #[error("the iptables programs cannot be isolated from the host's locks and name services: {0}")]
    Isolation(io::Error),
    /// CHECK found rules that differ from those of ADD.
    #[error("in the network namespace {netns}{}", after_colon(differences))]
    Check {
        /// [`State::Absent`], [`State::Foreign`] or [`State::Drifted`].
        state: State,
        /// The path of the network namespace.
        netns: String,
        /// The differences.
        differences: Vec<Difference>,
    },
    /// The node has no network yet that the plugin could join.
    #[error(
        "this node has no network configuration to join yet. sidetrack's installer replaces this one as soon as the \
         network plugin has written its own; until then pods wait, so that none starts without its redirection"
    )]
    AwaitsNetwork,
    /// STATUS: ADD would fail on this node.
    #[error("{0}")]
    NotAvailable(String),
    /// A panic.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// The code of the error.
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
            Self::AwaitsNetwork => Code::TryAgain,
            Self::System(error) if is_transient(error) => Code::TryAgain,
            Self::System(_) | Self::Isolation(_) => Code::System,
            Self::Check {
                state: State::Absent | State::Foreign,
                ..
            } => Code::Absent,
            Self::Check { .. } => Code::Drifted,
            Self::NotAvailable(_) => Code::NotAvailable,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// The message: the meaning of the code, and the cause.
    pub fn message(&self) -> String {
        let message = format!("{}: {self}", self.code().meaning());
        match message.char_indices().nth(MAX_MESSAGE_CHARS) {
            Some((end, _)) => format!("{}…", &message[..end]),
            None => message,
        }
    }

    /// What to do about the error.
    pub fn details(&self) -> Option<String> {
        match self {
            Self::Version(_) => {
                let versions = Version::ALL.map(Version::as_str);
                Some(format!("supported versions: {}", versions.join(", ")))
            }
            Self::NoAnnotations { requested } => Some(how_to_get_annotations(*requested)),
            Self::System(error) => error.advice(),
            Self::Isolation(_) => Some("use the nftables backend, which runs no program".to_owned()),
            Self::Check { .. } => {
                Some("delete the pod: its controller creates a new one, and ADD redirects that".to_owned())
            }
            _ => None,
        }
    }
}

fn after_colon(differences: &[Difference]) -> String {
    match differences {
        [] => String::new(),
        differences => format!(": {}", drift::summary(differences)),
    }
}

/// What to do where a runtime passes no annotations.
pub fn how_to_get_annotations(requested: bool) -> String {
    let first = if requested {
        "the NetConf requests them, so this runtime lacks support: update it (containerd 1.5, CRI-O 1.28 or later)"
            .to_owned()
    } else {
        format!(
            "add \"capabilities\": {{\"{POD_ANNOTATIONS}\": true}} to this plugin in the conflist \
             (containerd 1.5, CRI-O 1.28 or later), or with Multus, which passes none on, add \"cni-args\" to the pod's network"
        )
    };
    format!("{first}; or do not redirect such pods, with \"onMissingAnnotations\": \"pass\"")
}

fn is_of_netconf(problem: &Problem) -> bool {
    match problem {
        Problem::Value { source, .. } | Problem::Source { source, .. } => *source == Source::NetConf,
        Problem::Contradiction { .. } => false,
    }
}

/// Whether a retry may succeed: another process held the lock or changed the rules, or the acknowledgement was lost.
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
    fn own_codes_begin_at_100_and_are_unique() {
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
    fn long_message_is_cut() {
        let message = Error::Decoding("é".repeat(100_000)).message();
        assert_eq!(message.chars().count(), MAX_MESSAGE_CHARS + 1);
        assert!(message.ends_with('…'));
    }
}
