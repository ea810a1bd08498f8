//! The words of retention, against restic's examples and against a naive reading of them.

use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use super::*;

fn at(calendar: &Calendar, text: &str) -> Timestamp {
    Timestamp { secs: calendar.parse(text).unwrap(), nanos: 0 }
}

/// Candidates at these times, judged long afterwards; what is kept, by place.
fn kept_at(calendar: &Calendar, times: &[Timestamp], policy: &Policy) -> Vec<usize> {
    let candidates: Vec<_> =
        times.iter().map(|time| Candidate { time: *time, protection: None }).collect();
    let now = Timestamp { secs: i64::MAX, nanos: 0 };
    let verdicts = judge(&candidates, policy, calendar, now).unwrap();
    (0..times.len()).filter(|at| !verdicts[*at].is_empty()).collect()
}

fn kept(times: &[&str], policy: &Policy) -> Vec<usize> {
    let utc = Calendar::of("UTC").unwrap();
    let times: Vec<_> = times.iter().map(|text| at(&utc, text)).collect();
    kept_at(&utc, &times, policy)
}

fn within(text: &str) -> Policy {
    Policy { within: Some(text.parse().unwrap()), ..Policy::default() }
}

/// The example of restic's manual: a backup every Sunday for twelve weeks.
#[test]
fn four_daily_of_twelve_sundays() {
    let sundays = [
        "2019-09-01T11:00",
        "2019-09-08T11:00",
        "2019-09-15T11:00",
        "2019-09-22T11:00",
        "2019-09-29T11:00",
        "2019-10-06T11:00",
        "2019-10-13T11:00",
        "2019-10-20T11:00",
        "2019-10-27T11:00",
        "2019-11-03T11:00",
        "2019-11-10T11:00",
        "2019-11-17T11:00",
    ];
    let daily = Policy { daily: Keep(4), ..Policy::default() };
    assert_eq!(kept(&sundays, &daily), [8, 9, 10, 11]);
    let weekly = Policy { weekly: Keep(4), ..Policy::default() };
    assert_eq!(kept(&sundays, &weekly), [8, 9, 10, 11]);
    // September, October and November end on the 29th, the 27th and, so far, the 17th.
    let monthly = Policy { monthly: Keep(3), ..Policy::default() };
    assert_eq!(kept(&sundays, &monthly), [4, 8, 11]);
    // Only three months have one: the fourth is the oldest of all.
    let more = Policy { monthly: Keep(4), ..Policy::default() };
    assert_eq!(kept(&sundays, &more), [0, 4, 8, 11]);
}

/// The other example of restic's manual: a backup every day for 100 years.
#[test]
fn a_hundred_years_of_days() {
    let utc = Calendar::of("UTC").unwrap();
    let first = at(&utc, "1920-01-01T12:00").secs;
    let days = at(&utc, "2019-12-31T12:00").secs - first;
    let times: Vec<_> =
        (0..=days / 86_400).map(|day| Timestamp { secs: first + day * 86_400, nanos: 0 }).collect();
    let policy = Policy {
        daily: Keep(7),
        weekly: Keep(5),
        monthly: Keep(12),
        yearly: Keep(75),
        ..Policy::default()
    };
    let kept = kept_at(&utc, &times, &policy);
    // 2019-12-31 is a Tuesday: it counts as the last of its day, week, month and year; the last
    // seven days hold one Sunday. So 7 + 3 Sundays + 11 months + 74 years.
    assert_eq!(kept.len(), 7 + 3 + 11 + 74);
    let years = kept.iter().filter(|at| {
        let periods = utc.periods(times[**at]);
        periods[1] % 10_000 == 1231
    });
    assert_eq!(years.count(), 75);
}

