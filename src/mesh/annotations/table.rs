//! The meaning of the meshes' annotations in terms of options: one table for parsing and documentation.

use std::fmt;

use super::Annotations;
use crate::mesh::MESHES;
use crate::types::Invalid;

/// An annotation and its meaning in terms of options.
#[derive(Debug)]
pub struct Annotation {
    /// Its name.
    pub name: &'static str,
    /// The meaning of its value.
    pub meaning: Meaning,
    /// Options that its presence sets, unless an annotation or the NetConf sets them.
    pub implies: &'static Said,
}

/// Options, each with its value in the notation of its flag.
pub type Said = [(&'static str, &'static str)];

/// The meaning of the value of an annotation.
#[derive(Debug)]
pub enum Meaning {
    /// The value of this option.
    Option(&'static str),
    /// Ports of this option in the notation of iptables: `80`, `9000:9100`, `:80`.
    IptablesPorts(&'static str),
    /// A boolean in one of several spellings; any other value is rejected.
    Switch {
        /// The options for yes.
        on: &'static Said,
        /// The options for no.
        off: &'static Said,
    },
    /// A boolean as Go's `strconv.ParseBool` reads it, for meshes that read any other value as false.
    GoBoolean {
        /// The options for true.
        on: &'static Said,
        /// The options for false.
        off: &'static Said,
    },
    /// One of these words, each with its options.
    Word(&'static [(&'static str, &'static Said)]),
    /// An additional excluded inbound port; 0 for none.
    AlsoExcludedInbound,
    /// Kuma's entries of ports and users, separated by `;`, of this protocol unless it is empty. Several annotations add up.
    KumaPortsForUids(&'static str),
    /// The replacement of a default port that the mesh serves in the pod; 0 keeps the default.
    Served {
        /// The default port.
        instead_of: u16,
        /// All default ports of the mesh.
        of: &'static [u16],
    },
    /// YAML or JSON: members by their paths, each with its meaning.
    Document(&'static [(&'static str, Meaning)]),
    /// A value that a function reads.
    Read(Reader),
}

/// Options, each with its value in the notation of its flag.
pub type Options = Vec<(&'static str, String)>;

/// A value that a function reads.
#[derive(Debug)]
pub struct Reader {
    /// The meaning, for the documentation.
    pub help: &'static str,
    /// Returns the options that a value sets.
    pub read: fn(&str, &Annotations) -> Result<Options, Invalid>,
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &'static str| if text.is_empty() { "\"\"" } else { text };
        let said = |said: &'static Said| {
            let texts: Vec<String> = said
                .iter()
                .map(|(option, of)| format!("`{option}: {}`", text(of)))
                .collect();
            if texts.is_empty() {
                "nothing".to_owned()
            } else {
                texts.join(" and ")
            }
        };
        match self {
            Self::Option(option) => write!(f, "`{option}`"),
            Self::IptablesPorts(option) => write!(f, "`{option}`; a range is `a:b` or `a-b`"),
            Self::Switch { on, off } => write!(f, "true: {}; false: {}", said(on), said(off)),
            Self::GoBoolean { on, off } => write!(f, "true: {}; else: {}", said(on), said(off)),
            Self::Word(words) => {
                let words: Vec<String> = words
                    .iter()
                    .map(|(word, says)| format!("`{word}`: {}", said(says)))
                    .collect();
                f.write_str(&words.join("; "))
            }
            Self::AlsoExcludedInbound => f.write_str("added to `exclude-inbound-ports`; 0 is none"),
            Self::KumaPortsForUids("") => f.write_str("added to `exclude-outbound-ports-for-uids`"),
            Self::KumaPortsForUids(protocol) => {
                let protocol = protocol.to_uppercase();
                write!(f, "added to `exclude-outbound-ports-for-uids`, {protocol} alone")
            }
            Self::Served { instead_of, .. } => {
                write!(f, "in `mesh-ports` instead of {instead_of}; 0 says nothing")
            }
            Self::Document(members) => {
                let members: Vec<String> = members
                    .iter()
                    .map(|(path, meaning)| format!("{path} = {meaning}"))
                    .collect();
                f.write_str(&members.join("<br>"))
            }
            Self::Read(reader) => f.write_str(reader.help),
        }
    }
}

pub(in crate::mesh) const NOTHING: &Said = &[];

pub(in crate::mesh) const fn annotation(name: &'static str, meaning: Meaning) -> Annotation {
    Annotation {
        name,
        meaning,
        implies: NOTHING,
    }
}

pub(in crate::mesh) const fn option(name: &'static str, option: &'static str) -> Annotation {
    annotation(name, Meaning::Option(option))
}

pub(in crate::mesh) const DROP_INVALID: Meaning = Meaning::Switch {
    on: &[("drop-invalid", "true")],
    off: &[("drop-invalid", "false")],
};

pub(in crate::mesh) const REDIRECT_DNS: Meaning = Meaning::Switch {
    on: &[("redirect-dns", "true")],
    off: &[("redirect-dns", "false")],
};

pub(in crate::mesh) const ALL_DNS_SERVERS: Meaning = Meaning::Switch {
    on: &[("dns-servers", "all")],
    off: NOTHING,
};

pub(in crate::mesh) const NO_INBOUND: &Said = &[("include-inbound-ports", "")];

/// Every annotation of a mesh that configures redirection. If several set the same option, the first one applies.
pub fn all() -> impl Iterator<Item = &'static Annotation> {
    MESHES.iter().flat_map(|mesh| mesh.annotations)
}
