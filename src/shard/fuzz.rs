//! This room's parser, for `crate::fuzz`.

use super::marker::Marker;
use crate::types::{ShardId, VolumeId};

/// The file `shard.id`.
#[must_use]
pub fn marker(bytes: &[u8]) -> usize {
    Marker::parse(bytes, "shard.id").map_or(0, |_| size_of::<Marker>())
}

/// A valid one.
#[must_use]
pub fn golden_marker() -> Vec<u8> {
    Marker { volume: VolumeId([7; 16]), shard: ShardId(3) }.to_bytes()
}
