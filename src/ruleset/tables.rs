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
    use crate::facts::Facts;
    use crate::options::Settings;
    use crate::plan::Plan;
    use crate::types::{IpFamily, Policy, parse_cidrs};

    fn ruleset(change: impl FnOnce(&mut Settings)) -> Ruleset {
        let mut settings = Settings::default();
        change(&mut settings);
        Plan::new(&settings.config, &Facts::default()).unwrap().ruleset
    }

    #[test]
    fn a_table_of_one_family_has_nothing_of_the_other() {
        let both = ruleset(|settings| {
            settings.config.outbound.exclude_cidrs = parse_cidrs("10.0.0.0/8,192.0.2.0/24,fd00::/8,fe80::/10").unwrap();
        });
        for family in Family::BOTH {
            let one = both.of_family(family);
            let matches = one
                .chains
                .iter()
                .flat_map(|chain| &chain.rules)
                .flat_map(|rule| &rule.matches);
            for matched in matches {
                assert!(!matches!(matched, Match::Family(_)), "{matched:?}");
                assert!(matched.family().is_none_or(|only| only == family), "{matched:?}");
                assert!(matched.set().is_none_or(|set| one.set(set).is_some()), "{matched:?}");
            }
            assert!(one.sets.len() < both.sets.len());
            assert_eq!(one.chains.len(), both.chains.len());
        }
    }

    #[test]
    fn there_is_a_table_for_each_redirected_family() {
        let families = |ruleset: &Ruleset| -> Vec<TableFamily> {
            let tables = ruleset.tables(Layout::PerFamily);
            tables.into_iter().map(|(family, _)| family).collect()
        };
        let [_, v4, v6] = TableFamily::ALL;
        assert_eq!(families(&ruleset(|_| {})), [v4, v6]);
        let only = |family| ruleset(move |settings| settings.config.general.ip_family = family);
        assert_eq!(families(&only(IpFamily::Ipv4)), [v4]);
        assert_eq!(families(&only(IpFamily::Ipv6)), [v6]);
    }

    #[test]
    fn a_policy_has_tables_for_both_families() {
        let locked = ruleset(|settings| {
            settings.config.general.ip_family = IpFamily::Ipv4;
            settings.config.outbound.policy = Policy::ProxyOnly;
        });
        let tables = locked.tables(Layout::PerFamily);
        let hooks = |ruleset: &Ruleset| -> Vec<ChainType> {
            let hooks = ruleset.chains.iter().filter_map(|chain| chain.hook);
            hooks.map(|hook| hook.kind).collect()
        };
        let [(_, v4), (family, v6)] = &tables[..] else {
            panic!("{tables:?}");
        };
        assert!(hooks(v4).contains(&ChainType::Nat));
        assert_eq!(*family, TableFamily::Only(Family::V6));
        assert!(!hooks(v6).is_empty());
        assert!(hooks(v6).iter().all(|kind| *kind == ChainType::Filter));
        assert!(v6.timeouts.is_none());
    }

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
