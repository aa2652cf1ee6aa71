//! What an annotation of a mesh says, in terms of options: one definition gives what is read and what is documented.

use std::fmt;

use super::Annotations;
use crate::mesh::MESHES;
use crate::types::Invalid;

/// An annotation, and what it says in our terms.
#[derive(Debug)]
pub struct Annotation {
    /// Its name.
    pub name: &'static str,
    /// What its value means.
    pub meaning: Meaning,
    /// What its presence says where neither an annotation nor the NetConf says otherwise.
    pub implies: &'static Said,
}

/// Options, each with its text as a flag would have it.
pub type Said = [(&'static str, &'static str)];

/// What the value of an annotation means.
#[derive(Debug)]
pub enum Meaning {
    /// The texts of this option.
    Option(&'static str),
    /// Ports of this option in a list as iptables takes it: `80`, `9000:9100`, `:80`.
    IptablesPorts(&'static str),
    /// True or false in one of these spellings; any other text is refused.
    Switch {
        /// What yes says.
        on: &'static Said,
        /// What no says.
        off: &'static Said,
    },
    /// A boolean as Go's `strconv.ParseBool` reads it, for meshes that take any other text for false.
    GoBoolean {
        /// What true says.
        on: &'static Said,
        /// What false says.
        off: &'static Said,
    },
    /// One of these words, and what each says.
    Word(&'static [(&'static str, &'static Said)]),
    /// A port that is left alone inbound besides all others; 0 for none.
    AlsoExcludedInbound,
    /// Kuma's entries of ports and users, separated by `;`, of this protocol unless it is empty. They add up.
    KumaPortsForUids(&'static str),
    /// A port that the mesh serves in the pod, instead of one of those that it serves otherwise; 0 for no other.
    Served {
        /// The port that it is otherwise.
        instead_of: u16,
        /// All ports that it serves otherwise.
        of: &'static [u16],
    },
    /// YAML or JSON: members by their paths, and what each means.
    Document(&'static [(&'static str, Meaning)]),
    /// Whatever this function makes of it.
    Read(Reader),
}

/// Options, each with a text that depends on a value.
pub type Options = Vec<(&'static str, String)>;

/// A value that a function reads.
#[derive(Debug)]
pub struct Reader {
    /// What it means, for the documentation.
    pub help: &'static str,
    /// The options that it names, each with its text as a flag would have it.
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

/// Every annotation of a mesh that says something about redirection. Where several say something about the same
/// option, the first one counts.
pub fn all() -> impl Iterator<Item = &'static Annotation> {
    MESHES.iter().flat_map(|mesh| mesh.annotations)
}
