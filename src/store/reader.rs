//! Reading: from memory, the frame cache, or a container; always verified.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::cache::Frame;
use super::core::Core;
use super::frame::{FrameDirectory, FrameEntry};
use super::pending::Spot;
use super::rows::{ChunkRow, Health};
use super::{ChunkPlace, Store};
use crate::checksum::crc32c;
use crate::codec::{Codec, decode};
use crate::error::{Error, Result};
use crate::types::{ChunkNo, ContainerId, ShardId};

impl Store {
    /// Where a chunk lies, as its row says.
    ///
    /// # Errors
    /// `Corrupt` if it has no row; `Kv`.
    pub fn place_of(&self, chunk: ChunkNo) -> Result<ChunkPlace> {
        let (row, shard, class) = match self.core.locate(chunk)? {
            Spot::Waiting { raw, lane: (shard, class) } => {
                let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
                return Ok(ChunkPlace { container: None, shard, class, raw_len, stored_len: 0 });
            }
            Spot::Stored { row, lane: (shard, class), .. } => (row, shard, class),
        };
        Ok(ChunkPlace {
            container: Some(row.container),
            shard,
            class,
            raw_len: row.raw_len,
            stored_len: u32::try_from(row.stored_share()).unwrap_or(u32::MAX),
        })
    }
}

impl Core {
    pub(super) fn read(&self, chunk: ChunkNo) -> Result<Bytes> {
        if let Some(bytes) = self.cache.find(chunk) {
            self.stats.activity.frame_cache_hits.fetch_add(1, Relaxed);
            return Ok(bytes);
        }
        let mut spot = self.locate(chunk)?;
        loop {
            let (row, shard) = match &spot {
                Spot::Waiting { raw, .. } => return Ok(raw.clone()),
                Spot::Stored { row, lane, .. } => (*row, lane.0),
            };
            let error = match self.read_at(chunk, &row, shard) {
                Ok(bytes) => {
                    if row.health == Health::Bad {
                        self.note_good(chunk, &row);
                    }
                    return Ok(bytes);
                }
                Err(error) => error,
            };
            // It may have moved while we looked: gc deletes the old container then.
            spot = self.locate(chunk)?;
            if matches!(&spot, Spot::Stored { row: now, .. } if now.same_place(&row)) {
                self.note_damage(chunk, &row, &error);
                return Err(error);
            }
        }
    }

    /// Where a chunk is, uncommitted or not.
    pub(super) fn locate(&self, chunk: ChunkNo) -> Result<Spot> {
        if let Some(spot) = self.pending.lock().spot(chunk) {
            return Ok(spot);
        }
        let Some(row) = self.chunk_row(chunk)? else {
            return Err(Error::corrupt(format!("chunk {chunk}"), "it has no row in table chunk"));
        };
        let home = self.container(row.container).map_err(|error| match error {
            Error::NotFound { .. } => Error::corrupt(
                format!("chunk {chunk} in container {}", row.container),
                "the container has no row in table container",
            ),
            other => other,
        })?;
        Ok(Spot::Stored { row, lane: (home.shard, home.class), stamp: 0 })
    }

    fn read_at(&self, chunk: ChunkNo, row: &ChunkRow, shard: ShardId) -> Result<Bytes> {
        let key = (row.container, row.frame_offset);
        let (frame, hit) = self.cache.get_or_load(key, || self.load(chunk, row, shard))?;
        let activity = &self.stats.activity;
        let counter = if hit { &activity.frame_cache_hits } else { &activity.frames_read };
        counter.fetch_add(1, Relaxed);
        if !hit {
            activity.decoded_bytes.fetch_add(row.frame_raw_len.into(), Relaxed);
            let before = self.last_read.swap(row.container.0, Relaxed);
            activity.container_changes.fetch_add(u64::from(before != row.container.0), Relaxed);
        }
        bytes_of(&frame, chunk, row)
            .map_err(|flaw| Error::corrupt(name_of(chunk, row.container, shard), flaw))
    }

    /// As [`Core::load`]. Also tells whether the payload has its checksum: a container without the
    /// right key can be checked by that alone.
    pub(super) fn load_checked(
        &self,
        chunk: ChunkNo,
        row: &ChunkRow,
        shard: ShardId,
    ) -> Result<(Frame, bool)> {
        let (frame, directory, payload) = self.load_parts(chunk, row, shard)?;
        Ok((frame, crc32c(&payload) == directory.payload_crc))
    }

    /// Reads and decodes the frame of `chunk`.
    pub(super) fn load(&self, chunk: ChunkNo, row: &ChunkRow, shard: ShardId) -> Result<Frame> {
        self.load_parts(chunk, row, shard).map(|(frame, ..)| frame)
    }

