//! Section `[scrub]`: verification in the background.

use crate::config::reader::Section;
use crate::error::Result;

/// How a mounted volume verifies what it stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubLimits {
    /// Most bytes read in a second.
    pub rate_bytes: u64,
    /// Age of a verification, in days, at which a container is verified again; 0 is never.
    pub interval_days: u32,
}

impl Default for ScrubLimits {
    /// Every 30 days, as Debian scrubs ZFS pools and checks RAID arrays once a month. 8 MiB/s is a
    /// twentieth of what one disk reads, and reaches 20 TiB in that time.
    fn default() -> Self {
        Self { rate_bytes: 8 * 1024 * 1024, interval_days: 30 }
    }
}

/// Slower than this, one container would take ten minutes.
const RATE_BYTES_MIN: u64 = 64 * 1024;
/// No disk is faster; above it a typing error is likelier.
const RATE_BYTES_MAX: u64 = 1 << 40;
/// Ten years.
const INTERVAL_DAYS_MAX: i64 = 3650;

pub(super) fn read(table: &Section<'_>) -> Result<ScrubLimits> {
    table.refuse_unknown(&["rate", "interval_days"])?;
    let default = ScrubLimits::default();
    let rate = table.size("rate", RATE_BYTES_MIN..=RATE_BYTES_MAX)?;
    let days = table.integer("interval_days", 0..=INTERVAL_DAYS_MAX)?;
    Ok(ScrubLimits {
        rate_bytes: rate.unwrap_or(default.rate_bytes),
        interval_days: days
            .map_or(default.interval_days, |n| u32::try_from(n).expect("within 0..=3650")),
    })
}
