//! Finds the frames of a container that may be damaged.
//!
//! The footer only says where to look: a frame counts when its header and directory are there. A
//! frame whose head is damaged and that the footer lists is returned as lost: its chunks are known,
//! their bytes are not readable. Without a footer the walk ends at a damaged head, unless frames
//! follow that reach exactly to the end of the file: bytes inside a payload may look like frames,
//! of a volume that was stored in this one, but these end inside the payload.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::container::{BLOCK_BYTES, HEADER_BYTES, PlacedFrame};
use super::frame::{FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameDirectory};
use super::scan::{FrameScan, read_footer, scan_frames};
use crate::error::{Error, Result};
use crate::shard::Shard;
use crate::types::ContainerId;

/// Bytes looked through at a time for the next frame.
const SEARCH_BYTES: u64 = 1024 * 1024;
/// Walks begun in search of one that reaches the end; a damaged container has few candidates.
const WALKS_MAX: usize = 64;

/// The frames of a container.
#[derive(Debug, Default)]
pub(super) struct FoundFrames {
    /// Those whose header and directory are there, by offset.
    pub(super) frames: Vec<PlacedFrame>,
    /// Those that only the footer knows of.
    pub(super) lost: Vec<PlacedFrame>,
    /// Where the last frame ends, or the footer.
    pub(super) end: u64,
    /// True if it has a whole footer.
    pub(super) sealed: bool,
    /// Where the walk without a footer met the first damage.
    pub(super) flaw_at: Option<u64>,
    /// What is wrong, one sentence each.
    pub(super) flaws: Vec<String>,
}

/// Finds the frames in the first `len` bytes of container `id`.
///
/// # Errors
/// What the shard says, but for damage.
pub(super) fn find_frames(shard: &dyn Shard, id: ContainerId, len: u64) -> Result<FoundFrames> {
    let footer = match read_footer(shard, id, len) {
        Ok(listed) => Some(listed),
        Err(Error::Corrupt { .. }) => None,
        Err(other) => return Err(other),
    };
    match footer {
        Some(listed) => by_footer(shard, id, len, listed),
        None => by_walking(shard, id, len),
    }
}

fn by_footer(
    shard: &dyn Shard,
    id: ContainerId,
    len: u64,
    listed: Vec<PlacedFrame>,
) -> Result<FoundFrames> {
    let mut found = FoundFrames { sealed: true, end: len, ..FoundFrames::default() };
    for frame in listed {
        let mut head = vec![0; frame.directory.head_len() as usize];
        let read = shard.read_at(id, frame.offset.into(), &mut head);
        match read.map(|()| FrameDirectory::parse(&head)) {
            Ok(Ok(directory)) => {
                if directory != frame.directory {
                    found.flaws.push(format!(
                        "Frame at {} of container {id} is another one than its footer says",
                        frame.offset
                    ));
                }
                found.frames.push(PlacedFrame { offset: frame.offset, directory });
            }
            Ok(Err(_)) | Err(Error::Corrupt { .. }) => {
                found.flaws.push(format!(
                    "Frame at {} of container {id} has a damaged header; its chunks cannot be read",
                    frame.offset
                ));
                found.lost.push(frame);
            }
            Err(other) => return Err(other),
        }
    }
    Ok(found)
}

fn by_walking(shard: &dyn Shard, id: ContainerId, len: u64) -> Result<FoundFrames> {
    let mut found = FoundFrames { end: HEADER_BYTES.into(), ..FoundFrames::default() };
    let mut scan = scan_frames(shard, id, len);
    let Some(flaw) = walk(&mut scan, &mut found)? else { return Ok(found) };
    let at = scan.position();
    found.flaws.push(flaw.to_string());
    found.flaw_at = Some(at);
    let mut from = at;
    for _ in 0..WALKS_MAX {
        let Some(next) = next_magic(shard, id, from, len)? else { break };
        let mut rest = FoundFrames { end: next, ..FoundFrames::default() };
        let mut scan = FrameScan::from(shard, id, next, len);
        if walk(&mut scan, &mut rest)?.is_none() && scan.reached_end()? {
            found.frames.append(&mut rest.frames);
            found.end = rest.end;
            return Ok(found);
        }
        from = next.saturating_add(FRAME_ALIGN_BYTES.into());
    }
    if len.saturating_sub(at) > u64::from(BLOCK_BYTES) {
        found.flaws.push(format!("Container {id} cannot be read beyond byte {at}"));
    }
    Ok(found)
}

/// Takes frames up to the end or the first flaw, which it returns.
fn walk(scan: &mut FrameScan<'_>, found: &mut FoundFrames) -> Result<Option<Error>> {
    loop {
        match scan.next() {
            Some(Ok(frame)) => {
                found.frames.push(frame);
                found.end = (*scan).position();
            }
            Some(Err(flaw @ Error::Corrupt { .. })) => return Ok(Some(flaw)),
            Some(Err(other)) => return Err(other),
            None => return Ok(None),
        }
    }
}

/// The next place behind `from` where a frame may begin.
fn next_magic(shard: &dyn Shard, id: ContainerId, from: u64, len: u64) -> Result<Option<u64>> {
    let align = u64::from(FRAME_ALIGN_BYTES);
    let mut at = from.next_multiple_of(align);
    if at == from {
        at = at.saturating_add(align);
    }
    while at.saturating_add(FRAME_HEADER_BYTES.into()) <= len {
        let piece = len.saturating_sub(at).min(SEARCH_BYTES);
        let mut bytes = vec![0; usize::try_from(piece).unwrap_or(0)];
        shard.read_at(id, at, &mut bytes)?;
        let steps = bytes.chunks(FRAME_ALIGN_BYTES as usize);
        if let Some(step) = steps.into_iter().position(|step| step.starts_with(FRAME_MAGIC)) {
            return Ok(Some(at.saturating_add((step as u64).saturating_mul(align))));
        }
        at = at.saturating_add(piece);
    }
    Ok(None)
}
