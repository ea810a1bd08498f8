//! Reading at a bounded rate.

use std::thread;
use std::time::{Duration, Instant};

/// Shorter pauses are gathered: waking up costs more than they are worth.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest sleep before somebody is asked whether to stop.
pub(super) const SLEEP_MAX: Duration = Duration::from_millis(100);
/// While others are at work, the background takes this many times as long.
pub(super) const YIELD_FACTOR: u32 = 4;

/// Time that reading may take. Pure: whoever uses it sleeps.
#[derive(Debug)]
pub(super) struct Budget {
    /// Bytes a second; 0 is no bound.
    rate_bytes: u64,
    /// When what was read so far should have taken so long.
    due: Duration,
}

impl Budget {
    pub(super) fn new(rate_bytes: u64) -> Self {
        Self { rate_bytes, due: Duration::ZERO }
    }

    /// How long to wait before `len` more bytes are read at `now`; `slowly` while others work.
    pub(super) fn wait(&mut self, now: Duration, len: u64, slowly: bool) -> Duration {
        if self.rate_bytes == 0 {
            return Duration::ZERO;
        }
        // A time that was not used is no credit: a burst would disturb as if there was no bound.
        let from = self.due.max(now);
        let wait = from.saturating_sub(now);
        let nanos = u128::from(len) * 1_000_000_000 / u128::from(self.rate_bytes);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.due = from.saturating_add(takes.saturating_mul(if slowly { YIELD_FACTOR } else { 1 }));
        if wait < PAUSE_MIN { Duration::ZERO } else { wait }
    }
}

/// Paces a scrub that somebody asked for.
pub(super) struct Pacer {
    budget: Budget,
    begun: Instant,
}

impl Pacer {
    pub(super) fn new(rate_bytes: Option<u64>) -> Self {
        Self { budget: Budget::new(rate_bytes.unwrap_or(0)), begun: Instant::now() }
    }

    /// Waits until `len` more bytes may be read; false when it is time to stop.
    pub(super) fn pause(&mut self, len: u64, stop: &dyn Fn() -> bool) -> bool {
        let until = self.begun.elapsed() + self.budget.wait(self.begun.elapsed(), len, false);
        loop {
            if stop() {
                return false;
            }
            let left = until.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(SLEEP_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn reading_keeps_to_the_rate() {
        let mut budget = Budget::new(1000);
        assert_eq!(budget.wait(MS(0), 100, false), MS(0));
        assert_eq!(budget.wait(MS(5), 100, false), MS(95));
        assert_eq!(budget.wait(MS(100), 100, false), MS(100));
        assert_eq!(budget.wait(MS(200), 100, true), MS(100));
        assert_eq!(budget.wait(MS(300), 1, false), MS(400), "four times as long");
    }

    #[test]
    fn time_not_used_is_no_credit_and_short_pauses_are_gathered() {
        let mut budget = Budget::new(1000);
        budget.wait(MS(0), 100, false);
        assert_eq!(budget.wait(MS(10_000), 5, false), MS(0));
        assert_eq!(budget.wait(MS(10_000), 5, false), MS(0), "5 ms are not worth it");
        assert_eq!(budget.wait(MS(10_000), 5, false), MS(10));
        let mut unbounded = Budget::new(0);
        assert_eq!(unbounded.wait(MS(0), u64::MAX, true), MS(0));
        assert_eq!(unbounded.wait(MS(0), u64::MAX, true), MS(0));
        let mut slow = Budget::new(1);
        slow.wait(MS(0), u64::MAX, true);
        slow.wait(MS(0), u64::MAX, true);
    }
}
