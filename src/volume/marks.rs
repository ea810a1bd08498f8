//! What gc needs of a volume: a walk over what is in use, and safe ways to move and forget.
//!
//! Why nothing alive can die is said in `gate`. Here is what costs: a walk holds no lock at all,
//! pieces of work are bounded by the caller, and the gate is closed once per batch of containers,
//! for looks at bits and a few insertions; [`Marking::longest_hold`] says how long that took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::MutexGuard;

use super::gate::{Candidate, Marks};
use super::rebuild::LOST_CHUNKS;
use super::{Amount, Volume};
use crate::env::Point;
use crate::error::{Error, Result};
use crate::ingest::codec_choice;
use crate::kv::Table;
use crate::store::{ChunkRow, ContainerRow, ContainerState, PutHint, StrayReport};
use crate::types::{ChunkNo, ContainerId, Ino};

/// Rows whose deletion is staged under one hold of the metadata's lock: tens of microseconds.
const DROP_AT_ONCE: usize = 128;
/// Pruning waits for a commit when it has staged so much, far below what makes writers wait.
const PRUNE_COMMIT_BYTES: usize = 4 * 1024 * 1024;

/// The right to mark and sweep; only one at a time, and never together with a check.
pub struct Marking<'a> {
    volume: &'a Volume,
    marks: Arc<Marks>,
    /// What the walk leaves out, for a marking that only looks: extents of an inode from an offset.
    gone: Option<BTreeMap<Ino, u64>>,
    longest_hold_nanos: AtomicU64,
    _alone: MutexGuard<'a, ()>,
}

/// What a piece of pruning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Old versions dropped.
    pub history: u64,
    /// Notes of changes dropped.
    pub changes: u64,
    /// Where to go on; `None` at the end.
    pub resume: Option<Vec<u8>>,
}

impl Volume {
    /// Begins a marking: commits, and from then on the walk with [`Marking::piece`] meets
    /// everything.
    ///
    /// # Errors
    /// `Busy`, `Poisoned`, `ReadOnly`; what the commit says.
    pub fn begin_marking(&self) -> Result<Marking<'_>> {
        let alone = self.maintenance()?;
        self.check_writable()?;
        self.marking(alone, None)
    }

    /// As [`Volume::begin_marking`], for a caller that has the right already. With `look_only` what
    /// pruning and the reaper would remove counts as not in use; nothing can be moved or forgotten.
    ///
    /// # Errors
    /// As [`Volume::begin_marking`].
    pub fn marking<'a>(
        &'a self,
        alone: MutexGuard<'a, ()>,
        look_only: Option<LookOnly>,
    ) -> Result<Marking<'a>> {
        self.env.hit(Point::GcMark)?;
        let gone = look_only.map(|LookOnly| self.to_be_removed()).transpose()?;
        let marks = self.gate.begin(self.store.next_ids().chunk);
        let marking =
            Marking { volume: self, marks, gone, longest_hold_nanos: 0.into(), _alone: alone };
        self.commit()?;
        Ok(marking)
    }

    /// What the reaper would remove now: the extents of these inodes from these offsets on.
    fn to_be_removed(&self) -> Result<BTreeMap<Ino, u64>> {
        let mut gone = BTreeMap::new();
        let mut after = None;
        loop {
            let rows = self.meta.read().reaps(after, 1000)?;
            let Some((last, _)) = rows.last() else { return Ok(gone) };
            after = Some(*last);
            for (ino, reap) in rows {
                let is_trim = self.reaps.is_nameless_trim(ino);
                match (reap.delete, self.files.is_open(ino)) {
                    (true, false) => drop(gone.insert(ino, 0)),
                    (true, true) if !is_trim => {}
                    _ => drop(gone.insert(ino, reap.from)),
                }
            }
        }
    }

    /// One bounded piece of pruning history that no snapshot needs: looks at up to `limit` rows.
    /// With `look_only` nothing is dropped.
    ///
    /// # Errors
    /// `Poisoned`, `Kv`, `Corrupt`.
    pub fn prune_piece(
        &self,
        resume: Option<Vec<u8>>,
        limit: usize,
        look_only: bool,
    ) -> Result<Pruned> {
        let (dead, resume) = self.meta.find_dead(resume, limit)?;
        let history = dead.iter().filter(|row| row.table == Table::History).count() as u64;
        let changes = dead.len() as u64 - history;
        if !look_only {
            self.check_writable()?;
            self.env.hit(Point::GcPrune)?;
            for some in dead.chunks(DROP_AT_ONCE) {
                let _gate = self.gate.read();
                self.meta.drop_rows(some);
            }
            self.garbage.note_dropped(dead.iter().map(|row| u64::from(row.mapped)).sum());
            if self.meta.overlay_bytes() > PRUNE_COMMIT_BYTES {
                self.commit()?;
            }
        }
        Ok(Pruned { history, changes, resume })
    }

    /// Does the background removal of deleted files' extents now.
    ///
    /// # Errors
    /// `Poisoned`, `Kv`, `Corrupt`.
    pub fn finish_removals(&self) -> Result<()> {
        self.reap_all()
    }
}

