//! Reads a record. Its text is untrusted: any process that may change rules in the pod may have written it.

use std::net::IpAddr;

use thiserror::Error;

use super::{
    BREAKS, BY_REPAIR, DNS_OVER_TCP, GID_ORDER, ISTIO, KUMA, MAX_COMMENT_LENGTH, MAX_COMMENTS, NO_NAME_SERVERS,
    OMITTED, ONE_CONNTRACK_ZONE, RULES_AS, UID_ORDER, VERSION, VNET, digest,
};
use crate::mesh;
use crate::mesh::kuma::front_end::networks;
use crate::options::table::OPTIONS;
use crate::options::{Config, Dialect, KumaRules, Layer, OwnerOrder};
use crate::plan::policy;
use crate::ruleset::Record;
use crate::types::{Id, NoAccounts, Ranges};

/// The contents of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The configuration that the rules follow from.
    pub config: Config,
    /// The name servers that the configuration does not have, if they are known: those of the pod's `/etc/resolv.conf`
    /// when the rules were installed.
    pub resolvers: Option<Vec<IpAddr>>,
    /// Whether the installer wrote the rules into a running pod, with the options that the plugin has for the pod.
    pub is_of_repair: bool,
    /// The words of the record: options, and words that only a record has.
    pub words: Vec<String>,
}

/// Why a record is of no use.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unusable {
    /// Some words are left out.
    #[error("{} too long to be recorded", list(.0))]
    Incomplete(Vec<&'static str>),
    /// Another version of sidetrack wrote it.
    #[error("it has version {0}, and this sidetrack reads version {VERSION}")]
    Version(u32),
    /// It has an unknown word.
    #[error("this version of sidetrack does not know the option {0:?} in it")]
    Unknown(String),
    /// It is not what sidetrack writes.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

fn list(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("--{name}")).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(", "))
}

/// The contents of a record.
///
/// # Errors
/// See [`Unusable`].
pub fn read(record: &Record) -> Result<Recorded, Unusable> {
    let damaged = |reason: &str| Unusable::Damaged(reason.to_owned());
    let is_oversized = record.comments().any(|comment| comment.len() > MAX_COMMENT_LENGTH);
    if is_oversized || record.comments().count() > MAX_COMMENTS {
        return Err(damaged("it is longer than any that sidetrack writes"));
    }
    let text = joined(record);
    let (version, digest, body) = parts(&text).ok_or_else(|| damaged("it does not begin as one of sidetrack"))?;
    if version != VERSION {
        return Err(Unusable::Version(version));
    }
    let words: Vec<&str> = body.split(' ').filter(|word| !word.is_empty()).collect();
    let omitted = words.iter().find_map(|word| value(word, OMITTED));
    if let Some(omitted) = omitted {
        return Err(Unusable::Incomplete(
            omitted.split(',').filter_map(known_name).collect(),
        ));
    }
    if digest != self::digest(words.iter().copied()) {
        return Err(damaged("its digest is not that of its options"));
    }
    let mut draft = Draft::default();
    for word in &words {
        draft.read(word)?;
    }
    Ok(Recorded {
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        ..draft.recorded()?
    })
}

/// The comments as one text.
fn joined(record: &Record) -> String {
    let mut text = String::new();
    for comment in record.comments() {
        if !(text.is_empty() || text.ends_with(BREAKS) || text.ends_with('/')) {
            text.push(' ');
        }
        text += comment;
    }
    text
}

/// The version, the digest and the words.
fn parts(text: &str) -> Option<(u32, u64, &str)> {
    let (head, body) = text.strip_prefix("sidetrack ")?.split_once(':')?;
    let (version, digest) = head.split_once(' ').unwrap_or((head, ""));
    let version: u32 = version.parse().ok()?;
    // A later version may have another head.
    let digest = u64::from_str_radix(digest, 16)
        .ok()
        .or((version != VERSION).then_some(0));
    Some((version, digest?, body))
}

/// The value of the word called `name`.
fn value<'w>(word: &'w str, name: &str) -> Option<&'w str> {
    word.strip_prefix(name)?.strip_prefix('=')
}

