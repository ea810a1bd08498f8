//! Reads and verifies whole containers, for `check --read-data`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::container::{ContainerHeader, HEADER_BYTES};
use super::core::Core;
use super::find::{FoundFrames, find_frames};
use super::reader::{bytes_of, name_of};
use super::rows::{ChunkRow, ContainerRow, ContainerState};
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

impl Core {
    pub(super) fn verify_container(&self, id: ContainerId) -> Result<Report> {
        let row = self.container(id)?;
        let shard = self.shard(row.shard)?;
        let found = find_frames(&*shard, id, row.bytes);
        let mut report = Report {
            container: id,
            shard: row.shard,
            frames: 0,
            chunks: 0,
            raw_bytes: 0,
            damaged: Vec::new(),
            flaws: Vec::new(),
        };
        self.verify_edges(id, &row, &*shard, &mut report);
        report.flaws.extend(found.ok().and_then(|found| miscounted(id, &row, &found)));
        let mut frames: BTreeMap<(u32, u32), FrameRows> = BTreeMap::new();
        for (chunk, at) in self.rows_of(id)? {
            frames.entry((at.frame_offset, at.frame_len)).or_default().push((chunk, at));
        }
        for chunks in frames.values() {
            self.verify_frame(chunks, row.shard, &mut report);
        }
        Ok(report)
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

    fn verify_frame(&self, chunks: &FrameRows, shard: ShardId, report: &mut Report) {
        let Some((first, place)) = chunks.first() else { return };
        report.frames += 1;
        report.chunks += chunks.len() as u64;
        let loaded = self.load(*first, place, shard).map(|(frame, intact)| {
            if !intact {
                report.flaws.push(format!(
                    "Frame at {} of container {}: the checksum of its payload does not match",
                    place.frame_offset, place.container
                ));
            }
            Arc::new(frame)
        });
        for (chunk, row) in chunks {
            let checked = match &loaded {
                Err(error) => Err(error.clone()),
                Ok(frame) => bytes_of(frame, *chunk, row)
                    .map_err(|flaw| Error::corrupt(name_of(*chunk, row.container, shard), flaw)),
            };
            match checked {
                Ok(bytes) => report.raw_bytes += bytes.len() as u64,
                Err(error) => {
                    self.note_damage(*chunk, row, &error);
                    report.damaged.push(DamagedChunk { chunk: *chunk, detail: error.to_string() });
                }
            }
        }
    }
}
