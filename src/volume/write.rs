//! Writing: the bounded buffer of a file, and what of it becomes extents.
//!
//! A write touches memory only. A buffer is drained (`drain`) when a stream has gathered enough for
//! whole chunks (beside the writer, see `stream`), when the file or the volume has too much, when
//! the last writer closes, and by a commit.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLockWriteGuard;

use super::Volume;
use super::dirty::{Room, memory_of_write};
use super::drain::{Drain, largest_chunk};
use super::extent::{at_offset, mapped};
use super::files::{Coming, FileNode, FileState};
use crate::classify::Facts;
use crate::error::{Error, Result};
use crate::limits::{FILE_BYTES_MAX, MAGIC_BYTES};
use crate::types::{At, ClassId, Extent, Ino, Inode, Timestamp};

/// A stream is drained when it has gathered this much, or four largest chunks.
const STREAM_BYTES_MIN: usize = 1024 * 1024;
/// So many times as much may wait while the stream is cut beside its writer.
const STREAM_BACKLOG: usize = 4;

/// This part of what a file may have is drained beside its writer when it lies here and there.
const SCATTERED_SHARE: u64 = 4;

/// What changes with the extents of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Staged {
    /// The class, if it is another one now.
    pub(super) class: Option<ClassId>,
    /// A write ended here: size and times.
    pub(super) end: Option<u64>,
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
        let goes_on = state.taken.as_ref().is_some_and(|taken| taken.is_stream_to(offset));
        let room = if goes_on { self.stream_room(&state) } else { Room::default() };
        state.dirty.write_with(offset, data, room);
        self.files.note_dirty(node, &state);
        self.drain_if_full(node, state, end)
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
        wrote(&mut inode, end, now);
        edit.put_inode(ino, &inode)
    }

    /// Drains what is enough for whole chunks, or more than the file may have.
    fn drain_if_full(
        &self,
        node: &FileNode,
        state: RwLockWriteGuard<'_, FileState>,
        end: u64,
    ) -> Result<()> {
        let file_max = self.file_dirty_max();
        let stream = self.stream_bytes(&state);
        let backlog = (STREAM_BACKLOG * stream).min(file_max);
        let run = state.dirty.run_ending_at(end);
        if run < stream && state.dirty.memory() <= file_max {
            if state.taken.is_none() && self.is_worth_a_take(&state) {
                self.streams.add(node.ino);
            }
            return Ok(());
        }
        let fits = run < backlog && state.dirty.memory() <= file_max;
        if fits && (state.taken.is_some() || self.streams.add(node.ino)) {
            return Ok(());
        }
        // The thread that cuts is behind, or busy elsewhere: what it has is waited for.
        drop(state);
        let few = |state: &FileState| {
            state.dirty.run_ending_at(end) < backlog && state.dirty.memory() <= file_max
        };
        let mut state = node.when(|state| state.taken.is_none() || few(state));
        let mut drained = Ok(());
        if state.taken.is_none() {
            if state.dirty.run_ending_at(end) >= stream {
                drained = self.drain_state(node, &mut state, Drain::Stream);
            }
            if drained.is_ok() && state.dirty.memory() > file_max {
                drained = self.drain_state(node, &mut state, Drain::All);
            }
            self.files.note_dirty(node, &state);
        }
        drained
    }

    /// Memory that one file's buffer may take.
    pub(super) fn file_dirty_max(&self) -> usize {
        usize::try_from(self.config.limits.file_dirty_bytes).unwrap_or(usize::MAX)
    }

    /// True if so much was written here and there that it is drained beside the writer.
    pub(super) fn is_worth_a_take(&self, state: &FileState) -> bool {
        state.dirty.scattered() as u64 > self.config.limits.file_dirty_bytes / SCATTERED_SHARE
    }

    /// What a stream gathers before it is cut.
    pub(super) fn stream_bytes(&self, state: &FileState) -> usize {
        let largest = state.class.map_or(0, |class| largest_chunk(self.classifier.class(class)));
        let file_max = self.file_dirty_max();
        STREAM_BYTES_MIN.max(4 * largest).min(file_max)
    }

    /// Memory for what a stream gathers: with room for the rest of a cut in front, and for another
    /// write behind. None where buffers are small or many are in use: a quarter is far enough from
    /// the bound for all threads that look at the same time.
    pub(super) fn stream_room(&self, state: &FileState) -> Room {
        let front = state.class.map_or(0, |class| largest_chunk(self.classifier.class(class)));
        let bytes = front + 2 * self.stream_bytes(state);
        let limits = &self.config.limits;
        let used = (self.files.expected_memory() + bytes) as u64;
        let fits = bytes as u64 <= limits.file_dirty_bytes && used <= limits.dirty_bytes / 4;
        if fits { Room { front, bytes } } else { Room::default() }
    }

    /// Replaces the extents of `range` by `new`, with the bytes they map.
    pub(super) fn stage_extents(
        &self,
        ino: Ino,
        range: &Range<u64>,
        new: &[Extent],
        staged: Staged,
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
            inode.class = staged.class.unwrap_or(inode.class);
            if let Some(end) = staged.end {
                wrote(&mut inode, end, self.env.now());
            }
            edit.put_inode(ino, &inode)?;
            self.live_bytes.replace(before, after);
            Ok(())
        })
    }

    /// The class of what is being written: kept while a file is changed in place, decided anew
    /// when its content is.
    pub(super) fn content_class(
        &self,
        ino: Ino,
        state: &mut FileState,
        inode: &Inode,
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

    fn classify(&self, ino: Ino, inode: &Inode, head: &[u8]) -> Result<ClassId> {
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
}

/// Size and times after a write that ended at `end`.
fn wrote(inode: &mut Inode, end: u64, now: Timestamp) {
    inode.size = inode.size.max(end);
    inode.mtime = now;
    inode.ctime = now;
}

/// End of a write of `len` bytes at `offset`.
pub(super) fn end_of(offset: u64, len: u64) -> Result<u64> {
    offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Error::FileTooLarge)
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
