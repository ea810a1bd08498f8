//! Retention: which snapshots a rule keeps, and what dates mean.
//!
//! Guarantees: the words mean what they mean to restic 0.18 (its manual, chapter "Removing backup
//! snapshots", and its `ApplyPolicy`): `hourly` to `yearly` keep the newest snapshot of each of the
//! last N hours … years that have one, in local time, weeks being those of ISO 8601; the oldest
//! snapshot is kept as long as a rule has not found its N; `within` reaches back from the newest
//! snapshot that is not in the future; a snapshot is kept if any rule keeps it. An empty policy
//! keeps nothing and is refused. borg means the same by the words, but does not let a snapshot that
//! a shorter rule keeps count for a longer one, so it keeps more.
//! Does not: touch a volume, delete anything. `jiff` lives in `calendar`.

mod calendar;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use calendar::Calendar;

use crate::error::{Error, Result};
use crate::types::Timestamp;

/// How many a rule keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep(pub u32);

impl Keep {
    /// All there are.
    pub const UNLIMITED: Self = Self(u32::MAX);

    fn take(&mut self) {
        if *self != Self::UNLIMITED {
            self.0 = self.0.saturating_sub(1);
        }
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self::UNLIMITED);
        }
        text.parse().map(Self).map_err(|_| "give a number, or \"unlimited\"".to_owned())
    }
}

/// A length of time by the calendar, as in `1y5m7d2h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Within {
    /// Years.
    pub years: u32,
    /// Months.
    pub months: u32,
    /// Days.
    pub days: u32,
    /// Hours.
    pub hours: u32,
}

impl FromStr for Within {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "give numbers of years, months, days and hours, as in 1y5m7d2h".to_owned();
        let mut within = Self::default();
        let mut rest = text;
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let (number, tail) = rest.split_at(digits);
            let number: u32 = number.parse().map_err(|_| bad())?;
            let unit = tail.chars().next().ok_or_else(bad)?;
            let field = match unit {
                'y' => &mut within.years,
                'm' => &mut within.months,
                'd' => &mut within.days,
                'h' => &mut within.hours,
                _ => return Err(bad()),
            };
            if seen.contains(&unit) {
                return Err(bad());
            }
            seen.push(unit);
            *field = number;
            rest = &tail[1..];
        }
        if seen.is_empty() { Err(bad()) } else { Ok(within) }
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')];
        let mut given = parts.iter().filter(|(number, _)| *number > 0);
        given.try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

/// What is kept. Zero and `None` keep nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The newest N.
    pub last: Keep,
    /// The newest of each of the last N hours that have one; and so on.
    pub hourly: Keep,
    /// By day.
    pub daily: Keep,
    /// By ISO week.
    pub weekly: Keep,
    /// By month.
    pub monthly: Keep,
    /// By year.
    pub yearly: Keep,
    /// All that are not older than this, seen from the newest.
    pub within: Option<Within>,
}

impl Policy {
    /// Refuses a policy that would keep nothing.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn check(&self) -> Result<()> {
        let within = self.within.filter(|within| *within != Within::default());
        if (Self { within, ..*self }) == Self::default() {
            return Err(Error::invalid(
                "Nothing would be kept: prune needs a --keep option above 0, and never deletes \
                 every snapshot",
            ));
        }
        Ok(())
    }
}

/// A snapshot that is to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// When it was taken.
    pub time: Timestamp,
    /// Why it must not go, whatever the policy says.
    pub protection: Option<String>,
}

/// Why each candidate (oldest first) is kept; those without a reason are to go.
///
/// # Errors
/// `Invalid` for a policy that would keep nothing.
pub fn judge(
    candidates: &[Candidate],
    policy: &Policy,
    calendar: &Calendar,
    now: Timestamp,
) -> Result<Vec<Vec<String>>> {
    policy.check()?;
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    // Newest first; of the same instant the one taken later.
    order.sort_by_key(|at| std::cmp::Reverse((candidates[*at].time, *at)));
    let newest = order.iter().map(|at| candidates[*at].time).find(|time| *time < now);
    let cutoff = policy.within.filter(|within| *within != Within::default()).map(|within| {
        // With nothing but snapshots from the future, none is old.
        let since = newest.map_or(Timestamp { secs: i64::MIN, nanos: 0 }, |newest| {
            calendar.before(newest, within)
        });
        (since, within)
    });
    let mut rules = [
        Rule::new("last snapshot", policy.last),
        Rule::new("hourly snapshot", policy.hourly),
        Rule::new("daily snapshot", policy.daily),
        Rule::new("weekly snapshot", policy.weekly),
        Rule::new("monthly snapshot", policy.monthly),
        Rule::new("yearly snapshot", policy.yearly),
    ];
    let mut verdicts = vec![Vec::new(); candidates.len()];
    for (rank, at) in order.iter().enumerate() {
        let candidate = &candidates[*at];
        let reasons = &mut verdicts[*at];
        reasons.extend(candidate.protection.clone());
        if let Some((since, within)) = cutoff
            && candidate.time > since
        {
            reasons.push(format!("within {within}"));
        }
        let last = rank + 1 == order.len();
        let periods = calendar.periods(candidate.time);
        let keys = [i64::try_from(rank).unwrap_or(i64::MAX)].into_iter().chain(periods);
        for (rule, key) in rules.iter_mut().zip(keys) {
            reasons.extend(rule.keeps(key, last));
        }
    }
    Ok(verdicts)
}

struct Rule {
    name: &'static str,
    left: Keep,
    /// The period of the last snapshot it kept.
    period: Option<i64>,
}

impl Rule {
    fn new(name: &'static str, left: Keep) -> Self {
        Self { name, left, period: None }
    }

    /// Why the next older snapshot is kept, if it is.
    fn keeps(&mut self, period: i64, oldest: bool) -> Option<String> {
        if self.left.0 == 0 {
            return None;
        }
        let first = self.period != Some(period);
        if !first && !oldest {
            return None;
        }
        self.period = Some(period);
        self.left.take();
        Some(if first { self.name.to_owned() } else { format!("oldest {}", self.name) })
    }
}
