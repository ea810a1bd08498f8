//! Shards that the volume has and that are not there now.

use super::Store;
use super::core::Core;
use super::rows::{FingerprintRow, Health};
use crate::types::ShardId;

impl Store {
    /// Says that a shard is not there now, in a sentence. Until [`Store::add_shard`] reading from
    /// it fails with `ShardMissing`, its chunks are not used for dedup, nothing new goes there.
    pub fn set_away(&self, id: ShardId, why: String) {
        self.core.set_away(id, why);
    }

    /// True for a shard that is away.
    #[must_use]
    pub fn is_away(&self, id: ShardId) -> bool {
        self.core.is_away(id)
    }
}

impl Core {
    pub(super) fn set_away(&self, id: ShardId, why: String) {
        self.away.write().insert(id, why);
        self.shards.write().remove(&id);
        // They are found again when the shard is attached again.
        self.strays.lock().retain(|(shard, _)| *shard != id);
    }

    pub(super) fn is_away(&self, id: ShardId) -> bool {
        self.away.read().contains_key(&id)
    }

    /// True if any shard is away: what was found without asking where it lies may be there.
    pub(super) fn is_any_away(&self) -> bool {
        !self.away.read().is_empty()
    }

    /// A fingerprint whose chunk lies on a shard that is away is not used: the bytes are stored
    /// anew, under the chunk's number. What cannot be found out is left to the reader.
    pub(super) fn distrust_away(&self, row: FingerprintRow) -> FingerprintRow {
        if !self.is_any_away() {
            return row;
        }
        let place = self.chunk_row(row.chunk).ok().flatten();
        let home = place.and_then(|place| self.find_container(place.container).ok().flatten());
        let away = home.is_some_and(|home| self.is_away(home.shard));
        if away { FingerprintRow { health: Health::Bad, ..row } } else { row }
    }

    /// Another shard for what could not be written to those that were tried.
    pub(super) fn detour(&self, tried: &[ShardId]) -> Option<ShardId> {
        self.shards.read().keys().filter(|id| !tried.contains(id)).min().copied()
    }

    /// Lets go of the containers that are open on a shard; false if one of them is not committed.
    pub(super) fn release(&self, id: ShardId) -> bool {
        let writers = self.writers.lock();
        let here = writers.iter().filter(|(lane, _)| lane.0 == id);
        here.fold(true, |done, (_, writer)| writer.lock().release() && done)
    }
}
