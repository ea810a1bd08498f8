//! Times between FUSE, `std` and us.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::TimeOrNow;

use crate::types::Timestamp;
use crate::volume::SetTime;

/// A time that fuser 0.18.0 read from a request.
///
/// For a time before 1970 it takes the nanoseconds, which count upwards from the second, as
/// counting down: -1.75 s, on the wire (-2 s, +0.25 s), arrives as -2.25 s. Read backwards it is
/// right again.
///
/// It would panic on the earliest second there is, with a fraction. The kernel sends that second
/// without one: it cuts a time to what the filesystem can have (`timestamp_truncate`).
pub(super) fn from_request(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp { secs: seconds(after), nanos: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            let secs = 0_i64.checked_sub_unsigned(before.as_secs()).unwrap_or(i64::MIN);
            Timestamp { secs, nanos: before.subsec_nanos() }
        }
    }
}

/// A time to set.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(from_request(time)),
    }
}

/// A time for a reply. This way fuser converts correctly.
pub(super) fn to_reply(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let second =
        if time.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    let exact =
        second.and_then(|second| second.checked_add(Duration::from_nanos(time.nanos.into())));
    exact.unwrap_or(UNIX_EPOCH)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fuser 0.18.0 makes of the two numbers in a request.
    fn as_fuser_reads(secs: i64, nanos: u32) -> SystemTime {
        if secs >= 0 {
            UNIX_EPOCH + Duration::new(secs.unsigned_abs(), nanos)
        } else {
            UNIX_EPOCH - Duration::new(secs.unsigned_abs(), nanos)
        }
    }

    /// What fuser 0.18.0 puts into a reply.
    fn as_fuser_writes(time: SystemTime) -> (i64, u32) {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => (seconds(after), after.subsec_nanos()),
            Err(before) => match (before.duration().as_secs(), before.duration().subsec_nanos()) {
                (secs, _) if secs > i64::MAX.unsigned_abs() => (i64::MIN, 0),
                (secs, 0) => (-i64::try_from(secs).unwrap(), 0),
                (secs, nanos) => (-i64::try_from(secs).unwrap() - 1, 1_000_000_000 - nanos),
            },
        }
    }

    #[test]
    fn times_survive_both_ways_before_1970_and_after_2106() {
        for (secs, nanos) in [
            (0, 0),
            (0, 1),
            (-1, 0),
            (-1, 999_999_999),
            (-2, 250_000_000),
            (-2_208_988_800, 500_000_000),
            (4_294_967_296, 7),
            (i64::from(i32::MIN), 1),
            (i64::MIN, 0),
            (i64::MIN + 1, 999_999_999),
            (i64::MAX, 0),
            (253_402_300_799, 999_999_999),
        ] {
            let time = from_request(as_fuser_reads(secs, nanos));
            assert_eq!(time, Timestamp { secs, nanos });
            assert_eq!(as_fuser_writes(to_reply(time)), (secs, nanos));
        }
    }
}
