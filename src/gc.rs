//! Garbage collection: mark what extents refer to, free the containers nobody refers to.
//!
//! Runs while the volume is in use; why that is safe is said in `volume/marks.rs`. Memory: one bit
//! per chunk. After a crash at any point the next run starts anew: nothing was freed that the last
//! commit needs, because rows go in one commit and files only after it.
//! Does not: move live chunks out of mostly dead containers (their dead bytes are reported).

use log::info;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::volume::Volume;

/// Rows looked at between two chances for others to run.
const PIECE_ROWS: usize = 4096;

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Chunks that are in use.
    pub chunks_marked: u64,
    /// Chunk numbers given out before the run.
    pub chunks_total: u64,
    /// Containers freed.
    pub containers_freed: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Old versions dropped that no snapshot shows.
    pub history_pruned: u64,
    /// Raw bytes of dead chunks that lie in containers with live ones, or in open ones.
    pub dead_bytes_left: u64,
}

/// One run of gc.
///
/// # Errors
/// `Busy` if gc or check is running; `Poisoned`, `ReadOnly`, `Kv`, `Corrupt`, those of the shards.
pub fn run(volume: &Volume) -> Result<GcReport> {
    let mut report = GcReport::default();
    volume.finish_removals()?;
    let mut resume = None;
    loop {
        let (dropped, next) = volume.prune_piece(resume, PIECE_ROWS)?;
        report.history_pruned += dropped as u64;
        resume = next;
        if resume.is_none() {
            break;
        }
    }
    volume.commit()?;
    let marking = volume.begin_marking()?;
    let mut resume = marking.piece(None, PIECE_ROWS)?;
    while resume.is_some() {
        resume = marking.piece(resume, PIECE_ROWS)?;
    }
    for (id, row) in marking.containers()? {
        let dead = marking.dead_bytes(id)?;
        if dead > 0 && marking.free_if_dead(id, &row)? {
            report.containers_freed += 1;
            report.freed_bytes += row.bytes;
        } else {
            report.dead_bytes_left += dead;
        }
    }
    report.chunks_marked = marking.marks().count();
    report.chunks_total = marking.marks().horizon().0;
    drop(marking);
    volume.commit()?;
    info!("Gc done containers={} bytes={}", report.containers_freed, report.freed_bytes);
    Ok(report)
}
