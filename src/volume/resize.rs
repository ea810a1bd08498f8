//! Size: truncating, punching, copying ranges, and the reaper that finishes what is large.
//!
//! What is proportional to a file's size is never one change: removing a file with many extents, or
//! cutting many off, leaves a reap row that is durable with the change itself, and pieces of at
//! most `REAP_PIECE_EXTENTS` are done later. Extents beyond the end of a file are invisible, so a
//! reader never sees the work; a file that grows again waits until the old tail is gone.

use std::ops::Range;

use super::drain::Drain;
use super::extent::{clip, mapped};
use super::files::FileState;
use super::write::{Staged, end_of};
use super::{OpenFile, Seek, Volume};
use crate::env::Point;
use crate::error::{Error, Result};
use crate::meta::{Edit, Reap};
use crate::types::{At, Extent, FileKind, Ino, Inode};

/// Most extents one `copy_file_range` call copies; the caller asks again for the rest.
const COPY_EXTENTS: usize = 8_000;

/// What one piece of the reaper's work left.
enum Piece {
    /// Nothing.
    Last,
    /// Of what was to be removed from `from` on, the extents from `reached` on.
    Before { from: u64, reached: u64 },
}

impl Volume {
    /// Sets the size of a file.
    pub(super) fn truncate(&self, ino: Ino, size: u64) -> Result<()> {
        end_of(size, 0)?;
        self.admit_change()?;
        self.settle_trim(ino, size)?;
        let _gate = self.gate.read();
        let file = self.borrow_node(ino);
        let mut state = file.node.settled();
        self.stage(|edit| self.set_size(edit, ino, &mut state, size))?;
        self.files.note_dirty(&file.node, &state);
        Ok(())
    }

