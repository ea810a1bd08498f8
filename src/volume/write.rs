//! Writing: the bounded buffer of a file, and its way through ingest into extents.
//!
//! A write touches memory only. A buffer is drained when a stream has gathered enough for whole
//! chunks, when the file or the volume has too much, when the last writer closes, and by a commit.
//! Draining widens a dirty range to whole chunks: content-defined cuts start at the edge of the
//! chunk that is partly overwritten (or, appending, of the last one, which the end of the file had
//! cut), fixed cells at the cell's edge. So an overwrite costs the chunks near it, and rewriting
//! the same bytes finds the same chunks.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use log::{error, warn};

use super::Volume;
use super::dirty::memory_of_write;
use super::extent::{at_offset, mapped};
use super::files::{Coming, FileNode, FileState};
use crate::classify::{Chunking, ClassSpec, Facts};
use crate::env::Point;
use crate::error::{Error, Result};
use crate::ingest::{Ingested, Target, ingest};
use crate::limits::{FILE_BYTES_MAX, MAGIC_BYTES};
use crate::types::{At, ClassId, Extent, Ino};

/// A stream is drained when it has gathered this much, or four largest chunks.
const STREAM_BYTES_MIN: usize = 1024 * 1024;

/// How much of a buffer to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// Whole chunks of the longest range; its tail stays, more is to come.
    Stream,
    /// Everything, with a provisional cut at the end.
    All,
}

/// A dirty range widened to chunk edges.
struct Region {
    start: u64,
    data: Vec<u8>,
}

/// Bytes that are being cut. Counted until the last slice of them is gone.
struct CutBuffer {
    data: Vec<u8>,
    counter: Arc<AtomicUsize>,
}

impl CutBuffer {
    fn new(data: Vec<u8>, counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(data.capacity(), Relaxed);
        Self { data, counter: Arc::clone(counter) }
    }
}

impl AsRef<[u8]> for CutBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for CutBuffer {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.data.capacity(), Relaxed);
    }
}

impl Volume {
    /// Buffers `data` at `offset` of an open file.
    pub(super) fn write(&self, node: &FileNode, offset: u64, data: &[u8]) -> Result<()> {
        let end = end_of(offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        self.admit_data(data.len())?;
        let _coming = self.make_dirty_room(data.len())?;
        self.settle_trim(node.ino, end)?;
        let _gate = self.gate.read();
        let mut state = node.state.write();
        self.note_written(node.ino, end)?;
        state.dirty.write(offset, data);
        let drained = self.drain_if_full(node, &mut state, end);
        self.files.note_dirty(node, &state.dirty);
        drained
    }

    /// Lets a write add to what is buffered, after draining what is in its way.
    fn make_dirty_room(&self, len: usize) -> Result<Coming<'_>> {
        let coming = self.files.announce(memory_of_write(len));
        let bound = self.config.limits.dirty_bytes;
        while self.files.expected_memory() as u64 > bound && self.files.dirty_memory() > 0 {
            self.drain_files(false)?;
        }
        Ok(coming)
    }

    /// Size and times after a write that ends at `end`.
    pub(super) fn note_written(&self, ino: Ino, end: u64) -> Result<()> {
        let now = self.env.now();
        let mut edit = self.meta.edit();
        let mut inode = edit.view().inode(At::Live, ino)?.ok_or(Error::Stale)?;
        inode.size = inode.size.max(end);
        inode.mtime = now;
        inode.ctime = now;
        edit.put_inode(ino, &inode)
    }

    fn drain_if_full(&self, node: &FileNode, state: &mut FileState, end: u64) -> Result<()> {
        let largest = state.class.map_or(0, |class| largest_chunk(self.classifier.class(class)));
        let file_max = usize::try_from(self.config.limits.file_dirty_bytes).unwrap_or(usize::MAX);
        let stream = STREAM_BYTES_MIN.max(4 * largest).min(file_max);
        if state.dirty.run_ending_at(end) >= stream {
            self.drain_state(node, state, Drain::Stream)?;
        }
        if state.dirty.memory() > file_max {
            self.drain_state(node, state, Drain::All)?;
        }
        Ok(())
    }

