//! What `check` and `probe` expect of the installed rules: what given options say, what the rules record, or the
//! defaults.

use std::net::IpAddr;

use clap::ArgMatches;
use serde_json::{Value, json};
use thiserror::Error;

use super::failure::Failure;
use super::place::{self, Place};
use super::{args, name_servers, settings};
use crate::backend::{Namespace, Observed, RuleBackend};
use crate::linux::netns;
use crate::options::table::OPTIONS;
use crate::options::{Config, Installation, Settings};
use crate::plan::record::{self, Recorded, Unusable};
use crate::types::Backend;

/// The options of a command line.
pub struct Request {
    asked: place::Request,
    /// Whether any option selects rules.
    is_given: bool,
    /// Whether the options are flags of another program.
    is_of_front_end: bool,
}

/// A request whose place is found.
pub struct Opened {
    /// The settings that the options make, or those of the defaults.
    settings: Settings,
    /// Whether any option selects rules.
    is_given: bool,
    /// Whether the options are flags of another program.
    pub is_of_front_end: bool,
    /// The place to work in.
    pub place: Place,
    /// The name servers of the pod's `/etc/resolv.conf`, if they are known.
    resolvers: Option<Vec<IpAddr>>,
}

/// The expected rules.
pub struct Expectation {
    /// The settings that they follow from.
    pub settings: Settings,
    /// The name servers of the pod's `/etc/resolv.conf`, if they are known.
    pub resolvers: Option<Vec<IpAddr>>,
    /// The source of the settings.
    pub source: Source,
}

/// The source of an expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Given options.
    Options,
    /// The record of the installed rules, which has these words.
    Record(Vec<String>),
    /// The installed rules themselves. A record of the options may be ignored.
    Rules(Option<Ignored>),
    /// The defaults. A record of the options may be ignored.
    Defaults(Option<Ignored>),
}

/// A record that is ignored.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Ignored {
    /// The rules of its backend cannot be read.
    #[error("it cannot be read: {0}")]
    Unread(String),
    /// It is of no use.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

/// The record lacks options, so that nothing says what to expect.
#[derive(Debug, Error)]
#[error(
    "the options recorded with the rules are incomplete: {0}. Give the options that the rules were applied with, as \
     flags or by --config"
)]
pub struct Incomplete(pub Unusable);

impl Request {
    /// Reads a command line. Of the command's own arguments, only those in `allowed` may come before a front end.
    ///
    /// # Errors
    /// All mistakes in it.
    pub fn read(matches: &ArgMatches, allowed: &[&str]) -> Result<Self, Failure> {
        let is_of_front_end = matches.subcommand().is_some();
        if is_of_front_end || matches.contains_id(place::POD) {
            return Ok(Self {
                asked: place::request(matches, allowed)?,
                is_given: true,
                is_of_front_end,
            });
        }
        let (layer, settings) = settings::layer_and_settings(matches)?;
        let mut options = OPTIONS.iter().filter(|option| option.scope.affects_redirection());
        let is_given = options.any(|option| (option.write)(&layer).is_some())
            || args::text_or_variable(matches, "config").is_some();
        Ok(Self {
            asked: place::Request::Options(Box::new(settings), args::text_or_variable(matches, "netns")),
            is_given,
            is_of_front_end,
        })
    }

    /// Finds the place, and the name servers that count there.
    ///
    /// # Errors
    /// The pod is not found or not redirected, or name servers cannot be read.
    pub fn open(self) -> anyhow::Result<Opened> {
        let (is_given, is_of_front_end) = (self.is_given, self.is_of_front_end);
        let (settings, place, resolvers) = match self.asked {
            place::Request::Options(mut settings, Some(netns)) => {
                let resolvers = match is_given {
                    true => settle_name_servers(&mut settings.config, &netns)?,
                    false => None,
                };
                (*settings, Place::Netns(netns), resolvers)
            }
            other => {
                let (settings, place) = other.open()?;
                (settings, place, None)
            }
        };
        Ok(Opened {
            settings,
            is_given,
            is_of_front_end,
            place,
            resolvers,
        })
    }
}

/// Finds the name servers of another network namespace, if given options refer to its `/etc/resolv.conf`: those that were
/// recorded with its rules, or else those of the pod. Returns those of the file, if they are known.
fn settle_name_servers(config: &mut Config, netns: &str) -> anyhow::Result<Option<Vec<IpAddr>>> {
    if !name_servers::needs_resolv_conf(config) {
        return Ok(None);
    }
    match netns::administer(netns::path(netns), recorded)? {
        Some(Recorded {
            config: recorded,
            resolvers,
            ..
        }) if recorded.dns.redirect => {
            tracing::info!(netns, "the name servers are those recorded with the rules");
            // The record of rules that do not depend on the file names the servers.
            config.dns.servers = recorded.dns.servers;
            Ok(resolvers)
        }
        _ => {
            name_servers::of_netns(config, netns)?;
            Ok(None)
        }
    }
}

