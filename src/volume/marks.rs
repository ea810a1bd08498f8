//! What gc needs of a volume: a bitmap of chunks in use, and a safe way to forget a container.
//!
//! Why nothing alive can die. Marking begins with the gate closed: from then on every extent that
//! is staged sets its chunk's bit ([`Volume::mark_live`]), and every extent staged before is met by
//! the walk, which covers the open txg, the frozen one and the database, live rows before history,
//! so a row that moves to history meanwhile is met at its new place. A container is forgotten with
//! the gate closed again, so no change is between "this chunk is known" and its extent; if no chunk
//! of it is marked then, no extent refers to it and none can: its fingerprints are unknown from the
//! same moment. Chunks numbered after the horizon are never candidates.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use log::error;
use parking_lot::MutexGuard;

use super::rebuild::LOST_CHUNKS;
use super::{Amount, Volume};
use crate::env::Point;
use crate::error::{Error, Result};
use crate::ingest::codec_choice;
use crate::store::{ContainerRow, PutHint, StrayReport};
use crate::types::{ChunkNo, ContainerId, Extent};

/// One bit per chunk below the horizon.
#[derive(Debug)]
pub struct Marks {
    bits: Vec<AtomicU64>,
    horizon: ChunkNo,
}

impl Marks {
    fn new(horizon: ChunkNo) -> Self {
        let words = usize::try_from(horizon.0.div_ceil(64)).expect("a bitmap that fits memory");
        Self { bits: (0..words).map(|_| AtomicU64::new(0)).collect(), horizon }
    }

    fn set(&self, chunk: ChunkNo) {
        if chunk < self.horizon {
            self.bits[(chunk.0 / 64) as usize].fetch_or(1 << (chunk.0 % 64), Relaxed);
        }
    }

    /// True if the chunk is in use, or too young to tell.
    #[must_use]
    pub fn is_live(&self, chunk: ChunkNo) -> bool {
        chunk >= self.horizon
            || self.bits[(chunk.0 / 64) as usize].load(Relaxed) & (1 << (chunk.0 % 64)) != 0
    }

    /// First chunk number that is not covered.
    #[must_use]
    pub fn horizon(&self) -> ChunkNo {
        self.horizon
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.bits.len() * size_of::<AtomicU64>()) as u64
    }

    /// Marked chunks.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bits.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum()
    }
}

/// The right to mark and sweep; only one at a time, and never together with a check.
pub struct Marking<'a> {
    volume: &'a Volume,
    marks: Arc<Marks>,
    _alone: MutexGuard<'a, ()>,
}

impl Volume {
    /// Notes that extents refer to chunks, for a marking that is under way. The caller holds the
    /// gate from before the chunk numbers were learnt.
    pub(super) fn mark_live(&self, extents: &[Extent]) {
        if let Some(marks) = &*self.marks.read() {
            extents.iter().for_each(|extent| marks.set(extent.chunk));
        }
    }

    /// Keeps gc and other checks out while the result lives.
    ///
    /// # Errors
    /// `Busy` if one of them is running.
    pub fn maintenance(&self) -> Result<MutexGuard<'_, ()>> {
        self.upkeep.maintenance.try_lock().ok_or_else(|| Error::Busy {
            what: "Another gc or check of this volume is running; wait until it is done".to_owned(),
        })
    }

    /// Begins a marking.
    ///
    /// # Errors
    /// `Busy`, `Poisoned`, `ReadOnly`; what draining buffered data says.
    pub fn begin_marking(&self) -> Result<Marking<'_>> {
        let alone = self.maintenance()?;
        self.check_writable()?;
        self.env.hit(Point::GcMark)?;
        self.drain_files(false)?;
        let _gate = self.gate.write();
        self.drain_files(true)?;
        let marks = Arc::new(Marks::new(self.store.next_ids().chunk));
        *self.marks.write() = Some(Arc::clone(&marks));
        Ok(Marking { volume: self, marks, _alone: alone })
    }

    /// One bounded piece of pruning history that no snapshot needs. Returns how many rows went and
    /// where to go on.
    ///
    /// # Errors
    /// `Poisoned`, `Kv`, `Corrupt`.
    pub fn prune_piece(
        &self,
        resume: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<(usize, Option<Vec<u8>>)> {
        self.admit_removal()?;
        self.env.hit(Point::GcPrune)?;
        let _gate = self.gate.read();
        self.meta.prune_history(resume, limit)
    }

    /// Does the background removal of deleted files' extents now.
    ///
    /// # Errors
    /// `Poisoned`, `Kv`, `Corrupt`.
    pub fn finish_removals(&self) -> Result<()> {
        self.reap_all()
    }
}