    /// Drains a file completely. The caller holds the gate.
    pub(super) fn drain_node(&self, node: &FileNode) -> Result<()> {
        let mut state = node.state.write();
        let drained = self.drain_state(node, &mut state, Drain::All);
        self.files.note_dirty(node, &state.dirty);
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
                Drain::Stream => state.dirty.longest(),
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
                    state.dirty.insert(next, data[rest..].to_vec());
                    state.clean_cut = more.then_some(next);
                }
                Err(e) => {
                    state.dirty.insert(start, data.to_vec());
                    return Err(e);
                }
            }
            if more {
                return Ok(());
            }
        }
    }

    /// Cuts, stores and stages one region; returns how many bytes of it that covered.
    fn ingest_region(
        &self,
        ino: Ino,
        spec: &ClassSpec,
        start: u64,
        data: &Bytes,
        more: bool,
    ) -> Result<usize> {
        // A new chunk keeps the buffer it is a slice of: not when many are kept already.
        let crowded = self.held.cutting.load(Relaxed) as u64 > self.config.limits.queue_bytes;
        let shard = self.choose_shard(spec, ino, data.len())?;
        let target = Target { class: spec, shard, copy: crowded };
        self.env.hit(Point::DrainIngest)?;
        let done = ingest(&self.store, &self.stats, target, data, start, more)?;
        self.env.hit(Point::DrainStage)?;
        let range = start..start + done.rest as u64;
        self.stage_extents(ino, &range, &extents_of(&done, start), Some(spec.id))?;
        Ok(done.rest)
    }

    /// Replaces the extents of `range` by `new`, with the bytes they map and the class.
    pub(super) fn stage_extents(
        &self,
        ino: Ino,
        range: &Range<u64>,
        new: &[Extent],
        class: Option<ClassId>,
    ) -> Result<()> {
        self.gate.mark(new.iter().map(|extent| extent.chunk));
        self.stage(|edit| {
            let Some(mut inode) = edit.view().inode(At::Live, ino)? else { return Ok(()) };
            let old = match inode.mapped {
                0 => Vec::new(),
                _ => edit.view().extents(At::Live, ino, range.clone(), usize::MAX)?,
            };
            let kept = super::extent::splice(&old, range, new);
            let mut dropped = 0;
            for gone in old.iter().filter(|o| at_offset(&kept, o.offset).is_none()) {
                if !edit.delete_extent(ino, gone.offset)? {
                    dropped += u64::from(gone.len);
                }
            }
            for extent in kept.iter().filter(|k| at_offset(&old, k.offset) != Some(k)) {
                let before = at_offset(&old, extent.offset).filter(|b| b.chunk != extent.chunk);
                if !edit.put_extent(ino, extent)? {
                    dropped += before.map_or(0, |before| u64::from(before.len));
                }
            }
            self.garbage.note_dropped(dropped);
            let (before, after) = (mapped(&old), mapped(&kept));
            inode.mapped = inode.mapped + after - before;
            inode.class = class.unwrap_or(inode.class);
            edit.put_inode(ino, &inode)?;
            self.live_bytes.replace(before, after);
            Ok(())
        })
    }

    /// The class of what is being written: kept while a file is changed in place, decided anew
    /// when its content is.
    fn content_class(
        &self,
        ino: Ino,
        state: &mut FileState,
        inode: &crate::types::Inode,
        start: u64,
    ) -> Result<ClassId> {
        if let Some(class) = state.class {
            return Ok(class);
        }
        let class = if inode.mapped > 0 {
            inode.class
        } else {
            let mut head = vec![0; if start == 0 { MAGIC_BYTES } else { 0 }];
            let known = state.dirty.first().map_or(0, |first| (first.end - first.start) as usize);
            head.truncate(known);
            state.dirty.overlay(0, &mut head);
            self.classify(ino, inode, &head)?
        };
        state.class = Some(class);
        Ok(class)
    }

    fn classify(&self, ino: Ino, inode: &crate::types::Inode, head: &[u8]) -> Result<ClassId> {
        let hint = self.names.get(ino);
        let (parent, name) = match &hint {
            Some((parent, name)) => (Some(*parent), &name[..]),
            None => (None, &b""[..]),
        };
        let path = match parent {
            Some(parent) if self.classifier.needs_path() => Some(self.path_of(parent, name)?),
            _ => None,
        };
        let facts = Facts {
            name,
            path: path.as_deref(),
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            head,
        };
        Ok(self.classifier.classify(&facts).class)
    }

    /// Takes the dirty range at `start` out of the buffer, widened to chunk edges.
    fn take_region(
        &self,
        ino: Ino,
        state: &mut FileState,
        spec: &ClassSpec,
        start: u64,
        how: Drain,
    ) -> Result<Region> {
        let from =
            if state.clean_cut == Some(start) { start } else { self.left_edge(ino, spec, start)? };
        let (from, mut data) = match self.read_current(ino, state, from..start) {
            Ok(old) => (from, old),
            Err(e) => (start, not_widened(ino, &e)),
        };
        state.dirty.discard(&(from..start));
        let dirty = state.dirty.take(start).expect("the caller names a dirty range");
        if data.is_empty() {
            data = dirty;
        } else {
            data.extend_from_slice(&dirty);
        }
        if how == Drain::Stream {
            return Ok(Region { start: from, data });
        }
        loop {
            let end = from + data.len() as u64;
            let edge = self.right_edge(ino, spec, end)?;
            if edge <= end {
                break;
            }
            // Other dirty ranges inside the same chunk come along.
            match self.read_current(ino, state, end..edge) {
                Ok(old) => data.extend(old),
                Err(e) => data.extend(not_widened(ino, &e)),
            }
            if from + (data.len() as u64) < edge {
                break;
            }
            let last = state.dirty.range_at(edge);
            state.dirty.discard(&(end..edge));
            if let Some(more) = last {
                data.extend(state.dirty.take(more).expect("its head was just cut off"));
            } else {
                break;
            }
        }
        Ok(Region { start: from, data })
    }

    /// Where the chunk begins that a cut at `start` would tear, or that the end of the file cut.
    fn left_edge(&self, ino: Ino, spec: &ClassSpec, start: u64) -> Result<u64> {
        if let Chunking::Fixed { bytes } = spec.chunking {
            return Ok(start / u64::from(bytes) * u64::from(bytes));
        }
        if start == 0 {
            return Ok(0);
        }
        let view = self.meta.read();
        let before = view.extents(At::Live, ino, start - 1..start, 1)?;
        let Some(before) = before.first() else { return Ok(start) };
        let torn = before.end() > start;
        let last_of_file = || -> Result<bool> {
            let small = (before.len as usize) < largest_chunk(spec);
            Ok(small && view.extents(At::Live, ino, start..u64::MAX, 1)?.is_empty())
        };
        Ok(if torn || last_of_file()? { before.offset } else { start })
    }

    /// Where the chunk ends that a cut at `end` would tear.
    fn right_edge(&self, ino: Ino, spec: &ClassSpec, end: u64) -> Result<u64> {
        let view = self.meta.read();
        if let Chunking::Fixed { bytes } = spec.chunking {
            let size = view.inode(At::Live, ino)?.map_or(end, |inode| inode.size);
            return Ok(end.next_multiple_of(u64::from(bytes)).min(size.max(end)));
        }
        let torn = view.extents(At::Live, ino, end..end + 1, 1)?;
        Ok(torn.first().filter(|e| e.offset < end).map_or(end, Extent::end))
    }

    /// What the file holds in `range` now: extents with the dirty bytes over them.
    fn read_current(&self, ino: Ino, state: &FileState, range: Range<u64>) -> Result<Vec<u8>> {
        let mut buf = vec![0; usize::try_from(range.end - range.start).expect("a chunk or two")];
        if !state.dirty.covers(&range) {
            self.read_extents(At::Live, ino, range.start, &mut buf)?;
        }
        state.dirty.overlay(range.start, &mut buf);
        Ok(buf)
    }
}

/// The old neighbourhood of a write cannot be read: what is new is stored without it.
fn not_widened(ino: Ino, cause: &Error) -> Vec<u8> {
    warn!("Writing next to bytes that cannot be read ino={ino} cause={cause}");
    Vec::new()
}

/// End of a write of `len` bytes at `offset`.
pub(super) fn end_of(offset: u64, len: u64) -> Result<u64> {
    offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Error::FileTooLarge)
}

fn largest_chunk(spec: &ClassSpec) -> usize {
    match spec.chunking {
        Chunking::Cdc { max, .. } => max as usize,
        Chunking::Fixed { bytes } => bytes as usize,
    }
}

fn extents_of(done: &Ingested, start: u64) -> Vec<Extent> {
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

/// Keeps the node of a file alive while it is used without being open.
pub(super) struct Borrowed<'a> {
    volume: &'a Volume,
    pub(super) node: Arc<FileNode>,
}

impl Volume {
    /// The node of `ino`, counted as open until dropped.
    pub(super) fn borrow_node(&self, ino: Ino) -> Borrowed<'_> {
        Borrowed { volume: self, node: self.files.open(ino) }
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.volume.closed(self.node.ino);
    }
}