#[test]
fn within_reaches_back_from_the_newest() {
    let times = [
        "2014-08-01T09:00",
        "2014-10-22T10:19:59",
        "2014-10-22T10:20:00",
        "2014-10-22T10:20:01",
        "2014-11-22T09:20",
        "2014-11-22T10:20",
    ];
    assert_eq!(kept(&times, &within("1h")), [5], "exactly an hour is too old");
    assert_eq!(kept(&times, &within("2h")), [4, 5]);
    assert_eq!(kept(&times, &within("1m")), [3, 4, 5]);
    assert_eq!(kept(&times, &within("31d1h")), [1, 2, 3, 4, 5]);
    assert_eq!(kept(&times, &within("1y")), [0, 1, 2, 3, 4, 5]);
    // As in restic, the day before March 31 by a month is "February 31", March 3.
    let spring = ["2019-03-02T12:00", "2019-03-03T11:00", "2019-03-03T13:00", "2019-03-31T12:00"];
    assert_eq!(kept(&spring, &within("1m")), [2, 3]);
}

#[test]
fn what_is_in_the_future_neither_goes_nor_moves_the_end_of_within() {
    let utc = Calendar::of("UTC").unwrap();
    let candidates: Vec<_> = ["2026-01-01", "2026-01-10", "2030-01-01"]
        .iter()
        .map(|text| Candidate { time: at(&utc, text), protection: None })
        .collect();
    let now = at(&utc, "2026-01-11");
    let verdicts = judge(&candidates, &within("2d"), &utc, now).unwrap();
    assert_eq!(verdicts, [vec![], vec!["within 2d".to_owned()], vec!["within 2d".to_owned()]]);
}

/// Weeks are those of ISO 8601: 2018-12-31 is in the first week of 2019.
#[test]
fn weeks_cross_years() {
    let weekly = Policy { weekly: Keep(2), ..Policy::default() };
    let times = ["2018-12-23", "2018-12-30", "2018-12-31", "2019-01-06"];
    assert_eq!(kept(&times, &weekly), [1, 3]);
    let yearly = Policy { yearly: Keep(2), ..Policy::default() };
    assert_eq!(kept(&times, &yearly), [2, 3]);
}

/// A day is a day of the zone, also when it has 23 or 25 hours.
#[test]
fn days_are_local() {
    let vienna = Calendar::of("Europe/Vienna").unwrap();
    let utc = Calendar::of("UTC").unwrap();
    let daily = Policy { daily: Keep(9), ..Policy::default() };
    let times: Vec<_> = ["2026-03-28T23:30:00Z", "2026-03-29T21:30:00Z", "2026-03-29T22:30:00Z"]
        .iter()
        .map(|text| at(&utc, text))
        .collect();
    // In Vienna the 29th lasts from 23:00 to 22:00: the first two are of one day. The oldest stays.
    assert_eq!(kept_at(&vienna, &times, &Policy { daily: Keep(2), ..daily }), [1, 2]);
    assert_eq!(kept_at(&utc, &times, &Policy { daily: Keep(2), ..daily }), [0, 2]);
    assert_eq!(vienna.parse("2026-03-29").unwrap(), times[0].secs - 1800);
}

#[test]
fn protected_ones_stay_and_say_why() {
    let utc = Calendar::of("UTC").unwrap();
    let held = |text: &str, why: Option<&str>| Candidate {
        time: at(&utc, text),
        protection: why.map(str::to_owned),
    };
    let candidates =
        [held("2026-01-01", Some("held")), held("2026-01-02", None), held("2026-01-03", None)];
    let policy = Policy { last: Keep(1), ..Policy::default() };
    let verdicts = judge(&candidates, &policy, &utc, at(&utc, "2026-02-01")).unwrap();
    assert_eq!(verdicts, [vec!["held".to_owned()], vec![], vec!["last snapshot".to_owned()]]);
}

#[test]
fn a_policy_that_keeps_nothing_is_refused() {
    let utc = Calendar::of("UTC").unwrap();
    let now = Timestamp { secs: 0, nanos: 0 };
    for empty in [Policy::default(), within("0h")] {
        assert!(judge(&[], &empty, &utc, now).is_err());
    }
    assert!(judge(&[], &within("1h"), &utc, now).unwrap().is_empty());
}

