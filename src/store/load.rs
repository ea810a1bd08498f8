//! What the store holds in memory.

use super::Store;
use super::neighbours::Neighbours;
use super::writer::FOOTER_BYTES_MAX;
use crate::limits::FRAME_CHUNKS_MAX;

/// Memory of chunks on their way to the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreLoad {
    /// Raw bytes that wait for a worker, or that one has in hand.
    pub queue_bytes: u64,
    /// Raw bytes in open groups.
    pub group_bytes: u64,
    /// Fingerprints near those that were found.
    pub neighbour_bytes: u64,
    /// Footers of the containers that are appended to.
    pub footer_bytes: u64,
    /// Pairs of class and shard that were written to since the store was opened.
    pub lanes: u64,
}

impl StoreLoad {
    /// The most that fingerprints near those that were found take.
    pub const NEIGHBOUR_BYTES_MAX: u64 = Neighbours::BOUND as u64;
    /// The most that the footer of a container can be: its bound, and the frame that crossed it.
    pub const FOOTER_BYTES_MAX: u64 = FOOTER_BYTES_MAX + 44 * FRAME_CHUNKS_MAX as u64 + 128;
}

impl Store {
    /// Memory of the rows that the next commit writes.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> usize {
        self.core.load.rows_bytes()
    }

    /// What else is in memory of chunks on their way to the shards.
    #[must_use]
    pub fn load(&self) -> StoreLoad {
        let neighbour_bytes = self.core.pending.lock().neighbours.bytes() as u64;
        let writers = self.core.writers();
        StoreLoad {
            queue_bytes: self.core.queue.bytes() as u64,
            neighbour_bytes,
            group_bytes: self.core.load.group_bytes() as u64,
            footer_bytes: writers.iter().map(|writer| writer.lock().footer_bytes()).sum(),
            lanes: writers.len() as u64,
        }
    }
}
