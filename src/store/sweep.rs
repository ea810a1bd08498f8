//! What gc needs of the store: who lies where, moving what is alive, forgetting what is dead.
//!
//! Everything here is bounded by one container or by the caller's `limit`. A container that was
//! filled by gc holds chunks from everywhere: the range of its numbers says little, so its footer
//! tells who is in it.

use std::collections::BTreeMap;

use super::container::HEADER_BYTES;
use super::core::Core;
use super::pending::NewChunk;
use super::reader::{bytes_of, name_of};
use super::rows::{ChunkRow, ContainerRow, ContainerState, parse_key};
use super::scan::{footer_so_far, read_footer};
use super::workers;
use super::{ContainerHeader, PutHint, Store};
use crate::error::{Error, Result};
use crate::kv::{KeyRange, Table};
use crate::types::{ChunkNo, ContainerId, Fingerprint};

/// A container's numbers are looked up in its footer when their range is so many times longer than
/// their count: a row read by number costs as much as some ten in a row.
const WIDE_RANGE: u64 = 16;

impl Store {
    /// Calls `each` for up to `limit` committed chunks from `from` on, in number order, and returns
    /// where to go on; `None` at the end.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`, and what `each` says, which ends the scan.
    pub fn each_chunk(
        &self,
        from: ChunkNo,
        limit: usize,
        mut each: impl FnMut(ChunkNo, &ChunkRow) -> Result<()>,
    ) -> Result<Option<ChunkNo>> {
        let mut next = None;
        for row in self.core.chunk_rows(from, None)?.take(limit) {
            let (chunk, row) = row?;
            each(chunk, &row)?;
            next = Some(chunk);
        }
        // A piece that ends exactly at the end costs one more look.
        Ok(next.map(|last| ChunkNo(last.0 + 1)))
    }

    /// Calls `each` for every committed container, in number order.
    ///
    /// # Errors
    /// As [`Store::each_chunk`].
    pub fn each_container(
        &self,
        mut each: impl FnMut(ContainerId, &ContainerRow) -> Result<()>,
    ) -> Result<()> {
        for row in self.core.kv.scan_once(Table::Container, &KeyRange::all()) {
            let (key, value) = row?;
            let id = ContainerId(parse_key("container", &key)?);
            each(id, &ContainerRow::parse(id, &value)?)?;
        }
        Ok(())
    }

    /// The committed row of a container; `None` if there is no such container.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`.
    pub fn find_container(&self, id: ContainerId) -> Result<Option<ContainerRow>> {
        self.core.find_container(id)
    }

    /// The chunks whose committed place is this container.
    ///
    /// # Errors
    /// `NotFound` if there is no such container; `Corrupt`, `Kv`.
    pub fn chunks_of(&self, id: ContainerId) -> Result<Vec<(ChunkNo, Fingerprint)>> {
        let rows = self.core.rows_of(id)?;
        Ok(rows.into_iter().map(|(chunk, row)| (chunk, row.fingerprint)).collect())
    }

    /// The committed rows of the chunks whose place is this container, in number order. At most
    /// as many as fit a container: 760,000 of one byte, 512 of average length.
    ///
    /// # Errors
    /// As [`Store::chunks_of`].
    pub fn rows_of(&self, id: ContainerId) -> Result<Vec<(ChunkNo, ChunkRow)>> {
        self.core.rows_of(id)
    }

