//! The pace of repairs where another process keeps reverting our changes, and of evictions: pure decisions.

use std::time::{Duration, Instant};

/// How many repairs in a row are made without a delay.
const IMMEDIATE_REPAIRS: u32 = 5;
/// The longest delay before a repair.
const MAX_DELAY: Duration = Duration::from_secs(32);
/// After this long without a revert, the next repair has no delay.
const QUIET_PERIOD: Duration = Duration::from_secs(60);

/// The delay of repairs that another process reverts.
#[derive(Debug, Default)]
pub struct Pace {
    consecutive: u32,
    last: Option<Instant>,
    due: Option<Instant>,
}

impl Pace {
    /// How long to wait before the needed repair. The first call sets the time.
    pub fn wait(&mut self, now: Instant) -> Duration {
        if self.due.is_none() && !self.is_recent(now) {
            self.consecutive = 0;
        }
        let delay = self
            .consecutive
            .checked_sub(IMMEDIATE_REPAIRS)
            .map_or(Duration::ZERO, backoff);
        self.due.get_or_insert(now + delay).saturating_duration_since(now)
    }

    /// Records a repair.
    pub fn repaired(&mut self, now: Instant) {
        self.consecutive += 1;
        self.last = Some(now);
        self.due = None;
    }

    /// Records that no repair is needed.
    pub fn not_needed(&mut self) {
        self.due = None;
    }

    /// Whether a repair is delayed.
    pub fn is_waiting(&self) -> bool {
        self.due.is_some()
    }

    /// Whether repairs are slowed down because another process keeps reverting them.
    pub fn is_contended(&self, now: Instant) -> bool {
        self.consecutive >= IMMEDIATE_REPAIRS && (self.is_waiting() || self.is_recent(now))
    }

    /// How many repairs were made in a row.
    pub fn consecutive(&self) -> u32 {
        self.consecutive
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.last
            .is_some_and(|last| now.saturating_duration_since(last) <= QUIET_PERIOD)
    }
}

/// At most one action in each interval.
#[derive(Debug)]
pub struct Spacing {
    interval: Duration,
    next: Option<Instant>,
}

impl Spacing {
    /// The first action needs no wait.
    pub fn new(interval: Duration) -> Self {
        Self { interval, next: None }
    }

    /// How long to wait until the next action.
    pub fn wait(&self, now: Instant) -> Duration {
        self.next
            .map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// Records an action.
    pub fn acted(&mut self, now: Instant) {
        self.next = now.checked_add(self.interval);
    }
}

/// Which pods to compare with their options now, by the times of their last comparisons: at most `limit`, none within
/// `interval`, and those that were compared longest ago first.
pub fn due_for_comparison(last: &[Option<Instant>], now: Instant, interval: Duration, limit: usize) -> Vec<usize> {
    let is_due = |time: Option<Instant>| time.is_none_or(|time| now.saturating_duration_since(time) >= interval);
    let mut due: Vec<usize> = (0..last.len()).filter(|index| is_due(last[*index])).collect();
    // `None`, never, comes first.
    due.sort_by_key(|index| last[*index]);
    due.truncate(limit);
    due
}

/// The delay after `before` failures: 1 second, 2, 4, and so on up to `MAX_DELAY`.
pub fn backoff(before: u32) -> Duration {
    Duration::from_secs(1 << before.min(16)).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of repairs in seconds, where each is reverted at once.
    fn repair_times(repairs: usize) -> Vec<u64> {
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
    fn reverted_repairs_slow_down() {
        assert_eq!(repair_times(12), [0, 0, 0, 0, 0, 1, 3, 7, 15, 31, 63, 95]);
    }

    #[test]
    fn repeated_scan_keeps_delay() {
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
    fn quiet_period_ends_slowdown() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.repaired(start);
        }
        assert!(pace.is_contended(start));
        let later = start + QUIET_PERIOD + Duration::from_secs(1);
        assert!(!pace.is_contended(later));
        assert_eq!(pace.wait(later), Duration::ZERO);
        assert_eq!(pace.consecutive(), 0);
    }

    #[test]
    fn rare_repairs_are_not_delayed() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..50 {
            assert_eq!(pace.wait(now), Duration::ZERO);
            pace.repaired(now);
            now += QUIET_PERIOD + Duration::from_secs(1);
        }
    }

    #[test]
    fn delayed_repair_is_dropped_when_not_needed() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..8 {
            pace.repaired(start);
        }
        assert!(!pace.wait(start).is_zero() && pace.is_waiting());
        pace.not_needed();
        assert!(!pace.is_waiting() && pace.is_contended(start));
        assert!(!pace.is_contended(start + 2 * QUIET_PERIOD));
    }

    #[test]
    fn action_waits_for_interval() {
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
    fn pods_are_compared_in_turn() {
        let (start, interval) = (Instant::now(), Duration::from_secs(50));
        let mut last = vec![None; 5];
        let mut rounds = Vec::new();
        for minute in 0..4 {
            let now = start + Duration::from_secs(60 * minute);
            let due = due_for_comparison(&last, now, interval, 2);
            due.iter().for_each(|index| last[*index] = Some(now));
            assert_eq!(
                due_for_comparison(&last, now, interval, 5).len(),
                5 - last.iter().filter(|time| **time == Some(now)).count()
            );
            rounds.push(due);
        }
        assert_eq!(rounds, [[0, 1], [2, 3], [4, 0], [1, 2]]);
        assert!(due_for_comparison(&last, start + Duration::from_secs(180), interval, 0).is_empty());
    }

    #[test]
    fn backoff_grows_up_to_max_delay() {
        let waits: Vec<u64> = [0, 1, 2, 5, 6, 60].map(|before| backoff(before).as_secs()).to_vec();
        assert_eq!(waits, [1, 2, 4, 32, 32, 32]);
    }
}