impl Opened {
    /// The expected rules, if options are given.
    pub fn given(&self) -> Option<Expectation> {
        self.is_given.then(|| self.with(Source::Options))
    }

    /// The settings of the defaults, if no options are given.
    pub fn defaults(&self) -> &Settings {
        &self.settings
    }

    /// The expected rules in this network namespace.
    ///
    /// # Errors
    /// See [`Incomplete`].
    pub fn expectation(&self, namespace: &mut Namespace, observed: &Observed) -> Result<Expectation, Incomplete> {
        if let Some(given) = self.given() {
            return Ok(given);
        }
        let ignored = match namespace.record(observed) {
            Ok(None) => None,
            Ok(Some((backend, found))) => match record::read(&found) {
                Ok(recorded) => return Ok(self.of_record(backend, recorded)),
                Err(unusable @ Unusable::Incomplete(_)) => return Err(Incomplete(unusable)),
                Err(unusable) => Some(unusable.into()),
            },
            Err(error) => Some(Ignored::Unread(error.to_string())),
        };
        Ok(self.with(Source::Defaults(ignored)))
    }

    fn with(&self, source: Source) -> Expectation {
        Expectation {
            settings: self.settings.clone(),
            resolvers: self.resolvers.clone(),
            source,
        }
    }

    fn of_record(&self, backend: RuleBackend, recorded: Recorded) -> Expectation {
        let Recorded {
            config,
            resolvers,
            words,
        } = recorded;
        // The rules were applied with this backend, whether an option or the kernel's abilities selected it.
        let backend = match backend {
            RuleBackend::Nftables => Backend::Nftables,
            RuleBackend::NftablesPerFamily => Backend::NftablesPerFamily,
            RuleBackend::IptablesNft => Backend::IptablesNft,
            RuleBackend::IptablesLegacy => Backend::IptablesLegacy,
        };
        Expectation {
            settings: Settings {
                config,
                install: Installation { backend },
                ..self.settings.clone()
            },
            resolvers,
            source: Source::Record(words),
        }
    }
}

/// The usable record in this network namespace, if there is one.
fn recorded() -> Option<Recorded> {
    let mut namespace = Namespace::default();
    let observed = namespace.observe().ok()?;
    let (_, record) = namespace.record(&observed).ok()??;
    record::read(&record).ok()
}

impl Source {
    /// The source as fields of a JSON object.
    pub fn json(&self) -> [(&'static str, Value); 3] {
        let name = match self {
            Self::Options => "options",
            Self::Record(_) => "record",
            Self::Rules(_) => "rules",
            Self::Defaults(_) => "defaults",
        };
        let recorded = match self {
            Self::Record(words) => json!(words),
            Self::Options | Self::Rules(_) | Self::Defaults(_) => Value::Null,
        };
        let ignored = match self {
            Self::Rules(Some(ignored)) | Self::Defaults(Some(ignored)) => json!(ignored.to_string()),
            Self::Options | Self::Record(_) | Self::Rules(None) | Self::Defaults(None) => Value::Null,
        };
        [
            ("source", json!(name)),
            ("recordedOptions", recorded),
            ("ignoredRecord", ignored),
        ]
    }

    /// The source in a sentence that begins with `does`; `None` where nothing but given options or the defaults could
    /// count.
    pub fn sentence(&self, does: &str) -> Option<String> {
        let ignored = |ignored: &Ignored| format!("the record of the options is ignored, since {ignored}.");
        Some(match self {
            Self::Options | Self::Defaults(None) => return None,
            Self::Record(words) if words.is_empty() => {
                format!("{does} the options recorded with the rules: the defaults.")
            }
            Self::Record(words) => {
                let words: Vec<String> = words.iter().map(|word| shortened(word)).collect();
                format!("{does} the options recorded with the rules: {}", words.join(" "))
            }
            Self::Rules(None) => format!("{does} the installed rules: no options are recorded with them."),
            Self::Rules(Some(reason)) => format!("{does} the installed rules: {}", ignored(reason)),
            Self::Defaults(Some(reason)) => format!("{does} the defaults: {}", ignored(reason)),
        })
    }
}

/// The word with the first elements of its list, and the number of the others.
fn shortened(word: &str) -> String {
    /// The most elements that are listed.
    const MAX_LISTED_ELEMENTS: usize = 8;
    let elements: Vec<&str> = word.split(',').collect();
    match elements.split_at_checked(MAX_LISTED_ELEMENTS) {
        Some((first, others @ [_, ..])) => format!("{} and {} more", first.join(","), others.len()),
        _ => word.to_owned(),
    }
}
