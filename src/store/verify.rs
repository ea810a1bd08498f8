//! Reads and verifies whole containers, for `check --read-data` and `scrub`.
//!
//! Frames that no row points at are not read: nothing needs them. A container, or a chunk, that gc
//! moves away meanwhile is no damage.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::container::{ContainerHeader, HEADER_BYTES};
use super::core::Core;
use super::find::{FoundFrames, find_frames};
use super::pending::Spot;
use super::reader::{bytes_of, name_of};
use super::rows::{ChunkRow, ContainerRow, ContainerState, Health};
use super::scan::read_footer;
use crate::error::{Error, Result};
use crate::shard::Shard;
use crate::types::{ChunkNo, ContainerId, ShardId};

/// A chunk that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedChunk {
    /// Its number.
    pub chunk: ChunkNo,
    /// Why.
    pub detail: String,
}

/// What the verification of a container found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The container.
    pub container: ContainerId,
    /// Its shard.
    pub shard: ShardId,
    /// Frames read.
    pub frames: u64,
    /// Chunks checked.
    pub chunks: u64,
    /// Bytes of the good ones.
    pub raw_bytes: u64,
    /// Committed length of the container.
    pub bytes: u64,
    /// Chunks that were recorded as bad and are not.
    pub recovered: u64,
    /// Chunks that cannot be read.
    pub damaged: Vec<DamagedChunk>,
    /// Damage that hits no chunk: header, footer, checksums. One sentence each.
    pub flaws: Vec<String>,
}

impl Report {
    /// True if nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.flaws.is_empty()
    }
}

/// What is wrong if a container whose frames are all there holds something else than its row says.
fn miscounted(id: ContainerId, row: &ContainerRow, found: &FoundFrames) -> Option<String> {
    if !found.flaws.is_empty() {
        return None;
    }
    let frames = || found.frames.iter().map(|frame| &frame.directory);
    let chunks: u64 = frames().map(|d| d.entries.len() as u64).sum();
    let raw: u64 = frames().map(|d| u64::from(d.raw_len)).sum();
    let stored: u64 = frames().map(|d| u64::from(d.frame_len()) + u64::from(d.padding())).sum();
    let same = (chunks, raw, stored) == (row.chunks, row.raw_bytes, row.stored_bytes);
    (!same).then(|| {
        format!(
            "Container {id} counts {} chunks of {} bytes, {} stored, and holds {chunks} of {raw}, \
             {stored} stored",
            row.chunks, row.raw_bytes, row.stored_bytes
        )
    })
}

/// Chunks of one frame.
type FrameRows = Vec<(ChunkNo, ChunkRow)>;

/// Damaged chunks of one container that get a line each in the log; the rest is a sum. A disk that
/// is gone has 160 million of them per 10 TB.
const LOGGED_MAX: usize = 10;

