//! Snapshots by the second they were taken in: `@GMT-2026.11.20-10.15.00`, as Windows and Samba's
//! `vfs_shadow_copy2` write it. Always UTC.

use super::snapdir::{TTL_NONE, snapshot_entry};
use super::{Entry, Lookup, Vfs};
use crate::error::Result;
use crate::types::{Ino, Snapshot, SnapshotId, Timestamp};

/// The directory in `.snapshots` that lists all snapshots under such names.
pub const GMT_DIR_NAME: &[u8] = b".gmt";
const PREFIX: &[u8] = b"@GMT-";
const SHAPE: &[u8] = b"@GMT-dddd.dd.dd-dd.dd.dd";

/// True for a name that begins as one for a time does.
pub(super) fn is_gmt_like(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// The second that a name stands for.
pub(super) fn parse(name: &[u8]) -> Option<i64> {
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'd' => byte.is_ascii_digit(),
        fixed => byte == fixed,
    };
    if name.len() != SHAPE.len() || !name.iter().zip(SHAPE).all(fits) {
        return None;
    }
    let number = |at: std::ops::Range<usize>| {
        name.get(at)?.iter().try_fold(0_i64, |n, digit| Some(n * 10 + i64::from(digit - b'0')))
    };
    let (year, month, day) = (number(5..9)?, number(10..12)?, number(13..15)?);
    let (hour, minute, second) = (number(16..18)?, number(19..21)?, number(22..24)?);
    // Days of a civil date: Howard Hinnant's algorithm.
    let shifted_year = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100
        + day_of_year
        - 719_468;
    let secs = days * 86_400 + hour * 3600 + minute * 60 + second;
    // A thirteenth month is the name of nothing.
    (name_of(secs).as_bytes() == name).then_some(secs)
}

/// The name of a second.
pub(super) fn name_of(secs: i64) -> String {
    let iso = Timestamp { secs, nanos: 0 }.iso_utc();
    let (date, time) = iso.split_once('T').unwrap_or((&iso, ""));
    let time = time.split_once('.').map_or(time, |(seconds, _)| seconds);
    format!("@GMT-{}-{}", date.replace('-', "."), time.replace(':', "."))
}

impl Vfs {
    /// `dir` as it was in the newest snapshot that was taken in the second that `name` says.
    pub(super) fn gmt_lookup(&self, dir: Ino, name: &[u8]) -> Result<Lookup> {
        let taken = parse(name).map(|secs| self.volume.snapshots_taken_in(secs));
        for snapshot in taken.unwrap_or_default() {
            if let Some(stat) = self.directory_in(&snapshot, dir)? {
                return Ok(Lookup::Found(snapshot_entry(&snapshot, dir, &stat)));
            }
        }
        Ok(Lookup::Missing(TTL_NONE))
    }

    /// Lists the snapshots in which `dir` was a directory by such names. Of several in one second
    /// each is named alike, so only the last is handed on.
    pub(super) fn gmt_list(
        &self,
        dir: Ino,
        after: SnapshotId,
        mut each: impl FnMut(&Snapshot, &[u8], &Entry) -> bool,
    ) -> Result<()> {
        let mut held: Option<(Snapshot, Entry)> = None;
        let mut full = false;
        let mut hand_on = |(snapshot, entry): (Snapshot, Entry)| {
            each(&snapshot, name_of(snapshot.time.secs).as_bytes(), &entry)
        };
        self.snapdir_list(dir, after, |snapshot, entry| {
            let next = (snapshot.clone(), entry.clone());
            if let Some(before) = held.replace(next)
                && before.0.time.secs != snapshot.time.secs
            {
                full = hand_on(before);
            }
            full
        })?;
        if let Some(last) = held.filter(|_| !full) {
            hand_on(last);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_seconds_convert_both_ways() {
        for (secs, name) in [
            (0, "@GMT-1970.01.01-00.00.00"),
            (951_782_400, "@GMT-2000.02.29-00.00.00"),
            (1_795_169_706, "@GMT-2026.11.20-10.15.06"),
            (-1, "@GMT-1969.12.31-23.59.59"),
            (253_402_300_799, "@GMT-9999.12.31-23.59.59"),
        ] {
            assert_eq!(name_of(secs), name);
            assert_eq!(parse(name.as_bytes()), Some(secs), "{name}");
        }
    }

    #[test]
    fn other_names_are_no_times() {
        for name in [
            "@GMT-2026.13.01-00.00.00",
            "@GMT-2026.02.30-00.00.00",
            "@GMT-2026.00.00-00.00.00",
            "@GMT-2026.11.20-24.00.00",
            "@GMT-2026.11.20-10.15.60",
            "@GMT-2026.11.20-10.15.6",
            "@GMT-2026.11.20-10.15.061",
            "@GMT-2026-11-20-10.15.06",
            "@gmt-2026.11.20-10.15.06",
            "@GMT-",
            "",
        ] {
            assert_eq!(parse(name.as_bytes()), None, "{name}");
        }
    }
}
