//! This room's parsers, for `crate::fuzz`.

use std::path::Path;

use super::open::{Counters, read_totals};
use super::superblock::Superblock;
use super::witness;
use crate::checksum::crc32c;
use crate::types::{Timestamp, VolumeId};

/// The superblock.
#[must_use]
pub fn superblock(bytes: &[u8]) -> usize {
    Superblock::decode(bytes, Path::new("superblock")).map_or(0, |_| size_of::<Superblock>())
}

/// A valid superblock.
#[must_use]
pub fn golden_superblock() -> Vec<u8> {
    let created = Timestamp { secs: 5, nanos: 0 };
    Superblock { id: VolumeId([7; 16]), created }.encode().to_vec()
}

/// The file `last-commit`.
#[must_use]
pub fn last_commit(bytes: &[u8]) -> usize {
    witness::decode(bytes).map_or(0, |_| 24)
}

/// A valid one.
#[must_use]
pub fn golden_last_commit() -> Vec<u8> {
    witness::encode(VolumeId([7; 16]), 300).to_vec()
}

/// The rows `counters` and `totals`.
#[must_use]
pub fn counters(bytes: &[u8]) -> usize {
    let counters = Counters::decode(bytes).map_or(0, |_| size_of::<Counters>());
    let mut built = 0;
    read_totals(bytes, |_, fields| built = built.max(8 * fields.len()));
    counters.max(built)
}

/// Makes the CRC in the last four of the first `len` bytes fit.
pub fn seal(bytes: &mut [u8], len: usize) {
    if let Some((body, crc)) = bytes.get_mut(..len).and_then(|b| b.split_at_mut_checked(len - 4)) {
        crc.copy_from_slice(&crc32c(body).to_le_bytes());
    }
}
