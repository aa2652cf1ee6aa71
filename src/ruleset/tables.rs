//! The tables of nf_tables that hold the rules: one for both IP families, or one for each.

use std::borrow::Cow;

use super::{Chain, ChainType, Match, Ruleset, TABLE};
use crate::types::{Families, Family};

/// The family of a table. It determines the packets that pass the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableFamily {
    /// Both IP families: nft's `inet`.
    #[default]
    Inet,
    /// One of them: nft's `ip` or `ip6`.
    Only(Family),
}

impl TableFamily {
    /// Every family.
    pub const ALL: [Self; 3] = [Self::Inet, Self::Only(Family::V4), Self::Only(Family::V6)];

    /// The name of the family in nft.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Only(Family::V4) => "ip",
            Self::Only(Family::V6) => "ip6",
        }
    }

    /// Our table of this family, as a person writes it.
    pub fn title(self) -> String {
        format!("{} {TABLE}", self.name())
    }

    /// The family of the table owned by sidetrack with this title (`FAMILY NAME`), if it is one.
    pub fn of_own_table(title: &str) -> Option<Self> {
        let (family, _) = title.split_once(' ').filter(|(_, name)| *name == TABLE)?;
        Self::ALL.into_iter().find(|known| known.name() == family)
    }
}

/// How rules are distributed over tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One table for both families. NAT in it needs Linux 5.2.
    OneTable,
    /// A table for each family.
    PerFamily,
}

impl Layout {
    /// The families of its tables.
    pub fn families(self) -> &'static [TableFamily] {
        let [one_table, per_family @ ..] = &TableFamily::ALL;
        match self {
            Self::OneTable => std::slice::from_ref(one_table),
            Self::PerFamily => per_family,
        }
    }
}

impl Ruleset {
    /// The tables of a layout, and the rules of each. There is none for a family that no rule is about.
    pub fn tables(&self, layout: Layout) -> Vec<(TableFamily, Cow<'_, Self>)> {
        match layout {
            Layout::OneTable => vec![(TableFamily::Inet, Cow::Borrowed(self))],
            Layout::PerFamily => {
                let table = |family| (TableFamily::Only(family), Cow::Owned(self.of_family(family)));
                let families = match self.chains.iter().any(Chain::covers_both_families) {
                    true => Families::Both,
                    false => self.families,
                };
                families.iter().map(table).collect()
            }
        }
    }

    /// The rules that packets of one family meet, without the matches that say so.
    #[must_use]
    pub fn of_family(&self, family: Family) -> Self {
        let mut ruleset = self.clone();
        if !ruleset.families.contains(family) {
            ruleset
                .chains
                .retain(|chain| chain.hook.is_none() || chain.covers_both_families());
            ruleset.timeouts = None;
        }
        ruleset.families = Families::Only(family);
        for chain in &mut ruleset.chains {
            chain.rules.retain(|rule| rule.can_match(family));
            for rule in &mut chain.rules {
                rule.matches.retain(|matched| !matches!(matched, Match::Family(_)));
            }
        }
        ruleset
            .chains
            .retain(|chain| chain.hook.is_none() || !chain.rules.is_empty());
        ruleset.remove_unreachable();
        ruleset
    }
}

impl Chain {
    /// Whether it is a base chain for packets of both families, whatever [`Ruleset::families`] says.
    fn covers_both_families(&self) -> bool {
        self.hook.is_some_and(|hook| hook.kind == ChainType::Filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_titles_of_own_tables_are_recognised() {
        for family in TableFamily::ALL {
            assert_eq!(TableFamily::of_own_table(&family.title()), Some(family));
        }
        for title in [
            "ip nat",
            "arp sidetrack",
            "inet sidetrack2",
            "sidetrack",
            "ip sidetrack x",
        ] {
            assert_eq!(TableFamily::of_own_table(title), None, "{title}");
        }
    }
}