#[test]
fn lengths_of_time_read_as_in_restic() {
    let read = |text: &str| text.parse::<Within>();
    let all = Within { years: 1, months: 5, days: 7, hours: 2 };
    assert_eq!(read("1y5m7d2h"), Ok(all));
    assert_eq!(read("2h7d5m1y"), Ok(all));
    assert_eq!(all.to_string(), "1y5m7d2h");
    for bad in ["", "1", "y", "1w", "-1d", "1d2d", "1.5d", "99999999999d", "1d "] {
        assert!(read(bad).is_err(), "{bad:?}");
    }
    assert_eq!("unlimited".parse(), Ok(Keep::UNLIMITED));
    assert!("-1".parse::<Keep>().is_err() && "".parse::<Keep>().is_err());
}

#[test]
fn dates_have_three_forms() {
    let vienna = Calendar::of("Europe/Vienna").unwrap();
    let utc = Calendar::of("UTC").unwrap();
    assert_eq!(utc.parse("1970-01-02").unwrap(), 86_400);
    assert_eq!(vienna.parse("1970-01-02").unwrap(), 86_400 - 3600);
    assert_eq!(
        vienna.parse("2026-07-01T12:00").unwrap(),
        vienna.parse("2026-07-01T10:00Z").unwrap()
    );
    assert_eq!(utc.parse("2026-07-01T12:00:00+02:00").unwrap() % 86_400, 36_000);
    for bad in ["", "tomorrow", "2026-13-01", "2026-02-30", "1"] {
        assert!(utc.parse(bad).is_err(), "{bad:?}");
    }
    assert!(Calendar::of("Nowhere/Nothing").is_err());
}

/// What the words say, written down without any cleverness.
fn naive(times: &[Timestamp], policy: &Policy, calendar: &Calendar) -> Vec<bool> {
    let mut keep = vec![false; times.len()];
    let counts = [policy.hourly, policy.daily, policy.weekly, policy.monthly, policy.yearly];
    for (rule, count) in counts.iter().enumerate() {
        let period = |at: usize| calendar.periods(times[at])[rule];
        // The newest snapshot of every period, periods in falling order.
        let mut newest: std::collections::BTreeMap<i64, usize> = std::collections::BTreeMap::new();
        newest.extend((0..times.len()).map(|at| (period(at), at)));
        let found = newest.len();
        for at in newest.values().rev().take(count.0 as usize) {
            keep[*at] = true;
        }
        if found < count.0 as usize && !times.is_empty() {
            keep[0] = true;
        }
    }
    let last = times.len().saturating_sub(policy.last.0 as usize);
    keep[last..].fill(true);
    if let Some(within) = policy.within
        && let Some(newest) = times.last()
    {
        let hours = i64::from(within.days) * 24 + i64::from(within.hours);
        for (at, time) in times.iter().enumerate() {
            keep[at] |= time.secs > newest.secs - hours * 3600;
        }
    }
    keep
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Gaps of minutes to years, any counts: the same as the naive reading of the words. In UTC,
    /// where the hours and days of `within` have a fixed length.
    #[test]
    fn judging_is_as_the_words_say(
        gaps in proptest::collection::vec((0_u32..6, 1_i64..50), 0..80),
        counts in any::<[u8; 6]>(), days in 0_u32..40, hours in 0_u32..30
    ) {
        let utc = Calendar::of("UTC").unwrap();
        let mut secs = 1_600_000_000;
        let times: Vec<_> = gaps.iter().map(|(unit, gap)| {
            secs += gap * [1, 60, 1800, 20_000, 86_400, 1_500_000][*unit as usize];
            Timestamp { secs, nanos: 0 }
        }).collect();
        let [last, hourly, daily, weekly, monthly, yearly] = counts.map(|n| Keep(u32::from(n % 9)));
        let within = Some(Within { days, hours, ..Within::default() });
        let within = within.filter(|w| *w != Within::default());
        let policy = Policy { last, hourly, daily, weekly, monthly, yearly, within };
        if policy.check().is_err() {
            return Ok(());
        }
        let mut found = vec![false; times.len()];
        kept_at(&utc, &times, &policy).into_iter().for_each(|at| found[at] = true);
        prop_assert_eq!(found, naive(&times, &policy, &utc));
    }
}