impl Marking<'_> {
    /// The marks so far.
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Marks the chunks of up to `limit` extents; `None` when all were seen.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn piece(&self, resume: Option<Vec<u8>>, limit: usize) -> Result<Option<Vec<u8>>> {
        self.volume.env.hit(Point::GcWalk)?;
        let (chunks, next) = self.volume.meta.read().chunk_refs(resume, limit)?;
        chunks.into_iter().for_each(|chunk| self.marks.set(chunk));
        Ok(next)
    }

    /// Refuses to go on if an extent refers to a chunk that has no place: its row was lost, and
    /// the container that holds it would be freed. Call only after all pieces were marked.
    ///
    /// # Errors
    /// `Corrupt` with the way out; `Kv`.
    pub fn check_places(&self) -> Result<()> {
        let store = &self.volume.store;
        let mut next = ChunkNo(0);
        let mut missing = 0;
        let mut count = |from: ChunkNo, to: ChunkNo| -> Result<()> {
            for chunk in (from.0..to.0).map(ChunkNo).filter(|chunk| self.marks.is_live(*chunk)) {
                missing += u64::from(!store.has_chunk(chunk)?);
            }
            Ok(())
        };
        store.each_chunk(|chunk, _| {
            count(next, chunk.min(self.marks.horizon))?;
            next = ChunkNo(chunk.0.saturating_add(1));
            Ok(())
        })?;
        count(next, self.marks.horizon)?;
        let accepted = self.volume.meta.read().super_numbers(LOST_CHUNKS)?.unwrap_or_default();
        if missing <= accepted.first().copied().unwrap_or(0) {
            return Ok(());
        }
        Err(Error::corrupt(
            "table chunk",
            format!(
                "{missing} chunks that files refer to have no row, so nothing is freed; unmount \
                 and run `stratafs rebuild-index`"
            ),
        ))
    }

    /// Deletes container files without a row, unless they hold chunks in use. Call only after all
    /// pieces were marked.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`, those of the shards.
    pub fn free_strays(&self) -> Result<StrayReport> {
        // A number above the horizon was never committed when the volume was opened.
        let live = |chunk| chunk < self.marks.horizon && self.marks.is_live(chunk);
        self.volume.store.free_strays(&live)
    }

    /// What no extent refers to, counted as for snapshots. Call when all pieces were marked.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn unused(&self) -> Result<Amount> {
        let mut unused = Amount::default();
        self.volume.store.each_chunk(|chunk, row| {
            if !self.marks.is_live(chunk) {
                unused.add(u64::from(row.raw_len), row.stored_share());
            }
            Ok(())
        })?;
        Ok(unused)
    }

    /// All containers but those on shards that are away: what cannot be seen is left alone.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn containers(&self) -> Result<Vec<(ContainerId, ContainerRow)>> {
        let mut all = self.volume.store.containers()?;
        all.retain(|(_, row)| !self.volume.store.is_away(row.shard));
        Ok(all)
    }

    /// Raw bytes of the chunks in use that have their place in a container.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn live_bytes(&self, id: ContainerId) -> Result<u64> {
        let rows = self.volume.store.rows_of(id)?;
        let live = rows.iter().filter(|(chunk, _)| self.marks.is_live(*chunk));
        Ok(live.map(|(_, row)| u64::from(row.raw_len)).sum())
    }

    /// Lets the next commit close the containers that are appended to.
    pub fn close_open(&self) {
        self.volume.store.close_open();
    }

    /// Stores the live chunks of a container anew, under their numbers; after the next commit they
    /// lie elsewhere. Returns their raw bytes. Chunks that cannot be read stay where they are.
    ///
    /// # Errors
    /// `NoSpace` when the shards have only their reserve left; `Poisoned`, `Kv`, `Shard`.
    pub fn repack(&self, id: ContainerId, row: &ContainerRow) -> Result<u64> {
        let spec = self.volume.classifier.class(row.class);
        let hint = PutHint { class: row.class, shard: row.shard, codec: codec_choice(spec.codec) };
        let mut moved = 0;
        for (chunk, place) in self.volume.store.rows_of(id)? {
            if !self.marks.is_live(chunk) {
                continue;
            }
            self.volume.admit_data(place.raw_len as usize)?;
            self.volume.env.hit(Point::GcRepack)?;
            match self.volume.store.rewrite(chunk, hint) {
                Ok(()) => moved += u64::from(place.raw_len),
                Err(e @ Error::Corrupt { .. }) => {
                    error!("Damaged chunk keeps its container container={id} cause={e}");
                }
                Err(e) => return Err(e),
            }
        }
        Ok(moved)
    }

    /// Forgets a sealed container if no chunk of it is in use; its file goes with the next commit.
    /// Call only after all pieces were marked.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`, `Poisoned`, those of the shard.
    pub fn free_if_dead(&self, id: ContainerId) -> Result<bool> {
        self.volume.admit_removal()?;
        let _gate = self.volume.gate.write();
        let chunks = self.volume.store.chunks_of(id)?;
        if chunks.iter().any(|(chunk, _)| self.marks.is_live(*chunk)) {
            return Ok(false);
        }
        self.volume.env.hit(Point::GcDoom)?;
        self.volume.store.doom_if_sealed(id)
    }
}

impl Drop for Marking<'_> {
    fn drop(&mut self) {
        *self.volume.marks.write() = None;
    }
}
