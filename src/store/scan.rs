//! Finds the frames of a container file: by its footer, or by walking from frame to frame.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::container::{
    BLOCK_BYTES, Begin, FooterBuilder, HEADER_BYTES, PlacedFrame, TRAILER_BYTES, begin_of,
    parse_footer, parse_trailer,
};
use super::frame::{FRAME_HEADER_BYTES, Flaw, FrameDirectory};
use crate::error::{Error, Result};
use crate::shard::Shard;
use crate::types::ContainerId;

/// First read of a frame: holds the directory of 92 chunks, more than most groups have.
const WINDOW_BYTES: u64 = 4096;
/// Read at once where frames are short: 106 µs from a local disk where 4 KiB take 31 (medians of
/// 300, nothing cached), and no longer from one that seeks.
const WIDE_WINDOW_BYTES: u64 = 64 * 1024;
/// Frames up to this length are short: four of them make up for the longer read.
const SHORT_FRAME_BYTES: u64 = WIDE_WINDOW_BYTES / 4;

/// Walks over the frames of a container without reading payloads. Ends at the footer, at `end`, or
/// after the first error: the length of a damaged frame is not known.
pub struct FrameScan<'a> {
    shard: &'a dyn Shard,
    id: ContainerId,
    at: u64,
    end: u64,
    /// Bytes that were read ahead, and where they lie.
    held: Vec<u8>,
    held_at: u64,
    last_frame_bytes: u64,
}

/// The frames of container `id` in its first `end` bytes.
#[must_use]
pub fn scan_frames(shard: &dyn Shard, id: ContainerId, end: u64) -> FrameScan<'_> {
    FrameScan::from(shard, id, HEADER_BYTES.into(), end)
}

impl<'a> FrameScan<'a> {
    /// The frames from `at` on: a frame has to begin there.
    pub(super) fn from(shard: &'a dyn Shard, id: ContainerId, at: u64, end: u64) -> Self {
        Self { shard, id, at, end, held: Vec::new(), held_at: at, last_frame_bytes: u64::MAX }
    }

    /// True if the walk ended at the end of the file, or at a footer that reaches up to it.
    pub(super) fn reached_end(&self) -> Result<bool> {
        if self.at >= self.end {
            return Ok(true);
        }
        let left = self.end.saturating_sub(self.at);
        let last = self.read_from(self.end.saturating_sub(left.min(TRAILER_BYTES.into())))?;
        let trailer = parse_trailer(&last).ok();
        let footer = trailer.map(|t| u64::from(t.body_len).saturating_add(TRAILER_BYTES.into()));
        Ok(footer == Some(left))
    }