/// The name of an option or a word, if sidetrack has one of this name.
fn known_name(name: &str) -> Option<&'static str> {
    let options = OPTIONS.iter().map(|option| option.name);
    options.chain([UID_ORDER, GID_ORDER, VNET]).find(|known| *known == name)
}

/// The words so far.
#[derive(Default)]
struct Draft {
    layer: Layer,
    seen: Vec<String>,
    rules_as: Option<String>,
    uids: Option<Vec<String>>,
    gids: Option<Vec<String>>,
    kuma: KumaRules,
    resolvers: Option<Vec<IpAddr>>,
    is_of_repair: bool,
}

impl Draft {
    fn read(&mut self, word: &str) -> Result<(), Unusable> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        if self.seen.iter().any(|seen| seen == name) {
            return Err(Unusable::Damaged(format!("{name:?} is there twice")));
        }
        self.seen.push(name.to_owned());
        let list = || value.map(|value| value.split(',').map(str::to_owned).collect());
        match (name, value) {
            (NO_NAME_SERVERS, None) => self.resolvers = Some(Vec::new()),
            (BY_REPAIR, None) => self.is_of_repair = true,
            (DNS_OVER_TCP, None) => self.kuma.redirects_dns_over_tcp = true,
            (ONE_CONNTRACK_ZONE, None) => self.kuma.splits_conntrack_zones = false,
            (RULES_AS, Some(program)) => self.rules_as = Some(program.to_owned()),
            (UID_ORDER, Some(_)) => self.uids = list(),
            (GID_ORDER, Some(_)) => self.gids = list(),
            (VNET, Some(_)) => {
                let texts: Vec<String> = list().unwrap_or_default();
                self.kuma.networks = networks(&texts).map_err(|_| invalid(name))?;
            }
            (name, value) => self.read_option(name, value.unwrap_or("true"))?,
        }
        Ok(())
    }

    fn read_option(&mut self, name: &str, value: &str) -> Result<(), Unusable> {
        let mut options = OPTIONS.iter().filter(|option| option.scope.is_planned());
        let option = name
            .strip_prefix("--")
            .and_then(|name| options.find(|option| option.name == name))
            .ok_or_else(|| Unusable::Unknown(name.to_owned()))?;
        (option.read)(&mut self.layer, &[value.to_owned()], &NoAccounts).map_err(|_| invalid(name))
    }

    fn recorded(self) -> Result<Recorded, Unusable> {
        let settings = mesh::settings(self.layer).map_err(|problems| {
            let reasons: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Unusable::Damaged(reasons.join("; "))
        })?;
        let mut config = settings.config;
        config.dialect = match self.rules_as.as_deref() {
            None => Dialect::Sidetrack,
            Some(ISTIO) => Dialect::Istio(OwnerOrder {
                uids: order(&config.proxy.uids, self.uids).ok_or_else(|| invalid(UID_ORDER))?,
                gids: order(&config.proxy.gids, self.gids).ok_or_else(|| invalid(GID_ORDER))?,
            }),
            Some(KUMA) => Dialect::Kuma(self.kuma),
            Some(other) => return Err(Unusable::Unknown(format!("{RULES_AS}={other}"))),
        };
        policy::check(&config).map_err(|error| Unusable::Damaged(error.to_string()))?;
        Ok(Recorded {
            config,
            resolvers: self.resolvers,
            is_of_repair: self.is_of_repair,
            words: Vec::new(),
        })
    }
}

fn invalid(name: &str) -> Unusable {
    Unusable::Damaged(format!("the value of {name} is not valid"))
}

/// The IDs in the order of a record; without one there is at most one ID.
fn order<I: Id>(ids: &Ranges<I>, order: Option<Vec<String>>) -> Option<Vec<I>> {
    let Some(order) = order else {
        return match ids.only() {
            Some(only) => Some(vec![only]),
            None => ids.is_empty().then(Vec::new),
        };
    };
    let order: Vec<I> = order.iter().map(|id| I::new(id.parse().ok()?)).collect::<Option<_>>()?;
    let same = order.iter().copied().collect::<Ranges<I>>() == *ids;
    same.then_some(order)
}
