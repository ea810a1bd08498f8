//! Draining: the way of buffered bytes through ingest into extents.
//!
//! A dirty range is widened to the edges of chunks. Content-defined cuts start at the edge of the
//! chunk that is partly overwritten (or, appending, of the last one, which the end of the file had
//! cut), so an overwrite costs the chunks near it, and rewriting the same bytes finds the same
//! chunks. In files with fixed cells a range is widened to cells; one shorter than a cell, as
//! databases and machines write, to pages only: what remains of the old cell stays where it is, so
//! nothing is read and decoded to change a page. What is appended begins at its cell.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use log::{error, warn};

use super::Volume;
use super::dirty::{Room, Run};
use super::files::{FileNode, FileState};
use super::write::Staged;
use crate::classify::{Chunking, ClassSpec};
use crate::config::IMAGE;
use crate::env::Point;
use crate::error::{Error, Result};
use crate::ingest::{Ingested, Target, ingest};
use crate::types::{At, Extent, Ino};

/// What is overwritten in a fixed cell is a chunk of its own at multiples of this: the page of
/// those who overwrite in place.
const PAGE_BYTES: u64 = 4096;

/// How much of a buffer to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// Whole chunks of the longest range; its tail stays, more is to come.
    Stream,
    /// Everything, with a provisional cut at the end.
    All,
}

/// A dirty range widened to chunk edges.
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) data: Run,
}

/// Memory that counts as being cut until this is dropped.
pub(super) struct Counted {
    bytes: usize,
    counter: Arc<AtomicUsize>,
}

impl Counted {
    pub(super) fn new(bytes: usize, counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(bytes, Relaxed);
        Self { bytes, counter: Arc::clone(counter) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.bytes, Relaxed);
    }
}

/// Bytes that are being cut. Counted until the last slice of them is gone.
pub(super) struct CutBuffer {
    data: Run,
    _counted: Counted,
}

impl CutBuffer {
    pub(super) fn new(data: impl Into<Run>, counter: &Arc<AtomicUsize>) -> Self {
        let data = data.into();
        Self { _counted: Counted::new(data.capacity(), counter), data }
    }
}

impl AsRef<[u8]> for CutBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Volume {
    /// Drains a file completely. The caller holds the gate.
    pub(super) fn drain_node(&self, node: &FileNode) -> Result<()> {
        let mut state = node.settled();
        let drained = self.drain_state(node, &mut state, Drain::All);
        self.files.note_dirty(node, &state);
        drained
    }

    /// Hands the buffered bytes of `ino`, if any, to ingest.
    pub(super) fn drain_ino(&self, ino: Ino) -> Result<()> {
        match self.files.get(ino) {
            Some(node) if self.files.dirty_bytes_of(ino) > 0 => {
                let _gate = self.gate.read();
                self.drain_node(&node)
            }
            _ => Ok(()),
        }
    }

    /// Drains every dirty file that can be drained; the first error is returned.
    pub(super) fn drain_files(&self, gated: bool) -> Result<()> {
        let mut first = Ok(());
        for node in self.files.dirty() {
            let gate = (!gated).then(|| self.gate.read());
            let drained = self.drain_node(&node);
            drop(gate);
            match &drained {
                // It stays buffered; the commit says what it waits for.
                Ok(()) | Err(Error::NoSpace { .. }) => {}
                Err(e) => error!("Buffered data could not be stored ino={} cause={e}", node.ino),
            }
            first = first.and(drained);
        }
        first
    }