    /// Stores chunks anew, under their numbers, where `hint` says; they share one committed frame.
    /// After the next commit that place is free of them. Returns the raw bytes that were moved, or
    /// are being moved already. Damaged chunks stay, and are remembered.
    ///
    /// # Errors
    /// `Shard` if a shard is not there; `Io`, `Kv`; `NoSpace` or another first cause if chunks put
    /// before could not be written.
    pub fn rewrite(&self, chunks: &[(ChunkNo, ChunkRow)], hint: PutHint) -> Result<u64> {
        let Some((first, at)) = chunks.first() else { return Ok(0) };
        self.core.shard(hint.shard)?;
        let shard = self.core.container(at.container)?.shard;
        let frame = match self.core.load(*first, at, shard) {
            Ok(frame) => std::sync::Arc::new(frame),
            Err(error @ Error::Corrupt { .. }) => {
                chunks.iter().for_each(|(chunk, row)| self.core.note_damage(*chunk, row, &error));
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        let mut moved = 0;
        for (chunk, row) in chunks {
            let raw = match bytes_of(&frame, *chunk, row) {
                Ok(raw) => raw,
                Err(flaw) => {
                    let error = Error::corrupt(name_of(*chunk, row.container, shard), flaw);
                    self.core.note_damage(*chunk, row, &error);
                    continue;
                }
            };
            let jobs = {
                let mut pending = self.core.pending.lock();
                if let Some(cause) = &pending.failure {
                    return Err(cause.clone());
                }
                moved += u64::from(row.raw_len);
                if pending.contains(*chunk) {
                    // On its way to a new place already.
                    continue;
                }
                // A copy: a slice would keep the whole frame until this chunk is written.
                let raw = bytes::Bytes::copy_from_slice(&raw);
                let fingerprint = row.fingerprint;
                pending.add(NewChunk { chunk: *chunk, fingerprint, raw, buffer: None }, hint)
            };
            jobs.into_iter().for_each(|job| workers::submit(&self.core, job));
        }
        Ok(moved)
    }

    /// Raw bytes on their way to the shards, open groups not counted.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.core.queue.bytes()
    }

    /// Forgets a sealed container. Nobody may refer to the chunks that have their place there, now
    /// or later. Their fingerprints are unknown from now on; after [`Store::freeze`] the rows go
    /// with the next sealed batch, the file with its [`Store::committed`]. What it holds until then
    /// is part of [`Store::uncommitted_bytes`]: doom a bounded number of containers per commit.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if the container is not sealed, or a chunk of it is being stored anew
    /// and not committed there; `Corrupt`, `Kv`.
    pub fn doom(&self, id: ContainerId) -> Result<()> {
        if self.core.container(id)?.state != ContainerState::Sealed {
            return Err(Error::invalid(format!("Container {id} is still open")));
        }
        let chunks = self.chunks_of(id)?.into_iter().map(|(chunk, _)| chunk).collect();
        if self.doom_listed(id, chunks) {
            return Ok(());
        }
        Err(Error::invalid(format!("Chunks of container {id} are moving; commit first")))
    }

    /// As [`Store::doom`] of a container that was seen sealed, whose `chunks` were listed before:
    /// none come to it after that. Touches memory only. False if a chunk of it is moving.
    pub fn doom_listed(&self, id: ContainerId, chunks: Vec<ChunkNo>) -> bool {
        self.core.pending.lock().doom(id, chunks)
    }

    /// Lets the next [`Store::seal`] close the containers that are open now, so that gc can have
    /// them. Chunks not yet written go to new ones.
    pub fn close_open(&self) {
        self.close_some(|_| true);
    }

    /// As [`Store::close_open`], of those that `which` names.
    pub fn close_some(&self, which: impl Fn(ContainerId) -> bool) {
        for writer in self.core.writers() {
            writer.lock().close(&which);
        }
    }

    /// The containers that [`Store::close_open`] would close now, and their bytes then.
    ///
    /// # Errors
    /// `Corrupt`, `Kv`, those of the shards.
    pub fn if_closed(&self) -> Result<BTreeMap<ContainerId, u64>> {
        let mut closed = BTreeMap::new();
        if !self.core.options.read_only {
            for writer in self.core.writers() {
                closed.extend(writer.lock().if_closed(&self.core.faults)?);
            }
            return Ok(closed);
        }
        // Nobody writes to them, so nobody has their footers: the frames tell.
        self.each_container(|id, row| {
            if row.state == ContainerState::Open {
                let shard = self.core.shard(row.shard)?;
                let footer = footer_so_far(&*shard, id, row.bytes)?;
                closed.insert(id, row.bytes + footer.len());
            }
            Ok(())
        })?;
        Ok(closed)
    }
}

impl Core {
    /// Committed rows of the chunks whose place is container `id`. Numbers follow write order, so
    /// the range from its first to its last chunk is mostly little longer than its share.
    pub(super) fn rows_of(&self, id: ContainerId) -> Result<Vec<(ChunkNo, ChunkRow)>> {
        let row = self.container(id)?;
        if row.chunks == 0 {
            return Ok(Vec::new());
        }
        let range = row.last.0.saturating_sub(row.first.0);
        if range / WIDE_RANGE > row.chunks
            && let Some(listed) = self.listed(id, &row)
        {
            return self.rows_among(id, listed);
        }
        let rows = self.chunk_rows(row.first, Some(row.last))?;
        rows.filter(|row| row.as_ref().map_or(true, |(_, row)| row.container == id)).collect()
    }

    /// The numbers of all chunks in a sealed container, by its footer; `None` if header or footer
    /// leave any doubt, for then the table is asked.
    fn listed(&self, id: ContainerId, row: &ContainerRow) -> Option<Vec<ChunkNo>> {
        if row.state != ContainerState::Sealed {
            return None;
        }
        let shard = self.shard(row.shard).ok()?;
        let mut header = [0; HEADER_BYTES as usize];
        shard.read_at(id, 0, &mut header).ok()?;
        let header = ContainerHeader::parse(&header).ok()?;
        let ours =
            ContainerHeader { class: row.class, shard: row.shard, id, volume: self.options.volume };
        if header != ours {
            return None;
        }
        let frames = read_footer(&*shard, id, row.bytes).ok()?;
        let entries = frames.iter().flat_map(|frame| &frame.directory.entries);
        let mut chunks: Vec<_> = entries.map(|entry| entry.chunk).collect();
        if chunks.len() as u64 != row.chunks {
            return None;
        }
        chunks.sort_unstable();
        chunks.dedup();
        Some(chunks)
    }

    fn rows_among(
        &self,
        id: ContainerId,
        chunks: Vec<ChunkNo>,
    ) -> Result<Vec<(ChunkNo, ChunkRow)>> {
        let mut rows = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            if let Some(row) = self.chunk_row(chunk)?.filter(|row| row.container == id) {
                rows.push((chunk, row));
            }
        }
        Ok(rows)
    }
}
