//! How fast to insist where another process keeps reverting our changes, and how often to disturb: pure decisions.

use std::time::{Duration, Instant};

/// As many repairs in a row are made at once.
const AT_ONCE: u32 = 5;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(32);
/// After this long without anybody undoing the last repair, the row is over.
const PEACE: Duration = Duration::from_secs(60);

/// The row of repairs that were undone, each soon after it was made.
#[derive(Debug, Default)]
pub struct Pace {
    in_a_row: u32,
    last: Option<Instant>,
    due: Option<Instant>,
}

impl Pace {
    /// How long to wait until the repair that is needed. The first that asks sets the time.
    pub fn wait(&mut self, now: Instant) -> Duration {
        if self.due.is_none() && !self.is_recent(now) {
            self.in_a_row = 0;
        }
        let delay = self.in_a_row.checked_sub(AT_ONCE).map_or(Duration::ZERO, growing);
        self.due.get_or_insert(now + delay).saturating_duration_since(now)
    }

    /// A repair was made.
    pub fn repaired(&mut self, now: Instant) {
        self.in_a_row += 1;
        self.last = Some(now);
        self.due = None;
    }

    /// No repair is needed.
    pub fn nothing_to_do(&mut self) {
        self.due = None;
    }

    /// Whether a repair waits for its time.
    pub fn is_waiting(&self) -> bool {
        self.due.is_some()
    }

    /// Whether repairs are slowed down, since somebody keeps undoing them.
    pub fn is_contended(&self, now: Instant) -> bool {
        self.in_a_row >= AT_ONCE && (self.is_waiting() || self.is_recent(now))
    }

    /// How many repairs were made in a row.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.last
            .is_some_and(|last| now.saturating_duration_since(last) <= PEACE)
    }
}

/// At most one action in each interval.
#[derive(Debug)]
pub struct Spacing {
    interval: Duration,
    next: Option<Instant>,
}

impl Spacing {
    /// Where nothing was done yet, an action may be taken at once.
    pub fn new(interval: Duration) -> Self {
        Self { interval, next: None }
    }

    /// How long to wait until the next action.
    pub fn wait(&self, now: Instant) -> Duration {
        self.next
            .map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// An action was taken.
    pub fn acted(&mut self, now: Instant) {
        self.next = now.checked_add(self.interval);
    }
}

/// Waits that grow with what went before: 1 second, 2, 4, and so on up to `LONGEST`.
pub fn growing(before: u32) -> Duration {
    Duration::from_secs(1 << before.min(16)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When repairs are made, in seconds, if each is undone at once.
    fn fight(repairs: usize) -> Vec<u64> {
        let start = Instant::now();
        let (mut pace, mut now, mut times) = (Pace::default(), start, Vec::new());
        for _ in 0..repairs {
            now += pace.wait(now);
            assert_eq!(pace.wait(now), Duration::ZERO);
            pace.repaired(now);
            times.push((now - start).as_secs());
        }
        times
    }

    #[test]
    fn a_fight_gets_slower() {
        assert_eq!(fight(12), [0, 0, 0, 0, 0, 1, 3, 7, 15, 31, 63, 95]);
    }

    #[test]
    fn a_wait_is_not_begun_anew_by_each_look() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..7 {
            pace.repaired(start);
        }
        assert_eq!(pace.wait(start), Duration::from_secs(4));
        assert_eq!(pace.wait(start + Duration::from_secs(3)), Duration::from_secs(1));
        assert_eq!(pace.wait(start + Duration::from_secs(9)), Duration::ZERO);
    }

    #[test]
    fn a_minute_of_peace_ends_it() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.repaired(start);
        }
        assert!(pace.is_contended(start));
        let later = start + PEACE + Duration::from_secs(1);
        assert!(!pace.is_contended(later));
        assert_eq!(pace.wait(later), Duration::ZERO);
        assert_eq!(pace.in_a_row(), 0);
    }

    #[test]
    fn repairs_now_and_then_are_no_fight() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..50 {
            assert_eq!(pace.wait(now), Duration::ZERO);
            pace.repaired(now);
            now += PEACE + Duration::from_secs(1);
        }
    }

    #[test]
    fn a_repair_that_waits_is_forgotten_where_it_is_not_needed_any_more() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..8 {
            pace.repaired(start);
        }
        assert!(!pace.wait(start).is_zero() && pace.is_waiting());
        pace.nothing_to_do();
        assert!(!pace.is_waiting() && pace.is_contended(start));
        assert!(!pace.is_contended(start + 2 * PEACE));
    }

    #[test]
    fn an_action_waits_for_the_interval_after_the_last_one() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut spacing = Spacing::new(30 * second);
        assert_eq!(spacing.wait(start), Duration::ZERO);
        spacing.acted(start);
        assert_eq!(spacing.wait(start + 10 * second), 20 * second);
        assert_eq!(spacing.wait(start + 31 * second), Duration::ZERO);
        let mut unlimited = Spacing::new(Duration::ZERO);
        unlimited.acted(start);
        assert_eq!(unlimited.wait(start), Duration::ZERO);
    }

    #[test]
    fn waits_grow_up_to_the_longest() {
        let waits: Vec<u64> = [0, 1, 2, 5, 6, 60].map(|before| growing(before).as_secs()).to_vec();
        assert_eq!(waits, [1, 2, 4, 32, 32, 32]);
    }
}