    fn read_from(&self, at: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.end.saturating_sub(at)).unwrap_or(0)];
        self.shard.read_at(self.id, at, &mut bytes)?;
        Ok(bytes)
    }

    /// Where the next frame begins.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    fn read(&self, len: u64) -> Result<Vec<u8>> {
        let left = self.end.saturating_sub(self.at);
        let mut bytes = vec![0; usize::try_from(len.min(left)).unwrap_or(0)];
        self.shard.read_at(self.id, self.at, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads what lies at `at`, if less than a window of it is held.
    fn read_ahead(&mut self) -> Result<()> {
        let left = self.end.saturating_sub(self.at);
        if (self.ahead().len() as u64) < WINDOW_BYTES.min(left) {
            let short = self.last_frame_bytes <= SHORT_FRAME_BYTES;
            // A sector in a payload ahead that cannot be read is no reason to end here.
            let wide = short.then(|| self.read(WIDE_WINDOW_BYTES).ok()).flatten();
            self.held = wide.map_or_else(|| self.read(WINDOW_BYTES), Ok)?;
            self.held_at = self.at;
        }
        Ok(())
    }

    /// What is held of what lies at `at`.
    fn ahead(&self) -> &[u8] {
        let skip = usize::try_from(self.at.saturating_sub(self.held_at)).unwrap_or(usize::MAX);
        self.held.get(skip..).unwrap_or_default()
    }

    fn step(&mut self) -> Result<Option<PlacedFrame>> {
        while self.at < self.end {
            self.read_ahead()?;
            match begin_of(self.ahead()) {
                Begin::Frame => return self.frame().map(Some),
                Begin::Footer => return Ok(None),
                Begin::Foreign => return Err(self.flaw("no frame begins here")),
                Begin::Zeros => {
                    let block = u64::from(BLOCK_BYTES);
                    let next = self.at.checked_div(block).and_then(|n| n.checked_add(1));
                    self.at = next.map_or(self.end, |n| n.saturating_mul(block));
                }
            }
        }
        Ok(None)
    }

    fn frame(&mut self) -> Result<PlacedFrame> {
        let window = self.ahead();
        if window.len() < FRAME_HEADER_BYTES as usize {
            return Err(self.flaw("its header is cut short"));
        }
        let head_len = FrameDirectory::peek_head_len(window).map_err(|flaw| self.flaw(flaw))?;
        let parsed = if window.len() < head_len as usize {
            FrameDirectory::parse(&self.read(u64::from(head_len))?)
        } else {
            FrameDirectory::parse(window)
        };
        let directory = parsed.map_err(|flaw| self.flaw(flaw))?;
        let frame_end = self.at.saturating_add(u64::from(directory.frame_len()));
        let Ok(offset) = u32::try_from(self.at) else {
            return Err(self.flaw("it lies beyond the bound of a container"));
        };
        if frame_end > self.end {
            return Err(self.flaw("it is cut short"));
        }
        let next = frame_end.saturating_add(u64::from(directory.padding()));
        self.last_frame_bytes = next.saturating_sub(self.at);
        self.at = next;
        Ok(PlacedFrame { offset, directory })
    }

    fn flaw(&self, flaw: Flaw) -> Error {
        Error::corrupt(
            format!("frame at {} of container {} on {}", self.at, self.id, self.shard.place()),
            flaw,
        )
    }
}

impl Iterator for FrameScan<'_> {
    type Item = Result<PlacedFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if matches!(step, Some(Err(_))) {
            self.end = self.at;
        }
        step
    }
}

/// The footer so far of a container whose committed frames end at `end`.
pub(super) fn footer_so_far(shard: &dyn Shard, id: ContainerId, end: u64) -> Result<FooterBuilder> {
    let mut footer = FooterBuilder::default();
    let mut scan = scan_frames(shard, id, end);
    for frame in &mut scan {
        let frame = frame?;
        footer.push(frame.offset, &frame.directory.to_bytes());
    }
    if scan.position() != end {
        return Err(Error::corrupt(
            format!("container {id} on {}", shard.place()),
            format!("its frames end at {} of {end}", scan.position()),
        ));
    }
    Ok(footer)
}

/// The frames of a sealed container of `len` bytes, by its footer.
///
/// # Errors
/// `Corrupt` if the footer is damaged or missing: [`scan_frames`] is the way out then. What the
/// shard says.
pub fn read_footer(shard: &dyn Shard, id: ContainerId, len: u64) -> Result<Vec<PlacedFrame>> {
    let corrupt = |flaw: Flaw| Error::corrupt(format!("container {id} on {}", shard.place()), flaw);
    let short = "it is too short for a footer";
    let trailer_at = len.checked_sub(u64::from(TRAILER_BYTES)).ok_or_else(|| corrupt(short))?;
    let mut bytes = [0; TRAILER_BYTES as usize];
    shard.read_at(id, trailer_at, &mut bytes)?;
    let trailer = parse_trailer(&bytes).map_err(corrupt)?;
    let body_at = trailer_at
        .checked_sub(u64::from(trailer.body_len))
        .filter(|at| *at >= u64::from(HEADER_BYTES))
        .ok_or_else(|| corrupt(short))?;
    let mut body = vec![0; trailer.body_len as usize];
    shard.read_at(id, body_at, &mut body)?;
    parse_footer(trailer, &body).map_err(corrupt)
}
