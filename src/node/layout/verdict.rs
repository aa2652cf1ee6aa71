//! The verdict on each file of a directory, for `status`, logs and metrics.

use super::snapshot::{NotLoaded, Snapshot};
use super::{Choice, Layout, Wanted};
use crate::node::chain::NotAChain;

/// How a runtime and the installer use a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The plugin joins it.
    Joined,
    /// Valid, but another file sorts first or was chosen.
    Unused,
    /// Invalid; another file sorts first, or the order does not matter.
    Broken(NotAChain),
    /// Invalid, and the first file: CRI-O uses the next one, and containerd uses none.
    Blocking(NotAChain),
    /// The installer cannot read it, and a runtime may use it.
    Unreadable(String),
    /// The installer cannot read it and need not: another file sorts first or was chosen.
    Unread(String),
}

impl Verdict {
    /// The names of the variants in `status` and metrics.
    pub const NAMES: [&'static str; 6] = ["joined", "unused", "broken", "blocking", "unreadable", "unread"];

    /// The name of the verdict.
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

    /// The reason as text; empty for valid files.
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

/// A file of the directory and its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The name of the file.
    pub name: String,
    /// The verdict on the file.
    pub verdict: Verdict,
}

/// The verdict on each file under a plan.
pub fn judge(snapshot: &Snapshot, wanted: &Wanted, layout: &Layout) -> Vec<Judged> {
    let joined = layout.source.as_deref();
    let mut is_before = true;
    let counts = matches!(wanted.choice, Choice::First | Choice::Copy(_));
    let names = snapshot.configurations().enumerate();
    names
        .map(|(index, name)| {
            let verdict = match snapshot.load(name) {
                _ if joined == Some(name) => {
                    is_before = false;
                    Verdict::Joined
                }
                Ok(_) => Verdict::Unused,
                Err(NotLoaded::Broken(reason)) if counts && index == 0 => Verdict::Blocking(reason),
                Err(NotLoaded::Broken(reason)) => Verdict::Broken(reason),
                Err(NotLoaded::Unreadable(why)) if counts && is_before => Verdict::Unreadable(why),
                Err(NotLoaded::Unreadable(why)) => Verdict::Unread(why),
            };
            let name = name.to_owned();
            Judged { name, verdict }
        })
        .collect()
}