/// What a pass over the chunks has found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkCount {
    next: ChunkNo,
    /// Chunks in use without a place.
    missing: u64,
    /// What no extent refers to, counted as for snapshots.
    pub unused: Amount,
}

impl ChunkCount {
    /// The number after the last chunk seen.
    #[must_use]
    pub fn next(&self) -> ChunkNo {
        self.next
    }
}

/// Says that a marking only looks.
#[derive(Clone, Copy, Debug)]
pub struct LookOnly;

impl Marking<'_> {
    /// The marks so far.
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// The longest time the gate was closed for forgetting.
    #[must_use]
    pub fn longest_hold(&self) -> Duration {
        Duration::from_nanos(self.longest_hold_nanos.load(Relaxed))
    }

    /// Marks the chunks of up to `limit` extents; `None` when all were seen. Blocks nobody.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn piece(&self, resume: Option<Vec<u8>>, limit: usize) -> Result<Option<Vec<u8>>> {
        self.volume.env.hit(Point::GcWalk)?;
        let meta = &self.volume.meta;
        let mut mark = |chunk| self.marks.set(chunk);
        match &self.gone {
            None => meta.chunk_refs(resume, limit, &mut mark),
            Some(gone) => {
                let gone = |ino: Ino| gone.get(&ino).copied();
                meta.needed_chunk_refs(resume, limit, &gone, &mut mark)
            }
        }
    }

    /// Calls `each` for every committed container but those on shards that are away: what cannot
    /// be seen is left alone.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`, what `each` says.
    pub fn each_container(
        &self,
        mut each: impl FnMut(ContainerId, &ContainerRow) -> Result<()>,
    ) -> Result<()> {
        let store = &self.volume.store;
        store
            .each_container(|id, row| if store.is_away(row.shard) { Ok(()) } else { each(id, row) })
    }

    /// The committed row of a container, if it is there.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn container(&self, id: ContainerId) -> Result<Option<ContainerRow>> {
        self.volume.store.find_container(id)
    }

    /// Looks at up to `limit` chunk rows after those that `count` has seen: adds up what is not in
    /// use and what should be there and is not, and calls `each` with container and raw bytes of
    /// those in use. False at the end. Call only after all pieces were marked.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn count_piece(
        &self,
        count: &mut ChunkCount,
        limit: usize,
        mut each: impl FnMut(ContainerId, u64),
    ) -> Result<bool> {
        let mut next = count.next;
        let more = self.volume.store.each_chunk(count.next, limit, |chunk, row| {
            count.missing += self.missing(next, chunk)?;
            next = ChunkNo(chunk.0.saturating_add(1));
            if self.marks.is_live(chunk) {
                each(row.container, u64::from(row.raw_len));
            } else {
                count.unused.add(u64::from(row.raw_len), row.stored_share());
            }
            Ok(())
        })?;
        if more.is_none() {
            count.missing += self.missing(next, self.marks.horizon())?;
            next = next.max(self.marks.horizon());
        }
        count.next = next;
        Ok(more.is_some())
    }

    /// Chunks in use among these numbers that have no place, committed or not.
    fn missing(&self, from: ChunkNo, to: ChunkNo) -> Result<u64> {
        let mut missing = 0;
        for chunk in (from.0..to.min(self.marks.horizon()).0).map(ChunkNo) {
            if self.marks.is_live(chunk) && !self.volume.store.has_chunk(chunk)? {
                missing += 1;
            }
        }
        Ok(missing)
    }

    /// Refuses to go on if an extent refers to a chunk that has no place: its row was lost, and
    /// the container that holds it would be freed. `count` has seen all chunks.
    ///
    /// # Errors
    /// `Corrupt` with the way out; `Kv`.
    pub fn check_places(&self, count: &ChunkCount) -> Result<()> {
        let missing = count.missing;
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

    /// Deletes container files without a row, unless they hold chunks in use; a marking that only
    /// looks counts them. Call only after all pieces were marked.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`, those of the shards.
    pub fn free_strays(&self) -> Result<StrayReport> {
        // A number above the horizon was never committed when the volume was opened.
        let live = |chunk| chunk < self.marks.horizon() && self.marks.is_live(chunk);
        self.volume.store.free_strays(&live, self.gone.is_some())
    }

    /// Raw bytes of the chunks in use that have their place in a container.
    ///
    /// # Errors
    /// `NotFound`, `Kv`, `Corrupt`.
    pub fn live_bytes(&self, id: ContainerId) -> Result<u64> {
        let rows = self.volume.store.rows_of(id)?;
        let live = rows.iter().filter(|(chunk, _)| self.marks.is_live(*chunk));
        Ok(live.map(|(_, row)| u64::from(row.raw_len)).sum())
    }

    /// The containers that are appended to, and the bytes they would have if they were closed now.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`, those of the shards.
    pub fn if_closed(&self) -> Result<BTreeMap<ContainerId, u64>> {
        self.volume.store.if_closed()
    }

    /// Closes those of these containers that are appended to: gc can have them then.
    ///
    /// # Errors
    /// What the commit says.
    pub fn close(&self, ids: &[ContainerId]) -> Result<()> {
        self.volume.store.close_some(|id| ids.contains(&id));
        self.volume.commit()
    }

    /// The chunks in use that have their place in a container, frame by frame.
    ///
    /// # Errors
    /// `NotFound`, `Kv`, `Corrupt`.
    pub fn live_frames(&self, id: ContainerId) -> Result<Vec<Vec<(ChunkNo, ChunkRow)>>> {
        let mut rows = self.volume.store.rows_of(id)?;
        rows.retain(|(chunk, _)| self.marks.is_live(*chunk));
        rows.sort_unstable_by_key(|(_, row)| (row.frame_offset, row.offset));
        let frames = rows.chunk_by(|a, b| a.1.frame_offset == b.1.frame_offset);
        Ok(frames.map(<[_]>::to_vec).collect())
    }

    /// Stores chunks of one frame of a container anew, under their numbers; after the next commit
    /// they lie elsewhere. Returns the raw bytes moved. Chunks that cannot be read stay.
    ///
    /// # Errors
    /// `NoSpace` when even the reserve is used up; `Poisoned`, `Kv`, `Shard`.
    pub fn repack(&self, home: &ContainerRow, frame: &[(ChunkNo, ChunkRow)]) -> Result<u64> {
        let volume = self.volume;
        volume
            .admit_repack(home.shard, frame.iter().map(|(_, row)| u64::from(row.raw_len)).sum())?;
        volume.env.hit(Point::GcRepack)?;
        let spec = volume.classifier.class(home.class);
        let (codec, group_bytes) = (codec_choice(spec.codec), spec.group_bytes);
        let hint = PutHint { class: home.class, shard: home.shard, codec, group_bytes };
        volume.store.rewrite(frame, hint)
    }

    /// What is listed of a sealed container for [`Marking::free_dead`]: its chunks. `None` if it is
    /// not sealed, not there, or in use.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`.
    pub fn dead_chunks(&self, id: ContainerId) -> Result<Option<Vec<ChunkNo>>> {
        let row = self.volume.store.find_container(id)?;
        if row.is_none_or(|row| row.state != ContainerState::Sealed) {
            return Ok(None);
        }
        let chunks: Vec<_> = self.volume.store.chunks_of(id)?.into_iter().map(|c| c.0).collect();
        Ok((!chunks.iter().any(|chunk| self.marks.is_live(*chunk))).then_some(chunks))
    }

    /// Forgets those of the listed containers of which no chunk is in use; their files go with the
    /// next commit. Call only after all pieces were marked. Returns which were forgotten.
    ///
    /// # Errors
    /// `Poisoned`, `ReadOnly`.
    pub fn free_dead(&self, listed: Vec<(ContainerId, Vec<ChunkNo>)>) -> Result<Vec<bool>> {
        self.volume.check_writable()?;
        if self.gone.is_some() {
            return Err(Error::invalid("A marking that only looks frees nothing"));
        }
        self.volume.env.hit(Point::GcDoom)?;
        let candidates = listed.into_iter().map(|(id, chunks)| Candidate { id, chunks }).collect();
        let doom = |c: Candidate| self.volume.store.doom_listed(c.id, c.chunks);
        let (freed, held) = self.volume.gate.forget_dead(&self.marks, candidates, doom);
        let nanos = u64::try_from(held.as_nanos()).unwrap_or(u64::MAX);
        self.longest_hold_nanos.fetch_max(nanos, Relaxed);
        Ok(freed)
    }

    /// As [`Marking::free_dead`] of one container.
    ///
    /// # Errors
    /// `Kv`, `Corrupt`, `Poisoned`, `ReadOnly`.
    pub fn free_if_dead(&self, id: ContainerId) -> Result<bool> {
        match self.dead_chunks(id)? {
            Some(chunks) => Ok(self.free_dead(vec![(id, chunks)])? == [true]),
            None => Ok(false),
        }
    }
}

impl Drop for Marking<'_> {
    fn drop(&mut self) {
        self.volume.gate.end();
    }
}
