//! Our tables: one for both IP families or one for each, written and read as a whole.

use nix::errno::Errno;

use super::transaction::{Nftables, NftablesError, malformed, retry_interrupted};
use super::{Listing, Message, Object, Step, encode, request};
use crate::backend::{Change, KernelError, Observed, Rules};
use crate::drift::{Difference, Subject};
use crate::linux::netlink::{NetlinkError, attempts};
use crate::linux::release::Release;
use crate::ruleset::{Counts, Installed, Layout, Ruleset, TABLE, TableFamily};
use crate::stats::Stats;
use crate::types::Family;

/// Attempts to update the tables by comparison, before they are replaced without reading them.
const MAX_COMPARE_ATTEMPTS: usize = 8;

/// The first kernel that translates the replies of a connection back without a chain of type nat at every hook, beside
/// other chains of that type at the same hook.
const FIRST_WITH_NAT_PER_FAMILY: Release = Release(4, 18);

/// The tables owned by sidetrack, in one layout.
pub struct OwnTables<'n> {
    nftables: &'n mut Nftables,
    layout: Layout,
}

/// What the observation found, which saves requests and need not be right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether there are tables of this layout.
    pub any: bool,
    /// Every table owned by sidetrack.
    pub tables: Vec<TableFamily>,
}

impl Found {
    /// From an observation, for this layout.
    pub fn of(observed: &Observed, layout: Layout) -> Self {
        let tables = observed.own_tables();
        Self {
            any: layout.families().iter().any(|family| tables.contains(family)),
            tables,
        }
    }
}

impl<'n> OwnTables<'n> {
    /// Over this socket.
    pub fn new(nftables: &'n mut Nftables, layout: Layout) -> Self {
        Self { nftables, layout }
    }

    /// Makes our tables hold exactly `ruleset` in one transaction, which also deletes those of the other layout; sends
    /// none if they do already.
    ///
    /// # Errors
    /// Writing failed or is not permitted. Nothing changed, except with [`NftablesError::Unanswered`].
    pub fn apply(&mut self, ruleset: &Ruleset, found: &Found) -> Result<Change, NftablesError> {
        if self.layout == Layout::PerFamily {
            let release = Release::of_this_kernel().filter(|release| *release < FIRST_WITH_NAT_PER_FAMILY);
            if let Some(release) = release {
                return Err(NftablesError::TooOld(release));
            }
        }
        let mut unanswered = None;
        match self.try_apply(ruleset, found, &mut unanswered) {
            Err(error) => Err(unanswered.map_or(error, |(_, lost)| NftablesError::Unanswered(lost))),
            done => done,
        }
    }

    /// The same. A transaction whose acknowledgement was lost is stored in `unanswered`, with the change it makes if it
    /// was committed: the next read of the tables shows that.
    fn try_apply(
        &mut self,
        ruleset: &Ruleset,
        found: &Found,
        unanswered: &mut Option<(Change, NetlinkError)>,
    ) -> Result<Change, NftablesError> {
        let tables = ruleset.tables(self.layout);
        let is_wanted = |family: &TableFamily| tables.iter().any(|(wanted, _)| wanted == family);
        let stale: Vec<TableFamily> = found
            .tables
            .iter()
            .copied()
            .filter(|family| !is_wanted(family))
            .collect();
        let discard = || stale.iter().copied().flat_map(encode::discard);
        let mut steps: Vec<Step> = Vec::new();
        for (family, ruleset) in &tables {
            steps.extend(encode::create_in(*family, ruleset));
        }
        steps.extend(discard());
        if !found.any {
            match self.nftables.commit(&steps, None) {
                Ok(()) => return Ok(Change::Created),
                // For any other step, an existing object would be a bug.
                Err(NftablesError::Refused {
                    object: Object::Table(_),
                    refusal,
                }) if refusal.errno == Errno::EEXIST => tracing::debug!("another process created our table meanwhile"),
                Err(NftablesError::Unanswered(lost)) => *unanswered = Some((Change::Created, lost)),
                Err(error) => return Err(error),
            }
        }
        // The steps of a table follow each other.
        let of_tables = steps.chunk_by(|one, next| one.family == next.family).take(tables.len());
        let planned: Vec<Listing> = of_tables.map(Listing::of_steps).collect();
        let families: Vec<TableFamily> = tables.iter().map(|(family, _)| *family).collect();
        for attempt in attempts().take(MAX_COMPARE_ATTEMPTS) {
            let (generation, present, counts) = match self.read(&families) {
                Err(NftablesError::Netlink(NetlinkError::Interrupted)) => continue,
                read => read?,
            };
            if present == planned && (stale.is_empty() || unanswered.is_some()) {
                return Ok(unanswered.take().map_or(Change::Unchanged, |(change, _)| change));
            }
            *unanswered = None; // It was not committed.
            let mut steps: Vec<Step> = Vec::new();
            let installed = present.iter().zip(counts);
            for ((_, ruleset), (planned, (present, counts))) in tables.iter().zip(planned.iter().zip(installed)) {
                if planned != present {
                    let counts = carried_over(present, counts, ruleset);
                    steps.extend(encode::replace(ruleset, planned, present, &counts));
                }
            }
            steps.extend(discard());
            match self.nftables.commit(&steps, Some(generation)) {
                Ok(()) => return Ok(Change::Replaced),
                Err(error) if error.is_stale_generation() => {
                    tracing::debug!(attempt, "another process changed the ruleset; reading it again");
                }
                Err(NftablesError::Unanswered(lost)) => *unanswered = Some((Change::Replaced, lost)),
                Err(error) => return Err(error),
            }
        }
        tracing::debug!("other processes keep changing the ruleset; replacing our tables without reading them");
        if ruleset.has_counters() {
            tracing::warn!("counters begin at 0: the rules were replaced without reading them");
        }
        self.renew(ruleset, &stale)?;
        Ok(Change::Replaced)
    }

