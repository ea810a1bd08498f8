//! Hours, days, weeks, months and years of a time zone. `jiff` lives here.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan, Zoned};

use super::Within;
use crate::error::{Error, Result};
use crate::types::Timestamp;

/// The calendar of one time zone.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
}

impl Calendar {
    /// That of this process: `TZ`, else the system's zone, else UTC.
    #[must_use]
    pub fn local() -> Self {
        Self { zone: TimeZone::try_system().unwrap_or(TimeZone::UTC) }
    }

    /// That of a zone by name, as in `Europe/Vienna`.
    ///
    /// # Errors
    /// `Invalid` if the system does not know it.
    pub fn of(zone: &str) -> Result<Self> {
        let zone = TimeZone::get(zone).map_err(|_| {
            Error::invalid(format!("Time zone {zone} is unknown; install tzdata, or set TZ=UTC"))
        })?;
        Ok(Self { zone })
    }

    /// Name of the zone, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.zone.iana_name()
    }

    /// Times beyond the years ±9999 count as the last one there is.
    fn zoned(&self, time: Timestamp) -> Zoned {
        let nanos = i32::try_from(time.nanos).unwrap_or(0);
        let end = if time.secs < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        jiff::Timestamp::new(time.secs, nanos).unwrap_or(end).to_zoned(self.zone.clone())
    }

    /// Numbers of the hour, day, ISO week, month and year of a time: equal within one period,
    /// different in neighbouring ones.
    pub(super) fn periods(&self, time: Timestamp) -> [i64; 5] {
        let at = self.zoned(time);
        let (year, month) = (i64::from(at.year()), i64::from(at.month()));
        let month = year * 100 + month;
        let day = month * 100 + i64::from(at.day());
        let week = at.date().iso_week_date();
        let week = i64::from(week.year()) * 100 + i64::from(week.week());
        [day * 100 + i64::from(at.hour()), day, week, month, year]
    }

    /// `within` before `time`: first years and months, then days, by the calendar at the same time
    /// of day (the 31st of a shorter month is a day of the next one, as in restic), then hours.
    pub(super) fn before(&self, time: Timestamp, within: Within) -> Timestamp {
        let far = Timestamp { secs: i64::MIN, nanos: 0 };
        let at = self.zoned(time);
        let months = i64::from(at.year()) * 12 + i64::from(at.month()) - 1;
        let back = i64::from(within.years) * 12 + i64::from(within.months);
        let months = months - back;
        let year = i16::try_from(months.div_euclid(12)).ok();
        let month = i8::try_from(months.rem_euclid(12) + 1).ok();
        let days = i64::from(at.day()) - 1 - i64::from(within.days);
        let shifted = || -> Option<jiff::Timestamp> {
            let first = Date::new(year?, month?, 1).ok()?;
            let date = first.checked_add(i32::try_from(days).ok()?.days()).ok()?;
            let at = date.to_datetime(at.time()).to_zoned(self.zone.clone()).ok()?;
            let hours = SignedDuration::from_hours(i64::from(within.hours));
            at.timestamp().checked_sub(hours).ok()
        };
        shifted().map_or(far, |at| {
            // jiff counts nanoseconds towards zero, we count them upwards.
            let nanos = at.as_nanosecond();
            let secs = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(i64::MIN);
            let nanos = u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0);
            Timestamp { secs, nanos }
        })
    }

    /// The second that a date names: `2027-01-31` (its midnight), `2027-01-31T18:00` in this zone,
    /// or with an offset of its own, `2027-01-31T18:00:00Z`.
    ///
    /// # Errors
    /// `Invalid` with the forms there are.
    pub fn parse(&self, text: &str) -> Result<i64> {
        if let Ok(exact) = text.parse::<jiff::Timestamp>() {
            return Ok(exact.as_second());
        }
        let civil: Option<DateTime> = text.parse().ok();
        let zoned = civil.and_then(|civil| civil.to_zoned(self.zone.clone()).ok());
        zoned.map(|at| at.timestamp().as_second()).ok_or_else(|| {
            Error::invalid(format!(
                "{text:?} is no date; give one as 2027-01-31, 2027-01-31T18:00 or \
                 2027-01-31T18:00:00Z"
            ))
        })
    }
}
