//! Seal and committed: the store's part of a commit.

use super::NextIds;
use super::core::Core;
use super::ledger::{Found, Marks, Verified, drop_recorded};
use super::pending::StoredChunk;
use super::rows::{FingerprintRow, chunk_key, container_key};
use super::workers::submit;
use crate::env::Point;
use crate::error::{Error, Result};
use crate::kv::{Batch, Changes, EachChange, Table};
use crate::types::{ChunkNo, ContainerId, Fingerprint, ShardId};

/// Chunks dropped from memory under one hold of the lock: a few hundred microseconds.
const DROP_AT_ONCE: usize = 4096;

/// Most bytes of a chunk's two rows in memtables, and of their deletion.
const CHUNK_ROWS_BYTES: usize = 240;
const GONE_ROWS_BYTES: usize = 128;

/// What a commit's batch must carry (its [`Changes`]: rows of the chunk, fingerprint and container
/// tables), and what is to be done once it is durable.
#[derive(Debug)]
pub struct Sealed {
    /// All rows but those of new chunks, which are made when they are written.
    rows: Batch,
    /// To be persisted with the same batch.
    pub next: NextIds,
    /// Rows of these chunks go; a fingerprint only if it stands for the chunk.
    gone: Vec<(ChunkNo, Option<Fingerprint>)>,
    stored: Vec<StoredChunk>,
    doomed: Vec<(ContainerId, ShardId)>,
    marks: Marks,
    verified: Verified,
}

impl Sealed {
    /// True if the batch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// How many rows it changes.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.changes.len() + 2 * (self.gone.len() + self.stored.len())
    }
}

impl Changes for Sealed {
    fn each(&self, change: &mut EachChange<'_>) {
        // Marks, then deletions, then new rows: later changes of a row win.
        self.rows.each(change);
        for (chunk, fingerprint) in &self.gone {
            change(Table::Chunk, &chunk_key(*chunk), None);
            if let Some(fingerprint) = fingerprint {
                change(Table::Fingerprint, &fingerprint.0, None);
            }
        }
        for StoredChunk { chunk, row, .. } in &self.stored {
            change(Table::Chunk, &chunk_key(*chunk), Some(&row.to_bytes()));
            let by_fingerprint = FingerprintRow { health: row.health, chunk: *chunk };
            change(Table::Fingerprint, &row.fingerprint.0, Some(&by_fingerprint.to_bytes()));
        }
    }

    fn bytes(&self) -> usize {
        let (gone, stored) = (self.gone.len(), self.stored.len());
        self.rows.bytes() + GONE_ROWS_BYTES * gone + CHUNK_ROWS_BYTES * stored
    }
}

impl Core {
    pub(super) fn seal(&self) -> Result<Sealed> {
        let mut sealing = self.sealing.lock();
        if *sealing {
            return Err(Error::invalid("The commit before did not end; open the volume again"));
        }
        self.faults.hit(Point::SealDrain)?;
        self.drain()?;
        self.faults.hit(Point::SealRows)?;
        let mut changes = Batch::default();
        let (doomed, found, corrected) = {
            let mut pending = self.pending.lock();
            let corrected = std::mem::take(&mut pending.corrected);
            (pending.due(), Found::of(&pending), corrected)
        };
        for (id, row) in corrected {
            changes.put(Table::Container, container_key(id), row.to_bytes());
        }
        let marks = self.health_rows(&found, &mut changes)?;
        let verified = self.verified_rows(found.verified, &mut changes)?;
        let mut gone = Vec::new();
        let doomed = self.doom_rows(&doomed, &marks, &mut changes, &mut gone)?;
        let mut stored = Vec::new();
        for writer in self.writers() {
            let sealed = writer.lock().seal(&self.faults);
            let (containers, chunks) = sealed.map_err(|cause| self.sync_failed(cause))?;
            for (id, row) in containers {
                changes.put(Table::Container, container_key(id), row.to_bytes());
            }
            stored.extend(chunks);
        }
        // A chunk stored twice since the last commit: the newer place is the better one.
        stored.sort_unstable_by_key(|chunk| chunk.stamp);
        for StoredChunk { chunk, .. } in &stored {
            self.forget_damage(*chunk, &marks, &mut changes)?;
        }
        self.faults.pass(Point::SealDone);
        *sealing = true;
        let next = self.next_ids();
        Ok(Sealed { rows: changes, next, gone, stored, doomed, marks, verified })
    }

