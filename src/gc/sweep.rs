//! Frees and repacks what the plan says, in batches that each end with a commit.

use log::warn;

use super::Run;
use super::plan::{Entry, Plan};
use crate::env::Point;
use crate::error::{Error, Result};
use crate::types::{ChunkNo, ContainerId};
use crate::volume::Marking;

/// Chunks whose rows go with one commit: the commit looks each of them up, some ten microseconds.
const BATCH_CHUNKS: usize = 4096;
/// Raw bytes copied between two commits: bounds what the store holds back until then.
const BATCH_COPY_BYTES: u64 = 64 * 1024 * 1024;
/// Chunks copied between two commits, for the same reason.
const BATCH_COPY_CHUNKS: usize = 16 * 1024;

/// What a sweep left, and what it freed.
#[derive(Default)]
pub(super) struct Left {
    /// Bytes of containers that were to be freed and were not.
    pub(super) reclaimable: u64,
    /// Raw bytes in them that would be stored anew.
    pub(super) repack: u64,
    /// Raw bytes of dead chunks that went with the freed ones.
    pub(super) dead_freed: u64,
}

/// Containers on their way out.
#[derive(Default)]
struct Batch {
    listed: Vec<(ContainerId, Vec<ChunkNo>)>,
    entries: Vec<Entry>,
    chunks: usize,
}

impl Run<'_> {
    /// Frees what is dead, then repacks; says what remains.
    pub(super) fn sweep(&mut self, marking: &Marking<'_>, plan: Plan) -> Result<Left> {
        let mut left = Left { reclaimable: plan.freed_bytes(), ..Left::default() };
        left.repack = plan.repacked_bytes();
        let containers = plan.dead.len() + plan.repack.len();
        (self.progress)(&format!(
            "Freeing {containers} containers, {} of them after storing live data anew",
            plan.repack.len()
        ));
        self.ticket.reclaiming(left.reclaimable);
        self.free_dead(marking, &plan.dead, &mut left)?;
        self.repack(marking, &plan.repack, &mut left)?;
        Ok(left)
    }

    fn free_dead(&mut self, marking: &Marking<'_>, dead: &[Entry], left: &mut Left) -> Result<()> {
        let mut batch = Batch::default();
        for (done, entry) in (0..).zip(dead) {
            self.ticket.progress("freeing", done, dead.len() as u64);
            (self.progress)(&format!("Freeing container {done} of {}", dead.len()));
            Self::list(marking, entry, &mut batch)?;
            if batch.chunks >= BATCH_CHUNKS {
                self.free(marking, &mut batch, left)?;
            }
            self.pace.breathe()?;
        }
        self.free(marking, &mut batch, left)
    }

    /// Adds a container to the batch, if it is still dead.
    fn list(marking: &Marking<'_>, entry: &Entry, batch: &mut Batch) -> Result<()> {
        if let Some(chunks) = marking.dead_chunks(entry.id)? {
            // A container costs something even without chunks.
            batch.chunks += chunks.len() + 1;
            batch.listed.push((entry.id, chunks));
            batch.entries.push(*entry);
        }
        Ok(())
    }

    /// Forgets the containers of a batch and commits that.
    fn free(&mut self, marking: &Marking<'_>, batch: &mut Batch, left: &mut Left) -> Result<()> {
        let Batch { listed, entries, .. } = std::mem::take(batch);
        if listed.is_empty() {
            return Ok(());
        }
        let freed = marking.free_dead(listed)?;
        self.volume.commit()?;
        for (entry, _) in entries.iter().zip(freed).filter(|(_, freed)| *freed) {
            self.report.containers_freed += 1;
            self.report.containers_repacked += u64::from(entry.live > 0);
            self.report.freed_bytes += entry.bytes;
            left.reclaimable = left.reclaimable.saturating_sub(entry.bytes);
            left.repack = left.repack.saturating_sub(entry.live);
            left.dead_freed += entry.dead();
        }
        self.ticket.reclaiming(left.reclaimable);
        let (count, bytes) = (self.report.containers_freed, self.report.freed_bytes);
        (self.progress)(&format!("Freed {count} containers with {bytes} bytes so far"));
        Ok(())
    }

    fn repack(&mut self, marking: &Marking<'_>, victims: &[Entry], left: &mut Left) -> Result<()> {
        let mut emptied: Vec<Entry> = Vec::new();
        let mut copied = Copied::default();
        for (done, entry) in (0..).zip(victims) {
            self.ticket.progress("repacking", done, victims.len() as u64);
            (self.progress)(&format!("Repacking container {done} of {}", victims.len()));
            let mut result = self.empty(marking, entry, &mut copied);
            if matches!(result, Err(Error::NoSpace { .. })) && !emptied.is_empty() {
                // What was emptied before makes room.
                self.free_emptied(marking, &mut emptied, left)?;
                result = self.empty(marking, entry, &mut copied);
            }
            match result {
                Ok(()) => emptied.push(*entry),
                Err(e @ Error::NoSpace { .. }) => {
                    warn!("No room to repack container={} cause={e}", entry.id);
                    break;
                }
                Err(e) => return Err(e),
            }
            if copied.bytes >= BATCH_COPY_BYTES || copied.chunks >= BATCH_COPY_CHUNKS {
                self.free_emptied(marking, &mut emptied, left)?;
                copied = Copied::default();
            }
        }
        self.free_emptied(marking, &mut emptied, left)
    }

    /// Stores the live chunks of a container anew.
    fn empty(&mut self, marking: &Marking<'_>, entry: &Entry, copied: &mut Copied) -> Result<()> {
        let Some(row) = marking.container(entry.id)? else { return Ok(()) };
        for frame in marking.live_frames(entry.id)? {
            self.pace.copy(frame.iter().map(|(_, row)| u64::from(row.raw_len)).sum())?;
            let moved = marking.repack(&row, &frame)?;
            self.report.repacked_bytes += moved;
            copied.bytes += moved;
            copied.chunks += frame.len();
        }
        Ok(())
    }

    /// Frees the containers whose live chunks have a new place, once that is durable.
    fn free_emptied(
        &mut self,
        marking: &Marking<'_>,
        emptied: &mut Vec<Entry>,
        left: &mut Left,
    ) -> Result<()> {
        if emptied.is_empty() {
            return Ok(());
        }
        self.volume.env().hit(Point::GcRepacked)?;
        self.volume.commit()?;
        self.volume.env().hit(Point::GcEmptied)?;
        let mut batch = Batch::default();
        for entry in std::mem::take(emptied) {
            Self::list(marking, &entry, &mut batch)?;
            if batch.chunks >= BATCH_CHUNKS {
                self.free(marking, &mut batch, left)?;
            }
        }
        self.free(marking, &mut batch, left)
    }
}

/// Since the last commit.
#[derive(Default)]
struct Copied {
    bytes: u64,
    chunks: usize,
}
