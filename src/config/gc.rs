//! Section `[gc]`: when unused space is given back, and at what pace.

use crate::config::reader::Section;
use crate::error::Result;

const MIB: u64 = 1024 * 1024;

/// When and how unused space is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcConfig {
    /// A mounted volume does it by itself.
    pub auto: bool,
    /// It begins when so much was deleted, or a twentieth of what is stored if that is less.
    pub auto_bytes: u64,
    /// It waits so long after a deletion: more of them mostly follow.
    pub delay_secs: u32,
    /// Least time between the beginnings of two runs.
    pub interval_mins: u32,
    /// A container with live data is repacked when at least this share of its raw bytes is dead.
    pub min_dead_percent: u8,
    /// Live data stored anew per second; 0 is without bound.
    pub repack_bytes_per_sec: u64,
}

impl Default for GcConfig {
    /// A marking reads all extents, half a million a second and more: once an hour is below a
    /// tenth of the time even for 100 million. 1 GiB, or 5 %, is worth it; 50 % dead is where no
    /// more is copied than gained; 64 MiB/s leaves most of one spinning disk to others.
    fn default() -> Self {
        Self {
            auto: true,
            auto_bytes: 1024 * MIB,
            delay_secs: 60,
            interval_mins: 60,
            min_dead_percent: 50,
            repack_bytes_per_sec: 64 * MIB,
        }
    }
}

/// Reads the section.
pub(super) fn read(table: &Section<'_>) -> Result<GcConfig> {
    const KEYS: [&str; 6] = [
        "auto",
        "auto_bytes",
        "delay_secs",
        "interval_mins",
        "min_dead_percent",
        "repack_bytes_per_sec",
    ];
    table.refuse_unknown(&KEYS)?;
    let default = GcConfig::default();
    let number = |key, least: i64, most: i64| {
        let number = table.integer(key, least..=most)?;
        Ok(number.map(|n| u32::try_from(n).expect("within a range below u32::MAX")))
    };
    // Below 50 a run could copy more than it gives back; the command allows that, on demand.
    let percent = number("min_dead_percent", 50, 100)?;
    Ok(GcConfig {
        auto: table.flag("auto")?.unwrap_or(default.auto),
        auto_bytes: table.size("auto_bytes", MIB..=u64::MAX)?.unwrap_or(default.auto_bytes),
        delay_secs: number("delay_secs", 0, 86_400)?.unwrap_or(default.delay_secs),
        interval_mins: number("interval_mins", 0, 525_600)?.unwrap_or(default.interval_mins),
        min_dead_percent: percent.map_or(default.min_dead_percent, |n| n as u8),
        repack_bytes_per_sec: table
            .size("repack_bytes_per_sec", 0..=u64::MAX)?
            .unwrap_or(default.repack_bytes_per_sec),
    })
}
