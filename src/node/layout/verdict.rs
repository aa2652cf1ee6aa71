//! What becomes of each file of a directory: for `status`, logs and metrics.

use super::snapshot::{NotTaken, Snapshot};
use super::{Choice, Layout, Wanted};
use crate::node::chain::NotAChain;

/// What becomes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Our plugin is to be part of it.
    Joined,
    /// It could be taken, but another one comes first or was chosen.
    Unused,
    /// No runtime takes it; others come before it, or none of them counts.
    Broken(NotAChain),
    /// No runtime takes it, and it is the first: CRI-O goes on to the next one, and containerd takes none at all.
    Blocking(NotAChain),
    /// It cannot be read from here, and a runtime may take it.
    Unreadable(String),
    /// It cannot be read from here, and does not have to be, since another one comes first or was chosen.
    Unread(String),
}

impl Verdict {
    /// The name of each, in `status` and in metrics.
    pub const NAMES: [&'static str; 6] = ["joined", "unused", "broken", "blocking", "unreadable", "unread"];

    /// Its name.
    pub fn name(&self) -> &'static str {
        let [joined, unused, broken, blocking, unreadable, unread] = Self::NAMES;
        match self {
            Self::Joined => joined,
            Self::Unused => unused,
            Self::Broken(_) => broken,
            Self::Blocking(_) => blocking,
            Self::Unreadable(_) => unreadable,
            Self::Unread(_) => unread,
        }
    }

    /// Why, in words; empty where it is as it should be.
    pub fn reason(&self) -> String {
        match self {
            Self::Joined | Self::Unused => String::new(),
            Self::Broken(reason) => reason.to_string(),
            Self::Blocking(reason) => format!(
                "{reason}. It is the first: containerd takes no configuration until it is repaired or removed, and CRI-O \
                 takes the next one"
            ),
            Self::Unreadable(why) | Self::Unread(why) => why.clone(),
        }
    }
}

/// A file of the directory, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of each file, where this was decided.
pub fn judge(snapshot: &Snapshot, wanted: &Wanted, layout: &Layout) -> Vec<Judged> {
    let joined = layout.source.as_deref();
    let mut is_before = true;
    let counts = wanted.choice == Choice::First;
    let names = snapshot.configurations().enumerate();
    names
        .map(|(index, name)| {
            let verdict = match snapshot.load(name) {
                _ if joined == Some(name) => {
                    is_before = false;
                    Verdict::Joined
                }
                Ok(_) => Verdict::Unused,
                Err(NotTaken::Broken(reason)) if counts && index == 0 => Verdict::Blocking(reason),
                Err(NotTaken::Broken(reason)) => Verdict::Broken(reason),
                Err(NotTaken::Unreadable(why)) if counts && is_before => Verdict::Unreadable(why),
                Err(NotTaken::Unreadable(why)) => Verdict::Unread(why),
            };
            let name = name.to_owned();
            Judged { name, verdict }
        })
        .collect()
}