    fn load_parts(
        &self,
        chunk: ChunkNo,
        row: &ChunkRow,
        shard: ShardId,
    ) -> Result<(Frame, FrameDirectory, Bytes)> {
        let corrupt = |flaw: String| Error::corrupt(name_of(chunk, row.container, shard), flaw);
        let stored = self.fetch(chunk, row, shard)?;
        let directory = FrameDirectory::parse(&stored).map_err(|flaw| corrupt(flaw.into()))?;
        if (directory.frame_len(), directory.raw_len) != (row.frame_len, row.frame_raw_len) {
            return Err(corrupt("its frame has another length than its row says".into()));
        }
        let payload = stored.slice(directory.head_len() as usize..);
        let bytes = match directory.codec {
            Codec::None if payload.len() == directory.raw_len as usize => payload.clone(),
            codec => {
                let raw = decode(codec, &payload, directory.raw_len as usize);
                Bytes::from(raw.map_err(|error| match error {
                    Error::Corrupt { detail, .. } => corrupt(format!("its frame: {detail}")),
                    other => other,
                })?)
            }
        };
        Ok((Frame::new(&directory.entries, bytes), directory, payload))
    }

    fn fetch(&self, chunk: ChunkNo, row: &ChunkRow, shard: ShardId) -> Result<Bytes> {
        // The row was parsed: this is at most a frame's bound.
        let mut stored = vec![0; row.frame_len as usize];
        let place = self.shard(shard)?;
        let mut read = || place.read_at(row.container, u64::from(row.frame_offset), &mut stored);
        let read = read().or_else(|error| match error {
            // Nothing is said against a chunk whose whole shard is gone.
            Error::NotFound { .. } | Error::Io { .. } if let Err(gone) = place.probe() => {
                Err(Error::ShardMissing { what: gone.to_string() })
            }
            // It may just have come back.
            Error::NotFound { .. } => read(),
            error => Err(error),
        });
        read.map_err(|error| match error {
            Error::NotFound { .. } => {
                Error::corrupt(name_of(chunk, row.container, shard), "the container is missing")
            }
            Error::Corrupt { detail, .. } => {
                Error::corrupt(name_of(chunk, row.container, shard), detail)
            }
            // Sectors the disk cannot read: damage of these bytes, and of no others.
            Error::Io { .. } if error.is_medium_error() => {
                Error::corrupt(name_of(chunk, row.container, shard), error.to_string())
            }
            other => other,
        })?;
        Ok(stored.into())
    }

    /// Keeps the chunk from being used for dedup, if the error is damage, and logs it. Damage that
    /// was known is logged for debugging only: every reader that comes by would repeat it.
    pub(super) fn note_damage(&self, chunk: ChunkNo, row: &ChunkRow, error: &Error) {
        let known = !self.mark_damage(chunk, row, error) || row.health == Health::Bad;
        let damage = matches!(error, Error::Corrupt { .. });
        let away = matches!(error, Error::ShardMissing { .. });
        if error.is_fault() && !(damage && known) && !away {
            log::error!(
                "Chunk not readable chunk={chunk} container={} cause={error}",
                row.container
            );
        } else {
            log::debug!("Chunk still not readable chunk={chunk} cause={error}");
        }
    }

    /// As [`Core::note_damage`] without a word; true if it was not known since the last commit.
    pub(super) fn mark_damage(&self, chunk: ChunkNo, row: &ChunkRow, error: &Error) -> bool {
        matches!(error, Error::Corrupt { .. }) && self.pending.lock().note_bad(chunk, row)
    }

    /// A chunk that was recorded as bad reads well again, as when its disk is back.
    pub(super) fn note_good(&self, chunk: ChunkNo, row: &ChunkRow) {
        self.pending.lock().note_good(chunk, row);
    }
}

/// How damage names a chunk.
pub(super) fn name_of(chunk: ChunkNo, container: ContainerId, shard: ShardId) -> String {
    format!("chunk {chunk} in container {container} on shard {shard}")
}

/// The chunk's bytes in its frame, if row, directory and bytes agree.
pub(super) fn bytes_of(
    frame: &Arc<Frame>,
    chunk: ChunkNo,
    row: &ChunkRow,
) -> std::result::Result<Bytes, &'static str> {
    let found = frame.chunks.binary_search_by_key(&row.offset, |c| c.offset);
    let found = found.ok().and_then(|at| frame.chunks.get(at));
    let found = found.ok_or("its frame has no chunk at that place")?;
    let FrameEntry { chunk: number, raw_len, fingerprint } = found.entry;
    if (number, raw_len, fingerprint) != (chunk, row.raw_len, row.fingerprint) {
        return Err("its frame holds another chunk at that place");
    }
    frame.verified(found).ok_or("its bytes do not have its fingerprint")
}
