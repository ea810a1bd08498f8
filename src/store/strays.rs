//! Container files without a row.
//!
//! A crash leaves some: written and never committed, or forgotten by a commit and not yet deleted.
//! But a row may also have been lost, and then the file is all there is of its chunks. So opening
//! deletes a file only if none of its chunks can be missed: its number was never committed, or all
//! its chunks have their place elsewhere, or were never committed. What is left is for gc, which
//! knows what extents refer to, and for rebuild-index.

use super::Store;
use super::core::Core;
use super::find::find_frames;
use crate::env::Point;
use crate::error::Result;
use crate::shard::Shard;
use crate::types::{ChunkNo, ContainerId, ShardId};

/// What gc did with the containers without a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StrayReport {
    /// Deleted: nothing refers to what they hold.
    pub freed: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Kept: they hold chunks that extents refer to and no row places.
    pub needed: u64,
}

/// A container file without a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Where it lies.
    pub shard: ShardId,
    /// Its number.
    pub id: ContainerId,
    /// Numbers given before the last commit that have no other place. Nobody may need them: a
    /// crash leaves files of containers that were freed.
    pub chunks: Vec<ChunkNo>,
}

impl Store {
    /// Deletes the containers without a row that opening kept, unless they hold a live chunk that
    /// has no other place; with `look_only` it counts them. Call only when `is_live` knows every
    /// extent.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`, those of the shards.
    pub fn free_strays(
        &self,
        is_live: &dyn Fn(ChunkNo) -> bool,
        look_only: bool,
    ) -> Result<StrayReport> {
        self.core.free_strays(is_live, look_only)
    }

    /// Container files without a committed row that nobody writes to. Containers made meanwhile may
    /// be among them: those that are still there after a commit are what a check should look at.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`, those of the shards.
    pub fn strays(&self) -> Result<Vec<Stray>> {
        self.core.list_strays()
    }

    /// True if the chunk has a place, committed or not.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn has_chunk(&self, chunk: ChunkNo) -> Result<bool> {
        let waiting = self.core.pending.lock().contains(chunk);
        Ok(waiting || self.core.chunk_row(chunk)?.is_some())
    }
}

impl Core {
    /// Deletes the leftovers of a crash on a shard that is being attached.
    pub(super) fn clear_leftovers(
        &self,
        id: ShardId,
        shard: &dyn Shard,
        without_row: Vec<ContainerId>,
    ) -> Result<()> {
        for container in without_row {
            if container < self.next_ids().container && self.may_be_missed(container, shard)? {
                log::warn!("Container without a row kept container={container} shard={id}");
                self.strays.lock().push((id, container));
            } else {
                log::info!("Leftover container deleted container={container} shard={id}");
                self.faults.hit(Point::RecoverDelete)?;
                shard.delete(container)?;
                self.faults.pass(Point::RecoverDeleted);
            }
        }
        Ok(())
    }

    /// True if a chunk in the container was committed and has no place elsewhere. Keeps the numbers
    /// in it from being given again.
    fn may_be_missed(&self, id: ContainerId, shard: &dyn Shard) -> Result<bool> {
        let found = find_frames(shard, id, shard.len(id)?)?;
        let horizon = self.next_ids().chunk;
        let mut missed = !found.flaws.is_empty();
        let chunks = || found.frames.iter().flat_map(|f| &f.directory.entries).map(|e| e.chunk);
        for chunk in chunks().filter(|chunk| *chunk < horizon) {
            missed |= self.is_only_in(chunk, id)?;
        }
        if missed && let Some(last) = chunks().max() {
            self.pending.lock().skip_number(last);
        }
        Ok(missed)
    }

    /// True if no row places the chunk in another container.
    fn is_only_in(&self, chunk: ChunkNo, id: ContainerId) -> Result<bool> {
        if self.pending.lock().contains(chunk) {
            return Ok(false);
        }
        Ok(self.chunk_row(chunk)?.is_none_or(|row| row.container == id))
    }

    /// See [`super::Store::free_strays`].
    pub(super) fn free_strays(
        &self,
        is_live: &dyn Fn(ChunkNo) -> bool,
        look_only: bool,
    ) -> Result<StrayReport> {
        let mut report = StrayReport::default();
        let strays = self.strays.lock().clone();
        for (shard_id, id) in strays {
            // One that is away keeps what it has.
            let Ok(shard) = self.shard(shard_id) else { continue };
            let bytes = shard.len(id)?;
            let found = find_frames(&*shard, id, bytes)?;
            let mut needed = false;
            for entry in found.frames.iter().flat_map(|f| &f.directory.entries) {
                needed |= is_live(entry.chunk) && self.is_only_in(entry.chunk, id)?;
            }
            if needed {
                log::error!("Container holds chunks in use and has no row container={id}");
                report.needed += 1;
                continue;
            }
            if !look_only {
                self.faults.hit(Point::GcStray)?;
                shard.delete(id)?;
                self.strays.lock().retain(|stray| *stray != (shard_id, id));
            }
            report.freed += 1;
            report.freed_bytes += bytes;
        }
        Ok(report)
    }

    fn list_strays(&self) -> Result<Vec<Stray>> {
        let mut found = Vec::new();
        let horizon = self.next_ids().chunk;
        for (shard_id, shard) in self.all_shards() {
            for id in shard.list()? {
                let open = || self.writers().iter().any(|w| w.lock().has(id));
                if self.find_container(id)?.is_some() || open() {
                    continue;
                }
                let frames = find_frames(&*shard, id, shard.len(id)?)?.frames;
                let entries = frames.iter().flat_map(|frame| &frame.directory.entries);
                let mut chunks = Vec::new();
                for chunk in entries.map(|entry| entry.chunk).filter(|chunk| *chunk < horizon) {
                    if self.is_only_in(chunk, id)? {
                        chunks.push(chunk);
                    }
                }
                found.push(Stray { shard: shard_id, id, chunks });
            }
        }
        Ok(found)
    }
}
