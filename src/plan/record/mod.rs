//! The record of a plan: the options that it follows from, as text that is installed with the rules.
//!
//! The text is `sidetrack VERSION DIGEST: WORDS`. The words are the options whose values differ from the defaults, as the
//! command line takes them, and some that only a record has. It is cut into comments of rules. After a comma or a
//! semicolon the next comment continues the word; elsewhere it begins another one.
//!
//! The digest covers all words, also those that are left out because the lists in them are too long. It protects from
//! accidents, not from forgery: a process that may change the rules may also change the record.

mod read;
#[cfg(test)]
mod tests;

pub use read::{Recorded, Unusable, read};

use crate::facts::Facts;
use crate::mesh;
use crate::options::{Config, Dialect, KumaRules, Layer, OwnerOrder, Settings};
use crate::ruleset::Record;
use crate::types::DnsServers;

/// The version of the text. It changes with the meaning of a word or the default of an option.
pub const VERSION: u32 = 1;

/// The most bytes of a comment. nft(8) refuses longer ones (`NFTNL_UDATA_COMMENT_MAXLEN` of libnftnl); the kernel keeps
/// 256 bytes of user data with a rule (`NFT_USERDATA_MAXLEN`), and 255 in a comment of iptables (`XT_MAX_COMMENT_LEN`).
pub const MAX_COMMENT_LENGTH: usize = 128;

/// The most comments of a record.
pub const MAX_COMMENTS: usize = 16;

/// The characters after which a long word continues in the next comment.
const BREAKS: [char; 2] = [',', ';'];

/// The program whose rules these are, if its options and sidetrack's alone do not say so.
const RULES_AS: &str = "rules-as";
/// The proxy's users in the order in which Istio's rules have them, if there are several.
const UID_ORDER: &str = "uid-order";
/// The same for its groups.
const GID_ORDER: &str = "gid-order";
/// Kuma's rules redirect DNS over TCP like other connections.
const DNS_OVER_TCP: &str = "dns-over-tcp";
/// Kuma's rules leave captured DNS in the conntrack zone of other traffic.
const ONE_CONNTRACK_ZONE: &str = "one-conntrack-zone";
/// The virtual networks in Kuma's rules.
const VNET: &str = "vnet";
/// `/etc/resolv.conf` named no server whose queries could be captured.
const NO_NAME_SERVERS: &str = "no-name-servers";
/// The installer wrote the rules into a running pod, with the options that the plugin has for the pod.
const BY_REPAIR: &str = "by-repair";
/// The words that are left out.
const OMITTED: &str = "omitted";

/// The names of programs in [`RULES_AS`].
const ISTIO: &str = "istio-iptables";
const KUMA: &str = "kumactl";

/// A word of a record.
struct Word {
    name: &'static str,
    text: String,
}

impl Word {
    /// An option, as the command line takes it.
    fn option(name: &'static str, value: &str) -> Self {
        let text = match value {
            "true" => format!("--{name}"),
            value => format!("--{name}={value}"),
        };
        Self { name, text }
    }

    /// A word that only a record has.
    fn own(name: &'static str, value: &str) -> Self {
        let text = format!("{name}={value}");
        Self { name, text }
    }

    fn own_flag(name: &'static str) -> Self {
        let text = name.to_owned();
        Self { name, text }
    }
}

/// The record of a plan for this configuration and these facts.
pub fn record(config: &Config, facts: &Facts) -> Record {
    of_words(words(config, facts))
}

/// The same for rules that the installer writes into a running pod, which the plugin did not redirect.
pub fn record_of_repair(config: &Config, facts: &Facts) -> Record {
    let mut words = words(config, facts);
    words.push(Word::own_flag(BY_REPAIR));
    of_words(words)
}

fn of_words(mut words: Vec<Word>) -> Record {
    let digest = digest(words.iter().map(|word| word.text.as_str()));
    let head = format!("sidetrack {VERSION} {digest:016x}:");
    let mut omitted = Vec::new();
    loop {
        let note = (!omitted.is_empty()).then(|| format!("{OMITTED}={}", omitted.join(",")));
        let texts = words.iter().map(|word| &word.text).chain(&note);
        let comments = comments(&head, texts.map(String::as_str));
        let longest = (0..words.len()).max_by_key(|at| words[*at].text.len());
        match longest {
            Some(longest) if comments.len() > MAX_COMMENTS => omitted.push(words.remove(longest).name),
            _ => return Record::new(comments),
        }
    }
}