    /// Hands the jobs that failed to the workers again, if their failure may have passed.
    pub(super) fn retry(&self) {
        let jobs = self.pending.lock().retry();
        jobs.into_iter().for_each(|job| submit(self, job));
    }

    /// Waits until every chunk put before now is in a container's file.
    fn drain(&self) -> Result<()> {
        self.retry();
        let (jobs, horizon) = {
            let mut pending = self.pending.lock();
            if let Some(cause) = &pending.failure {
                return Err(cause.clone());
            }
            (pending.close_groups(), pending.horizon())
        };
        jobs.into_iter().for_each(|job| submit(self, job));
        let mut pending = self.pending.lock();
        while !pending.is_done(horizon) {
            if let Some(cause) = &pending.failure {
                return Err(cause.clone());
            }
            self.progress.wait(&mut pending);
        }
        Ok(())
    }

    /// After a failed sync nothing since the last one may be relied on, and the rows that were
    /// taken are lost: the store stops storing.
    fn sync_failed(&self, cause: Error) -> Error {
        let cause = match cause {
            Error::NoSpace { place } => {
                Error::Poisoned { cause: std::sync::Arc::new(Error::NoSpace { place }) }
            }
            other => other,
        };
        self.pending.lock().fail(cause.clone());
        cause
    }

    /// Deletes the rows of doomed containers. A chunk that has moved elsewhere keeps its row, and a
    /// fingerprint that stands for another chunk by now keeps its own.
    fn doom_rows(
        &self,
        doomed: &[ContainerId],
        marks: &Marks,
        changes: &mut Batch,
        gone: &mut Vec<(ChunkNo, Option<Fingerprint>)>,
    ) -> Result<Vec<(ContainerId, ShardId)>> {
        let mut places = Vec::with_capacity(doomed.len());
        for id in doomed {
            places.push((*id, self.container(*id)?.shard));
            for (chunk, row) in self.rows_of(*id)? {
                self.forget_damage(chunk, marks, changes)?;
                let known = self.chunk_with(row.fingerprint) == Some(chunk);
                gone.push((chunk, known.then_some(row.fingerprint)));
            }
            changes.delete(Table::Container, container_key(*id));
            changes.delete(Table::Scrub, container_key(*id));
        }
        Ok(places)
    }

    pub(super) fn chunk_with(&self, fingerprint: Fingerprint) -> Option<ChunkNo> {
        self.fingerprint_row(fingerprint).map(|row| row.chunk)
    }

    pub(super) fn committed(&self, sealed: Sealed) {
        {
            let mut pending = self.pending.lock();
            pending.commits += 1;
            if !sealed.gone.is_empty() || sealed.marks.has_bad() {
                pending.neighbours.clear();
            }
            sealed.marks.drop_recorded(&mut pending);
            drop_recorded(&sealed.verified, &mut pending);
        }
        self.look_for_damage();
        for part in sealed.stored.chunks(DROP_AT_ONCE) {
            self.pending.lock().drop_committed(part);
        }
        let mut pending = self.pending.lock();
        for (id, _) in &sealed.doomed {
            pending.drop_doomed(*id);
        }
        pending.shrink();
        drop(pending);
        for (id, shard) in sealed.doomed {
            self.cache.forget(id);
            let deleted = self.faults.hit(Point::ContainerDelete);
            // A file that stays has no row: the next opening deletes it.
            if let Err(error) = deleted.and_then(|()| self.shard(shard)?.delete(id)) {
                log::warn!("Container not deleted container={id} shard={shard} cause={error}");
            }
            self.faults.pass(Point::ContainerDeleted);
        }
        *self.sealing.lock() = false;
    }
}