    pub(super) fn drain_state(
        &self,
        node: &FileNode,
        state: &mut FileState,
        how: Drain,
    ) -> Result<()> {
        loop {
            let start = match how {
                Drain::Stream => state.dirty.longest().map(|range| range.start),
                Drain::All => state.dirty.first().map(|range| range.start),
            };
            let Some(start) = start else { return Ok(()) };
            let Some(inode) = self.meta.read().inode(At::Live, node.ino)? else {
                state.dirty.discard(&(0..u64::MAX));
                return Ok(());
            };
            let class = self.content_class(node.ino, state, &inode, start)?;
            let spec = self.classifier.class(class);
            let region = self.take_region(node.ino, state, spec, start, how)?;
            let Region { start, data } = region;
            let data = Bytes::from_owner(CutBuffer::new(data, &self.held.cutting));
            let more = how == Drain::Stream;
            match self.ingest_region(node.ino, spec, start, &data, more) {
                Ok(rest) => {
                    let next = start + rest as u64;
                    let room = if more { self.stream_room(state) } else { Room::default() };
                    state.dirty.insert(next, Run::with_room(&data[rest..], room));
                    state.clean_cut = more.then_some(next);
                }
                Err(e) => {
                    state.dirty.insert(start, data.to_vec().into());
                    return Err(e);
                }
            }
            if more {
                return Ok(());
            }
        }
    }

    /// Cuts, stores and stages one region; returns how many bytes of it that covered.
    pub(super) fn ingest_region(
        &self,
        ino: Ino,
        spec: &ClassSpec,
        start: u64,
        data: &Bytes,
        more: bool,
    ) -> Result<usize> {
        let done = self.ingest_bytes(ino, spec, start, data, more)?;
        self.stage_cut(ino, spec, start, &done)?;
        Ok(done.rest)
    }

    /// Cuts and stores `data`, which begins at `start` of its file.
    pub(super) fn ingest_bytes(
        &self,
        ino: Ino,
        spec: &ClassSpec,
        start: u64,
        data: &Bytes,
        more: bool,
    ) -> Result<Ingested> {
        // A new chunk keeps the buffer it is a slice of: not when many are kept already.
        let crowded = self.held.cutting.load(Relaxed) as u64 > self.config.limits.queue_bytes;
        let shard = self.choose_shard(spec, ino, data.len())?;
        let target = Target { class: spec, shard, copy: crowded };
        self.env.hit(Point::DrainIngest)?;
        ingest(&self.store, &self.stats, target, data, start, more)
    }

    /// Stages the extents of what was cut from `start` on.
    pub(super) fn stage_cut(
        &self,
        ino: Ino,
        spec: &ClassSpec,
        start: u64,
        done: &Ingested,
    ) -> Result<()> {
        self.env.hit(Point::DrainStage)?;
        let range = start..start + done.rest as u64;
        let staged = Staged { class: Some(spec.id), end: None };
        self.stage_extents(ino, &range, &extents_of(done, start), staged)
    }

    /// Takes the dirty range at `start` out of the buffer, widened to chunk edges.
    pub(super) fn take_region(
        &self,
        ino: Ino,
        state: &mut FileState,
        spec: &ClassSpec,
        start: u64,
        how: Drain,
    ) -> Result<Region> {
        let paged = is_paged(spec, state.dirty.len_at(start));
        let from = self.left_edge(ino, state, spec, (start, paged))?;
        let (from, old) = match self.read_current(ino, state, from..start) {
            Ok(old) => (from, old),
            Err(e) => (start, not_widened(ino, &e)),
        };
        state.dirty.discard(&(from..start));
        let mut data = state.dirty.take(start).expect("the caller names a dirty range");
        if !old.is_empty() {
            data.prepend(&old);
        }
        if how == Drain::Stream {
            return Ok(Region { start: from, data });
        }
        loop {
            let end = from + data.len() as u64;
            let edge = self.right_edge(ino, spec, (end, paged))?;
            if edge <= end {
                break;
            }
            // Other dirty ranges inside the same chunk come along.
            match self.read_current(ino, state, end..edge) {
                Ok(old) => data.append(&old),
                Err(e) => data.append(&not_widened(ino, &e)),
            }
            if from + (data.len() as u64) < edge {
                break;
            }
            let last = state.dirty.range_at(edge);
            state.dirty.discard(&(end..edge));
            if let Some(more) = last {
                data.append(&state.dirty.take(more).expect("its head was just cut off"));
            } else {
                break;
            }
        }
        Ok(Region { start: from, data })
    }