/// The words in the order of the table of options.
fn words(config: &Config, facts: &Facts) -> Vec<Word> {
    let defaults = defaults(config);
    let mut words = dialect(&config.dialect);
    if config.proxy.mesh != Settings::default().config.proxy.mesh {
        words.push(Word::option("mesh", &config.proxy.mesh.to_string()));
    }
    let differing = config.differing(&defaults);
    words.extend(differing.iter().map(|(name, value)| Word::option(name, value)));
    // The file may change, and a process on the node has another one than the pod.
    let uses_file = config.dns.redirect || config.outbound.allow_dns;
    if uses_file && config.dns.servers == DnsServers::ResolvConf {
        const DNS_SERVERS: &str = "dns-servers";
        words.retain(|word| word.name != DNS_SERVERS);
        words.push(match facts.resolvers.as_slice() {
            [] => Word::own_flag(NO_NAME_SERVERS),
            known => Word::option(DNS_SERVERS, &DnsServers::These(known.to_vec()).to_string()),
        });
    }
    words
}

/// The configuration of a plan with the same mesh and no other option.
fn defaults(config: &Config) -> Config {
    let layer = Layer {
        mesh: Some(config.proxy.mesh),
        // Another default depends on these.
        include_outbound_ports: Some(config.outbound.include_ports.clone()),
        ..Layer::default()
    };
    let mut defaults = mesh::settings(layer).unwrap_or_default().config;
    defaults.outbound.include_ports = Settings::default().config.outbound.include_ports;
    defaults
}

fn dialect(dialect: &Dialect) -> Vec<Word> {
    match dialect {
        Dialect::Sidetrack => Vec::new(),
        Dialect::Istio(OwnerOrder { uids, gids }) => {
            let order = |name, ids: Vec<String>| (ids.len() > 1).then(|| Word::own(name, &ids.join(",")));
            let uids = order(UID_ORDER, uids.iter().map(ToString::to_string).collect());
            let gids = order(GID_ORDER, gids.iter().map(ToString::to_string).collect());
            let words = [Some(Word::own(RULES_AS, ISTIO)), uids, gids];
            words.into_iter().flatten().collect()
        }
        Dialect::Kuma(KumaRules {
            redirects_dns_over_tcp,
            splits_conntrack_zones,
            networks,
        }) => {
            let networks: Vec<String> = networks
                .iter()
                .map(|network| format!("{}:{}", network.interface, network.cidr))
                .collect();
            let words = [
                Some(Word::own(RULES_AS, KUMA)),
                redirects_dns_over_tcp.then(|| Word::own_flag(DNS_OVER_TCP)),
                (!splits_conntrack_zones).then(|| Word::own_flag(ONE_CONNTRACK_ZONE)),
                (!networks.is_empty()).then(|| Word::own(VNET, &networks.join(","))),
            ];
            words.into_iter().flatten().collect()
        }
    }
}

/// The head and the words, cut into comments. Ends early if there are too many.
fn comments<'w>(head: &str, words: impl Iterator<Item = &'w str>) -> Vec<String> {
    let (mut comments, mut last) = (Vec::new(), head.to_owned());
    for word in words {
        for (number, part) in parts(word).enumerate() {
            let separator = if number == 0 { " " } else { "" };
            if last.len() + separator.len() + part.len() <= MAX_COMMENT_LENGTH {
                last += separator;
                last += part;
            } else {
                comments.push(std::mem::replace(&mut last, part.to_owned()));
                if comments.len() > MAX_COMMENTS {
                    return comments;
                }
            }
        }
    }
    comments.push(last);
    comments
}

/// The parts of a word, between which a comment may end. A path alone is too long without a break at a slash.
fn parts(word: &str) -> impl Iterator<Item = &str> {
    word.split_inclusive(BREAKS).flat_map(|part| {
        let is_long = part.len() >= MAX_COMMENT_LENGTH;
        part.split_inclusive(move |c| is_long && c == '/')
    })
}

/// The digest of the words of a record, with a space between them: 64-bit FNV-1a.
pub fn digest<'w>(words: impl IntoIterator<Item = &'w str>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let add = |hash: u64, text: &str| {
        let bytes = text.bytes();
        bytes.fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
    };
    let mut words = words.into_iter();
    let first = words.next().map_or(OFFSET, |word| add(OFFSET, word));
    words.fold(first, |hash, word| add(add(hash, " "), word))
}