    /// Stages a new size of a file, with its times. The caller holds the gate and the file's state.
    pub(super) fn set_size(
        &self,
        edit: &mut Edit<'_>,
        ino: Ino,
        state: &mut FileState,
        size: u64,
    ) -> Result<()> {
        let inode = edit.view().inode(At::Live, ino)?;
        let mut inode = inode.ok_or_else(|| Error::not_found("inode"))?;
        match inode.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Error::IsDirectory),
            _ => return Err(Error::invalid("Only a regular file has a size to set")),
        }
        if size < inode.size {
            state.dirty.discard(&(size..u64::MAX));
            state.clean_cut = None;
            self.cut_tail(edit, ino, &mut inode, size)?;
        }
        if size == 0 {
            state.class = None;
        }
        let now = self.env.now();
        inode.size = size;
        inode.mtime = now;
        inode.ctime = now;
        edit.put_inode(ino, &inode)
    }

    /// Removes the extents from `from` on, or leaves most of them to the reaper.
    fn cut_tail(&self, edit: &mut Edit<'_>, ino: Ino, inode: &mut Inode, from: u64) -> Result<()> {
        let range = from..u64::MAX;
        let most = self.bounds.reap_piece_extents + 1;
        let tail = match from {
            0 => edit.view().all_extents(ino, inode.mapped, most)?,
            _ => edit.view().extents(At::Live, ino, range.clone(), most)?,
        };
        if tail.len() <= self.bounds.reap_piece_extents {
            self.drop_extents(edit, ino, inode, &tail, &range)?;
            return Ok(());
        }
        if let Some(torn) = tail.first().filter(|e| e.offset < from) {
            self.drop_extents(edit, ino, inode, &[*torn], &range)?;
        }
        self.reaps.put(edit, ino, Reap { from, delete: inode.nlink == 0 }, true)?;
        self.reaper.wake();
        Ok(())
    }

    /// Removes from `range` what `extents` map there.
    fn drop_extents(
        &self,
        edit: &mut Edit<'_>,
        ino: Ino,
        inode: &mut Inode,
        extents: &[Extent],
        range: &Range<u64>,
    ) -> Result<()> {
        for extent in extents {
            let head = clip(extent, 0..range.start);
            let tail = clip(extent, range.end..u64::MAX);
            if head.is_none() && !edit.delete_extent(ino, extent.offset)? {
                self.garbage.note_dropped(u64::from(extent.len));
            }
            for kept in head.iter().chain(&tail) {
                edit.put_extent(ino, kept)?;
            }
            let left = mapped(head.as_slice()) + mapped(tail.as_slice());
            let gone = u64::from(extent.len) - left;
            inode.mapped -= gone;
            self.live_bytes.replace(gone, 0);
        }
        Ok(())
    }

    /// An inode without names: gone at once if it is small and nobody has it open.
    pub(super) fn remove_inode(
        &self,
        edit: &mut Edit<'_>,
        ino: Ino,
        mut inode: Inode,
    ) -> Result<()> {
        inode.nlink = 0;
        let all = 0..u64::MAX;
        if !self.files.is_open(ino) {
            let most = self.bounds.reap_piece_extents + 1;
            let extents = edit.view().all_extents(ino, inode.mapped, most)?;
            if extents.len() <= self.bounds.reap_piece_extents {
                self.drop_extents(edit, ino, &mut inode, &extents, &all)?;
                return self.erase_inode(edit, ino);
            }
            self.reaper.wake();
        }
        edit.put_inode(ino, &inode)?;
        // A tail that is still being cut: what lies before it is read until the last close.
        let trim = edit.view().reap(ino)?;
        let from = trim.map_or(0, |trim| trim.from);
        self.reaps.put(edit, ino, Reap { from, delete: true }, trim.is_some())
    }

    fn erase_inode(&self, edit: &mut Edit<'_>, ino: Ino) -> Result<()> {
        let names = edit.view().xattr_names(At::Live, ino)?;
        for name in names {
            edit.delete_xattr(ino, &name)?;
        }
        edit.delete_inode(ino)?;
        self.reaps.delete(edit, ino)
    }

    /// Finishes a pending cut of `ino` before the file grows to `end` over its old tail.
    pub(super) fn settle_trim(&self, ino: Ino, end: u64) -> Result<()> {
        if !self.reaps.may_have(ino) {
            return Ok(());
        }
        let size = self.meta.read().inode(At::Live, ino)?.map_or(u64::MAX, |inode| inode.size);
        while end > size && self.reaps.is_trimming(&self.meta.read(), ino)? {
            self.reap_piece(ino)?;
        }
        Ok(())
    }

    /// One bounded piece of the work a reap row stands for; true when the row is done with.
    pub(super) fn reap_piece(&self, ino: Ino) -> Result<bool> {
        self.admit_removal()?;
        self.env.hit(Point::ReapPiece)?;
        let _gate = self.gate.read();
        let file = self.borrow_node(ino);
        let _state = file.node.settled();
        let piece = self.stage(|edit| {
            let Some(reap) = edit.view().reap(ino)? else { return Ok(Piece::Last) };
            let Some(mut inode) = edit.view().inode(At::Live, ino)? else {
                self.reaps.delete(edit, ino)?;
                return Ok(Piece::Last);
            };
            let delete = reap.delete && !self.files.is_shared(ino);
            let from = if delete { 0 } else { reap.from };
            if reap.delete && !delete && !self.reaps.is_trimming(&edit.view(), ino)? {
                return Ok(Piece::Last);
            }
            let most = self.bounds.reap_piece_extents + 1;
            let mut range = self.reaps.reached(ino, from)..u64::MAX;
            let mut some = edit.view().extents(At::Live, ino, range.clone(), most)?;
            if some.len() < most && range.start > from {
                // Between two pieces a commit may have stored what was buffered, anywhere.
                range.start = from;
                some = edit.view().extents(At::Live, ino, range.clone(), most)?;
            }
            let piece = &some[..some.len().min(self.bounds.reap_piece_extents)];
            self.drop_extents(edit, ino, &mut inode, piece, &range)?;
            if let Some(next) = some.get(self.bounds.reap_piece_extents) {
                edit.put_inode(ino, &inode)?;
                return Ok(Piece::Before { from, reached: next.offset });
            }
            self.reaps.trimmed(ino);
            if delete {
                self.erase_inode(edit, ino)?;
            } else {
                edit.put_inode(ino, &inode)?;
                if reap.delete {
                    self.reaps.put(edit, ino, Reap { from: 0, delete: true }, false)?;
                } else {
                    self.reaps.delete(edit, ino)?;
                }
            }
            Ok(Piece::Last)
        })?;
        if let Piece::Before { from, reached } = piece {
            self.reaps.note_reached(ino, from, reached);
        }
        Ok(matches!(piece, Piece::Last))
    }

    /// Does all reap work there is now. Inodes that are still open wait for their last close.
    pub(super) fn reap_all(&self) -> Result<()> {
        let mut after = None;
        loop {
            let rows = self.meta.read().reaps(after, 100)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(*last);
            for (ino, _) in rows {
                while !self.reap_piece(ino)? {
                    self.env.hit(Point::ReapNext)?;
                    if self.is_stopping() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Makes a hole in pieces that each fit a txg.
    fn punch_pieces(&self, ino: Ino, state: &mut FileState, range: &Range<u64>) -> Result<bool> {
        state.dirty.discard(range);
        state.clean_cut = None;
        let some = self.meta.read().extents(
            At::Live,
            ino,
            range.clone(),
            self.bounds.reap_piece_extents + 1,
        )?;
        let Some(next) = some.get(self.bounds.reap_piece_extents) else {
            self.stage_extents(ino, range, &[], Staged::default())?;
            return Ok(true);
        };
        self.stage_extents(ino, &(range.start..next.offset), &[], Staged::default())?;
        Ok(false)
    }
}

impl OpenFile {
    /// Room for `len` bytes at `offset`: nothing is reserved, but the file grows unless
    /// `keep_size`.
    ///
    /// # Errors
    /// `NoSpace` if the shards could not hold that much; `FileTooLarge`; `ReadOnly`; `Poisoned`.
    pub fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        self.node()?;
        let end = end_of(offset, len)?;
        self.volume.admit_data(usize::try_from(len).unwrap_or(usize::MAX))?;
        if keep_size { Ok(()) } else { self.grow(end) }
    }

    fn grow(&self, end: u64) -> Result<()> {
        let size = self.stat()?.inode.size;
        if end > size { self.volume.truncate(self.ino(), end) } else { Ok(()) }
    }

    /// Turns `len` bytes at `offset` into a hole; with `keep_size` unset the file grows to its end.
    ///
    /// # Errors
    /// `FileTooLarge`, `ReadOnly`, `Poisoned`.
    pub fn punch(&self, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        let node = self.node()?;
        let range = offset..end_of(offset, len)?;
        let volume = &self.volume;
        if !keep_size {
            self.grow(range.end)?;
        }
        loop {
            volume.admit_removal()?;
            let _gate = volume.gate.read();
            let mut state = node.settled();
            let done = volume.punch_pieces(self.ino(), &mut state, &range)?;
            volume.files.note_dirty(node, &state);
            if done {
                return volume.note_written(self.ino(), 0);
            }
        }
    }

    /// The next byte of data, or of a hole, at or after `offset`; `None` beyond the end (ENXIO).
    ///
    /// # Errors
    /// Those of draining the buffer.
    pub fn seek(&self, offset: u64, what: Seek) -> Result<Option<u64>> {
        if self.at() == At::Live {
            self.volume.drain_ino(self.ino())?;
        }
        let view = self.volume.meta.read();
        let size = view.inode(self.at(), self.ino())?.ok_or(Error::Stale)?.size;
        if offset >= size {
            return Ok(None);
        }
        let mut at = offset;
        loop {
            let some = view.extents(self.at(), self.ino(), at..size, 1000)?;
            for extent in &some {
                match what {
                    Seek::Data => return Ok(Some(extent.offset.max(offset)).filter(|o| *o < size)),
                    Seek::Hole if extent.offset > at => return Ok(Some(at)),
                    Seek::Hole => at = extent.end(),
                }
            }
            if some.is_empty() || at >= size {
                return Ok(match what {
                    Seek::Data => None,
                    Seek::Hole => Some(at.min(size)),
                });
            }
        }
    }

    /// Makes `len` bytes at `offset` the same as those at `source_offset` of `source`, without
    /// touching data: the extents are copied. Returns how many bytes that was; less than `len` at
    /// the end of the source, or when there is more to copy than one txg should hold.
    ///
    /// # Errors
    /// `Invalid` for overlapping ranges of one file, `ReadOnly`, `FileTooLarge`, `Poisoned`.
    pub fn copy_from(
        &self,
        offset: u64,
        source: &OpenFile,
        source_offset: u64,
        len: u64,
    ) -> Result<u64> {
        let node = self.node()?;
        let volume = &self.volume;
        let same = source.at() == At::Live && source.ino() == self.ino();
        if same && offset < end_of(source_offset, len)? && source_offset < end_of(offset, len)? {
            return Err(Error::invalid("Source and target of a copy must not overlap"));
        }
        if source.at() == At::Live {
            volume.drain_ino(source.ino())?;
        }
        volume.admit_change()?;
        let whole = source.stat()?.inode;
        let len = len.min(whole.size.saturating_sub(source_offset));
        if len == 0 {
            return Ok(0);
        }
        volume.settle_trim(self.ino(), end_of(offset, len)?)?;
        let _gate = volume.gate.read();
        let mut state = node.settled();
        volume.drain_state(node, &mut state, Drain::All)?;
        volume.files.note_dirty(node, &state);
        state.clean_cut = None;
        let range = source_offset..source_offset + len;
        let view = volume.meta.read();
        let mut extents = match (source.at(), range == (0..whole.size)) {
            (At::Live, true) => view.all_extents(source.ino(), whole.mapped, COPY_EXTENTS)?,
            (at, _) => view.extents(at, source.ino(), range.clone(), COPY_EXTENTS)?,
        };
        let mut copied = range;
        if extents.len() == COPY_EXTENTS {
            copied.end = extents.last().map_or(copied.end, |last| last.end().min(copied.end));
        }
        // What lies in the target now goes in the same change.
        let target = offset..offset + (copied.end - copied.start);
        let mine = view.inode(At::Live, self.ino())?.ok_or(Error::Stale)?;
        let old = match mine.mapped {
            0 => Vec::new(),
            _ => view.extents(At::Live, self.ino(), target, COPY_EXTENTS + 1)?,
        };
        if let Some(next) = old.get(COPY_EXTENTS) {
            copied.end = copied.start + (next.offset - offset);
        }
        drop(view);
        extents = extents.iter().filter_map(|e| clip(e, copied.clone())).collect();
        for extent in &mut extents {
            extent.offset = extent.offset - source_offset + offset;
        }
        let len = copied.end - copied.start;
        let end = offset + len;
        let staged = Staged { class: Some(whole.class), end: Some(end) };
        volume.stage_extents(self.ino(), &(offset..end), &extents, staged)?;
        Ok(len)
    }
}