    /// Replaces our tables with `ruleset` without reading them, and deletes these `stale` ones, in one transaction that
    /// no other process can interrupt.
    ///
    /// # Errors
    /// Writing failed or is not permitted. Nothing changed, except with [`NftablesError::Unanswered`].
    pub fn renew(&mut self, ruleset: &Ruleset, stale: &[TableFamily]) -> Result<(), NftablesError> {
        let mut steps: Vec<Step> = Vec::new();
        for (family, ruleset) in &ruleset.tables(self.layout) {
            steps.extend(encode::renew(*family, ruleset));
        }
        steps.extend(stale.iter().copied().flat_map(encode::discard));
        self.nftables.commit(&steps, None)
    }

    /// The differences of our tables from `ruleset`.
    ///
    /// # Errors
    /// Reading failed.
    pub fn differences(&mut self, ruleset: &Ruleset) -> Result<Vec<Difference>, NftablesError> {
        // Other options may have led to the same rules.
        let ruleset = &ruleset.without_record();
        let present = self.listings(self.layout.families())?;
        let present: Vec<Listing> = present.into_iter().map(super::without_record).collect();
        let planned = self.planned(ruleset);
        if present == planned {
            return Ok(Vec::new());
        }
        // A kernel without ct timeout objects can only hold rules without timeouts.
        if present == self.planned(&ruleset.without_timeouts()) && self.lacks_timeouts(ruleset)? {
            return Ok(Vec::new());
        }
        let mut differences = Vec::new();
        for (planned, present) in planned
            .iter()
            .zip(&present)
            .filter(|(planned, present)| planned != present)
        {
            let table = planned.family.title();
            let contents = |listing| super::contents(&table, listing, &|cgroup| ruleset.cgroup_path(cgroup));
            let (planned, present) = (contents(planned), contents(present));
            differences.extend(planned.compare_unequal(&present, Subject::Table { table: table.clone() }));
        }
        Ok(differences)
    }

    /// The planned contents of each table of the layout, also of those that should be empty or absent.
    fn planned(&self, ruleset: &Ruleset) -> Vec<Listing> {
        let tables = ruleset.tables(self.layout);
        let listing = |family: &TableFamily| match tables.iter().find(|(wanted, _)| wanted == family) {
            Some((_, ruleset)) => Listing::of_steps(&encode::create_in(*family, ruleset)),
            None => Listing::empty(*family),
        };
        self.layout.families().iter().map(listing).collect()
    }

    /// The rules of our tables that packets of a family pass; none if there are no tables.
    ///
    /// # Errors
    /// Reading failed.
    pub fn installed(&mut self, family: Family) -> Result<Installed, NftablesError> {
        let family = self.table_of(family);
        let listings = self.listings(&[family])?;
        Ok(super::decode(listings.first().unwrap_or(&Listing::empty(family))))
    }

    /// The same, and the values of their counters.
    ///
    /// # Errors
    /// Reading failed.
    pub fn counts(&mut self, family: Family) -> Result<(Installed, Counts), NftablesError> {
        let family = self.table_of(family);
        let (_, listings, counts) = retry_interrupted(|| self.read(&[family]))?;
        let read = listings.into_iter().zip(counts).next();
        let (listing, counts) = read.unwrap_or((Listing::empty(family), Counts::default()));
        Ok(counted(&listing, counts))
    }

    fn table_of(&self, family: Family) -> TableFamily {
        match self.layout {
            Layout::OneTable => TableFamily::Inet,
            Layout::PerFamily => TableFamily::Only(family),
        }
    }

