//! Seal and committed: the store's part of a commit.

use std::collections::HashMap;

use super::NextIds;
use super::core::Core;
use super::pending::StoredChunk;
use super::rows::{ChunkRow, FingerprintRow, Health, chunk_key, container_key};
use crate::error::{Error, Result};
use crate::kv::{Batch, Table};
use crate::types::{ChunkNo, ContainerId, Fingerprint, ShardId};

/// Chunks dropped from memory under one hold of the lock: a few hundred microseconds.
const DROP_AT_ONCE: usize = 4096;

/// What a commit's batch must carry, and what is to be done once it is durable.
#[derive(Debug)]
pub struct Sealed {
    /// Rows of the chunk, fingerprint and container tables.
    pub changes: Batch,
    /// To be persisted with the same batch.
    pub next: NextIds,
    stored: Vec<StoredChunk>,
    doomed: Vec<(ContainerId, ShardId)>,
    bad: Vec<ChunkNo>,
}

impl Sealed {
    /// True if the batch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.changes.is_empty()
    }
}

impl Core {
    pub(super) fn seal(&self) -> Result<Sealed> {
        let mut sealing = self.sealing.lock();
        if *sealing {
            return Err(Error::invalid("The commit before did not end; open the volume again"));
        }
        self.drain()?;
        let mut changes = Batch::default();
        let (doomed, bad, corrected) = {
            let mut pending = self.pending.lock();
            let corrected = std::mem::take(&mut pending.corrected);
            (pending.due(), pending.bad.clone(), corrected)
        };
        for (id, row) in corrected {
            changes.put(Table::Container, container_key(id), row.to_bytes());
        }
        // Marks, then deletions, then new rows: later changes of a row win.
        let bad = self.bad_rows(&bad, &mut changes)?;
        let doomed = self.doom_rows(&doomed, &mut changes)?;
        let mut stored = Vec::new();
        for writer in self.writers() {
            let sealed = writer.lock().seal();
            let (containers, chunks) = sealed.map_err(|cause| self.sync_failed(cause))?;
            for (id, row) in containers {
                changes.put(Table::Container, container_key(id), row.to_bytes());
            }
            stored.extend(chunks);
        }
        // A chunk stored twice since the last commit: the newer place is the better one.
        stored.sort_unstable_by_key(|chunk| chunk.stamp);
        for StoredChunk { chunk, row, .. } in &stored {
            put_chunk(&mut changes, *chunk, row);
        }
        *sealing = true;
        Ok(Sealed { changes, next: self.next_ids(), stored, doomed, bad })
    }

    /// Hands the jobs that failed to the workers again, if their failure may have passed.
    pub(super) fn retry(&self) {
        let jobs = self.pending.lock().retry();
        jobs.into_iter().for_each(|job| self.queue.push(job));
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
        jobs.into_iter().for_each(|job| self.queue.push(job));
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
        changes: &mut Batch,
    ) -> Result<Vec<(ContainerId, ShardId)>> {
        let mut places = Vec::with_capacity(doomed.len());
        for id in doomed {
            places.push((*id, self.container(*id)?.shard));
            for (chunk, row) in self.rows_of(*id)? {
                changes.delete(Table::Chunk, chunk_key(chunk));
                if self.chunk_with(row.fingerprint) == Some(chunk) {
                    changes.delete(Table::Fingerprint, row.fingerprint.0);
                }
            }
            changes.delete(Table::Container, container_key(*id));
        }
        Ok(places)
    }

    /// Marks the committed rows of damaged chunks; returns which of them were.
    fn bad_rows(
        &self,
        bad: &HashMap<ChunkNo, Fingerprint>,
        changes: &mut Batch,
    ) -> Result<Vec<ChunkNo>> {
        let mut marked = Vec::new();
        for (chunk, fingerprint) in bad {
            let Some(row) = self.chunk_row(*chunk)? else { continue };
            let row = ChunkRow { health: Health::Bad, ..row };
            changes.put(Table::Chunk, chunk_key(*chunk), row.to_bytes());
            if self.chunk_with(*fingerprint) == Some(*chunk) {
                let row = FingerprintRow { health: Health::Bad, chunk: *chunk };
                changes.put(Table::Fingerprint, fingerprint.0, row.to_bytes());
            }
            marked.push(*chunk);
        }
        Ok(marked)
    }

    fn chunk_with(&self, fingerprint: Fingerprint) -> Option<ChunkNo> {
        self.fingerprint_row(fingerprint).map(|row| row.chunk)
    }

    pub(super) fn committed(&self, sealed: Sealed) {
        {
            let mut pending = self.pending.lock();
            pending.commits += 1;
            for chunk in &sealed.bad {
                pending.bad.remove(chunk);
            }
        }
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
            // A file that stays has no row: the next opening deletes it.
            if let Err(error) = self.shard(shard).and_then(|shard| shard.delete(id)) {
                log::warn!("Container not deleted container={id} shard={shard} cause={error}");
            }
        }
        *self.sealing.lock() = false;
    }
}

fn put_chunk(changes: &mut Batch, chunk: ChunkNo, row: &ChunkRow) {
    changes.put(Table::Chunk, chunk_key(chunk), row.to_bytes());
    let by_fingerprint = FingerprintRow { health: row.health, chunk };
    changes.put(Table::Fingerprint, row.fingerprint.0, by_fingerprint.to_bytes());
}
