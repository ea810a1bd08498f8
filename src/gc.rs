//! Garbage collection: mark what extents refer to, free what nobody refers to.
//!
//! Containers without a live chunk are freed; of those that are mostly dead the live chunks are
//! stored anew, under their numbers, and the container is freed then. Runs while the volume is in
//! use; why that is safe is said in `volume/marks.rs`. Memory: one bit per chunk. After a crash at
//! any point the next run starts anew: rows go in one commit and files only after it.

use log::{info, warn};
use serde::{Deserialize, Serialize};

use crate::env::Point;
use crate::error::{Error, Result};
use crate::store::ContainerState;
use crate::types::ContainerId;
use crate::volume::{Amount, Marking, Volume};

/// Rows looked at between two chances for others to run.
const PIECE_ROWS: usize = 4096;
/// A container is repacked when at most one in this many of its raw bytes is live: what is copied
/// is then no more than what is gained, as in the cleaning of log-structured file systems
/// (Rosenblum and Ousterhout, 1992).
const REPACK_LIVE_SHARE: u64 = 2;
/// Raw bytes copied between two commits: bounds what the store holds back until then.
const REPACK_COMMIT_BYTES: u64 = 64 * 1024 * 1024;

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Chunks that are in use.
    pub chunks_marked: u64,
    /// Chunk numbers given out before the run.
    pub chunks_total: u64,
    /// Chunks found that nothing refers to; their containers may be freed now or later.
    pub unused: Amount,
    /// Containers freed.
    pub containers_freed: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Raw bytes of live chunks that were stored anew to free their containers.
    pub repacked_bytes: u64,
    /// Old versions dropped that no snapshot shows.
    pub history_pruned: u64,
    /// Raw bytes of dead chunks that lie in containers with live ones.
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
    let env = volume.env();
    env.hit(Point::GcPruned)?;
    volume.commit()?;
    let marking = volume.begin_marking()?;
    let mut resume = marking.piece(None, PIECE_ROWS)?;
    while resume.is_some() {
        resume = marking.piece(resume, PIECE_ROWS)?;
    }
    env.hit(Point::GcSweep)?;
    marking.check_places()?;
    let strays = marking.free_strays()?;
    report.containers_freed += strays.freed;
    report.freed_bytes += strays.freed_bytes;
    report.unused = marking.unused()?;
    close_dead(volume, &marking)?;
    sweep(volume, &marking, &mut report)?;
    report.chunks_marked = marking.marks().count();
    report.chunks_total = marking.marks().horizon().0;
    drop(marking);
    env.hit(Point::GcCommit)?;
    volume.commit()?;
    info!("Gc done containers={} bytes={}", report.containers_freed, report.freed_bytes);
    Ok(report)
}

/// Closes the containers that are still appended to if one of them is mostly dead: a small volume
/// has no others.
fn close_dead(volume: &Volume, marking: &Marking<'_>) -> Result<()> {
    for (id, row) in marking.containers()? {
        let open = row.state == ContainerState::Open && row.raw_bytes > 0;
        if open && is_mostly_dead(marking.live_bytes(id)?, row.raw_bytes) {
            marking.close_open();
            return volume.commit();
        }
    }
    Ok(())
}

fn is_mostly_dead(live: u64, raw: u64) -> bool {
    live.saturating_mul(REPACK_LIVE_SHARE) <= raw
}

fn sweep(volume: &Volume, marking: &Marking<'_>, report: &mut GcReport) -> Result<()> {
    let mut emptied: Vec<ContainerId> = Vec::new();
    let mut copied = 0;
    let mut full = false;
    for (id, row) in marking.containers()? {
        let live = marking.live_bytes(id)?;
        if live == row.raw_bytes {
            continue;
        }
        if marking.free_if_dead(id)? {
            report.containers_freed += 1;
            report.freed_bytes += row.bytes;
            continue;
        }
        let sealed = row.state == ContainerState::Sealed;
        if full || !sealed || !is_mostly_dead(live, row.raw_bytes) {
            report.dead_bytes_left += row.raw_bytes.saturating_sub(live);
            continue;
        }
        match marking.repack(id, &row) {
            Ok(moved) => {
                report.repacked_bytes += moved;
                copied += moved;
                emptied.push(id);
            }
            Err(e @ Error::NoSpace { .. }) => {
                warn!("No room to repack container={id} cause={e}");
                full = true;
            }
            Err(e) => return Err(e),
        }
        if copied >= REPACK_COMMIT_BYTES {
            free_emptied(volume, marking, &mut emptied, report)?;
            copied = 0;
        }
    }
    free_emptied(volume, marking, &mut emptied, report)
}

/// Frees the containers whose live chunks have a new place, once that is durable.
fn free_emptied(
    volume: &Volume,
    marking: &Marking<'_>,
    emptied: &mut Vec<ContainerId>,
    report: &mut GcReport,
) -> Result<()> {
    if emptied.is_empty() {
        return Ok(());
    }
    volume.env().hit(Point::GcRepacked)?;
    volume.commit()?;
    volume.env().hit(Point::GcEmptied)?;
    let rows = marking.containers()?;
    for (id, row) in rows.iter().filter(|(id, _)| emptied.contains(id)) {
        if marking.free_if_dead(*id)? {
            report.containers_freed += 1;
            report.freed_bytes += row.bytes;
        }
    }
    emptied.clear();
    Ok(())
}