    /// Whether the kernel lacks ct timeout objects for these rules. Changes nothing.
    fn lacks_timeouts(&mut self, ruleset: &Ruleset) -> Result<bool, NftablesError> {
        let tables = ruleset.tables(self.layout);
        let (Some(timeouts), Some((family, _))) = (&ruleset.timeouts, tables.first()) else {
            return Ok(false);
        };
        let steps = encode::only_timeouts(*family, timeouts);
        match self.nftables.exchange(encode::rehearsal(&steps, None)?, &steps) {
            Ok(()) => Ok(false),
            Err(error) if error.lacks_timeouts() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes our tables. Returns whether there was any.
    ///
    /// # Errors
    /// Removing failed or is not permitted; or [`NftablesError::Unanswered`].
    pub fn remove(&mut self) -> Result<bool, NftablesError> {
        let mut any = false;
        for family in self.layout.families() {
            any |= self.remove_table(*family)?;
        }
        Ok(any)
    }

    fn remove_table(&mut self, family: TableFamily) -> Result<bool, NftablesError> {
        let mut unanswered = None;
        for _ in attempts() {
            match self.nftables.commit(&encode::remove(family), None) {
                Ok(()) => return Ok(true),
                Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(unanswered.is_some()),
                Err(NftablesError::Unanswered(lost)) => unanswered = Some(lost),
                Err(error) => return Err(unanswered.map_or(error, NftablesError::Unanswered)),
            }
        }
        Err(unanswered.map_or(NftablesError::Busy, NftablesError::Unanswered))
    }

    fn listings(&mut self, families: &[TableFamily]) -> Result<Vec<Listing>, NftablesError> {
        let (_, present, _) = retry_interrupted(|| self.read(families))?;
        Ok(present)
    }

    /// The generation of the ruleset, the contents of our tables of these families, and the values of their counters.
    /// Reading takes several requests; if the ruleset changes between them, the answers are inconsistent, and the read
    /// counts as interrupted.
    fn read(&mut self, families: &[TableFamily]) -> Result<(u32, Vec<Listing>, Vec<Counts>), NftablesError> {
        let generation = self.nftables.generation()?;
        let listings = families.iter().map(|family| self.read_table(*family));
        let mut listings = listings.collect::<Result<Vec<Listing>, _>>()?;
        if self.nftables.generation()? != generation {
            return Err(NetlinkError::Interrupted.into());
        }
        let counts = listings.iter_mut().map(Listing::take_counts).collect();
        Ok((generation, listings, counts))
    }

    fn read_table(&mut self, family: TableFamily) -> Result<Listing, NftablesError> {
        let number = encode::number(family);
        let tables = self.nftables.dump(request::tables(number))?;
        let chains = self.nftables.dump(request::chains(number))?;
        let mut messages: Vec<Message> = tables.into_iter().chain(chains).collect();
        messages.retain(|message| message.table().is_some_and(|table| table == TABLE));
        messages.extend(self.nftables.dump(request::rules_of_family(number, TABLE))?);
        // Old kernels ignore the table's name in this request and list the objects of all tables.
        let mut objects = self.nftables.dump(request::objects(number, TABLE))?;
        objects.retain(|message| message.table().is_some_and(|table| table == TABLE));
        messages.extend(objects);
        messages.extend(self.nftables.sets(number, TABLE)?);
        match messages.as_slice() {
            [] => Ok(Listing::empty(family)),
            messages => Listing::of(messages).map_err(malformed),
        }
    }
}

/// The rules of a listing, and the values of the counters of those that can be read.
fn counted(listing: &Listing, counts: Counts) -> (Installed, Counts) {
    let installed = super::decode(listing);
    let counts = counts.of_readable(&installed);
    (installed, counts)
}

/// The values that the counters of `ruleset` begin with. Connections that the old rules count after this read are lost to
/// them.
fn carried_over(listing: &Listing, counts: Counts, ruleset: &Ruleset) -> Counts {
    if counts.is_empty() {
        return Counts::default();
    }
    let (installed, counts) = counted(listing, counts);
    Stats::new(&installed.ruleset, &counts).carried_over(ruleset)
}

impl Rules for OwnTables<'_> {
    fn apply(&mut self, ruleset: &Ruleset, observed: &Observed) -> Result<Change, KernelError> {
        let found = Found::of(observed, self.layout);
        Ok(Self::apply(self, ruleset, &found)?)
    }

    fn remove(&mut self) -> Result<bool, KernelError> {
        Ok(Self::remove(self)?)
    }

    fn installed(&mut self, family: Family) -> Result<Installed, KernelError> {
        Ok(Self::installed(self, family)?)
    }

    fn counts(&mut self, family: Family) -> Result<(Installed, Counts), KernelError> {
        Ok(Self::counts(self, family)?)
    }

    fn differences(&mut self, ruleset: &Ruleset) -> Result<Vec<Difference>, KernelError> {
        Ok(Self::differences(self, ruleset)?)
    }
}