impl Core {
    /// Verifies a container. `pace` hears the length of every frame before it is read and may
    /// wait; when it says false, so does this (`None`).
    pub(super) fn verify_container(
        &self,
        id: ContainerId,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Report>> {
        let row = self.container(id)?;
        let shard = self.shard(row.shard)?;
        let mut report = Report {
            container: id,
            shard: row.shard,
            frames: 0,
            chunks: 0,
            raw_bytes: 0,
            bytes: row.bytes,
            recovered: 0,
            damaged: Vec::new(),
            flaws: Vec::new(),
        };
        // What is read must come from the disk, and must not push out what others want.
        shard.drop_cached(id);
        self.verify_edges(id, &row, &*shard, &mut report);
        let found = find_frames(&*shard, id, row.bytes);
        report.flaws.extend(found.ok().and_then(|found| miscounted(id, &row, &found)));
        let mut frames: BTreeMap<(u32, u32), FrameRows> = BTreeMap::new();
        for (chunk, at) in self.rows_of(id)? {
            frames.entry((at.frame_offset, at.frame_len)).or_default().push((chunk, at));
        }
        for ((_, frame_len), chunks) in &frames {
            if !pace(u64::from(*frame_len)) {
                return Ok(None);
            }
            self.verify_frame(chunks, row.shard, &mut report)?;
        }
        shard.drop_cached(id);
        // It may have been freed meanwhile: then what was found missing is no damage.
        self.container(id)?;
        if !report.is_clean() {
            log::error!(
                "Container is damaged container={id} shard={} chunks={} flaws={}",
                row.shard,
                report.damaged.len(),
                report.flaws.len()
            );
        }
        if report.recovered > 0 {
            // Frames that were decoded while they were unreadable.
            self.cache.forget(id);
        }
        Ok(Some(report))
    }

    fn verify_edges(
        &self,
        id: ContainerId,
        row: &ContainerRow,
        shard: &dyn Shard,
        report: &mut Report,
    ) {
        let mut bytes = [0; HEADER_BYTES as usize];
        let header = shard.read_at(id, 0, &mut bytes).map_err(|e| e.to_string());
        let header = header.and_then(|()| {
            ContainerHeader::parse(&bytes).map_err(|flaw| format!("Container {id}: {flaw}"))
        });
        match header {
            Err(flaw) => report.flaws.push(flaw),
            Ok(header) if header.id != id || header.volume != self.options.volume => {
                report.flaws.push(format!("Container {id} has the header of another one"));
            }
            Ok(_) => {}
        }
        if row.state == ContainerState::Sealed
            && let Err(error) = read_footer(shard, id, row.bytes)
        {
            report.flaws.push(error.to_string());
        }
    }

    fn verify_frame(&self, chunks: &FrameRows, shard: ShardId, report: &mut Report) -> Result<()> {
        let Some((first, place)) = chunks.first() else { return Ok(()) };
        report.frames += 1;
        let loaded = self.load_checked(*first, place, shard);
        let intact = loaded.as_ref().map_or(true, |(_, intact)| *intact);
        let loaded = loaded.map(|(frame, _)| Arc::new(frame));
        let before = report.chunks;
        for (chunk, row) in chunks {
            let checked = match &loaded {
                Err(error) => Err(renamed(error, *chunk, row, shard)),
                Ok(frame) => bytes_of(frame, *chunk, row)
                    .map_err(|flaw| Error::corrupt(name_of(*chunk, row.container, shard), flaw)),
            };
            report.chunks += 1;
            match checked {
                Ok(bytes) => {
                    report.raw_bytes += bytes.len() as u64;
                    if row.health == Health::Bad {
                        self.note_good(*chunk, row);
                        report.recovered += 1;
                    }
                }
                // Stored anew, or forgotten, since the rows were read.
                Err(_) if !self.lies_at(*chunk, row)? => report.chunks -= 1,
                Err(error) => {
                    if report.damaged.len() < LOGGED_MAX {
                        self.note_damage(*chunk, row, &error);
                    } else {
                        self.mark_damage(*chunk, row, &error);
                    }
                    report.damaged.push(DamagedChunk { chunk: *chunk, detail: error.to_string() });
                }
            }
        }
        if !intact && report.chunks > before {
            report.flaws.push(format!(
                "Frame at {} of container {}: the checksum of its payload does not match",
                place.frame_offset, place.container
            ));
        }
        Ok(())
    }

    /// True if the newest place of `chunk` is the one in `row`.
    fn lies_at(&self, chunk: ChunkNo, row: &ChunkRow) -> Result<bool> {
        match self.locate(chunk) {
            Ok(Spot::Stored { row: now, .. }) => Ok(now.same_place(row)),
            Ok(Spot::Waiting { .. }) | Err(Error::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What the first chunk of a frame failed with, said of another one in it.
fn renamed(error: &Error, chunk: ChunkNo, row: &ChunkRow, shard: ShardId) -> Error {
    match error {
        Error::Corrupt { detail, .. } => {
            Error::corrupt(name_of(chunk, row.container, shard), detail.clone())
        }
        other => other.clone(),
    }
}