    /// Where the chunk begins that a cut at `start` would tear, or that the end of the file cut.
    fn left_edge(
        &self,
        ino: Ino,
        state: &FileState,
        spec: &ClassSpec,
        (start, paged): (u64, bool),
    ) -> Result<u64> {
        if start == 0 || state.clean_cut == Some(start) {
            return Ok(start);
        }
        let view = self.meta.read();
        if let Chunking::Fixed { bytes } = spec.chunking {
            let cell = start / u64::from(bytes) * u64::from(bytes);
            if cell == start || !paged {
                return Ok(cell);
            }
            let near = view.extents(At::Live, ino, start - 1..start + 1, 2)?;
            let appended = near.iter().all(|e| e.end() == start) && !near.is_empty();
            let page = start / PAGE_BYTES * PAGE_BYTES;
            return Ok(if appended { cell } else { page.max(cell) });
        }
        let before = view.extents(At::Live, ino, start - 1..start, 1)?;
        let Some(before) = before.first() else { return Ok(start) };
        if before.end() > start {
            let page = if paged { start / PAGE_BYTES * PAGE_BYTES } else { 0 };
            return Ok(page.max(before.offset));
        }
        let last_of_file = || -> Result<bool> {
            let small = (before.len as usize) < largest_chunk(spec);
            Ok(small && view.extents(At::Live, ino, start..u64::MAX, 1)?.is_empty())
        };
        Ok(if last_of_file()? { before.offset } else { start })
    }

    /// Where the chunk ends that a cut at `end` would tear.
    fn right_edge(&self, ino: Ino, spec: &ClassSpec, (end, paged): (u64, bool)) -> Result<u64> {
        // A chunk that is torn at a page's end stays in place behind it, whatever it is.
        if paged && end.is_multiple_of(PAGE_BYTES) {
            return Ok(end);
        }
        let view = self.meta.read();
        if let Chunking::Fixed { bytes } = spec.chunking {
            let size = view.inode(At::Live, ino)?.map_or(end, |inode| inode.size);
            let unit = if paged { PAGE_BYTES.min(u64::from(bytes)) } else { u64::from(bytes) };
            return Ok(end.next_multiple_of(unit).min(size.max(end)));
        }
        let torn = view.extents(At::Live, ino, end..end + 1, 1)?;
        let edge = torn.first().filter(|e| e.offset < end).map_or(end, Extent::end);
        Ok(if paged { end.next_multiple_of(PAGE_BYTES).min(edge) } else { edge })
    }

    /// What the file holds in `range` now: extents with the dirty bytes over them.
    fn read_current(&self, ino: Ino, state: &FileState, range: Range<u64>) -> Result<Vec<u8>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut buf = vec![0; usize::try_from(range.end - range.start).expect("a chunk or two")];
        if !state.dirty.covers(&range) {
            self.read_extents(At::Live, ino, range.start, &mut buf)?;
        }
        state.dirty.overlay(range.start, &mut buf);
        Ok(buf)
    }
}

/// True if so many bytes are too few for a whole cell, or for a chunk of an image.
fn is_paged(spec: &ClassSpec, len: usize) -> bool {
    match spec.chunking {
        Chunking::Fixed { bytes } => len < bytes as usize,
        Chunking::MinCdc { min, .. } | Chunking::Cdc { min, .. } => {
            spec.id == IMAGE && len < min as usize
        }
    }
}

/// The old neighbourhood of a write cannot be read: what is new is stored without it.
fn not_widened(ino: Ino, cause: &Error) -> Vec<u8> {
    warn!("Writing next to bytes that cannot be read ino={ino} cause={cause}");
    Vec::new()
}

pub(super) fn largest_chunk(spec: &ClassSpec) -> usize {
    spec.chunking.largest() as usize
}

pub(super) fn extents_of(done: &Ingested, start: u64) -> Vec<Extent> {
    let pieces = done.pieces.iter().filter_map(|piece| {
        Some(Extent {
            offset: start + piece.start as u64,
            len: u32::try_from(piece.len).expect("a chunk is at most CHUNK_BYTES_MAX"),
            chunk: piece.chunk?,
            chunk_offset: 0,
        })
    });
    pieces.collect()
}
